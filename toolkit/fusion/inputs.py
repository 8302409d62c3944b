"""The inputs of fusion: predictions of systems, and the same predictions stacked.

A fusion learns weights, a stacker, class offsets and the choice of a modality from out-of-fold
predictions of an outer fold's training rows, which :class:`InnerPredictions` holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
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
    outer fold's test rows. Rows that do not increase and wrong probabilities raise ValueError.

    - rows: shape (n,); Row positions in the manifest, increasing.
    - labels: shape (n,); Positions of the true classes.
    - groups: shape (n,) or (n, 2); The speaker of every row, or its session where sessions are
      held out; beside it the content where that is held out as well.
    - present: shape (n,); Whether the row has data of the system's modalities.
    - proba: shape (n, n_classes); Those of absent rows are never read by a fusion.
    - parts: Those of its ``trees`` and its ``linear`` part alone; empty without the latter.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]
    present: NDArray[np.bool_]
    proba: NDArray[np.float64]
    parts: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check rows and probabilities, and copy the latter."""
        rows = self.rows
        if (np.diff(rows, prepend=-1) <= 0).any():
            raise ValueError("The inner rows do not increase; expected manifest positions.")
        # One memory order: sums over a row then have the same last bits for every caller.
        proba = np.array(self.proba, dtype=np.float64, order="C")
        wrong = ~((proba >= 0).all(axis=1) & (np.abs(proba.sum(axis=1) - 1) <= SUM_TOLERANCE))
        if wrong.any():
            at = int(wrong.argmax())
            raise ValueError(
                f"The inner probabilities of manifest row {rows[at]} are {proba[at].tolist()}; "
                f"expected numbers from 0 that sum to 1 within {SUM_TOLERANCE}."
            )
        object.__setattr__(self, "proba", proba)

    @classmethod
    def of_unit(
        cls, unit: UnitResult, labels: NDArray[np.int64], groups: NDArray[np.str_]
    ) -> Self:
        """Take those of a unit; ``labels`` and ``groups`` are those of all manifest rows."""
        rows = unit.inner_rows
        own = unit.inner_present, unit.inner_proba, unit.inner_parts
        return cls(rows, labels[rows], groups[rows], *own)

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.rows)

    @property
    def y_pred(self) -> NDArray[np.int64]:
        """Positions of the most probable classes, shape (n,)."""
        return np.asarray(self.proba.argmax(axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class NewPredictions:
    """Predictions of one system for rows that it did not learn from.

    - proba: shape (n, n_classes).
    - y_pred: shape (n,); Positions of the predicted classes.
    - present: shape (n,); Whether the row has data of the system's modalities.
    - parts: Probabilities of ``trees`` and ``linear`` part alone; empty without the latter.
    """

    proba: NDArray[np.float64]
    y_pred: NDArray[np.int64]
    present: NDArray[np.bool_]
    parts: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


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

    @classmethod
    def of(
        cls,
        systems: Sequence[Predictions | InnerPredictions | NewPredictions],
        priors: NDArray[np.float64],
    ) -> Self:
        """Stack predictions of the same rows; ``priors`` are (n_classes,) or per row."""
        proba = np.stack([system.proba for system in systems])
        return cls(
            np.stack([system.y_pred for system in systems]),
            proba,
            np.stack([system.present for system in systems]),
            np.broadcast_to(priors, proba.shape[1:]),
        )

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Rows that are present in at least one system."""
        return np.asarray(self.present.any(axis=0))

    @property
    def tied(self) -> NDArray[np.bool_]:
        """Rows where several classes have most votes; a row without votes is no tie."""
        _, leading = self.count_votes()
        return np.asarray(self.seen & (leading.sum(axis=1) > 1))

    def count_votes(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Count the votes of every class, and mark those with most: both (n, n_classes)."""
        ballots = np.eye(self.priors.shape[1])[self.votes]
        counts = np.asarray((ballots * self.present[:, :, None]).sum(axis=0))
        return counts, counts == counts.max(axis=1, keepdims=True)

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


def one_blas_thread() -> threadpool_limits:
    """Keep matrix products on one thread while it is open.

    The order of their sums, and with it the last digits, depends on the number of threads.
    """
    return threadpool_limits(limits=1, user_api="blas")
