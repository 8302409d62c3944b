"""The grouped search of one system as a scikit-learn classifier."""

import warnings
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pandas as pd
from joblib import effective_n_jobs
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from toolkit.data import Manifest
from toolkit.models import Features, class_priors
from toolkit.models.spaces import IMBALANCE_AUTO, SCREENING_AUTO
from toolkit.validation.folds import final_fold
from toolkit.validation.metrics import METRICS
from toolkit.validation.nested import Protocol, run_unit
from toolkit.validation.search import SearchOptions

_BOOSTERS: Final = ("lightgbm", "xgboost", "both")


class GroupedBoostingClassifier(ClassifierMixin, BaseEstimator):
    """Gradient boosting whose hyperparameters are searched on groups held out.

    ``fit`` does the work of one outer fold of a study, on all rows: Optuna proposes parameters,
    inner folds of whole groups score them, and the best are fitted again on all rows. Scores
    of unseen groups need an outer loop, such as ``cross_val_score`` with ``GroupKFold``.

    Parameters
    ----------
    booster : {"lightgbm", "xgboost", "both"}, default="lightgbm"
        Library of the trees; with both, the search chooses.
    trials, inner, max_rounds : int
        Trials, inner folds (at most one per group), and most boosting rounds of a fit.
    metric : str, default="f1_micro"
        Key of :data:`toolkit.validation.METRICS` that ranks the trials.
    imbalance, screening : sequence of str
        Candidate balancing strategies and feature selections.
    linear : {"auto", "none"}, default="auto"
        Whether the model gets a linear part beside its trees.
    random_state : int, RandomState or None, default=0
        Seed of folds, proposals and fits.
    n_jobs : int or None, default=1
        Threads of a fit, None for 1 and -1 for all; the last digits may depend on it.

    Attributes
    ----------
    classes_, class_prior_ : ndarray, shape (n_classes,)
        The classes, sorted, and their frequencies, which predict a row without any value.
    best_params_ : dict
        The chosen parameters, with ``n_rounds``.
    best_score_ : float
        Score of the best trial on the inner folds: optimistic, being the best of many.
    n_features_in_, feature_names_in_
        Number of columns, and their names where ``X`` has names.

    Notes
    -----
    ``cross_val_score`` does not hand its ``groups`` to ``fit``: give them twice, as below.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import GroupKFold, cross_val_score
    >>> rng = np.random.default_rng(0)
    >>> y, speakers = np.tile(["sad", "glad"], 30), np.repeat(np.arange(6), 10)
    >>> X = rng.normal(size=(60, 4)) + (y == "glad")[:, None]
    >>> search = GroupedBoostingClassifier(trials=1, inner=2, max_rounds=20)
    >>> search.fit(X, y, groups=speakers).predict([[3, 3, 3, 3], [-3, -3, -3, -3]]).tolist()
    ['glad', 'sad']
    >>> scores = cross_val_score(
    ...     search, X, y, groups=speakers, cv=GroupKFold(3), params={"groups": speakers}
    ... )
    >>> bool(scores.mean() > 0.7)
    True
    """

    # With metadata routing, scikit-learn hands the groups to `fit` without being asked.
    __metadata_request__fit: Final = {"groups": True}

    def __init__(
        self,
        *,
        booster: str = "lightgbm",
        trials: int = 20,
        inner: int = 3,
        max_rounds: int = 1_200,
        metric: str = "f1_micro",
        imbalance: Sequence[str] = IMBALANCE_AUTO,
        screening: Sequence[str] = SCREENING_AUTO,
        linear: str = "auto",
        random_state: int | np.random.RandomState | None = 0,
        n_jobs: int | None = 1,
    ) -> None:
        self.booster = booster
        self.trials = trials
        self.inner = inner
        self.max_rounds = max_rounds
        self.metric = metric
        self.imbalance = imbalance
        self.screening = screening
        self.linear = linear
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Search hyperparameters on groups held out, and fit the best on all rows.

        Parameters
        ----------
        X, y : array-like, shape (n, n_features) and (n,)
            Features, NaN where missing; and classes.
        groups : array-like, shape (n,), optional
            Group of each row, such as its speaker. By default each row is a group of its own,
            with a warning.

        Returns
        -------
        GroupedBoostingClassifier
            This object.

        Raises
        ------
        ValueError
            If a parameter is unknown, or there are fewer than two classes or groups.
        """
        options = self._make_options()
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_all_finite="allow-nan")
        check_classification_targets(y)
        self.classes_, codes = np.unique(column_or_1d(y), return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("y holds 1 class; expected at least two.")
        manifest = self._describe_rows(codes, _name_groups(groups, len(codes)))
        state = self.random_state
        if not isinstance(state, Integral):
            state = check_random_state(state).randint(2**31 - 1)
        unit = run_unit(
            manifest,
            _make_features(X),
            final_fold(manifest),
            system="classifier",
            protocol=Protocol("speaker", self.inner, int(state)),
            options=options,
            n_threads=effective_n_jobs(self.n_jobs),
        )
        search, self._booster = unit.search, unit.booster
        assert search is not None  # only a baseline has none
        # There is one set of columns, so that its name is no choice.
        chosen = {name: value for name, value in search.params.items() if name != "statistics"}
        self.best_params_ = chosen | {"n_rounds": search.n_rounds}
        self.best_score_ = search.score
        self.class_prior_ = class_priors(codes, len(self.classes_))
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Predict class probabilities.

        Parameters
        ----------
        X : array-like, shape (n, n_features)
            Features; NaN where missing.

        Returns
        -------
        ndarray of float64, shape (n, n_classes)
            In the order of ``classes_``; ``class_prior_`` for a row without any value.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        features, booster = _make_features(X), self._booster
        assert booster is not None
        rows = np.flatnonzero(features.present)
        predicted = booster.predict_proba(features.take(rows, features.find(booster.names)))
        return features.complete(np.arange(len(X)), predicted, self.class_prior_)

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict the most probable class.

        Parameters
        ----------
        X : array-like, shape (n, n_features)
            Features; NaN where missing.

        Returns
        -------
        ndarray, shape (n,)
            Each one of ``classes_``; a tie goes to the first.
        """
        codes = self.predict_proba(X).argmax(axis=1)  # first: it refuses an unfitted search
        return np.asarray(self.classes_[codes])

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _make_options(self) -> SearchOptions:
        known = {"booster": _BOOSTERS, "metric": METRICS, "linear": ("auto", "none")}
        for name, names in known.items():
            if (given := getattr(self, name)) not in names:
                raise ValueError(f"{name} is {given!r}; expected one of {', '.join(names)}.")
        for name, lowest in (("trials", 1), ("inner", 2), ("max_rounds", 1)):
            if (given := getattr(self, name)) < lowest:
                raise ValueError(f"{name} is {given}; expected {lowest} or more.")
        return SearchOptions(
            boosters=_BOOSTERS[:2] if self.booster == "both" else (self.booster,),
            statistics=("all",),
            screening=_list_names(self.screening),
            imbalance=_list_names(self.imbalance),
            n_trials=self.trials,
            max_rounds=self.max_rounds,
            metric=self.metric,
            linear=self.linear,
        )

    def _describe_rows(self, codes: NDArray[np.int64], groups: NDArray[np.str_]) -> Manifest:
        names = tuple(map(str, range(len(self.classes_))))
        rows = np.array([f"{row:09d}" for row in range(len(codes))])
        unknown = (None, None, None)  # sessions, dialogues, splits
        return Manifest("X", Path(), (), names, names, rows, codes, groups, *unknown, {})


