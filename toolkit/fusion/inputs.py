"""The inputs of fusion: predictions of systems, and the same predictions stacked.

A fusion learns weights, a stacker, class offsets and the choice of a modality from out-of-fold
predictions of an outer fold's training rows. :class:`BasePredictions` holds those, fold by
fold, beside the predictions for held-out rows that are fused and reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits

from toolkit.validation.nested import UnitResult
from toolkit.validation.predictions import SUM_TOLERANCE, Predictions

MAX_MODALITIES: Final = 8
"""Largest number of modalities that are fused."""

TIE: Final = 1e-12
"""Probabilities nearer than this are equal: rounding moves equal sums apart."""


@dataclass(frozen=True, slots=True, eq=False)
class InnerPredictions:
    """Out-of-fold predictions for the training rows of one outer fold.

    Every row was predicted by a model that saw nothing of its group, and no model saw the
    outer fold's test rows. The arrays are checked, copied and made read-only.

    Parameters
    ----------
    rows : ndarray of int64, shape (n,)
        Row positions in the manifest, increasing.
    labels : ndarray of int64, shape (n,)
        Positions of the true classes.
    groups : ndarray of str, shape (n,)
        The speaker of every row, or its session where sessions are held out.
    present : ndarray of bool, shape (n,)
        Whether the row has data of the system's modalities.
    proba : ndarray of float64, shape (n, n_classes)
        Class probabilities; those of absent rows are never read by a fusion.

    Raises
    ------
    ValueError
        If the arrays do not fit together, naming the row and what was expected.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]
    present: NDArray[np.bool_]
    proba: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Check the arrays, copy them and make them read-only."""
        rows = np.array(self.rows)
        if rows.ndim != 1 or len(rows) == 0 or rows.dtype.kind not in "iu":
            raise ValueError(
                f"The inner rows are {rows.dtype} of shape {rows.shape}; expected integers of "
                "shape (n >= 1,)."
            )
        if rows[0] < 0 or (rows[1:] <= rows[:-1]).any():
            raise ValueError("The inner rows do not increase; expected manifest positions.")
        n = len(rows)
        # One memory order: sums over a row then have the same last bits for every caller.
        proba = np.array(self.proba, dtype=np.float64, order="C")
        if proba.ndim != 2 or len(proba) != n or proba.shape[1] < 2:
            raise ValueError(
                f"The inner probabilities have shape {proba.shape}; expected "
                f"({n}, n_classes >= 2): a row an inner row, a column a class."
            )
        wrong = ~((proba >= 0).all(axis=1) & (np.abs(proba.sum(axis=1) - 1) <= SUM_TOLERANCE))
        if wrong.any():
            at = int(wrong.argmax())
            raise ValueError(
                f"The inner probabilities of manifest row {rows[at]} are {proba[at].tolist()}; "
                f"expected numbers from 0 that sum to 1 within {SUM_TOLERANCE}."
            )
        labels = _checked("labels", self.labels, n, "iu")
        outside = (labels < 0) | (labels >= proba.shape[1])
        if outside.any():
            at = int(outside.argmax())
            raise ValueError(
                f"Manifest row {rows[at]} has inner label {labels[at]}; expected a position "
                f"from 0 to {proba.shape[1] - 1}."
            )
        checked: dict[str, NDArray[Any]] = {
            "rows": rows.astype(np.int64),
            "labels": labels.astype(np.int64),
            "groups": _checked("groups", self.groups, n, "U"),
            "present": _checked("present", self.present, n, "b"),
            "proba": proba,
        }
        for name, values in checked.items():
            values.setflags(write=False)
            object.__setattr__(self, name, values)

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.rows)

    @property
    def y_pred(self) -> NDArray[np.int64]:
        """Positions of the most probable classes, shape (n,)."""
        return np.asarray(self.proba.argmax(axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class BasePredictions:
    """Predictions of one system: for held-out rows, and out of fold for training rows.

    - predictions: For held-out rows; these are fused and reported.
    - inner: Outer fold to the predictions for its training rows.
    - scores: Outer fold to the inner score of its search; empty without a search.
    """

    predictions: Predictions
    inner: Mapping[int, InnerPredictions]
    scores: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the folds and make the mappings read-only."""
        tested = set(self.predictions.folds.tolist())
        if set(self.inner) != tested or (self.scores and set(self.scores) != tested):
            raise ValueError(
                f"{self.system!r} was tested in folds {sorted(tested)}, has inner predictions "
                f"of {sorted(self.inner)} and inner scores of {sorted(self.scores)}; expected "
                "the same folds."
            )
        n_classes = len(self.predictions.classes)
        for fold, inner in sorted(self.inner.items()):
            if inner.proba.shape[1] != n_classes:
                raise ValueError(
                    f"The inner predictions of {self.system!r} in fold {fold:02d} have "
                    f"{inner.proba.shape[1]} classes; expected {n_classes}."
                )
        for name in ("inner", "scores"):
            ordered = dict(sorted(getattr(self, name).items()))
            object.__setattr__(self, name, MappingProxyType(ordered))

    @property
    def system(self) -> str:
        """Name of the system."""
        return self.predictions.system


