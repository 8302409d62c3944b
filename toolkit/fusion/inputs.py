"""What fusion is made of: systems with their predictions for training speakers beside them.

Whatever a fusion learns (weights, a stacker, class offsets, which modality is best) it
learns from the out-of-fold predictions of an outer fold's training speakers. A
:class:`BasePredictions` carries those, fold by fold, next to the predictions for held-out
speakers that are fused and reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits

from toolkit.models.baselines import class_priors
from toolkit.validation.folds import Fold
from toolkit.validation.predictions import SUM_TOLERANCE, Predictions

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from toolkit.validation.ledger import Ledger
    from toolkit.validation.nested import UnitResult

MAX_VOTERS: Final = 8
"""Most modalities that are fused."""


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
        Who is never split: the speaker of every row, or its session where sessions are
        held out.
    present : ndarray of bool, shape (n,)
        Whether the system had something to see.
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


@dataclass(frozen=True, slots=True, eq=False)
class BasePredictions:
    """A system as fusion sees it.

    Parameters
    ----------
    predictions : Predictions
        For held-out rows: what is fused and reported.
    inner : mapping of int to InnerPredictions
        Number of every outer fold to the predictions for its training rows: what fusions
        learn from.
    scores : mapping of int to float, optional
        Number of every outer fold to the inner score of its search; empty for a system that
        nothing was searched for.

    Raises
    ------
    ValueError
        If the folds of the three differ, or their numbers of classes.
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

    def training_priors(self) -> dict[int, NDArray[np.float64]]:
        """Give the class shares of every outer fold's training rows.

        Returns
        -------
        dict of int to ndarray of float64, shape (n_classes,)
            What is said of an utterance that no voter could see.
        """
        n_classes = len(self.predictions.classes)
        return {
            fold: class_priors(inner.labels, n_classes) for fold, inner in self.inner.items()
        }


def make_base_predictions(
    predictions: Predictions,
    units: Sequence[UnitResult],
    *,
    labels: NDArray[np.int64],
    groups: NDArray[np.str_],
    present: NDArray[np.bool_],
) -> BasePredictions:
    """Put a searched system's predictions and its finished units together.

    Parameters
    ----------
    predictions : Predictions
        The system's predictions for held-out rows.
    units : sequence of UnitResult
        One an outer fold, each with a search.
    labels : ndarray of int64
        Labels of all the manifest's rows.
    groups : ndarray of str
        Speakers of all the manifest's rows, or their sessions where those are held out.
    present : ndarray of bool
        Which of the manifest's rows the system had something to see of.

    Returns
    -------
    BasePredictions
        With the out-of-fold predictions of the training rows, and the inner scores.

    Raises
    ------
    ValueError
        If a unit belongs to another system, or holds no search (as that of a baseline).
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
            present=present[unit.inner_rows],
            proba=unit.inner_proba,
        )
        for unit in units
    }
    scores = {unit.fold: unit.search.score for unit in units if unit.search is not None}
    return BasePredictions(predictions, inner, scores)


def in_order(voters: Sequence[BasePredictions]) -> list[BasePredictions]:
    """Check that voters can be fused, and sort them by name.

    Sums over voters are taken in this order, so no byte of a fusion depends on the order in
    which the voters were given.
    """
    check_names([voter.system for voter in voters])
    first, *others = ordered = sorted(voters, key=lambda voter: voter.system)
    for other in others:
        first.predictions.check_aligned(other.predictions)
        for fold, inner in first.inner.items():
            for part in ("rows", "labels", "groups"):
                if not np.array_equal(getattr(inner, part), getattr(other.inner[fold], part)):
                    raise ValueError(
                        f"The inner predictions of {first.system!r} and {other.system!r} in "
                        f"fold {fold:02d} are not aligned: their {part} differ; expected the "
                        "same training rows of one study."
                    )
    return ordered


def check_names(systems: Sequence[str]) -> None:
    """Refuse too few or too many voters, or two of one name."""
    if not 2 <= len(systems) <= MAX_VOTERS + 1:
        raise ValueError(
            f"Got {len(systems)} voters ({', '.join(systems) or 'none'}); expected two to "
            f"{MAX_VOTERS} modalities, and at most one early fusion of them."
        )
    if twice := sorted({name for name in systems if systems.count(name) > 1}):
        raise ValueError(f"Several voters are called {twice}; expected different systems.")


def _checked(name: str, values: ArrayLike, n: int, kinds: str) -> NDArray[Any]:
    array = np.array(values)
    if array.shape != (n,) or array.dtype.kind not in kinds:
        expected = {"iu": "integers", "U": "text", "b": "bool"}[kinds]
        raise ValueError(
            f"The inner {name} are {array.dtype} of shape {array.shape}; expected {expected} "
            f"of shape ({n},)."
        )
    return array


Shares = Mapping[int, "NDArray[np.float64]"]
"""Number of every outer fold to the class shares of its training rows."""

N_PARTS: Final = 3
"""Parts that an outer fold's training groups are dealt to where a fusion checks itself."""

TIE: Final = 1e-12
"""Probabilities nearer than this are equal: what rounding makes of equal sums."""


