"""Late fusion: vote, mean, weighted mean, stacker and pool of margins, each a rule.

A rule fuses stacked predictions. A modality that a row lacks takes no part in its fusion, and
a row that lacks all of them gets the class priors of its training fold. One function,
:func:`learn_rule`, fits every rule that learns, on out-of-fold predictions of training rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from toolkit.fusion.inputs import (
    MAX_MODALITIES,
    TIE,
    InnerPredictions,
    NewPredictions,
    Rule,
    StackedPredictions,
)
from toolkit.models.boosters import CLIP, row_log_loss
from toolkit.models.linear import mix_margins, weigh_margins
from toolkit.systems import LOG_POOL
from toolkit.validation.folds import Fold, cross_parts
from toolkit.validation.ledger import Ledger
from toolkit.validation.predictions import Predictions

LATE_METHODS: Final = ("vote", "soft", "weighted", "stacked", LOG_POOL)
"""Late fusions, in the order of the tables."""

_PENALTIES: Final = (0.01, 0.1, 1.0, 10.0)
"""Inverse strengths C of the ridge penalty, chosen on training groups."""


def majority_vote(
    systems: Sequence[Predictions], priors: Mapping[int, NDArray[np.float64]]
) -> Predictions:
    """Fuse by a majority vote of the predicted classes.

    The class with most votes wins. A tie goes to the tied class with the highest summed
    probability, then to the one with the larger training prior, then to the lower code.

    Parameters
    ----------
    systems : sequence of Predictions
        At least two, aligned.
    priors : mapping of int to ndarray of float64, shape (n_classes,)
        Number of every fold to the class priors of its training rows, from
        :func:`training_priors`.

    Returns
    -------
    Predictions
        Of the system ``vote``. The probability of a class is ``(n + q) / (V + 1)``: of the
        V systems present, n vote for it, and q is its mean probability. As q is below 1, it
        can decide a tie and nothing else.

    Raises
    ------
    ValueError
        If the systems are too few or too many, or not aligned.

    Examples
    --------
    Three systems differ, and the surest decides:

    >>> import numpy as np
    >>> from toolkit.validation.predictions import Predictions
    >>> def predict(system, *proba):
    ...     zero, row = np.zeros(1, dtype=int), np.array(["u"])
    ...     classes = ("a", "b", "c")
    ...     return Predictions(system, classes, row, row, None, zero, zero == 0, zero, [proba])
    >>> systems = [predict("1", 0.4, 0.3, 0.3), predict("2", 0.25, 0.5, 0.25),
    ...            predict("3", 0.1, 0.2, 0.7)]
    >>> majority_vote(systems, {0: np.full(3, 1 / 3)}).y_pred
    array([2])
    """
    return _fuse_outer("vote", systems, priors, _count_votes)


def soft_vote(
    systems: Sequence[Predictions],
    priors: Mapping[int, NDArray[np.float64]],
    *,
    system: str = "soft",
) -> Predictions:
    """Average the probabilities of the systems present.

    Parameters
    ----------
    systems : sequence of Predictions
        At least two, aligned.
    priors : mapping of int to ndarray of float64, shape (n_classes,)
        Number of every fold to the class priors of its training rows.
    system : str, default="soft"
        Name of the fused system.

    Returns
    -------
    Predictions
        The mean, and the class where it is highest; an exact tie goes to the class with the
        larger training prior, then to the lower code.

    Raises
    ------
    ValueError
        If the systems are too few or too many, or not aligned.
    """
    return _fuse_outer(system, systems, priors, _average)


def _fuse_outer(
    system: str,
    systems: Sequence[Predictions],
    priors: Mapping[int, NDArray[np.float64]],
    rule: Rule,
) -> Predictions:
    names = [table.system for table in systems]
    if not 2 <= len(names) <= MAX_MODALITIES + 1:
        raise ValueError(
            f"Got {len(names)} voters ({', '.join(names) or 'none'}); expected two to "
            f"{MAX_MODALITIES} modalities, and at most one early fusion of them."
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Several voters are called {twice}; expected different systems.")
    # Sums are taken in this order, so that no byte depends on the order given.
    ordered = sorted(systems, key=attrgetter("system"))
    for other in ordered[1:]:
        ordered[0].check_aligned(other)
    fused = rule(StackedPredictions.of(ordered, _row_priors(ordered[0].folds, priors)))
    return replace(
        ordered[0], system=system, present=fused.present, proba=fused.proba, y_pred=fused.y_pred
    )


def _row_priors(
    folds: NDArray[np.int64], priors: Mapping[int, NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Look up the priors of every held-out row's outer fold, shape (n, n_classes)."""
    if lacking := sorted(set(folds.tolist()) - set(priors)):
        raise ValueError(f"Got no training shares of folds {lacking}; expected one per fold.")
    numbers, codes = np.unique(folds, return_inverse=True)
    return np.stack([priors[number] for number in numbers.tolist()])[codes]