def make_base_predictions(
    predictions: Predictions,
    units: Sequence[UnitResult],
    *,
    labels: NDArray[np.int64],
    groups: NDArray[np.str_],
) -> BasePredictions:
    """Join a searched system's predictions with the inner predictions of its units.

    ``labels`` and ``groups`` are those of all the manifest's rows. A unit of another system or
    without a search, as that of a baseline, raises ValueError.
    """
    for unit in units:
        if unit.system != predictions.system or unit.search is None:
            raise ValueError(
                f"The unit {unit.system}/{unit.fold:02d} cannot stand behind the voter "
                f"{predictions.system!r}; expected a unit of that system with a search."
            )
    inner = {
        unit.fold: InnerPredictions(
            rows=unit.inner_rows,
            labels=labels[unit.inner_rows],
            groups=groups[unit.inner_rows],
            present=unit.inner_present,
            proba=unit.inner_proba,
        )
        for unit in units
    }
    scores = {unit.fold: unit.search.score for unit in units if unit.search is not None}
    return BasePredictions(predictions, inner, scores)


def sort_aligned(tables: Sequence[Predictions]) -> list[Predictions]:
    """Check that predictions can be fused, and sort them by system.

    Sums over systems are taken in this order, so no byte of a fusion depends on the order in
    which they were given.
    """
    systems = [table.system for table in tables]
    if not 2 <= len(systems) <= MAX_MODALITIES + 1:
        raise ValueError(
            f"Got {len(systems)} voters ({', '.join(systems) or 'none'}); expected two to "
            f"{MAX_MODALITIES} modalities, and at most one early fusion of them."
        )
    if twice := sorted({name for name in systems if systems.count(name) > 1}):
        raise ValueError(f"Several voters are called {twice}; expected different systems.")
    first, *others = ordered = sorted(tables, key=lambda table: table.system)
    for other in others:
        first.check_aligned(other)
    return ordered


def sort_base(base: Sequence[BasePredictions]) -> list[BasePredictions]:
    """Sort by system, and check that held-out and training rows are the same throughout."""
    sort_aligned([one.predictions for one in base])
    ordered = sorted(base, key=lambda one: one.system)
    for fold in ordered[0].inner:
        check_same_rows(
            {one.system: one.inner[fold] for one in ordered}, f" in fold {fold:02d}"
        )
    return ordered


def check_same_rows(inner: Mapping[str, InnerPredictions], where: str = "") -> None:
    """Refuse inner predictions of different systems that are not over the same rows."""
    (system, first), *others = inner.items()
    for other, predictions in others:
        for part in ("rows", "labels", "groups"):
            if not np.array_equal(getattr(first, part), getattr(predictions, part)):
                raise ValueError(
                    f"The inner predictions of {system!r} and {other!r}{where} are not "
                    f"aligned: their {part} differ; expected the same training rows of one "
                    "study."
                )


def _checked(name: str, values: ArrayLike, n: int, kinds: str) -> NDArray[Any]:
    array = np.array(values)
    if array.shape != (n,) or array.dtype.kind not in kinds:
        expected = {"iu": "integers", "U": "text", "b": "bool"}[kinds]
        raise ValueError(
            f"The inner {name} are {array.dtype} of shape {array.shape}; expected {expected} "
            f"of shape ({n},)."
        )
    return array


