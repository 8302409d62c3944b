"""Scores of one system: pooled, per fold, per speaker and per class, with intervals.

The scope of a score is ``all`` (every held-out row pooled), ``present`` (pooled over the rows
with a modality of the system), ``fold``, ``speaker`` or ``class``. Its method describes value
and interval in words; those before the parenthesis are its kind. Systems whose searches were
repeated under further seeds have mean and deviation over these as well.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import sqrt
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, stdtrit

from toolkit.systems import System, seed_name, variant_name
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


def _effective_number(sizes: Floats) -> float:
    """Compute the number of groups of one size that would carry the same weight.

    Kish (1965), Survey Sampling, section 11.7: ``(sum n_s)^2 / sum n_s^2``.
    """
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _degrees_of_freedom(sizes: Floats) -> float:
    """Average, geometrically, the degrees of freedom of all groups and of the effective number.

    With the first alone intervals are too narrow where sizes differ, with the second too wide.
    """
    return float(np.sqrt((len(sizes) - 1) * (_effective_number(sizes) - 1)))


def _jackknife_half_width(left_out: Floats, sizes: Floats) -> float:
    """Compute half the width of a delete-one-group jackknife t interval.

    ``t(df, .975) sqrt((n - 1) / n sum_s (left_out_s - mean)^2)``, where `left_out` is the
    statistic without each group. Efron and Tibshirani (1993), An Introduction to the
    Bootstrap, equation 11.5.
    """
    n = len(left_out)
    error = sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))
    quantile = float(stdtrit(_degrees_of_freedom(sizes), 0.975))
    # Where nearly all rows are one group's the quantile is infinite, and inf * 0 undefined.
    return quantile * error if error > 0 else 0.0


def jackknife_interval(
    value: float,
    left_out: ArrayLike,
    sizes: ArrayLike,
    *,
    low: float = -np.inf,
    high: float = np.inf,
) -> _Interval:
    """Compute the 95 % jackknife t interval of a statistic, clipped to its range.

    `left_out` and `sizes` have shape (n_groups,): the statistic without each group, and the
    utterances of each. Groups without any do not count. Both ends are None with fewer than
    five groups.
    """
    counted = np.asarray(sizes, dtype=np.float64)
    values = np.asarray(left_out, dtype=np.float64)[counted > 0]
    counted = counted[counted > 0]
    if len(values) < _FEWEST_GROUPS:
        return None, None
    return _clipped(value, _jackknife_half_width(values, counted), low, high)


def _bounded_interval(
    value: float, left_out: ArrayLike, sizes: ArrayLike, *, low: float = 0, high: float = 1
) -> _Interval:
    """Compute the 95 % jackknife interval of a score with two ends, on its logit.

    Near an end the scores of people are skewed, and a symmetric interval misses the truth on
    the side of the end. The score and each delete-one score are moved to at least half an
    utterance from both ends. For MCC this is Fisher's z. A score of exactly `low` or `high`
    has no spread: its interval is the bound of Clopper and Pearson (1934) for as many groups,
    all right or all wrong, as the effective number. `left_out` and `sizes` as in
    :func:`jackknife_interval`.
    """
    counted = np.asarray(sizes, dtype=np.float64)
    shares = (np.asarray(left_out, dtype=np.float64)[counted > 0] - low) / (high - low)
    counted = counted[counted > 0]
    if len(counted) < _FEWEST_GROUPS:
        return None, None
    share = (value - low) / (high - low)
    if share in (0, 1):
        bound = 0.025 ** (1 / _effective_number(counted))
        ends = (bound, 1.0) if share == 1 else (0.0, 1 - bound)
    else:
        least = 0.5 / counted.sum()
        moved = logit(np.clip([share, *shares], least, 1 - least))
        half = _jackknife_half_width(moved[1:], counted)
        ends = tuple(expit([moved[0] - half, moved[0] + half]).tolist())
    return float(low + ends[0] * (high - low)), float(low + ends[1] * (high - low))


def _mean_interval(values: ArrayLike, *, low: float, high: float) -> _Interval:
    """Compute the 95 % t interval of the mean of one value per group."""
    each = np.asarray(values, dtype=np.float64)
    if len(each) < 2:
        return None, None
    quantile = stdtrit(len(each) - 1, 0.975)
    half = quantile * each.std(ddof=1) / np.sqrt(len(each))
    return _clipped(float(each.mean()), float(half), low, high)


def _clipped(value: float, half: float, low: float, high: float) -> _Interval:
    return float(max(value - half, low)), float(min(value + half, high))


@dataclass(frozen=True, slots=True)
class Score:
    """One number about one system.

    Parameters
    ----------
    system : str
    metric : str
        A key of :data:`METRICS`; ``"ece_perfect"``, ``"ece_excess"`` or ``"ece_p"``;
        ``"recall"``, ``"precision"`` or ``"f1"`` of a class.
    scope : str
        ``"all"``, ``"present"``, ``"fold"``, ``"speaker"`` or ``"class"``.
    group : str
        The fold, speaker or class; empty for a whole scope.
    value : float
    low, high : float or None
        Ends of its 95 % interval, where there is one.
    method : str
        Description of value and interval, with the number of groups.
    n : int
        Number of utterances; for means and deviations over folds, speakers or seeds, the
        number of these.
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
        """The method without its numbers, such as ``"speaker jackknife t"``."""
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
          interval over speakers and, in a row of its own, over sessions. The calibration
          error has none: ``ece_perfect`` is the error that a perfectly calibrated system
          would show, mean of 200 draws, between their 2.5 % and 97.5 % quantiles;
          ``ece_excess`` is the error above that mean, and ``ece_p`` the share of draws with
          an error as large;
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
    pooled = [*_pooled_scores(predictions, "all")]
    return [
        *pooled,
        *(
            (replace(score, scope="present") for score in pooled)
            if predictions.present.all()
            else _pooled_scores(predictions, "present")
        ),
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
    """Pick the first score that matches; KeyError if none does.

    `kind` is by default the first, which for pooled scores has the interval over speakers.
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
    names, _, grouped = _group_rows(predictions, groups, rows)
    return names, metric.tally(grouped)


def _group_rows(
    predictions: Predictions, groups: NDArray[np.str_], rows: NDArray[np.bool_] | None = None
) -> tuple[list[str], NDArray[np.intp], GroupedRows]:
    """Give the groups of :func:`group_tallies`: names, sizes, and the rows with numbers."""
    chosen = slice(None) if rows is None else rows
    names, numbers, sizes = np.unique(groups[chosen], return_inverse=True, return_counts=True)
    labels, decided = predictions.labels[chosen], predictions.y_pred[chosen]
    grouped = GroupedRows(labels, decided, predictions.proba[chosen], numbers, len(names))
    return names.tolist(), sizes, grouped


def pooled_and_left_out(
    value: Callable[[Floats], Floats], tallies: Floats
) -> tuple[Floats, Floats]:
    """Compute a metric of tallies over all groups, and without each (first axis n_groups)."""
    total = tallies.sum(axis=0)
    return value(total), value(total - tallies)


def score_groups(
    predictions: Predictions, metric: str, columns: Mapping[str, Mapping[str, Sequence[str]]]
) -> list[Score]:
    """Score groups of people, column by column, over the classes that occur there."""
    chosen, scores = METRICS[metric], []
    names, tallies = group_tallies(predictions, chosen, predictions.speakers)
    counts = np.unique(predictions.speakers, return_counts=True)[1]
    for column, group, people in ((c, *item) for c in columns for item in columns[c].items()):
        inside = np.isin(names, people)
        pooled, left_out = pooled_and_left_out(chosen.local or chosen.value, tallies[inside])
        value, sizes = float(pooled), counts[inside]
        ends = score_interval(chosen, value, left_out, sizes)
        method = _describe_jackknife(chosen, value, "speaker", sizes)
        about = (predictions.system, metric, f"by {column}", group, value)
        scores.append(Score(*about, *ends, method, int(sizes.sum())))
    return scores


def _pooled_scores(predictions: Predictions, scope: str) -> Iterator[Score]:
    rows = predictions.present if scope == "present" else np.ones_like(predictions.present)
    n = int(rows.sum())
    if n == 0:  # a system without any modality has no score over present rows
        return
    labels, proba, y_pred = predictions.labels, predictions.proba, predictions.y_pred
    grouped = {"speaker": _group_rows(predictions, predictions.speakers, rows)}
    if predictions.sessions is not None:
        grouped["session"] = _group_rows(predictions, predictions.sessions, rows)
    for metric in _measurable(predictions):
        value = metric.compute(labels[rows], proba[rows], y_pred[rows])
        if metric.local is None:  # the calibration error; see below
            yield Score(predictions.system, "ece", scope, "", value, None, None, "value", n)
            continue
        for grouping, (_, sizes, found) in grouped.items():
            _, left_out = pooled_and_left_out(metric.value, metric.tally(found))
            method = _describe_jackknife(metric, value, grouping, sizes)
            low, high = score_interval(metric, value, left_out, sizes)
            yield Score(predictions.system, metric.name, scope, "", value, low, high, method, n)
    if predictions.has_proba:
        yield from _calibration_scores(predictions, scope, rows)


def _measurable(predictions: Predictions) -> list[Metric]:
    """List the metrics of a system: without probabilities, those of decisions alone."""
    return [m for m in METRICS.values() if predictions.has_proba or not m.needs_proba]


def score_interval(
    metric: Metric, value: float, left_out: Floats, sizes: ArrayLike
) -> _Interval:
    """Compute the 95 % jackknife interval of a score: on the logit unless it is a loss."""
    find = jackknife_interval if metric.direction == "minimize" else _bounded_interval
    return find(value, left_out, sizes, low=metric.low, high=metric.high)


def _describe_jackknife(metric: Metric, value: float, grouping: str, sizes: ArrayLike) -> str:
    """Describe the interval of :func:`score_interval`: its groups and its scale."""
    counted = np.asarray(sizes, dtype=np.float64)
    counted = counted[counted > 0]
    n = len(counted)
    details = [f"{n} {grouping}{'s' * (n != 1)}"]
    if n < _FEWEST_GROUPS:
        details[0] += f": no interval below {_FEWEST_GROUPS}"
    elif metric.direction == "maximize" and value in (metric.low, metric.high):
        details += ["a bound", f"{_effective_number(counted):.1f} of equal size"]
    else:
        details += [f"{_degrees_of_freedom(counted):.1f} degrees of freedom"]
        if metric.direction == "maximize":
            details += ["on the logit" if metric.low == 0 else "on Fisher's z"]
    return f"{grouping} jackknife t ({', '.join(details)})"


def _calibration_scores(
    predictions: Predictions, scope: str, rows: NDArray[np.bool_]
) -> Iterator[Score]:
    """Compare the calibration error with those of a perfectly calibrated system.

    The estimate is biased upwards, so near calibration no jackknife interval holds the truth.
    """
    proba, n = predictions.proba[rows], int(rows.sum())
    error = METRICS["ece"].compute(predictions.labels[rows], proba, predictions.y_pred[rows])
    draws = perfect_calibration_errors(proba)
    low, high = (float(end) for end in np.quantile(draws, (0.025, 0.975)))
    mean = float(draws.mean())
    # Sums in another order differ in their last bits.
    p = float((1 + (draws >= error - 1e-12).sum()) / (1 + len(draws)))
    about = (f"perfect calibration ({len(draws)} draws)", n)
    yield Score(predictions.system, "ece_perfect", scope, "", mean, low, high, *about)
    yield Score(predictions.system, "ece_excess", scope, "", error - mean, None, None, *about)
    yield Score(predictions.system, "ece_p", scope, "", p, None, None, *about)


def _group_scores(
    predictions: Predictions, scope: str, groups: NDArray[np.str_]
) -> Iterator[Score]:
    names, sizes, grouped = _group_rows(predictions, groups)
    for metric in _measurable(predictions):
        if metric.local is None:  # too few rows per group to mean anything
            continue
        tallies = metric.tally(grouped)
        values = metric.local(tallies)
        counted = [""] * len(names)
        if metric.local is not metric.value:
            occurring = (tallies[:, 1] > 0).sum(axis=-1).tolist()
            counted = [f" ({k} of {tallies.shape[-1]} classes present)" for k in occurring]
        make = partial(Score, predictions.system, metric.name, scope)
        for name, value, count, size in zip(
            names, values.tolist(), counted, sizes.tolist(), strict=True
        ):
            yield make(name, value, None, None, f"value{count}", size)
        mean, n = float(values.mean()), len(values)
        if scope == "speaker":
            low, high = _mean_interval(values, low=metric.low, high=metric.high)
            yield make("", mean, low, high, f"speaker mean t ({n} speakers)", n)
            continue
        yield make("", mean, None, None, "mean over folds", n)
        if n > 1:
            deviation = float(values.std(ddof=1))
            yield make("", deviation, None, None, "sd over folds", n)


def _class_scores(predictions: Predictions) -> Iterator[Score]:
    share = METRICS["f1_micro"]  # as those of a class, from 0 to 1
    _, tallies = group_tallies(predictions, share, predictions.speakers)
    support = tallies[:, 1].sum(axis=0).astype(np.int64).tolist()
    # The rows that each of them is a share of, by speaker and class.
    rows = {
        "recall": tallies[:, 1],
        "precision": tallies[:, 2],
        "f1": (tallies[:, 1] + tallies[:, 2]) / 2,
    }
    for metric, of_classes in CLASS_METRICS.items():
        pooled, left_out = pooled_and_left_out(of_classes, tallies)
        for code, (name, n) in enumerate(zip(predictions.classes, support, strict=True)):
            value, sizes = float(pooled[code]), rows[metric][:, code]
            low, high = score_interval(share, value, left_out[:, code], sizes)
            method = _describe_jackknife(share, value, "speaker", sizes)
            yield Score(predictions.system, metric, "class", name, value, low, high, method, n)


def group_seeds(predictions: Mapping[str, Predictions]) -> dict[str, list[Predictions]]:
    """List each repeated system's predictions under its seeds, those of the study's own first.

    Further seeds of ``text`` are ``text-seed-1``, ``text-seed-2``.
    """
    grouped = {}
    for name in predictions:
        if System.parse(name).variant:
            continue
        numbered = (seed_name(name, number) for number in itertools.count())
        names = list(itertools.takewhile(predictions.__contains__, numbered))
        if len(names) > 1:
            grouped[name] = [predictions[each] for each in names]
    return grouped


def average_seeds(tables: Sequence[Predictions]) -> Predictions:
    """Average aligned probabilities of a system over seeds: the system ``<name>-ensemble``.

    It predicts the most probable class of the mean, of equals the lowest.
    """
    for other in tables[1:]:
        tables[0].check_aligned(other)
    proba = np.mean([table.proba for table in tables], axis=0)
    name = variant_name(tables[0].system, "ensemble")
    return replace(tables[0], system=name, proba=proba, y_pred=proba.argmax(axis=1))


def score_systems(predictions: Mapping[str, Predictions]) -> list[Score]:
    """Score systems in every scope, and repeated ones over their seeds as well.

    Gives the scores of :func:`score_predictions` of every system but the further seeds. Of a
    repeated one then, by metric, the mean over seeds of the pooled score, with its interval
    over speakers, and its standard deviation (ddof 1).
    """
    repeated = group_seeds(predictions)
    scores: list[Score] = []
    for name, table in predictions.items():
        if not System.parse(name).is_seed:
            scores += score_predictions(table)
            scores += _score_seeds(repeated.get(name, []))
    return scores


def _score_seeds(tables: Sequence[Predictions]) -> Iterator[Score]:
    if not tables:
        return
    first, n = tables[0], len(tables)
    sizes = np.unique(first.speakers, return_counts=True)[1]
    for metric in METRICS.values():
        if metric.local is None:  # the calibration error, which has no interval
            continue
        values = [metric.compute(t.labels, t.proba, t.y_pred) for t in tables]
        left_out = [
            pooled_and_left_out(metric.value, group_tallies(t, metric, t.speakers)[1])[1]
            for t in tables
        ]
        mean = float(np.mean(values))
        low, high = score_interval(metric, mean, np.mean(left_out, axis=0), sizes)
        jackknife = _describe_jackknife(metric, mean, "speaker", sizes)
        kept = (first.system, metric.name, "all", "")
        yield Score(*kept, mean, low, high, f"mean over seeds ({n} seeds; {jackknife})", n)
        yield Score(*kept, float(np.std(values, ddof=1)), None, None, "sd over seeds", n)
