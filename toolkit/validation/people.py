"""Groups of people compared, and predictions that may abstain: the unit is the person.

The gap between groups is tested by exchanging the groups of whole people. Prediction sets count
every person once, however many utterances there are of each.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import factorial, prod
from typing import Final

import numpy as np
from numpy.typing import NDArray

from toolkit.validation.metrics import METRICS, Floats, ratio
from toolkit.validation.predictions import Predictions
from toolkit.validation.scores import group_tallies, pooled_and_left_out, score_interval

_Codes = NDArray[np.int64]

# Up to this many ways of grouping the people all are listed, beyond it as many are drawn.
_MOST_WAYS: Final = 20_000
_BLOCK: Final = 2_000
# Sums in another order differ in their last bits.
_TOLERANCE: Final = 1e-9
# A column of numbers with more values than this is cut into bins.
_MOST_VALUES: Final = 5
_BIN_SIZE, _MOST_BINS = 5, 4


@dataclass(frozen=True, slots=True)
class GroupScore:
    """The score of a group of people; the largest gap of its column where `group` is empty.

    - column, group: Header of the table, and its value or bin.
    - value, low, high: Pooled score with its jackknife interval; a gap has none.
    - baseline: The same score of the better baseline.
    - n_people, n: People and utterances of the group, or in the gap.
    - lowest, highest: People with the lowest and the highest score; groups of a gap.
    - p, p_adjusted: Permutation test of the gap, and adjusted by Holm over the columns.
    - smallest_p: The smallest p that these people can give.
    """

    system: str
    metric: str
    column: str
    group: str
    value: float
    low: float | None
    high: float | None
    baseline: float | None
    n_people: int
    n: int
    lowest: str
    highest: str
    p: float | None = None
    p_adjusted: float | None = None
    smallest_p: float | None = None
    method: str = "pooled, jackknife t over people"

    @property
    def shows_gap(self) -> bool:
        """Whether a gap may be named: adjusted p at most .05."""
        return self.p_adjusted is not None and self.p_adjusted <= 0.05


def _make_groups(values: Sequence[str]) -> tuple[list[str], _Codes]:
    """Group people by a value of each: names of the groups, and the group of each person.

    A person without a value has -1. Numbers of more than five values are cut at quantiles of
    the people, into two to four bins: as many as hold five people each.

    Examples
    --------
    >>> _make_groups(["f", "m", ""])
    (['f', 'm'], array([ 0,  1, -1]))
    >>> _make_groups(["21", "25", "30", "34", "41", "60"])[0]
    ['21 to 30', '34 to 60']
    """
    codes = np.full(len(values), -1, dtype=np.int64)
    given = np.array([value != "" for value in values], dtype=np.bool_)
    cells = [value for value in values if value]
    try:
        numbers = np.array(cells, dtype=np.float64)
    except ValueError:
        numbers = np.full(1, np.nan)
    if not np.isfinite(numbers).all():
        names, codes[given] = np.unique(cells, return_inverse=True)
        return names.tolist(), codes
    found = np.unique(numbers)
    if len(found) > _MOST_VALUES:
        n_bins = max(2, min(_MOST_BINS, len(numbers) // _BIN_SIZE))
        found = np.unique(np.quantile(numbers, np.arange(1, n_bins) / n_bins))
    # Again, since equal numbers may leave a bin without people.
    bins, codes[given] = np.unique(np.searchsorted(found, numbers), return_inverse=True)
    inside = [numbers[codes[given] == bin_number] for bin_number in range(len(bins))]
    ends = [(f"{part.min():.15g}", f"{part.max():.15g}") for part in inside]
    return [low if low == high else f"{low} to {high}" for low, high in ends], codes


def score_groups(
    predictions: Predictions,
    baseline: Predictions,
    traits: Mapping[str, Mapping[str, str]],
    metric: str,
    seed: int = 0,
) -> list[GroupScore]:
    """Score the groups of every column, and test the largest gap between two of them.

    The null hypothesis is that people are exchangeable between groups, with all that belongs
    to them: labels, predictions and number of utterances. A group of one person is in no gap.

    - traits: Column to the value of each speaker, empty where there is none.
    """
    chosen = METRICS[metric]
    value = chosen.local or chosen.value
    names, tallies = group_tallies(predictions, chosen, predictions.speakers)
    base = group_tallies(baseline, chosen, baseline.speakers)[1]
    sizes = np.unique(predictions.speakers, return_counts=True)[1]
    each = value(tallies)
    scores: dict[str, list[GroupScore]] = {}
    gaps: list[GroupScore] = []
    for column, values in traits.items():
        groups, codes = _make_groups([values[name] for name in names])
        scores[column] = []
        for code, group in enumerate(groups):
            who = np.flatnonzero(codes == code)
            score, left_out = pooled_and_left_out(value, tallies[who])
            ends = score_interval(chosen, float(score), left_out, sizes[who])
            about = (predictions.system, metric, column, group, float(score), *ends)
            counts = (float(value(base[who].sum(axis=0))), len(who), int(sizes[who].sum()))
            people = (names[who[each[who].argmin()]], names[who[each[who].argmax()]])
            scores[column].append(GroupScore(*about, *counts, *people))
        if gap := _test_gap(scores[column], codes, tallies, value, seed):
            gaps.append(gap)
    adjusted = 0.0
    for rank, gap in enumerate(sorted(gaps, key=lambda gap: gap.p or 0.0)):
        adjusted = max(adjusted, min(1.0, (len(gaps) - rank) * (gap.p or 0.0)))
        scores[gap.column].append(replace(gap, p_adjusted=adjusted))
    return [score for found in scores.values() for score in found]


def _test_gap(
    groups: Sequence[GroupScore],
    codes: _Codes,
    tallies: Floats,
    value: Callable[[Floats], Floats],
    seed: int,
) -> GroupScore | None:
    """Test the largest difference of two group scores; None with fewer than two groups."""
    kept = [at for at, group in enumerate(groups) if group.n_people > 1]
    if len(kept) < 2:
        return None
    tested = np.isin(codes, kept)
    labels, tallies = np.searchsorted(kept, codes[tested]), tallies[tested]
    sizes = np.bincount(labels)
    n_ways = factorial(len(labels)) // prod(map(factorial, sizes.tolist()))
    exact = n_ways <= _MOST_WAYS
    found = float(_find_gaps(labels[np.newaxis], tallies, value)[0])
    # The observed groups are one of all ways, but not of a sample.
    count, total = (0, n_ways) if exact else (1, _MOST_WAYS + 1)
    for block in _list_ways(labels, seed, exact=exact):
        count += int((_find_gaps(block, tallies, value) >= found - _TOLERANCE).sum())
    # Groups of one size may exchange their names: the gap stays.
    alike = prod(map(factorial, np.unique(sizes, return_counts=True)[1].tolist()))
    smallest = max(alike / n_ways, 1 / total)
    ends = sorted((groups[at] for at in kept), key=lambda group: group.value)
    method = f"{'exact' if exact else 'seeded'} permutation of people, {total:,} ways"
    return replace(
        groups[0],
        group="",
        value=found,
        low=None,
        high=None,
        baseline=None,
        n_people=len(labels),
        n=sum(group.n for group in ends),
        lowest=ends[0].group,
        highest=ends[-1].group,
        p=count / total,
        smallest_p=smallest,
        method=method + ("; not decidable" if smallest > 0.05 else ""),
    )


def _list_ways(labels: _Codes, seed: int, *, exact: bool) -> Iterator[_Codes]:
    """List all ways of giving people these groups, or draw some, block by block."""
    if exact:
        ways = np.array(list(_all_ways(np.bincount(labels).tolist())))
        yield from np.array_split(ways, -(-len(ways) // _BLOCK))
        return
    rng = np.random.default_rng(seed)
    for _ in range(_MOST_WAYS // _BLOCK):
        yield rng.permuted(np.tile(labels, (_BLOCK, 1)), axis=1)


def _all_ways(sizes: list[int]) -> Iterator[tuple[int, ...]]:
    """List every order of as many labels as the groups have people."""
    if not any(sizes):
        yield ()
    for group, size in enumerate(sizes):
        if size:
            rest = [*sizes[:group], size - 1, *sizes[group + 1 :]]
            yield from ((group, *others) for others in _all_ways(rest))


def _find_gaps(ways: _Codes, tallies: Floats, value: Callable[[Floats], Floats]) -> Floats:
    """Compute the largest difference of two group scores, for every row of labels."""
    groups = range(int(ways[0].max()) + 1)
    masks = [(ways == group).astype(np.float64) for group in groups]
    values = [value(np.tensordot(mask, tallies, axes=1)) for mask in masks]
    return np.asarray(np.max(values, axis=0) - np.min(values, axis=0))


def risk_curve(predictions: Predictions) -> Floats:
    """Compute the error among the k most confident utterances, for k from 1 to n.

    The confidence is the largest probability; utterances of one confidence count as in the
    mean over all their orders.
    """
    return _find_risks(*_rank(predictions))


def _rank(predictions: Predictions) -> tuple[Floats, Floats]:
    """Give confidence and error of every utterance."""
    wrong = predictions.y_pred != predictions.labels
    return predictions.proba.max(axis=1).round(12), wrong.astype(np.float64)


def _find_risks(confidence: Floats, wrong: Floats) -> Floats:
    order = np.argsort(-confidence, kind="stable")
    ends = _find_ends(confidence[order])
    counts = np.arange(1, len(order) + 1)
    errors = np.interp(counts, [0, *ends], [0, *wrong[order].cumsum()[ends - 1]])
    return np.asarray(errors / counts)


def _find_ends(ranked: Floats) -> _Codes:
    """Count the utterances down to the last of each confidence."""
    return np.flatnonzero(np.diff(ranked, append=-np.inf)) + 1


def score_risk(predictions: Predictions) -> tuple[float, float | None, float | None, float]:
    """Compute the area under the risk-coverage curve, its interval, and the least possible.

    The area is the mean of :func:`risk_curve`: Geifman, Uziel, El-Yaniv (2019), Bias-reduced
    uncertainty estimation for deep neural classifiers, ICLR, section 2. The interval is the
    jackknife over people. The least is the area with all right utterances first.
    """
    confidence, wrong = _rank(predictions)
    area = float(_find_risks(confidence, wrong).mean())
    names, sizes = np.unique(predictions.speakers, return_counts=True)
    rest = [predictions.speakers != name for name in names] if len(names) > 1 else []
    left_out = [float(_find_risks(confidence[kept], wrong[kept]).mean()) for kept in rest]
    ends = score_interval(METRICS["f1_micro"], area, np.array(left_out or [area]), sizes)
    return area, *ends, float(_find_risks(-wrong, wrong).mean())


def choose_answers(
    predictions: Predictions, chosen: float
) -> tuple[float, float, tuple[float, float | None, float | None] | None]:
    """Answer where the confidence is at least that at which the error keeps to a chosen one.

    Gives the share that is answered in hindsight, the share where the threshold of a person
    comes from the other people, and the error of the second with its interval; None where no
    utterance is answered.
    """
    confidence, wrong = _rank(predictions)
    answered = np.zeros(len(confidence), dtype=np.bool_)
    for name in np.unique(predictions.speakers):
        own = predictions.speakers == name
        answered[own] = confidence[own] >= _find_threshold(
            confidence[~own], wrong[~own], chosen
        )
    hindsight = float((confidence >= _find_threshold(confidence, wrong, chosen)).mean())
    if not answered.any():
        return hindsight, 0.0, None
    who = np.unique(predictions.speakers[answered], return_inverse=True)[1]
    counts = np.stack([np.bincount(who, wrong[answered]), 1.0 * np.bincount(who)], axis=1)
    error, left_out = pooled_and_left_out(
        lambda sums: ratio(sums[..., 0], sums[..., 1]), counts
    )
    ends = score_interval(METRICS["f1_micro"], float(error), left_out, counts[:, 1])
    return hindsight, float(answered.mean()), (float(error), *ends)


def _find_threshold(confidence: Floats, wrong: Floats, chosen: float) -> float:
    """Find the lowest confidence down to which the error keeps to the chosen one."""
    order = np.argsort(-confidence, kind="stable")
    ends = _find_ends(confidence[order])
    kept = ends[wrong[order].cumsum()[ends - 1] <= chosen * ends + _TOLERANCE]
    return float(confidence[order][kept[-1] - 1]) if len(kept) else np.inf


@dataclass(frozen=True, slots=True, eq=False)
class PredictionSets:
    """Sets of classes that miss the true class with at most a chosen probability.

    - inside: Whether each class is in the set of each utterance, shape (n, n_classes).
    - coverage: Share of each person's utterances whose set holds the true class.
    - needed: Probability that a class needs to be in the set of a new person.
    """

    inside: NDArray[np.bool_]
    coverage: Mapping[str, float]
    needed: float


def make_sets(predictions: Predictions, chosen: float) -> PredictionSets | None:
    """Make prediction sets, calibrated for every person by all others.

    A class is in the set if ``1 - p`` is at most the quantile of ``1 - p`` of the true classes
    of the other people. Each of S people weighs 1 / S there, and the person itself counts as
    infinite: hierarchical conformal prediction. Lee, Barber, Willett (2023), Distribution-free
    inference with hierarchical data, arXiv 2306.06342. The most probable class is always in
    the set. None for an error below 1 / S, which no finite quantile keeps to.
    """
    names, who = np.unique(predictions.speakers, return_inverse=True)
    rows, level = np.arange(len(who)), 1 - chosen - _TOLERANCE
    if level > 1 - 1 / len(names):
        return None
    distances = (1 - predictions.proba).round(12)
    true = distances[rows, predictions.labels]
    order = np.argsort(true, kind="stable")
    weights = (1 / np.bincount(who))[who[order]]
    inside = np.eye(distances.shape[1], dtype=np.bool_)[distances.argmin(axis=1)]
    for person in range(len(names)):
        mass = (weights * (who[order] != person)).cumsum() / len(names)
        own = who == person
        inside[own] |= distances[own] <= true[order][np.searchsorted(mass, level)]
    coverage = np.bincount(who, inside[rows, predictions.labels]) / np.bincount(who)
    at = np.searchsorted(weights.cumsum() / (len(names) + 1), level)
    rates = dict(zip(names.tolist(), coverage.tolist(), strict=True))
    return PredictionSets(inside, rates, float(1 - true[order][at]))