@dataclass(frozen=True, slots=True, eq=False)
class NewPredictions:
    """Predictions of one system for rows that it did not learn from.

    Parameters
    ----------
    proba : ndarray of float64, shape (n, n_classes)
        Class probabilities.
    y_pred : ndarray of int64, shape (n,)
        Positions of the predicted classes.
    present : ndarray of bool, shape (n,)
        Whether the row has data of the system's modalities.
    """

    proba: NDArray[np.float64]
    y_pred: NDArray[np.int64]
    present: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class StackedPredictions:
    """Predictions of several systems for the same rows.

    - votes: shape (n_systems, n); position of the class that each system predicts.
    - proba: shape (n_systems, n, n_classes).
    - present: shape (n_systems, n); an absent row's votes and probabilities are never read.
    - priors: shape (n, n_classes); class priors of the training rows of the row's outer fold,
      which replace an absent system's probabilities.
    """

    votes: NDArray[np.int64]
    proba: NDArray[np.float64]
    present: NDArray[np.bool_]
    priors: NDArray[np.float64]

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Rows that are present in at least one system."""
        return np.asarray(self.present.any(axis=0))

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> StackedPredictions:
        """Keep a subset of the rows."""
        return StackedPredictions(
            self.votes[:, rows], self.proba[:, rows], self.present[:, rows], self.priors[rows]
        )


Rule = Callable[[StackedPredictions], NewPredictions]


def training_priors(majority: Predictions) -> dict[int, NDArray[np.float64]]:
    """Read the class priors of every fold's training rows off the majority baseline.

    Parameters
    ----------
    majority : Predictions
        From :func:`toolkit.validation.majority_predictions`, whose probabilities they are.

    Returns
    -------
    dict of int to ndarray of float64, shape (n_classes,)
        Number of every fold to its priors, as the late fusions take them.
    """
    # The baseline predicts its training priors, the same in every row of a fold.
    numbers, first = np.unique(majority.folds, return_index=True)
    return dict(zip(numbers.tolist(), majority.proba[first], strict=True))


def stack(
    systems: Sequence[Predictions | InnerPredictions | NewPredictions],
    priors: NDArray[np.float64],
) -> StackedPredictions:
    """Stack predictions of the same rows; ``priors`` of all rows (n_classes,) or per row."""
    proba = np.stack([system.proba for system in systems])
    return StackedPredictions(
        np.stack([system.y_pred for system in systems]),
        proba,
        np.stack([system.present for system in systems]),
        np.broadcast_to(priors, proba.shape[1:]),
    )


def row_priors(
    folds: NDArray[np.int64], priors: Mapping[int, NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Look up the priors of every held-out row's outer fold, shape (n, n_classes)."""
    if lacking := sorted(set(folds.tolist()) - set(priors)):
        raise ValueError(f"Got no training shares of folds {lacking}; expected one a fold.")
    numbers, codes = np.unique(folds, return_inverse=True)
    return np.stack([priors[number] for number in numbers.tolist()])[codes]


def most_probable(proba: NDArray[np.float64], priors: NDArray[np.float64]) -> NDArray[np.int64]:
    """Predict the most probable class, a tie by the larger prior, then by the lower code.

    Both arrays have shape (n, n_classes); the first may hold any weights of the classes.
    """
    tied = proba >= proba.max(axis=1, keepdims=True) - TIE
    return np.asarray(np.where(tied, priors, -1.0).argmax(axis=1))


def split_groups(inner: InnerPredictions) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Split training rows into three parts by group: each is fused as the others teach."""
    n_parts = min(3, len(np.unique(inner.groups)))
    return list(GroupKFold(n_parts).split(inner.labels, groups=inner.groups))


def one_blas_thread() -> threadpool_limits:
    """Keep matrix products on one thread while it is open.

    The order of their sums, and with it the last digits, depends on the number of threads.
    """
    return threadpool_limits(limits=1, user_api="blas")