def _list_names(names: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(names.split(",") if isinstance(names, str) else names)


def _name_groups(groups: Any, n_rows: int) -> NDArray[np.str_]:
    """Name the group of each row as text; without groups each row is its own."""
    if groups is None:
        warnings.warn(
            "No groups were given, so the search takes each row as a group of its own. If rows "
            "share a speaker, use fit(X, y, groups=speakers); in cross_val_score, "
            'params={"groups": speakers}.',
            stacklevel=3,
        )
        return np.arange(n_rows).astype(np.str_)
    names = column_or_1d(np.asarray(groups, dtype=object))
    if len(names) != n_rows:
        raise ValueError(f"There are {len(names)} groups for {n_rows} rows.")
    if pd.isna(names).any():
        raise ValueError("A group is missing (None or NaN); name the group of every row.")
    if len(set(names)) < 2:
        raise ValueError("All rows are of 1 group; expected two or more, to hold one out.")
    first: dict[Any, Any] = {}  # 1 and 1.0 are one group
    return np.array([str(first.setdefault(name, name)) for name in names])


def _make_features(X: NDArray[np.float64]) -> Features:
    """Bring rows to the models' form: float32, and names that every booster takes."""
    with np.errstate(over="ignore"):
        values = X.astype(np.float32)
    if np.isinf(values).any():
        raise ValueError("X holds a number beyond 3.4e+38, the largest in 32 bits.")
    columns = np.arange(X.shape[1], dtype=np.int64)
    names = tuple(f"column{number:06d}" for number in columns)
    present = np.asarray(~np.isnan(values).all(axis=1))
    return Features(values, names, present, {"all": columns})
