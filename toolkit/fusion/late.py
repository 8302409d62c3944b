"""Late fusion by rules that learn nothing: the vote, the mean, and the best modality.

They cost no search: what every modality predicted is on file. A modality that an utterance
lacks has no say in it, and an utterance that lacks all of them gets the class shares of its
training fold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
from sklearn.linear_model import LogisticRegression

from toolkit.fusion.inputs import (
    BasePredictions,
    FusedPredictions,
    InnerPredictions,
    Rule,
    Shares,
    StackedPredictions,
    apply_rules,
    check_names,
    in_order,
    inner_panel,
    most_probable,
    one_blas_thread,
    record_split,
    split_groups,
)
from toolkit.validation.metrics import CLIP, METRICS, row_log_loss
from toolkit.validation.predictions import Predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from toolkit.validation.ledger import Ledger


def majority_vote(voters: Sequence[Predictions], shares: Shares) -> Predictions:
    """Let every modality vote for the class it decides for.

    The class with most votes wins. A tie goes to the tied class with the highest summed
    probability, then to the one with the larger training share, then to the lower code.

    Parameters
    ----------
    voters : sequence of Predictions
        At least two, aligned.
    shares : mapping of int to ndarray of float64, shape (n_classes,)
        Number of every fold to the class shares of its training rows, as
        :func:`training_priors` or :meth:`BasePredictions.training_priors` gives them.

    Returns
    -------
    Predictions
        Of the system ``vote``. The probability of a class is ``(n + q) / (V + 1)``: of the
        V voters present, n vote for it, and q is its mean probability. As q is below 1, it
        can decide a tie and nothing else.

    Raises
    ------
    ValueError
        If the voters are too few or too many, or not aligned.

    Examples
    --------
    All 64 ways in which three voters can choose among the classes a to d: the third voter is
    surest of its choice and the first least. A line for each vote of the third, a group for
    each vote of the first, a letter for each vote of the second. In 24 cases all three
    differ, and the surest has its way instead of the class that happens to come first.

    >>> import numpy as np
    >>> from itertools import product
    >>> from toolkit.validation.predictions import Predictions
    >>> ballots = np.array(list(product(range(4), repeat=3)))
    >>> ids = np.array([f"{row:02d}" for row in range(64)])
    >>> def say(name, choices, sure):
    ...     proba = np.full((64, 4), (1 - sure) / 3)
    ...     proba[np.arange(64), choices] = sure
    ...     zeros = np.zeros(64, dtype=np.int64)
    ...     return Predictions(name, tuple("abcd"), ids, ids, None, zeros, zeros == 0, zeros,
    ...                        proba)
    >>> third, first, second = (ballots[:, place] for place in range(3))
    >>> voters = [say("1", first, 0.4), say("2", second, 0.5), say("3", third, 0.7)]
    >>> fused = majority_vote(voters, {0: np.full(4, 0.25)})
    >>> letters = "".join(fused.classes[code] for code in fused.y_pred)
    >>> for vote in range(4):
    ...     groups = [letters[16 * vote + 4 * group :][:4] for group in range(4)]
    ...     fused.classes[vote], " ".join(groups)
    ('a', 'aaaa abaa aaca aaad')
    ('b', 'abbb bbbb bbcb bbbd')
    ('c', 'accc cbcc cccc cccd')
    ('d', 'addd dbdd ddcd dddd')
    """
    return apply_rules("vote", _aligned(voters), shares, dict.fromkeys(shares, count_votes))


def soft_vote(
    voters: Sequence[Predictions], shares: Shares, *, system: str = "soft"
) -> Predictions:
    """Average the probabilities of the voters present.

    Parameters
    ----------
    voters : sequence of Predictions
        At least two, aligned. With early fusion among them this is the system ``hybrid``.
    shares : mapping of int to ndarray of float64, shape (n_classes,)
        Number of every fold to the class shares of its training rows.
    system : str, default="soft"
        Name of the fused system.

    Returns
    -------
    Predictions
        The mean, and the class where it is highest; an exact tie goes to the class with the
        larger training share, then to the lower code.

    Raises
    ------
    ValueError
        If the voters are too few or too many, or not aligned.
    """
    return apply_rules(system, _aligned(voters), shares, dict.fromkeys(shares, average))


def best_single(
    voters: Sequence[BasePredictions],
    ledgers: Mapping[int, Ledger],
    *,
    metric: str = "f1_micro",
) -> tuple[BasePredictions, dict[int, str]]:
    """Take in every outer fold the modality whose search scored best there.

    The choice is made on the training speakers' scores. The modality that turns out best on
    the reported ones would be chosen with hindsight, and anything looks worse beside it.
    """
    ordered = in_order(voters)
    if unscored := [voter.system for voter in ordered if not voter.scores]:
        raise ValueError(
            f"{unscored} have no inner scores; expected voters that were searched, since the "
            "best one is chosen by its inner score."
        )
    sign = 1 if METRICS[metric].direction == "maximize" else -1
    first = ordered[0].predictions
    proba, y_pred = np.empty_like(first.proba), np.empty_like(first.y_pred)
    present = np.empty_like(first.present)
    inner, chosen, scores = {}, {}, {}
    for fold, rows in ordered[0].inner.items():
        ledgers[fold].record("best modality", "choose", rows.rows)
        best = ordered[int(np.argmax([sign * voter.scores[fold] for voter in ordered]))]
        tested = first.folds == fold
        proba[tested] = best.predictions.proba[tested]
        y_pred[tested] = best.predictions.y_pred[tested]
        present[tested] = best.predictions.present[tested]
        inner[fold], chosen[fold] = best.inner[fold], best.system
        scores[fold] = best.scores[fold]
    table = replace(first, system="best-single", present=present, proba=proba, y_pred=y_pred)
    return BasePredictions(table, inner, scores), chosen


def count_votes(panel: StackedPredictions) -> FusedPredictions:
    """Count votes, ties going to the highest summed probability."""
    counts = _count(panel)
    mean = average(panel).proba
    leading = counts == counts.max(axis=1, keepdims=True)
    y_pred = most_probable(np.where(leading, mean, -1.0), panel.shares)
    n_present = panel.present.sum(axis=0)
    return FusedPredictions((counts + mean) / (n_present + 1)[:, None], y_pred)


def tied_votes(panel: StackedPredictions) -> NDArray[np.bool_]:
    """Say where the vote alone decides nothing.

    Returns
    -------
    ndarray of bool, shape (n,)
        True where several classes have most votes; False where nobody voted.
    """
    counts = _count(panel)
    leading = counts == counts.max(axis=1, keepdims=True)
    return np.asarray(panel.seen & (leading.sum(axis=1) > 1))


def average(
    panel: StackedPredictions, weights: NDArray[np.float64] | None = None
) -> FusedPredictions:
    """Average probabilities over the voters present.

    Parameters
    ----------
    weights : ndarray of float64, shape (n_voters,), optional
        Weights of the voters, renormalised over those present; equal by default, and where
        all those present weigh nothing.
    """
    given = np.ones(len(panel.present)) if weights is None else weights
    held = panel.present * given[:, None]
    weightless = held.sum(axis=0) == 0
    held[:, weightless] = panel.present[:, weightless]
    total = np.where(panel.seen, held.sum(axis=0), 1.0)
    mixed = (held[:, :, None] * panel.proba).sum(axis=0) / total[:, None]
    proba = np.where(panel.seen[:, None], mixed, panel.shares)
    return FusedPredictions(proba, most_probable(proba, panel.shares))


def _count(panel: StackedPredictions) -> NDArray[np.float64]:
    ballots = np.eye(panel.shares.shape[1])[panel.votes]
    return np.asarray((ballots * panel.present[:, :, None]).sum(axis=0))


def _aligned(voters: Sequence[Predictions]) -> list[Predictions]:
    check_names([voter.system for voter in voters])
    first, *others = ordered = sorted(voters, key=lambda voter: voter.system)
    for other in others:
        first.check_aligned(other)
    return ordered


MAX_ROUNDS: Final = 1_000
TOLERANCE: Final = 1e-8
"""Weights that move less than this in a round have arrived."""


def weighted_vote(
    voters: Sequence[BasePredictions], ledgers: Mapping[int, Ledger]
) -> tuple[BasePredictions, dict[int, dict[str, float]]]:
    """Average probabilities with one fitted weight per modality."""
    ordered = in_order(voters)
    shares = ordered[0].training_priors()
    inner, fitted = {}, {}
    with one_blas_thread():
        for fold, first in ordered[0].inner.items():
            panel = inner_panel([voter.inner[fold] for voter in ordered], shares[fold])
            fitted[fold], proba = learn_weights(panel, first, ledgers[fold])
            inner[fold] = replace(first, present=panel.seen, proba=proba)
    rules = {fold: partial(average, weights=weights) for fold, weights in fitted.items()}
    tables = [voter.predictions for voter in ordered]
    system = BasePredictions(apply_rules("weighted", tables, shares, rules), inner)
    names = [voter.system for voter in ordered]
    return system, {
        fold: dict(zip(names, weights.tolist(), strict=True))
        for fold, weights in fitted.items()
    }


def learn_weights(
    panel: StackedPredictions, inner: InnerPredictions, ledger: Ledger
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


def fit_weights(panel: StackedPredictions, labels: NDArray[np.int64]) -> NDArray[np.float64]:
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
    >>> panel = StackedPredictions(
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

    def __call__(self, panel: StackedPredictions) -> FusedPredictions:
        """Fuse the rows of a panel."""
        margins = stack_features(panel) @ self.coefficients + self.intercept
        odds = np.exp(margins - margins.max(axis=1, keepdims=True))
        proba = odds / odds.sum(axis=1, keepdims=True)
        proba = np.where(panel.seen[:, None], proba, panel.shares)
        return FusedPredictions(proba, most_probable(proba, panel.shares))


def stack(
    voters: Sequence[BasePredictions], ledgers: Mapping[int, Ledger]
) -> tuple[BasePredictions, dict[int, float]]:
    """Fuse by a logistic regression fitted on training speakers."""
    ordered = in_order(voters)
    shares = ordered[0].training_priors()
    inner, penalties = {}, {}
    rules: dict[int, Rule] = {}
    with one_blas_thread():
        for fold, first in ordered[0].inner.items():
            panel = inner_panel([voter.inner[fold] for voter in ordered], shares[fold])
            rules[fold], penalties[fold], proba = learn_stacker(panel, first, ledgers[fold])
            inner[fold] = replace(first, present=panel.seen, proba=proba)
        tables = [voter.predictions for voter in ordered]
        fused = apply_rules("stacked", tables, shares, rules)
    return BasePredictions(fused, inner), penalties


def learn_stacker(
    panel: StackedPredictions, inner: InnerPredictions, ledger: Ledger
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


def stack_features(panel: StackedPredictions) -> NDArray[np.float64]:
    """Lay out what a stacker sees of every row.

    Returns
    -------
    ndarray of float64, shape (n, n_voters * (n_classes + 1))
        Base by base its log-probabilities (of at least 1e-6) minus their mean, those of
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
    panel: StackedPredictions, labels: NDArray[np.int64], penalties: Sequence[float]
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
    panel: StackedPredictions, inner: InnerPredictions, ledger: Ledger
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
