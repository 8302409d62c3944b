"""What a search may try: functions of a trial, in each library's own parameter names.

Pooled embeddings are wide and their columns correlate, so trees that see few columns are
quick and good at the same time; with many columns a tree and many leaves a fit costs ten times
as much and wins nothing that its noise does not hide. Two quantities therefore grow with the
square root of the data, as the number of columns tried does in a random forest: the columns a
tree sees, and the rows a leaf must hold. What is searched is their multiple of that root, so a
trial means the same for 50 columns and for 40,000, and trials of different widths can be
compared.

A space is any function of that kind. The two here read their axes from a table, which
:mod:`toolkit.models.space_tables` lets a user change name by name.

References
----------
Breiman (2001), Random forests, Machine Learning 45.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna.trial import BaseTrial

_LEAST_COLUMNS = 8


class Space(Protocol):
    """A function that asks a trial for a booster's parameters."""

    def __call__(self, trial: BaseTrial, *, n_rows: int, n_features: int) -> dict[str, Any]:
        """Suggest parameters.

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
            Parameters under the booster's names, ``max_bin`` among them.
        """


@dataclass(frozen=True, slots=True)
class Range:
    """All numbers between two.

    - low, high: The ends, both within; whole numbers only lie between two whole ones.
    - log: Whether equal ratios are equally likely rather than equal differences.
    """

    low: float
    high: float
    log: bool = False


#: An axis is a range, or the values to choose among; a single value is fixed.
Axis = Range | tuple[bool | int | float | str, ...]

LIGHTGBM_AXES: Final[Mapping[str, Axis]] = MappingProxyType(
    {
        "learning_rate": Range(0.04, 0.25, log=True),
        "num_leaves": Range(3, 24, log=True),
        "columns_over_root": Range(0.5, 3.0, log=True),
        "leaf_rows_over_root": Range(0.1, 1.5, log=True),
        "bagging_fraction": Range(0.5, 1.0),
        "lambda_l2": Range(0.1, 30.0, log=True),
        "extra_trees": (True, False),
        "max_bin": (31, 63),
    }
)
XGBOOST_AXES: Final[Mapping[str, Axis]] = MappingProxyType(
    {
        "eta": Range(0.1, 0.4, log=True),
        "max_depth": Range(2, 3),
        "columns_over_root": Range(0.5, 3.0, log=True),
        "leaf_rows_over_root": Range(0.1, 1.5, log=True),
        "subsample": Range(0.5, 1.0),
        "reg_lambda": Range(0.1, 30.0, log=True),
        "max_bin": (31, 63),
    }
)


def lightgbm_space(
    trial: BaseTrial,
    *,
    n_rows: int,
    n_features: int,
    axes: Mapping[str, Axis] = LIGHTGBM_AXES,
) -> dict[str, Any]:
    """Suggest LightGBM parameters.

    Parameters
    ----------
    trial : optuna.trial.BaseTrial
        Where the suggestions come from.
    n_rows : int
        Number of training rows.
    n_features : int
        Number of features that the booster will be given, after any screening.
    axes : mapping of str to Range or tuple
        What each parameter is chosen from; by default :data:`LIGHTGBM_AXES`.

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
    params: dict[str, Any] = {}
    for name, value in _suggest(trial, axes).items():
        if name == "columns_over_root":
            params["feature_fraction"] = _share_of_columns(value, n_features)
        elif name == "leaf_rows_over_root":
            params["min_data_in_leaf"] = _rows_in_leaf(value, n_rows)
        else:
            params[name] = value
        if name == "bagging_fraction" and "bagging_freq" not in axes:
            params["bagging_freq"] = 1  # without it LightGBM ignores the fraction
    return params


def xgboost_space(
    trial: BaseTrial,
    *,
    n_rows: int,
    n_features: int,
    axes: Mapping[str, Axis] = XGBOOST_AXES,
) -> dict[str, Any]:
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
    axes : mapping of str to Range or tuple
        What each parameter is chosen from; by default :data:`XGBOOST_AXES`.

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
    params: dict[str, Any] = {}
    for name, value in _suggest(trial, axes).items():
        if name == "columns_over_root":
            params["colsample_bytree"] = _share_of_columns(value, n_features)
        elif name == "leaf_rows_over_root":
            # A row's hessian p (1 - p) is near 1/4 while the classes are undecided.
            params["min_child_weight"] = _rows_in_leaf(value, n_rows) / 4
        else:
            params[name] = value
    return params


def default_params(kind: str) -> dict[str, Any]:
    """Give the first trial, a strong one, as the spaces' own suggestions.

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


def first_params(kind: str, space: Space, *, n_rows: int, n_features: int) -> dict[str, Any]:
    """Give the suggestions of a space that come nearest to the strong default.

    Parameters
    ----------
    kind : {"lightgbm", "xgboost"}
        The booster.
    space : Space
        Any space of that booster, a user's own too.
    n_rows, n_features : int
        Size of the training data.

    Returns
    -------
    dict
        What ``enqueue_trial`` takes: a default that the space has, else the nearest end of
        its range or its first choice; the middle of a range that has no default.

    Examples
    --------
    >>> first_params("xgboost", xgboost_space, n_rows=9, n_features=9)["eta"]
    0.2
    >>> space = lambda trial, **_: {"num_leaves": trial.suggest_int("num_leaves", 15, 63)}
    >>> first_params("lightgbm", space, n_rows=9, n_features=9)
    {'num_leaves': 15}
    """
    trial = _NearestTrial(default_params(kind))
    space(trial, n_rows=n_rows, n_features=n_features)  # type: ignore[arg-type]
    return trial.params


class _NearestTrial:
    """A trial that answers with what was wanted, or what comes nearest."""

    def __init__(self, wanted: Mapping[str, Any]) -> None:
        self._wanted = wanted
        self.params: dict[str, Any] = {}

    def suggest_float(
        self,
        name: str,
        low: float,
        high: float,
        *,
        step: float | None = None,
        log: bool = False,
    ) -> float:
        middle = sqrt(low * high) if log else (low + high) / 2
        value = min(max(self._wanted.get(name, middle), low), high)
        if step is not None:
            value = min(low + round((value - low) / step) * step, high)
        self.params[name] = value
        return float(value)

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        value = self.suggest_float(name, low, high, log=log)
        self.params[name] = low + round((value - low) / step) * step
        return int(self.params[name])

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        wanted = self._wanted.get(name)
        self.params[name] = wanted if wanted in choices else choices[0]
        return self.params[name]


def _suggest(trial: BaseTrial, axes: Mapping[str, Axis]) -> dict[str, Any]:
    drawn: dict[str, Any] = {}
    for name, axis in axes.items():
        if isinstance(axis, tuple):
            drawn[name] = axis[0] if len(axis) == 1 else trial.suggest_categorical(name, axis)
        elif isinstance(axis.low, int) and isinstance(axis.high, int):
            drawn[name] = trial.suggest_int(name, axis.low, axis.high, log=axis.log)
        else:
            drawn[name] = trial.suggest_float(name, axis.low, axis.high, log=axis.log)
    return drawn


def _share_of_columns(multiple: float, n_features: int) -> float:
    n_columns = max(_LEAST_COLUMNS, multiple * sqrt(n_features))
    return min(1.0, n_columns / n_features)


def _rows_in_leaf(multiple: float, n_rows: int) -> int:
    return max(1, round(multiple * sqrt(n_rows)))
