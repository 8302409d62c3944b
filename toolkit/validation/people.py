"""Groups of people compared, and predictions that may abstain: the unit is the person.

The gap between groups is tested by exchanging the groups of whole people. Prediction sets count
every person once, however many utterances there are of each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import factorial, prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from toolkit.validation.comparison import Comparison
from toolkit.validation.metrics import METRICS, Floats, Metric
from toolkit.validation.predictions import Predictions
from toolkit.validation.scores import group_tallies, pooled_and_left_out, score_interval

# Drawn ways of grouping the people, as many blocks as fit into memory one by one.
_N_BLOCKS, _BLOCK = 10, 2_000
# Sums in another order differ in their last bits.
_TOLERANCE: Final = 1e-9
# A column of numbers with more values than this is cut into bins.
_MOST_VALUES: Final = 5
_BIN_SIZE, _MOST_BINS = 5, 4


def group_people(values: Mapping[str, str]) -> dict[str, list[str]]:
    """Group people by the value of each: name of every group to its people.

    A person without a value is in none. Numbers of more than five values are cut at quantiles
    of the people, into two to four bins: as many as hold five people each.

    Examples
    --------
    >>> group_people({"ann": "f", "bob": "m", "eve": ""})
    {'f': ['ann'], 'm': ['bob']}
    >>> list(group_people(dict(zip("abcdef", ["21", "25", "30", "34", "41", "60"]))))
    ['21 to 30', '34 to 60']
    """
    given = {name: value for name, value in values.items() if value}
    try:
        numbers = np.array([*given.values()], dtype=np.float64)
    except ValueError:
        numbers = np.full(1, np.nan)
    keys: NDArray[Any] = np.array([*given.values()])
    labels = keys.tolist()
    if np.isfinite(numbers).all():
        edges = np.unique(numbers)
        if len(edges) > _MOST_VALUES:
            n_bins = max(2, min(_MOST_BINS, len(numbers) // _BIN_SIZE))
            edges = np.quantile(numbers, np.arange(1, n_bins) / n_bins)
        keys = np.searchsorted(edges, numbers)
        parts = [numbers[keys == key] for key in keys]
        ends = [dict.fromkeys(f"{end:.15g}" for end in (p.min(), p.max())) for p in parts]
        labels = [" to ".join(pair) for pair in ends]
    groups: dict[str, list[str]] = {}
    for _, label, name in sorted(zip(keys.tolist(), labels, given, strict=True)):
        groups.setdefault(label, []).append(name)
    return groups


def compare_groups(
    predictions: Predictions,
    metric: str,
    columns: Mapping[str, Mapping[str, Sequence[str]]],
    seed: int = 0,
) -> list[Comparison]:
    """Test the largest gap between two groups of each column, adjusted by Holm over them.

    The null hypothesis is that people are exchangeable between groups, with all that belongs
    to them: labels, predictions and number of utterances. A group of one person is in no gap.

    - columns: Column to the groups of :func:`group_people`.
    """
    chosen, adjusted = METRICS[metric], 0.0
    found = (_test_gap(predictions, chosen, *item, seed) for item in columns.items())
    gaps = [gap for gap in found if gap is not None]
    for rank, at in enumerate(sorted(range(len(gaps)), key=lambda at: gaps[at].p)):
        adjusted = max(adjusted, min(1.0, (len(gaps) - rank) * gaps[at].p))
        gaps[at] = replace(gaps[at], p_adjusted=adjusted)
    return gaps


def _test_gap(
    predictions: Predictions,
    metric: Metric,
    column: str,
    groups: Mapping[str, Sequence[str]],
    seed: int,
) -> Comparison | None:
    """Test the largest difference of two group scores; None with fewer than two groups."""
    kept = {group: people for group, people in groups.items() if len(people) > 1}
    if len(kept) < 2:
        return None
    codes = {name: code for code, people in enumerate(kept.values()) for name in people}
    names, tallies = group_tallies(predictions, metric, predictions.speakers)
    rows = [row for row, name in enumerate(names) if name in codes]
    labels, tallies = np.array([codes[names[row]] for row in rows]), tallies[rows]
    scores = _score_ways(labels[np.newaxis], tallies, metric)[:, 0]
    count, rng = 1, np.random.default_rng(seed)
    for _ in range(_N_BLOCKS):
        ways = rng.permuted(np.tile(labels, (_BLOCK, 1)), axis=1)
        gaps = np.ptp(_score_ways(ways, tallies, metric), axis=0)
        count += int((gaps >= np.ptp(scores) - _TOLERANCE).sum())
    sizes = np.bincount(labels)
    # Groups of one size may exchange their names: the gap stays.
    alike = prod(map(factorial, np.unique(sizes, return_counts=True)[1].tolist()))
    n_ways = factorial(len(labels)) // prod(map(factorial, sizes.tolist()))
    total = _N_BLOCKS * _BLOCK + 1
    smallest = max(alike / n_ways, 1 / total)
    # A share of draws may fall below the share of all ways.
    p = max(count / total, smallest)
    return Comparison(
        family=f"by {column}",
        a=list(kept)[scores.argmax()],
        b=list(kept)[scores.argmin()],
        metric=metric.name,
        difference=float(np.ptp(scores)),
        low=None,
        high=None,
        p=p,
        p_adjusted=p,
        p_nadeau_bengio=None,
        smallest_p=smallest,
        method=f"permutation of people ({total - 1:,} seeded ways); Holm over columns"
        + ("; not decidable" if smallest > 0.05 else ""),
        n_speakers=len(labels),
    )


def _score_ways(ways: NDArray[np.int64], tallies: Floats, metric: Metric) -> Floats:
    """Compute the score of every group (rows) in every way (columns)."""
    masks = [(ways == group).astype(np.float64) for group in range(int(ways[0].max()) + 1)]
    value = metric.local or metric.value
    return np.array([value(np.tensordot(mask, tallies, axes=1)) for mask in masks])


def risk_curve(predictions: Predictions, rows: NDArray[np.bool_] | None = None) -> Floats:
    """Compute the error among the k most confident utterances, for k from 1 to n.

    The confidence is the largest probability; utterances of one confidence count as in the
    mean over all their orders. `rows` is a mask of the utterances, by default of all.
    """
    _, counts, errors = _accumulate(predictions, rows)
    numbers = np.arange(1, counts[-1] + 1)
    risks: Floats = np.interp(numbers, [0, *counts], [0, *errors]) / numbers
    return risks


def _accumulate(
    predictions: Predictions, rows: NDArray[np.bool_] | None
) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Give each confidence from the highest, with utterances and errors down to it."""
    chosen = slice(None) if rows is None else rows
    confidence = predictions.proba[chosen].max(axis=1).round(12)
    levels, at = np.unique(-confidence, return_inverse=True)
    wrong = (predictions.y_pred != predictions.labels)[chosen]
    return -levels, np.bincount(at).cumsum(), np.bincount(at, wrong).cumsum()


