"""Tests for differences between systems, with the speaker as the exchangeable group.

The predictions of whole speakers are swapped between two systems, in all ways or in many, and
the observed difference is compared with the differences after swapping (a paired permutation
test). McNemar's test and others that treat every utterance as independent find differences in
a third of equal systems.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from toolkit.validation.folds import Grouping
from toolkit.validation.metrics import METRICS, Floats, ratio
from toolkit.validation.predictions import Predictions
from toolkit.validation.scores import group_tallies, jackknife_interval, pooled_and_left_out

# Up to this many groups all swaps are listed, beyond it some are drawn.
_MOST_EXACT: Final = 16
_N_SAMPLED: Final = 100_000
# Statistics this close are equal: sums in another order differ in their last bits.
_TOLERANCE: Final = 1e-12
# Numbers processed at a time, so that they stay in the cache.
_BLOCK: Final = 1 << 18
# Adjusted p up to which a difference counts as shown.
_ALPHA: Final = 0.05


@dataclass(frozen=True, slots=True)
class _SwapPatterns:
    """Masks of the swapped groups, shape (n_patterns, n_groups): all patterns, or a sample."""

    swapped: NDArray[np.bool_]
    exact: bool

    def p_values(self, counts: NDArray[np.int64]) -> Floats:
        """Turn counts of patterns at least as extreme into p-values.

        Phipson and Smyth (2010), Permutation p-values should never be zero, SAGMB 9(39).
        """
        # The observed assignment is one of all patterns, but not of a sample.
        observed = 0 if self.exact else 1
        return (counts + observed) / (len(self.swapped) + observed)

    @property
    def smallest_p(self) -> float:
        """The smallest p-value these patterns can give."""
        return 1 / (len(self.swapped) + (not self.exact))

    @property
    def n_patterns(self) -> int:
        """Number of patterns; of all patterns only one of each mirrored pair is kept."""
        return len(self.swapped) * (2 if self.exact else 1)


def swap_patterns(n_groups: int, seed: int = 0) -> _SwapPatterns:
    """List the ways of swapping two systems, or draw a sample of them where groups are many."""
    if n_groups > _MOST_EXACT:
        sample = np.random.default_rng(seed).random((_N_SAMPLED, n_groups)) < 0.5
        return _SwapPatterns(sample, exact=False)
    # A pattern and its mirror image give the same difference: half of them are enough.
    numbers = np.arange(2 ** (n_groups - 1))[:, None]
    return _SwapPatterns((numbers >> np.arange(n_groups)[::-1]) & 1 == 1, exact=True)


def permutation_p_value(
    value: Callable[[Floats], Floats], a: Floats, b: Floats, patterns: _SwapPatterns
) -> float:
    """Test the pooled difference of two systems by swapping groups between them.

    `a` and `b` are tallies of every group, shape (n_groups, ...); `value` is the metric of a
    tally.
    """
    total_a, total_b = a.sum(axis=0), b.sum(axis=0)
    found = np.abs(value(total_a) - value(total_b))
    count = 0
    for swapped in _blocks(patterns.swapped, total_a.size):
        moved = np.tensordot(swapped.astype(np.float64), b - a, axes=1)
        differences = np.abs(value(total_a + moved) - value(total_b - moved))
        count += int((differences >= found - _TOLERANCE).sum())
    return float(patterns.p_values(np.array(count)))


def max_t_p_values(differences: Floats, patterns: _SwapPatterns) -> Floats:
    """Adjust the tests of several differences for one another, by step-down max-T.

    The statistic of a column is Student's |mean| / (sd / sqrt n) over groups (0 where all
    differences are 0, infinite where they are equal). Every pattern flips all columns at once,
    which keeps their dependence. `differences` has shape (n_groups, n_pairs); rejecting the
    pairs with adjusted p up to .05 keeps the probability of any false rejection at .05.
    Westfall and Young (1993), Resampling-Based Multiple Testing, algorithm 4.1.
    """
    n_groups, n_pairs = differences.shape
    # share = n mean^2 / sum d^2 grows with t (t^2 = (n - 1) share / (1 - share)), lies in
    # [0, 1] where t may be infinite, and has a denominator that no flip changes.
    squares = n_groups * (differences**2).sum(axis=0)
    found = ratio(differences.sum(axis=0) ** 2, squares)
    order = np.argsort(-found, kind="stable")
    counts = np.zeros(n_pairs, dtype=np.int64)
    for swapped in _blocks(patterns.swapped, n_pairs):
        sums = (1.0 - 2.0 * swapped) @ differences[:, order]
        shares = ratio(sums**2, np.broadcast_to(squares[order], sums.shape))
        # Each column against the largest of itself and those found less extreme.
        largest = np.maximum.accumulate(shares[:, ::-1], axis=1)[:, ::-1]
        counts += (largest >= found[order] - _TOLERANCE).sum(axis=0)
    adjusted = np.empty(n_pairs)
    adjusted[order] = np.maximum.accumulate(patterns.p_values(counts))
    return adjusted


def _nadeau_bengio_p_value(differences: Floats, test_per_train: float) -> float:
    """Test differences of at least two folds by the corrected resampled t test.

    Nadeau and Bengio (2003), Inference for the generalization error, Machine Learning 52.
    """
    n = len(differences)
    variance = (1 / n + test_per_train) * float(differences.var(ddof=1))
    mean = abs(float(differences.mean()))
    if variance == 0:
        return 0.0 if mean > 0 else 1.0
    return float(2 * stdtr(n - 1, -mean / np.sqrt(variance)))


def _blocks(swapped: NDArray[np.bool_], width: int) -> Iterator[NDArray[np.bool_]]:
    step = max(1, _BLOCK // width)
    for start in range(0, len(swapped), step):
        yield swapped[start : start + step]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems compared by one metric.

    Parameters
    ----------
    a, b : str
        Names of the systems.
    metric : str
        Key of :data:`METRICS`.
    difference : float
        Pooled metric of `a` minus that of `b`; for losses, below 0 means that `a` is better.
    low, high : float or None
        95 % jackknife t interval of the difference; None with fewer than five groups.
    p : float
        Two-sided p of the swap test on the pooled difference, for this pair alone.
    p_adjusted : float
        p adjusted for all pairs compared, by step-down max-T. Its statistic is Student's t
        over speakers, so it may lie on either side of `p`.
    p_nadeau_bengio : float or None
        p of the corrected resampled t test over folds: conservative, decides nothing. None
        with a single fold.
    smallest_p : float
        The smallest p that this number of groups can give.
    method : str
        The tests in words, and "not decidable" where p cannot fall to .05.
    n_speakers : int
        Number of speakers.
    """

    a: str
    b: str
    metric: str
    difference: float
    low: float | None
    high: float | None
    p: float
    p_adjusted: float
    p_nadeau_bengio: float | None
    smallest_p: float
    method: str
    n_speakers: int

    @property
    def shows_difference(self) -> bool:
        """Whether a winner may be named: adjusted p at most .05."""
        return self.p_adjusted <= _ALPHA


