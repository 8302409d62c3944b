"""What several voters say of the same rows, and how a rule's answers become a system.

A rule takes a :class:`Panel` and gives a :class:`Verdict`, row by row. It does not know
whether the rows are held out or belong to training speakers, so the same code fuses what is
reported and what later fits are made from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits

from toolkit.fusion.voters import InnerPredictions, Voter
from toolkit.validation.folds import Fold
from toolkit.validation.predictions import Predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from toolkit.validation.ledger import Ledger

Shares = Mapping[int, "NDArray[np.float64]"]
"""Number of every outer fold to the class shares of its training rows."""

N_PARTS: Final = 3
"""Parts that an outer fold's training groups are dealt to where a fusion checks itself."""

TIE: Final = 1e-12
"""Probabilities nearer than this are equal: what rounding makes of equal sums."""


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
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

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Panel:
        """Keep some rows."""
        return Panel(
            self.votes[:, rows], self.proba[:, rows], self.present[:, rows], self.shares[rows]
        )


class Verdict(NamedTuple):
    """What a rule makes of a panel.

    - proba: shape (n, n_classes); Class probabilities.
    - decided: shape (n,); Positions of the decided classes.
    """

    proba: NDArray[np.float64]
    decided: NDArray[np.int64]


Rule = Callable[[Panel], Verdict]


def training_shares(majority: Predictions) -> dict[int, NDArray[np.float64]]:
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


def outer_panel(voters: Sequence[Predictions], shares: Shares) -> Panel:
    """Lay predictions for held-out rows side by side."""
    folds = voters[0].folds
    if lacking := sorted(set(folds.tolist()) - set(shares)):
        raise ValueError(f"Got no training shares of folds {lacking}; expected one a fold.")
    numbers, at = np.unique(folds, return_inverse=True)
    return Panel(
        np.stack([voter.decided for voter in voters]),
        np.stack([voter.proba for voter in voters]),
        np.stack([voter.present for voter in voters]),
        np.stack([shares[number] for number in numbers.tolist()])[at],
    )


def inner_panel(inners: Sequence[InnerPredictions], shares: NDArray[np.float64]) -> Panel:
    """Lay predictions for one outer fold's training rows side by side.

    Parameters
    ----------
    shares : ndarray of float64, shape (n_classes,)
        Class shares of these rows.
    """
    proba = np.stack([inner.proba for inner in inners])
    return Panel(
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
        Positions of the decided classes.

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
    proba, decided = np.empty_like(first.proba), np.empty_like(first.decided)
    for fold, rule in rules.items():
        rows = first.folds == fold
        proba[rows], decided[rows] = rule(panel.take(rows))
    return replace(first, system=system, present=panel.seen, proba=proba, decided=decided)


def apply_rule(system: str, voters: Sequence[Voter], rule: Rule) -> Voter:
    """Fuse by a rule that learns nothing."""
    shares = voters[0].training_shares()
    inner = {}
    for fold, first in voters[0].inner.items():
        panel = inner_panel([voter.inner[fold] for voter in voters], shares[fold])
        inner[fold] = replace(first, present=panel.seen, proba=rule(panel).proba)
    tables = [voter.predictions for voter in voters]
    return Voter(apply_rules(system, tables, shares, dict.fromkeys(shares, rule)), inner)


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