@dataclass(frozen=True, slots=True, eq=False)
class StackedPredictions:
    """What every voter says of the same rows.

    - votes: shape (n_voters, n); Position of the class that each voter decides for.
    - proba: shape (n_voters, n, n_classes); Class probabilities.
    - present: shape (n_voters, n); Whether the voter had something to see.
    - shares: shape (n, n_classes); Class shares among the training rows of the outer fold: what
      stands for a voter that saw nothing, whatever that voter said.
    """

    votes: NDArray[np.int64]
    proba: NDArray[np.float64]
    present: NDArray[np.bool_]
    shares: NDArray[np.float64]

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Rows of which at least one voter saw something."""
        return np.asarray(self.present.any(axis=0))

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> StackedPredictions:
        """Keep some rows."""
        return StackedPredictions(
            self.votes[:, rows], self.proba[:, rows], self.present[:, rows], self.shares[rows]
        )


class FusedPredictions(NamedTuple):
    """What a rule makes of a panel.

    - proba: shape (n, n_classes); Class probabilities.
    - y_pred: shape (n,); Positions of the predicted classes.
    """

    proba: NDArray[np.float64]
    y_pred: NDArray[np.int64]


Rule = Callable[[StackedPredictions], FusedPredictions]


def training_priors(majority: Predictions) -> dict[int, NDArray[np.float64]]:
    """Read the class shares of every fold's training rows off the majority baseline.

    Parameters
    ----------
    majority : Predictions
        From :func:`toolkit.validation.majority_predictions`, which predicts just these.

    Returns
    -------
    dict of int to ndarray of float64, shape (n_classes,)
        Number of every fold to its shares, as the late fusions take them.
    """
    numbers, first = np.unique(majority.folds, return_index=True)
    return dict(zip(numbers.tolist(), majority.proba[first], strict=True))


def outer_panel(voters: Sequence[Predictions], shares: Shares) -> StackedPredictions:
    """Lay predictions for held-out rows side by side."""
    folds = voters[0].folds
    if lacking := sorted(set(folds.tolist()) - set(shares)):
        raise ValueError(f"Got no training shares of folds {lacking}; expected one a fold.")
    numbers, at = np.unique(folds, return_inverse=True)
    return StackedPredictions(
        np.stack([voter.y_pred for voter in voters]),
        np.stack([voter.proba for voter in voters]),
        np.stack([voter.present for voter in voters]),
        np.stack([shares[number] for number in numbers.tolist()])[at],
    )


def inner_panel(
    inners: Sequence[InnerPredictions], shares: NDArray[np.float64]
) -> StackedPredictions:
    """Lay predictions for one outer fold's training rows side by side.

    Parameters
    ----------
    shares : ndarray of float64, shape (n_classes,)
        Class shares of these rows.
    """
    proba = np.stack([inner.proba for inner in inners])
    return StackedPredictions(
        proba.argmax(axis=2),
        proba,
        np.stack([inner.present for inner in inners]),
        np.tile(shares, (len(inners[0]), 1)),
    )


def most_probable(proba: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Decide for the most probable class.

    Parameters
    ----------
    proba : ndarray of float64, shape (n, n_classes)
        Probabilities, or other weights of the classes.
    shares : ndarray of float64, shape (n, n_classes)
        A tie goes to the class with the larger training share, then to the lower code.

    Returns
    -------
    ndarray of int64, shape (n,)
        Positions of the predicted classes.

    Examples
    --------
    >>> import numpy as np
    >>> most_probable(np.array([[0.4, 0.2, 0.4]]), np.array([[0.3, 0.3, 0.4]])).tolist()
    [2]
    """
    tied = proba >= proba.max(axis=1, keepdims=True) - TIE
    return np.asarray(np.where(tied, shares, -1.0).argmax(axis=1))


def apply_rules(
    system: str, voters: Sequence[Predictions], shares: Shares, rules: Mapping[int, Rule]
) -> Predictions:
    """Fuse held-out rows, those of every outer fold by that fold's rule."""
    first = voters[0]
    panel = outer_panel(voters, shares)
    proba, y_pred = np.empty_like(first.proba), np.empty_like(first.y_pred)
    for fold, rule in rules.items():
        rows = first.folds == fold
        proba[rows], y_pred[rows] = rule(panel.take(rows))
    return replace(first, system=system, present=panel.seen, proba=proba, y_pred=y_pred)


def apply_rule(system: str, voters: Sequence[BasePredictions], rule: Rule) -> BasePredictions:
    """Fuse by a rule that learns nothing."""
    shares = voters[0].training_priors()
    inner = {}
    for fold, first in voters[0].inner.items():
        panel = inner_panel([voter.inner[fold] for voter in voters], shares[fold])
        inner[fold] = replace(first, present=panel.seen, proba=rule(panel).proba)
    tables = [voter.predictions for voter in voters]
    return BasePredictions(
        apply_rules(system, tables, shares, dict.fromkeys(shares, rule)), inner
    )


def split_groups(inner: InnerPredictions) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Split training rows by their groups, so that a fusion can predict rows it did not see."""
    n_parts = min(N_PARTS, len(np.unique(inner.groups)))
    return list(GroupKFold(n_parts).split(inner.labels, groups=inner.groups))


def record_split(
    ledger: Ledger,
    fit: str,
    inner: InnerPredictions,
    train: NDArray[np.int64],
    test: NDArray[np.int64],
) -> None:
    """Write down which training rows a fit learns from and which it predicts."""
    held_out = tuple(np.unique(inner.groups[test]).tolist())
    ledger.record_split(fit, Fold(0, inner.rows[train], inner.rows[test], held_out))


def one_blas_thread() -> threadpool_limits:
    """Keep matrix products on one thread while it is open.

    The order of their sums, and with it the last digits, depends on the number of threads:
    without this a machine with more cores writes other bytes.
    """
    return threadpool_limits(limits=1, user_api="blas")
