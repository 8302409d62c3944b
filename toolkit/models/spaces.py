"""What a search may try: functions of a trial, in each library's own parameter names.

Pooled embeddings are wide and their columns correlate, so trees that see few columns are
quick and good at the same time; with many columns a tree and many leaves a fit costs ten times
as much and wins nothing that its noise does not hide. Two quantities therefore grow with the
square root of the data, as the number of columns tried does in a random forest: the columns a
tree sees, and the rows a leaf must hold. What is searched is their multiple of that root, so a
trial means the same for 50 columns and for 40,000, and trials of different widths can be
compared.

References
----------
Breiman (2001), Random forests, Machine Learning 45.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

_LEAST_COLUMNS = 8


def lightgbm_space(trial: BaseTrial, *, n_rows: int, n_features: int) -> dict[str, Any]:
    """Suggest LightGBM parameters.

    Parameters
    ----------
    trial : optuna.trial.BaseTrial
        Where the suggestions come from.
    n_rows : int
        Number of training rows.
    n_features : int
        Number of features that the booster will be given, after any screening.

    Returns
    -------
    dict
        Parameters under LightGBM's names. ``max_bin`` belongs to the training data.

    Examples
    --------
    >>> from optuna.trial import FixedTrial
    >>> trial = FixedTrial(default_params("lightgbm"))
    >>> params = lightgbm_space(trial, n_rows=900, n_features=10_000)
    >>> params["feature_fraction"], params["min_data_in_leaf"]
    (0.01, 15)
    """
    return {
        "learning_rate": trial.suggest_float("learning_rate", 0.04, 0.25, log=True),
        "num_leaves": trial.suggest_int("num_leaves", 3, 24, log=True),
        "feature_fraction": _share_of_columns(trial, n_features),
        "min_data_in_leaf": _rows_in_leaf(trial, n_rows),
        "bagging_fraction": trial.suggest_float("bagging_fraction", 0.5, 1.0),
        "bagging_freq": 1,
        "lambda_l2": trial.suggest_float("lambda_l2", 0.1, 30.0, log=True),
        "extra_trees": trial.suggest_categorical("extra_trees", [True, False]),
        "max_bin": trial.suggest_categorical("max_bin", [31, 63]),
    }


def xgboost_space(trial: BaseTrial, *, n_rows: int, n_features: int) -> dict[str, Any]:
    """Suggest XGBoost parameters.

    Its histograms are filled for all columns whatever share of them a tree may use, so what
    keeps it affordable is shallow trees and larger steps.

    Parameters
    ----------
    trial : optuna.trial.BaseTrial
        Where the suggestions come from.
    n_rows : int
        Number of training rows.
    n_features : int
        Number of features that the booster will be given, after any screening.

    Returns
    -------
    dict
        Parameters under XGBoost's names. ``max_bin`` belongs to the training data.

    Examples
    --------
    >>> from optuna.trial import FixedTrial
    >>> trial = FixedTrial(default_params("xgboost"))
    >>> xgboost_space(trial, n_rows=900, n_features=10_000)["colsample_bytree"]
    0.01
    """
    # A row's hessian p (1 - p) is near 1/4 while the classes are undecided.
    return {
        "eta": trial.suggest_float("eta", 0.1, 0.4, log=True),
        "max_depth": trial.suggest_int("max_depth", 2, 3),
        "colsample_bytree": _share_of_columns(trial, n_features),
        "min_child_weight": _rows_in_leaf(trial, n_rows) / 4,
        "subsample": trial.suggest_float("subsample", 0.5, 1.0),
        "reg_lambda": trial.suggest_float("reg_lambda", 0.1, 30.0, log=True),
        "max_bin": trial.suggest_categorical("max_bin", [31, 63]),
    }


def default_params(kind: str) -> dict[str, Any]:
    """Give the first trial, a strong one, as the spaces' own suggestions.

    Parameters
    ----------
    kind : {"lightgbm", "xgboost"}
        The booster.

    Returns
    -------
    dict
        What ``enqueue_trial`` takes; the space turns it into the booster's parameters.

    Raises
    ------
    ValueError
        If the booster is unknown.

    Examples
    --------
    >>> default_params("lightgbm")["num_leaves"]
    7
    """
    shared = {"columns_over_root": 1.0, "leaf_rows_over_root": 0.5, "max_bin": 63}
    if kind == "lightgbm":
        return shared | {
            "learning_rate": 0.08,
            "num_leaves": 7,
            "bagging_fraction": 0.8,
            "lambda_l2": 5.0,
            "extra_trees": True,
        }
    if kind == "xgboost":
        return shared | {"eta": 0.2, "max_depth": 3, "subsample": 0.8, "reg_lambda": 5.0}
    raise ValueError(f"Unknown booster {kind!r}; choose among ['lightgbm', 'xgboost'].")


def _share_of_columns(trial: BaseTrial, n_features: int) -> float:
    multiple = trial.suggest_float("columns_over_root", 0.5, 3.0, log=True)
    n_columns = max(_LEAST_COLUMNS, multiple * sqrt(n_features))
    return min(1.0, n_columns / n_features)


def _rows_in_leaf(trial: BaseTrial, n_rows: int) -> int:
    multiple = trial.suggest_float("leaf_rows_over_root", 0.1, 1.5, log=True)
    return max(1, round(multiple * sqrt(n_rows)))