def score_risk(predictions: Predictions) -> tuple[float, float | None, float | None, float]:
    """Compute the area under the risk-coverage curve, its interval, and the least possible.

    The area is the mean of :func:`risk_curve`: Geifman, Uziel, El-Yaniv (2019), Bias-reduced
    uncertainty estimation for deep neural classifiers, ICLR, section 2. The interval is the
    jackknife over people. The least is the area with all right utterances first.
    """
    names, sizes = np.unique(predictions.speakers, return_counts=True)
    rest = [predictions.speakers != name for name in names] if len(names) > 1 else [None]
    area, *left_out = [float(risk_curve(predictions, rows).mean()) for rows in (None, *rest)]
    ends = score_interval(METRICS["f1_micro"], area, np.array(left_out), sizes)
    wrong = np.sort(predictions.y_pred != predictions.labels)
    return area, *ends, float((wrong.cumsum() / np.arange(1, len(wrong) + 1)).mean())


def choose_answers(
    predictions: Predictions, chosen: float
) -> tuple[int, tuple[float, float | None, float | None] | None]:
    """Answer down to the confidence at which all other people keep to a chosen error.

    Gives the number of answers, and the error among them with the interval for these
    thresholds; None where no utterance is answered.
    """
    confidence = predictions.proba.max(axis=1).round(12)
    answered = np.zeros(len(predictions), dtype=np.bool_)
    for name in np.unique(predictions.speakers):
        own = predictions.speakers == name
        levels, counts, errors = _accumulate(predictions, ~own)
        least = levels[errors <= chosen * counts + _TOLERANCE].min(initial=np.inf)
        answered |= own & (confidence >= least)
    if not answered.any():
        return 0, None
    tallies = group_tallies(predictions, METRICS["f1_micro"], predictions.speakers, answered)[1]
    right, left_out = pooled_and_left_out(METRICS["f1_micro"].value, tallies)
    sizes = np.unique(predictions.speakers[answered], return_counts=True)[1]
    ends = score_interval(METRICS["f1_micro"], 1 - float(right), 1 - left_out, sizes)
    return int(answered.sum()), (1 - float(right), *ends)


def make_sets(predictions: Predictions, chosen: float) -> NDArray[np.bool_] | None:
    """Make sets of classes that miss the true class with at most a chosen probability.

    Gives whether each class is in the set of each utterance, shape (n, n_classes). A class is
    if ``1 - p`` is at most the quantile of ``1 - p`` of the true classes of the other people.
    Each of S people weighs 1 / S there, and the person itself counts as infinite: hierarchical
    conformal prediction. Lee, Barber, Willett (2023), Distribution-free inference with
    hierarchical data, arXiv 2306.06342. The most probable class is always in the set. None for
    an error below 1 / S, which no finite quantile keeps to.
    """
    names, who = np.unique(predictions.speakers, return_inverse=True)
    level = 1 - chosen - _TOLERANCE
    if level > 1 - 1 / len(names):
        return None
    distances = (1 - predictions.proba).round(12)
    true = distances[np.arange(len(who)), predictions.labels]
    order = np.argsort(true, kind="stable")
    weights = (1 / np.bincount(who))[who[order]]
    inside: NDArray[np.bool_] = np.eye(distances.shape[1], dtype=np.bool_)[
        distances.argmin(axis=1)
    ]
    for person in range(len(names)):
        mass = (weights * (who[order] != person)).cumsum() / len(names)
        own = who == person
        inside[own] |= distances[own] <= true[order][np.searchsorted(mass, level)]
    return inside