def compare_systems(
    systems: Sequence[Predictions],
    metric: str = "f1_micro",
    seed: int = 0,
    *,
    grouping: Grouping = "speaker",
) -> list[Comparison]:
    """Compare all pairs of systems.

    Parameters
    ----------
    systems : sequence of Predictions
        At least two, of the same utterances in the same folds.
    metric : str, default="f1_micro"
        Key of :data:`METRICS`; not ``"ece"``, which has no meaning for a single speaker.
    seed : int, default=0
        Seed of the patterns where there are more than 16 groups.
    grouping : {"speaker", "session"}, default="speaker"
        Kind of group that is swapped as a whole.

    Returns
    -------
    list of Comparison
        One per pair, in the order of `systems`.

    Raises
    ------
    ValueError
        If there are fewer than two systems, two have one name, they are not aligned, or the
        metric cannot be compared.
    """
    chosen = METRICS.get(metric)
    if chosen is None or chosen.local is None:
        known = [name for name, each in METRICS.items() if each.local is not None]
        raise ValueError(f"Systems cannot be compared by {metric!r}; choose among {known}.")
    names = [each.system for each in systems]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"Got systems {names}; expected two or more of different names.")
    for other in systems[1:]:
        systems[0].check_aligned(other)
    tallies = [group_tallies(each, chosen, each.groups(grouping))[1] for each in systems]
    left_out = [pooled_and_left_out(chosen.value, tally)[1] for tally in tallies]
    pooled = [chosen.compute(each.labels, each.proba, each.y_pred) for each in systems]
    folds = [
        chosen.local(group_tallies(each, chosen, each.fold_names())[1]) for each in systems
    ]
    pairs = list(combinations(range(len(systems)), 2))
    patterns = swap_patterns(len(tallies[0]), seed)
    values = [chosen.local(tally) for tally in tallies]
    adjusted = max_t_p_values(
        np.stack([values[i] - values[j] for i, j in pairs], axis=1), patterns
    )
    width = chosen.high - chosen.low
    n_folds = len(folds[0])
    comparisons = []
    for (i, j), p_adjusted in zip(pairs, adjusted.tolist(), strict=True):
        difference = pooled[i] - pooled[j]
        low, high = jackknife_interval(
            difference, left_out[i] - left_out[j], low=-width, high=width
        )
        comparisons.append(
            Comparison(
                a=names[i],
                b=names[j],
                metric=metric,
                difference=difference,
                low=low,
                high=high,
                p=permutation_p_value(chosen.value, tallies[i], tallies[j], patterns),
                p_adjusted=p_adjusted,
                # Folds that part the rows test 1 row, on average, per n_folds - 1 trained on.
                p_nadeau_bengio=_nadeau_bengio_p_value(folds[i] - folds[j], 1 / (n_folds - 1))
                if n_folds > 1
                else None,
                smallest_p=patterns.smallest_p,
                method=_describe(patterns, grouping, len(pairs)),
                n_speakers=len(np.unique(systems[i].speakers)),
            )
        )
    return comparisons


def _describe(patterns: _SwapPatterns, grouping: Grouping, n_pairs: int) -> str:
    kind, noun = ("exact swap", "patterns") if patterns.exact else ("swap", "seeded patterns")
    n_groups = patterns.swapped.shape[1]
    method = f"{kind} over {n_groups} {grouping}s ({patterns.n_patterns} {noun})"
    method += f"; max-T over {n_pairs} pair{'s' * (n_pairs > 1)}"
    if patterns.smallest_p > _ALPHA:
        method += f"; not decidable: p cannot fall below {patterns.smallest_p}"
    return method