def _count_votes(stacked: StackedPredictions) -> NewPredictions:
    """Count votes, ties going to the highest summed probability."""
    counts, leading = stacked.count_votes()
    mean = _average(stacked).proba
    y_pred = _most_probable(np.where(leading, mean, -1.0), stacked.priors)
    # A mean is below 1, so added to the counts it can decide ties and nothing else.
    n_present = stacked.present.sum(axis=0)
    proba = (counts + mean) / (n_present + 1)[:, None]
    return NewPredictions(proba, y_pred, stacked.seen)


def _average(
    stacked: StackedPredictions, weights: NDArray[np.float64] | None = None
) -> NewPredictions:
    """Average probabilities over the systems present.

    ``weights`` (n_systems,) are renormalised over those present. They are equal by default, and
    where all systems present weigh nothing.
    """
    given = np.ones(len(stacked.present)) if weights is None else weights
    held = stacked.present * given[:, None]
    # A row may have only systems of weight 0; they are then all it has to go on.
    weightless = held.sum(axis=0) == 0
    held[:, weightless] = stacked.present[:, weightless]
    total = np.where(stacked.seen, held.sum(axis=0), 1.0)
    mixed = (held[:, :, None] * stacked.proba).sum(axis=0) / total[:, None]
    return _complete(stacked, mixed)


