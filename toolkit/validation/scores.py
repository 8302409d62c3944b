"""Scores of one system: pooled, per fold, per speaker and per class, with intervals.

The scope of a score is ``all`` (every held-out row pooled), ``present`` (pooled over the rows
with a modality of the system), ``fold``, ``speaker`` or ``class``. Its method describes value
and interval in words; the words before the parenthesis are one of :data:`_KINDS`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from toolkit.validation.folds import Grouping
from toolkit.validation.metrics import (
    CLASS_METRICS,
    METRICS,
    Floats,
    GroupedRows,
    Metric,
    perfect_calibration_errors,
)
from toolkit.validation.predictions import Predictions

_Interval = tuple[float | None, float | None]

_FEWEST_GROUPS: Final = 5
"""Below this many groups the jackknife gives no interval."""

_KINDS: Final = (
    "speaker jackknife t",
    "session jackknife t",
    "perfect calibration",
    "value",
    "mean over folds",
    "sd over folds",
    "speaker mean t",
)
"""The kinds of score: the start of its `method`."""


def _t_quantile(n: int) -> float:
    """Compute the factor of a two-sided 95 % t interval over `n` groups."""
    return float(stdtrit(n - 1, 0.975))


def _jackknife_half_width(left_out: ArrayLike) -> Floats:
    """Compute half the width of a delete-one-group jackknife t interval.

    ``t(n - 1, .975) sqrt((n - 1) / n sum_s (left_out_s - mean)^2)``, where `left_out` has shape
    (..., n_groups): the statistic without each group, of at least two. Efron and Tibshirani
    (1993), An Introduction to the Bootstrap, equation 11.5.
    """
    values = np.asarray(left_out, dtype=np.float64)
    n = values.shape[-1]
    spread = ((values - values.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
    return np.asarray(_t_quantile(n) * np.sqrt((n - 1) / n * spread))


def jackknife_interval(
    value: float, left_out: ArrayLike, *, low: float = -np.inf, high: float = np.inf
) -> _Interval:
    """Compute the 95 % jackknife t interval of a statistic, clipped to its range.

    `left_out` has shape (n_groups,): the statistic without each group. Both ends are None with
    fewer than five groups.
    """
    values = np.asarray(left_out, dtype=np.float64)
    if len(values) < _FEWEST_GROUPS:
        return None, None
    return _clipped(value, float(_jackknife_half_width(values)), low, high)


def _mean_interval(values: ArrayLike, *, low: float, high: float) -> _Interval:
    """Compute the 95 % t interval of the mean of one value per group."""
    each = np.asarray(values, dtype=np.float64)
    if len(each) < 2:
        return None, None
    half = _t_quantile(len(each)) * each.std(ddof=1) / np.sqrt(len(each))
    return _clipped(float(each.mean()), float(half), low, high)


def _clipped(value: float, half: float, low: float, high: float) -> _Interval:
    return float(max(value - half, low)), float(min(value + half, high))


@dataclass(frozen=True, slots=True)
class Score:
    """One number about one system.

    Parameters
    ----------
    system : str
        Name of the system.
    metric : str
        A key of :data:`METRICS`; ``"ece_perfect"``; ``"recall"``, ``"precision"`` or
        ``"f1"`` of a class.
    scope : str
        ``"all"``, ``"present"``, ``"fold"``, ``"speaker"`` or ``"class"``.
    group : str
        The fold, speaker or class; empty for a whole scope.
    value : float
        The number.
    low, high : float or None
        Ends of its 95 % interval, where there is one.
    method : str
        Description of value and interval, with the number of groups.
    n : int
        Number of utterances; for means and deviations over folds or speakers, the number of
        folds or speakers.
    """

    system: str
    metric: str
    scope: str
    group: str
    value: float
    low: float | None
    high: float | None
    method: str
    n: int

    @property
    def kind(self) -> str:
        """The method without its numbers: one of :data:`_KINDS`."""
        return self.method.partition(" (")[0]


def score_predictions(predictions: Predictions) -> list[Score]:
    """Score one system in every scope.

    Parameters
    ----------
    predictions : Predictions
        Predictions of one system for unseen people.

    Returns
    -------
    list of Score
        Scopes ``all``, ``present``, ``fold``, ``speaker`` and ``class``, in this order:

        - ``all`` and ``present``: every metric over all classes, with the jackknife t
          interval over speakers and, in a row of its own, over sessions; ``ece_perfect``
          is the calibration error that a perfectly calibrated system would show, mean of
          200 draws, between their 2.5 % and 97.5 % quantiles;
        - ``fold``: the value of every fold, then (empty group) mean and standard deviation
          (ddof 1) over folds;
        - ``speaker``: the value of every speaker, then (empty group) the mean over speakers
          with its t interval;
        - ``class``: recall, precision and F1 of every class.

        UAR and macro-F1 of a fold or speaker are over the classes that occur there; their
        method gives the number of these classes.

    Notes
    -----
    The intervals describe new speakers for the system as it was fitted. They hold no variance
    over training sets or seeds.
    """
    return [
        *_pooled_scores(predictions, "all"),
        *_pooled_scores(predictions, "present"),
        *_group_scores(predictions, "fold", predictions.fold_names()),
        *_group_scores(predictions, "speaker", predictions.speakers),
        *_class_scores(predictions),
    ]


def find_score(
    scores: Iterable[Score],
    system: str,
    metric: str,
    *,
    scope: str = "all",
    group: str = "",
    kind: str | None = None,
) -> Score:
    """Pick one score.

    Parameters
    ----------
    scores : iterable of Score
        Scores of any systems.
    system, metric : str
        System and metric of the score.
    scope, group : str, default="all", ""
        Scope and group of the score.
    kind : str, optional
        One of :data:`_KINDS`; by default the first, which for pooled scores has the interval
        over speakers.

    Returns
    -------
    Score
        The first match.

    Raises
    ------
    KeyError
        If none matches.
    """
    for score in scores:
        found = (score.system, score.metric, score.scope, score.group)
        if found == (system, metric, scope, group) and kind in {None, score.kind}:
            return score
    raise KeyError(
        f"No score of {system!r} has metric {metric!r}, scope {scope!r}, group {group!r} and "
        f"kind {kind!r}."
    )


def group_tallies(
    predictions: Predictions,
    metric: Metric,
    groups: NDArray[np.str_],
    rows: NDArray[np.bool_] | None = None,
) -> tuple[list[str], Floats]:
    """Tally a metric group by group.

    Returns the names of the groups, sorted by code point, and their tallies, shape
    (n_groups, ...). `groups` has shape (n,); `rows` is a mask, by default of all rows.
    """
    chosen = slice(None) if rows is None else rows
    names, numbers = np.unique(groups[chosen], return_inverse=True)
    tallies = metric.tally(
        GroupedRows(
            predictions.labels[chosen],
            predictions.y_pred[chosen],
            predictions.proba[chosen],
            numbers,
            len(names),
        )
    )
    return names.tolist(), tallies


def pooled_and_left_out(
    value: Callable[[Floats], Floats], tallies: Floats
) -> tuple[Floats, Floats]:
    """Compute a metric of tallies over all groups, and without each (first axis n_groups)."""
    total = tallies.sum(axis=0)
    return value(total), value(total - tallies)


def _pooled_scores(predictions: Predictions, scope: str) -> Iterator[Score]:
    rows = predictions.present if scope == "present" else np.ones_like(predictions.present)
    n = int(rows.sum())
    if n == 0:  # a system without any modality has no score over present rows
        return
    labels, proba, y_pred = predictions.labels, predictions.proba, predictions.y_pred
    groupings: tuple[Grouping, ...] = ("speaker", "session")
    if predictions.sessions is None:
        groupings = ("speaker",)
    for metric in METRICS.values():
        value = metric.compute(labels[rows], proba[rows], y_pred[rows])
        for grouping in groupings:
            _, tallies = group_tallies(predictions, metric, predictions.groups(grouping), rows)
            _, left_out = pooled_and_left_out(metric.value, tallies)
            method = _jackknife_method(grouping, len(tallies))
            low, high = jackknife_interval(value, left_out, low=metric.low, high=metric.high)
            yield Score(predictions.system, metric.name, scope, "", value, low, high, method, n)
    # The calibration error is biased upwards: with few rows even perfect systems have some.
    draws = perfect_calibration_errors(proba[rows])
    low, high = (float(end) for end in np.quantile(draws, (0.025, 0.975)))
    value, method = float(draws.mean()), f"perfect calibration ({len(draws)} draws)"
    yield Score(predictions.system, "ece_perfect", scope, "", value, low, high, method, n)


def _group_scores(
    predictions: Predictions, scope: str, groups: NDArray[np.str_]
) -> Iterator[Score]:
    sizes = np.unique(groups, return_counts=True)[1].tolist()
    for metric in METRICS.values():
        if metric.local is None:  # too few rows per group to mean anything
            continue
        names, tallies = group_tallies(predictions, metric, groups)
        values = metric.local(tallies)
        counted = [""] * len(names)
        if metric.local is not metric.value:
            occurring = (tallies[:, 1] > 0).sum(axis=-1).tolist()
            counted = [f" ({k} of {tallies.shape[-1]} classes present)" for k in occurring]
        for name, value, count, n in zip(names, values.tolist(), counted, sizes, strict=True):
            method = f"value{count}"
            yield Score(
                predictions.system, metric.name, scope, name, value, None, None, method, n
            )
        yield from _group_summary(predictions.system, metric, scope, values)


def _group_summary(system: str, metric: Metric, scope: str, values: Floats) -> Iterator[Score]:
    mean, n = float(values.mean()), len(values)
    if scope == "speaker":
        low, high = _mean_interval(values, low=metric.low, high=metric.high)
        method = f"speaker mean t ({n} speakers)"
        yield Score(system, metric.name, scope, "", mean, low, high, method, n)
        return
    yield Score(system, metric.name, scope, "", mean, None, None, "mean over folds", n)
    if n > 1:
        deviation = float(values.std(ddof=1))
        yield Score(system, metric.name, scope, "", deviation, None, None, "sd over folds", n)


def _class_scores(predictions: Predictions) -> Iterator[Score]:
    _, tallies = group_tallies(predictions, METRICS["f1_micro"], predictions.speakers)
    method = _jackknife_method("speaker", len(tallies))
    support = tallies[:, 1].sum(axis=0).astype(np.int64).tolist()
    for metric, of_classes in CLASS_METRICS.items():
        pooled, left_out = pooled_and_left_out(of_classes, tallies)
        for code, (name, n) in enumerate(zip(predictions.classes, support, strict=True)):
            value = float(pooled[code])
            low, high = jackknife_interval(value, left_out[:, code], low=0, high=1)
            yield Score(predictions.system, metric, "class", name, value, low, high, method, n)


def _jackknife_method(grouping: Grouping, n: int) -> str:
    none = f": no interval below {_FEWEST_GROUPS}" if n < _FEWEST_GROUPS else ""
    return f"{grouping} jackknife t ({n} {grouping}s{none})"
