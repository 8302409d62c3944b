"""Late fusion by a weighted mean, the weights learnt from training speakers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from toolkit.fusion.late import average
from toolkit.fusion.panels import (
    Panel,
    apply_rules,
    inner_panel,
    one_blas_thread,
    record_split,
    split_groups,
)
from toolkit.fusion.voters import InnerPredictions, Voter, in_order
from toolkit.validation.metrics import CLIP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from toolkit.validation.ledger import Ledger

MAX_ROUNDS: Final = 1_000
TOLERANCE: Final = 1e-8
"""Weights that move less than this in a round have arrived."""


def weighted_vote(
    voters: Sequence[Voter], ledgers: Mapping[int, Ledger]
) -> tuple[Voter, dict[int, dict[str, float]]]:
    """Average probabilities with one fitted weight per modality."""
    ordered = in_order(voters)
    shares = ordered[0].training_shares()
    inner, fitted = {}, {}
    with one_blas_thread():
        for fold, first in ordered[0].inner.items():
            panel = inner_panel([voter.inner[fold] for voter in ordered], shares[fold])
            fitted[fold], proba = learn_weights(panel, first, ledgers[fold])
            inner[fold] = replace(first, present=panel.seen, proba=proba)
    rules = {fold: partial(average, weights=weights) for fold, weights in fitted.items()}
    tables = [voter.predictions for voter in ordered]
    system = Voter(apply_rules("weighted", tables, shares, rules), inner)
    names = [voter.system for voter in ordered]
    return system, {
        fold: dict(zip(names, weights.tolist(), strict=True))
        for fold, weights in fitted.items()
    }


def learn_weights(
    panel: Panel, inner: InnerPredictions, ledger: Ledger
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Learn weights from the training rows of one fold.

    Returns
    -------
    weights : ndarray of float64, shape (n_voters,)
        Fitted on all rows that a voter saw.
    proba : ndarray of float64, shape (n, n_classes)
        For the training rows, by weights fitted without their groups.
    """
    proba = np.empty_like(inner.proba)
    for number, (train, test) in enumerate(split_groups(inner)):
        record_split(ledger, f"weights {number}", inner, train, test)
        weights = fit_weights(panel.take(train), inner.labels[train])
        proba[test] = average(panel.take(test), weights).proba
    ledger.record("weights", "fuse", inner.rows[panel.seen])
    return fit_weights(panel, inner.labels), proba


def fit_weights(panel: Panel, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Find the weights whose mean has the least log-loss.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        Positions of the true classes.

    Returns
    -------
    ndarray of float64, shape (n_voters,)
        Weights, at least 0, summing to 1; equal if no row was seen by any voter.

    Notes
    -----
    Expectation-maximisation for the proportions of a mixture of known components [1]_, from
    equal weights until no weight moves by more than 1e-8, or for 1,000 rounds. A row counts
    with the voters present, renormalised, as it will be fused; the sum of their weights in
    the denominator is then bounded by its tangent, as in [2]_, which leaves every round an
    ascent. Where all voters are present the round is the usual one. A probability below 1e-6
    counts as 1e-6, as in the log-loss.

    References
    ----------
    .. [1] Dempster, A. P., Laird, N. M. and Rubin, D. B. (1977). Maximum likelihood from
       incomplete data via the EM algorithm. JRSS B 39, section 4.3.
    .. [2] Hunter, D. R. (2004). MM algorithms for generalized Bradley-Terry models. Annals of
       Statistics 32, 384-406.

    Examples
    --------
    One voter gives the true class .8 and the other .4, in two of three rows; in the third it
    is .1 against .7. The best mean gives the first voter 4/9:

    >>> import numpy as np
    >>> true = np.array([[0.8, 0.8, 0.1], [0.4, 0.4, 0.7]])
    >>> panel = Panel(
    ...     votes=np.zeros((2, 3), dtype=int),
    ...     proba=np.stack([true, 1 - true], axis=2),
    ...     present=np.ones((2, 3), dtype=bool),
    ...     shares=np.full((3, 2), 0.5),
    ... )
    >>> fit_weights(panel, np.zeros(3, dtype=int))
    array([0.444, 0.556])
    """
    kept, truth = panel.take(panel.seen), labels[panel.seen]
    weights: NDArray[np.float64] = np.full(len(kept.present), 1 / len(kept.present))
    if len(truth) == 0:
        return weights
    believed = np.maximum(kept.proba[:, np.arange(len(truth)), truth], CLIP) * kept.present
    patterns, n_rows = np.unique(kept.present.T, axis=0, return_counts=True)
    patterns = patterns.astype(np.float64)
    for _ in range(MAX_ROUNDS):
        gain = believed @ (1 / (weights @ believed))
        due = (n_rows / (patterns @ weights)) @ patterns
        moved: NDArray[np.float64] = weights * gain / np.where(due > 0, due, 1.0)
        moved /= moved.sum()
        if np.abs(moved - weights).max() <= TOLERANCE:
            return moved
        weights = moved
    return weights