def _most_probable(
    proba: NDArray[np.float64], priors: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Predict the most probable class, a tie by the larger prior, then by the lower code.

    Both arrays have shape (n, n_classes); the first may hold any weights of the classes.
    """
    tied = proba >= proba.max(axis=1, keepdims=True) - TIE
    return np.asarray(np.where(tied, priors, -1.0).argmax(axis=1))


def _complete(stacked: StackedPredictions, proba: NDArray[np.float64]) -> NewPredictions:
    """Give rows that no system sees their priors, and predict the most probable classes."""
    proba = np.where(stacked.seen[:, None], proba, stacked.priors)
    return NewPredictions(proba, _most_probable(proba, stacked.priors), stacked.seen)


def _pool_margins(stacked: StackedPredictions, weights: NDArray[np.float64]) -> NewPredictions:
    """Add up margins; ``weights`` (n_systems,) are at least 0.

    A logarithmic opinion pool (Genest and Zidek 1986, Statistical Science 1), whose weights
    need not sum to 1, so that they set the confidence too. An absent system has the margins of
    the class priors.
    """
    return _complete(stacked, mix_margins(weights, _fill(stacked)))


def _fill(stacked: StackedPredictions) -> NDArray[np.float64]:
    """Give absent systems the class priors."""
    return np.where(stacked.present[:, :, None], stacked.proba, stacked.priors)


def fit_pool(stacked: StackedPredictions, labels: NDArray[np.int64]) -> Rule:
    """Fit a pool of the least log-loss, and the prior of few rows."""
    seen = stacked.seen
    weights, _ = weigh_margins(_fill(stacked.take(seen)), labels[seen])
    return partial(_pool_margins, weights=weights)


@dataclass(frozen=True, slots=True, eq=False)
class _Stacker:
    """A fitted multinomial logistic regression over systems.

    - coefficients: shape (n_features, n_classes); of the columns of :func:`_stack_features`.
    - intercept: shape (n_classes,); minus infinity for a class that the training rows lack.
    - penalty: The C it was fitted with.
    """

    coefficients: NDArray[np.float64]
    intercept: NDArray[np.float64]
    penalty: float

    def __call__(self, stacked: StackedPredictions) -> NewPredictions:
        """Fuse rows."""
        margins = _stack_features(stacked) @ self.coefficients + self.intercept
        # Less the largest, so that no exponential overflows.
        odds = np.exp(margins - margins.max(axis=1, keepdims=True))
        return _complete(stacked, odds / odds.sum(axis=1, keepdims=True))


def learn_rule(
    method: str,
    stacked: StackedPredictions,
    inner: InnerPredictions,
    open_ledger: Callable[[str], Ledger],
) -> tuple[Rule, NDArray[np.float64]]:
    """Learn the rule of a method from the training rows of one fold.

    ``inner`` gives the rows, labels and groups of ``stacked``. The ledger of the method is
    opened only if the method learns. The second value, shape (n, n_classes), holds fused
    probabilities of the training rows, by rules fitted without their groups.
    """
    if method in FIXED_RULES:
        return FIXED_RULES[method], FIXED_RULES[method](stacked).proba
    name, penalties, fit = _LEARNERS[method]
    ledger = open_ledger(method)
    probas = np.empty((len(penalties), *inner.proba.shape))
    for number, (train, test) in enumerate(_split_groups(inner)):
        held_out = tuple(np.unique(inner.groups[test]).tolist())
        # The ledger takes a fold; an inner split has no number of its own.
        split = Fold(0, inner.rows[train], inner.rows[test], held_out)
        ledger.record_split(f"{name} {number}", split)
        fitted = fit(stacked.take(train), inner.labels[train], penalties)
        for candidate, rule in enumerate(fitted):
            probas[candidate, test] = rule(stacked.take(test)).proba
    # The first of equally good penalties, which is the strongest, is chosen.
    best = int(np.argmin([row_log_loss(inner.labels, proba).mean() for proba in probas]))
    ledger.record(name, "fuse", inner.rows[stacked.seen])
    (chosen,) = fit(stacked, inner.labels, penalties[best : best + 1])
    return chosen, probas[best]


def _split_groups(inner: InnerPredictions) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Split training rows into three parts by group: each is fused as the others teach.

    Where content is held out, each pair of a part of the groups and one of the content.
    """
    columns = inner.groups.reshape(len(inner), -1).T
    splits = [
        list(GroupKFold(min(3, len(np.unique(names)))).split(inner.labels, groups=names))
        for names in columns
    ]
    if len(splits) == 1:
        return splits[0]
    parts, contents = ([test for _, test in split] for split in splits)
    return cross_parts(parts, contents, len(inner))


def _fit_weights(stacked: StackedPredictions, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Find the weights whose mean has the least log-loss.

    ``labels`` (n,) are positions of the true classes. The weights (n_systems,) are at least 0
    and sum to 1; they are equal if no row is present in any system.

    Expectation-maximisation for the proportions of a mixture of known components (Dempster,
    Laird and Rubin 1977, JRSS B 39, section 4.3), from equal weights until no weight moves by
    more than 1e-8, or for 1,000 rounds. A row counts with the systems present, renormalised, as
    it will be fused; the sum of their weights in the denominator is then bounded by its tangent
    (Hunter 2004, Annals of Statistics 32, 384-406), which leaves every round an ascent. A
    probability below 1e-6 counts as 1e-6, as in the log-loss.
    """
    kept, truth = stacked.take(stacked.seen), labels[stacked.seen]
    weights: NDArray[np.float64] = np.full(len(kept.present), 1 / len(kept.present))
    if len(truth) == 0:
        return weights
    likelihood = np.maximum(kept.proba[:, np.arange(len(truth)), truth], CLIP) * kept.present
    # Rows with the same systems present share a denominator.
    patterns, n_rows = np.unique(kept.present.T, axis=0, return_counts=True)
    patterns = patterns.astype(np.float64)
    for _ in range(1_000):
        gain = likelihood @ (1 / (weights @ likelihood))
        due = (n_rows / (patterns @ weights)) @ patterns
        moved: NDArray[np.float64] = weights * gain / np.where(due > 0, due, 1.0)
        moved /= moved.sum()
        if np.abs(moved - weights).max() <= 1e-8:
            return moved
        weights = moved
    return weights


def _stack_features(stacked: StackedPredictions) -> NDArray[np.float64]:
    """Lay out the features of a stacker, shape (n, n_systems * (n_classes + 1)).

    System by system these are its log-probabilities (of at least 1e-6) minus their mean, and
    those of the training priors where it is absent; then, per system, 1 where it is absent.
    The flag marks absence and not presence: with a free intercept the fit is the same, and a
    system that no training row lacks gets no weight from a constant column.
    """
    logs = np.log(np.maximum(_fill(stacked), CLIP))
    logs -= logs.mean(axis=2, keepdims=True)
    return np.hstack([*logs, (~stacked.present).T.astype(np.float64)])


def _fit_stackers(
    stacked: StackedPredictions, labels: NDArray[np.int64], penalties: Sequence[float]
) -> list[_Stacker]:
    """Fit one stacker per penalty; ``labels`` (n,) are positions of the true classes."""
    X, y = _stack_features(stacked.take(stacked.seen)), labels[stacked.seen]
    n_classes = stacked.priors.shape[1]
    found = np.unique(y)
    possible = np.isin(np.arange(n_classes), found) | (len(found) == 0)
    level = np.where(possible, 0.0, -np.inf)
    if len(found) < 2:
        # Without two classes there is no odds to fit: certain of the one, or equal for all.
        return [_Stacker(np.zeros((X.shape[1], n_classes)), level, C) for C in penalties]
    # Each fit starts from the coefficients of the penalty before, which saves most iterations.
    # Newton's method reaches the optimum; L-BFGS stopped up to .008 off in a probability.
    model = LogisticRegression(
        solver="newton-cholesky", tol=1e-8, max_iter=1_000, warm_start=True
    )
    stackers = []
    for C in penalties:
        model.set_params(C=C).fit(X, y)
        # Of two classes scikit-learn gives one column, the odds of the second.
        fitted = found if len(found) > 2 else found[1:]
        coefficients, intercept = np.zeros((X.shape[1], n_classes)), level.copy()
        coefficients[:, fitted] = model.coef_.T
        intercept[fitted] = model.intercept_
        stackers.append(_Stacker(coefficients, intercept, C))
    return stackers


def describe_rule(rule: Rule | None) -> Any:
    """Describe a learned rule: its weights, or the numbers of a stacker; None of another."""
    if isinstance(rule, partial):
        return rule.keywords["weights"].tolist()
    if not isinstance(rule, _Stacker):
        return None
    return {
        "C": rule.penalty,
        "coefficients": rule.coefficients.tolist(),
        # JSON has no infinity: null marks a class that the training rows lack.
        "intercept": [v if np.isfinite(v) else None for v in rule.intercept.tolist()],
    }


def restore_rule(method: str, plain: Any) -> Rule:
    """Read back the result of :func:`describe_rule`, to the last bit; None has no rule."""
    if not plain:
        raise ValueError(f"The numbers of the fusion {method!r} are missing; expected some.")
    if method != "stacked":
        rule = _pool_margins if method == LOG_POOL else _average
        return partial(rule, weights=np.array(plain, dtype=np.float64))
    coefficients = np.array(plain["coefficients"], dtype=np.float64)
    intercept = np.array([-np.inf if v is None else v for v in plain["intercept"]])
    return _Stacker(coefficients, intercept, plain["C"])


FIXED_RULES: Final[Mapping[str, Rule]] = {"vote": _count_votes, "soft": _average}
"""Rules that learn nothing."""

_Fit = Callable[[StackedPredictions, NDArray[np.int64], Sequence[float]], Sequence[Rule]]
# Weights have no penalty to choose, so there is one candidate.
_LEARNERS: Final[Mapping[str, tuple[str, tuple[float, ...], _Fit]]] = {
    "weighted": (
        "weights",
        (0.0,),
        lambda stacked, y, _: [partial(_average, weights=_fit_weights(stacked, y))],
    ),
    "stacked": ("stacker", _PENALTIES, _fit_stackers),
    LOG_POOL: ("pool", (0.0,), lambda stacked, y, _: [fit_pool(stacked, y)]),
}
"""Method to its name in the ledger, its candidate penalties, and its fit."""
