"""Late fusion by a second model that learns, from training speakers, whom to believe when.

The second model is a multinomial logistic regression. A boosted one was left out: it would
see some hundreds to thousands of rows of a dozen correlated columns that are close to
log-linear in the answer, has several settings of its own to choose on those same rows, and
says less about what it does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from sklearn.linear_model import LogisticRegression

from toolkit.fusion.panels import (
    Panel,
    Rule,
    Verdict,
    apply_rules,
    inner_panel,
    most_probable,
    one_blas_thread,
    record_split,
    split_groups,
)
from toolkit.fusion.voters import InnerPredictions, Voter, in_order
from toolkit.validation.metrics import CLIP, row_log_loss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from toolkit.validation.ledger import Ledger

PENALTIES: Final = (0.01, 0.1, 1.0, 10.0)
"""Inverse strengths C of the ridge penalty, among which training speakers decide."""


@dataclass(frozen=True, slots=True, eq=False)
class Stacker:
    """A fitted multinomial logistic regression over voters.

    - coefficients: shape (n_features, n_classes); Weights of the columns of
      :func:`stack_features`.
    - intercept: shape (n_classes,); Minus infinity for a class that the training rows lack.
    """

    coefficients: NDArray[np.float64]
    intercept: NDArray[np.float64]

    def __call__(self, panel: Panel) -> Verdict:
        """Fuse the rows of a panel."""
        margins = stack_features(panel) @ self.coefficients + self.intercept
        odds = np.exp(margins - margins.max(axis=1, keepdims=True))
        proba = odds / odds.sum(axis=1, keepdims=True)
        proba = np.where(panel.seen[:, None], proba, panel.shares)
        return Verdict(proba, most_probable(proba, panel.shares))


def stack(
    voters: Sequence[Voter], ledgers: Mapping[int, Ledger]
) -> tuple[Voter, dict[int, float]]:
    """Fuse by a logistic regression fitted on training speakers."""
    ordered = in_order(voters)
    shares = ordered[0].training_shares()
    inner, penalties = {}, {}
    rules: dict[int, Rule] = {}
    with one_blas_thread():
        for fold, first in ordered[0].inner.items():
            panel = inner_panel([voter.inner[fold] for voter in ordered], shares[fold])
            rules[fold], penalties[fold], proba = learn_stacker(panel, first, ledgers[fold])
            inner[fold] = replace(first, present=panel.seen, proba=proba)
        tables = [voter.predictions for voter in ordered]
        fused = apply_rules("stacked", tables, shares, rules)
    return Voter(fused, inner), penalties


def learn_stacker(
    panel: Panel, inner: InnerPredictions, ledger: Ledger
) -> tuple[Stacker, float, NDArray[np.float64]]:
    """Learn a stacker from the training rows of one fold.

    Returns
    -------
    proba : ndarray of float64, shape (n, n_classes)
        For the training rows, by stackers fitted without their groups.
    """
    penalty, proba = _choose_penalty(panel, inner, ledger)
    ledger.record("stacker", "fuse", inner.rows[panel.seen])
    (stacker,) = fit_stackers(panel, inner.labels, [penalty])
    return stacker, penalty, proba


def stack_features(panel: Panel) -> NDArray[np.float64]:
    """Lay out what a stacker sees of every row.

    Returns
    -------
    ndarray of float64, shape (n, n_voters * (n_classes + 1))
        Voter by voter its log-probabilities (of at least 1e-6) minus their mean, those of
        the training shares where it is absent; then, for every voter, 1 where it is absent.

    Notes
    -----
    The flag marks absence and not presence: with a free intercept the fit is the same, and a
    voter that no training row lacks gets no weight from a constant column.
    """
    proba = np.where(panel.present[:, :, None], panel.proba, panel.shares)
    logs = np.log(np.maximum(proba, CLIP))
    logs -= logs.mean(axis=2, keepdims=True)
    return np.hstack([*logs, (~panel.present).T.astype(np.float64)])


def fit_stackers(
    panel: Panel, labels: NDArray[np.int64], penalties: Sequence[float]
) -> list[Stacker]:
    """Fit one stacker for every strength of the penalty.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        Positions of the true classes.
    """
    X, y = stack_features(panel.take(panel.seen)), labels[panel.seen]
    n_classes = panel.shares.shape[1]
    found = np.unique(y)
    possible = np.isin(np.arange(n_classes), found) | (len(found) == 0)
    level = np.where(possible, 0.0, -np.inf)
    if len(found) < 2:
        return [Stacker(np.zeros((X.shape[1], n_classes)), level)] * len(penalties)
    model = LogisticRegression(max_iter=10_000, warm_start=True)
    stackers = []
    for C in penalties:
        model.set_params(C=C).fit(X, y)
        # Of two classes scikit-learn gives one column, the odds of the second.
        told = found if len(found) > 2 else found[1:]
        coefficients, intercept = np.zeros((X.shape[1], n_classes)), level.copy()
        coefficients[:, told] = model.coef_.T
        intercept[told] = model.intercept_
        stackers.append(Stacker(coefficients, intercept))
    return stackers


def _choose_penalty(
    panel: Panel, inner: InnerPredictions, ledger: Ledger
) -> tuple[float, NDArray[np.float64]]:
    """Compare penalties on groups left out; give the best and its predictions for them."""
    probas = np.empty((len(PENALTIES), *inner.proba.shape))
    for number, (train, test) in enumerate(split_groups(inner)):
        record_split(ledger, f"stacker {number}", inner, train, test)
        for at, stacker in enumerate(
            fit_stackers(panel.take(train), inner.labels[train], PENALTIES)
        ):
            probas[at, test] = stacker(panel.take(test)).proba
    losses = [float(row_log_loss(inner.labels, proba).mean()) for proba in probas]
    best = int(np.argmin(losses))
    return PENALTIES[best], probas[best]
