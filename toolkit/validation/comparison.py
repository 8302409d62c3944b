"""Tests for differences between systems, with the speaker as the exchangeable group.

The predictions of whole speakers are swapped between two systems, in all ways or in many, and
the observed difference is compared with the differences after swapping (a paired permutation
test). McNemar's test and others that treat every utterance as independent find differences in
a third of equal systems.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, combinations
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from toolkit.systems import BEST_SINGLE, MAJORITY, NO_INFORMATION, System, logistic_name
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
ALPHA: Final = 0.05


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


def swap_patterns(n_groups: int, seed: int = 0) -> _SwapPatterns:
    """List the ways of swapping two systems, or draw a sample of them where groups are many."""
    if n_groups > _MOST_EXACT:
        sample = np.random.default_rng(seed).random((_N_SAMPLED, n_groups)) < 0.5
        return _SwapPatterns(sample, exact=False)
    # A pattern and its mirror image give the same difference: half of them are enough.
    numbers = np.arange(2 ** (n_groups - 1))[:, None]
    return _SwapPatterns((numbers >> np.arange(n_groups)[::-1]) & 1 == 1, exact=True)


@dataclass(frozen=True, slots=True, eq=False)
class Contrast:
    """Two conditions to be compared: a tally per group of each, and the metric of their sums.

    - value: Of tallies ``(..., *shape)``, shape ``(...)``.
    - a, b: Shape (n_groups, *shape); an array in several contrasts is summed once.
    """

    value: Callable[[Floats], Floats]
    a: Floats
    b: Floats


def swap_p_values(
    contrasts: Sequence[Contrast], patterns: _SwapPatterns
) -> tuple[Floats, Floats]:
    """Test pooled differences by swapping groups between the two conditions of each.

    Gives the p of every contrast alone, and the p adjusted for the others by step-down max-T:
    both count the patterns whose difference is as large as the one found. For max-T a
    difference is divided by its root mean square over the patterns. No pattern changes that
    scale, so the test stays exact, and the adjusted p is never below the other. Rejecting at
    adjusted p <= .05 keeps the probability of any false rejection at .05.
    Westfall and Young (1993), Resampling-Based Multiple Testing, algorithm 4.1.
    """
    unswapped = np.zeros((1, patterns.swapped.shape[1]), dtype=np.bool_)
    found = _swapped_differences(contrasts, unswapped)[0]
    # The observed assignment is one of all patterns, but it is added to a sample.
    squares = np.zeros(len(contrasts)) if patterns.exact else found**2
    n_tallied = sum(array.size // len(array) for array in _distinct_tallies(contrasts).values())
    # No contrast at all has no width.
    step = max(1, _BLOCK // max(1, n_tallied + len(contrasts)))
    starts = range(0, len(patterns.swapped), step)
    blocks = [patterns.swapped[start : start + step] for start in starts]
    for swapped in blocks:
        squares += (_swapped_differences(contrasts, swapped) ** 2).sum(axis=0)
    n_patterns = len(patterns.swapped) + (not patterns.exact)
    scale = np.sqrt(squares / n_patterns)
    # Differences of rounding alone would else be ranked first, and their p handed down to all.
    scale[scale <= _TOLERANCE] = 0
    least = ratio(found - _TOLERANCE, scale)
    order = np.argsort(-ratio(found, scale), kind="stable")
    alone = np.zeros(len(contrasts), dtype=np.int64)
    together = np.zeros(len(contrasts), dtype=np.int64)
    for swapped in blocks:
        differences = _swapped_differences(contrasts, swapped)
        statistics = ratio(differences, np.broadcast_to(scale, differences.shape))
        alone += (statistics >= least).sum(axis=0)
        # Each contrast against the largest of itself and those found less extreme.
        largest = np.maximum.accumulate(statistics[:, order[::-1]], axis=1)[:, ::-1]
        together += (largest >= least[order]).sum(axis=0)
    adjusted = np.empty(len(contrasts))
    adjusted[order] = np.maximum.accumulate(patterns.p_values(together))
    return patterns.p_values(alone), adjusted


def _distinct_tallies(contrasts: Sequence[Contrast]) -> dict[int, Floats]:
    return {id(tally): tally for each in contrasts for tally in (each.a, each.b)}


def _swapped_differences(contrasts: Sequence[Contrast], swapped: NDArray[np.bool_]) -> Floats:
    """Compute the absolute differences after swaps: shape (n_patterns, n_contrasts)."""
    masks = swapped.astype(np.float64)
    moved = {
        key: np.tensordot(masks, tally, axes=1)
        for key, tally in _distinct_tallies(contrasts).items()
    }
    differences = np.empty((len(swapped), len(contrasts)))
    for column, each in enumerate(contrasts):
        shift = moved[id(each.b)] - moved[id(each.a)]
        a, b = each.a.sum(axis=0) + shift, each.b.sum(axis=0) - shift
        differences[:, column] = np.abs(each.value(a) - each.value(b))
    return differences


def _nadeau_bengio_p_value(differences: Floats) -> float | None:
    """Test differences of folds by the corrected resampled t test; None for a single fold.

    Nadeau and Bengio (2003), Inference for the generalization error, Machine Learning 52.
    """
    n = len(differences)
    if n == 1:
        return None
    # Folds that part the rows test 1 row, on average, per n - 1 trained on.
    variance = (1 / n + 1 / (n - 1)) * float(differences.var(ddof=1))
    mean = abs(float(differences.mean()))
    if variance == 0:
        return 0.0 if mean > 0 else 1.0
    return float(2 * stdtr(n - 1, -mean / np.sqrt(variance)))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems compared by one metric.

    Parameters
    ----------
    family : str
        ``"confirmatory"`` or ``"all pairs"``: the comparisons that were adjusted together; or
        ``"by COLUMN"``: two groups of people of one system, adjusted over the columns.
    a, b : str
        Names of the systems, or of the groups.
    metric : str
    difference : float
        Pooled metric of `a` minus that of `b`; for losses, below 0 means that `a` is better.
    low, high : float or None
        95 % jackknife t interval of the difference; None with fewer than five groups.
    p : float
        Two-sided p of the swap test on the difference, for this pair alone.
    p_adjusted : float
        Adjusted for all pairs of the family, by step-down max-T: never below `p`.
    p_nadeau_bengio : float or None
        p of the corrected resampled t test over folds: conservative, decides nothing. None
        with a single fold, and where people are tested in several.
    smallest_p : float
        The smallest p that this number of groups can give.
    method : str
        The tests in words, and "not decidable" where p cannot fall to .05.
    n_speakers : int
    """

    family: str
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
        return self.p_adjusted <= ALPHA


def _confirmatory_pairs(
    systems: Sequence[Predictions], modalities: Sequence[str], metric: str
) -> list[tuple[str, str]]:
    """List the few comparisons that a study is made for.

    Each modality and fusion with the better of both baselines, each searched system with its
    logistic regression, and each fusion with ``best-single``, where both are in `systems`.
    `modalities` names the systems of one modality.
    """
    by_name = {each.system: each for each in systems}
    members = [name for name in by_name if System.parse(name).is_asked]
    baseline = better_baseline(by_name, metric).system
    pairs = [(name, baseline) for name in members]
    pairs += [(name, logistic_name(name)) for name in members]
    pairs += [(name, BEST_SINGLE) for name in members if name not in modalities]
    return [pair for pair in pairs if pair[1] in by_name]


def no_information_predictions(majority: Predictions) -> Predictions:
    """Predict one class for every tested row: the largest class among the tested rows.

    Parameters
    ----------
    majority : Predictions
        Predictions of the tested rows; their labels alone are read.

    Returns
    -------
    Predictions
        Of the system ``no-information``; its probabilities are the class shares of the tested
        rows, and the lowest of equally large classes is predicted.

    Notes
    -----
    Holding people out makes the largest class of the training rows rarer among the tested
    ones, so ``majority`` may score below a constant answer. This constant is chosen in
    hindsight: no other is right more often.
    """
    shares = np.bincount(majority.labels, minlength=len(majority.classes)) / len(majority)
    return replace(
        majority,
        system=NO_INFORMATION,
        proba=np.tile(shares, (len(majority), 1)),
        y_pred=np.full(len(majority), shares.argmax()),
    )


def better_baseline(systems: Mapping[str, Predictions], metric: str) -> Predictions:
    """Choose the better of ``majority`` and ``no-information``; if equal, the latter."""
    chosen = METRICS[metric]
    majority = systems[MAJORITY]
    constant = no_information_predictions(majority)
    rates = [
        chosen.compute(each.labels, each.proba, each.y_pred) for each in (constant, majority)
    ]
    best = max(rates) if chosen.direction == "maximize" else min(rates)
    return constant if rates[0] == best else majority


def compare_families(
    systems: Sequence[Predictions],
    modalities: Sequence[str],
    metric: str = "f1_micro",
    seed: int = 0,
    repeated: Mapping[str, Sequence[Predictions]] = MappingProxyType({}),
) -> list[Comparison]:
    """Compare the pairs of the confirmatory family, then all pairs as a family of their own.

    Arguments are those of :func:`_confirmatory_pairs` and :func:`compare_systems`. A pair of
    both families has two comparisons, which differ in the adjusted p.
    """
    pairs = _confirmatory_pairs(systems, modalities, metric)
    compare = partial(compare_systems, systems, metric, seed, repeated=repeated)
    return [*(compare(pairs=pairs) if pairs else []), *compare()]


def compare_systems(
    systems: Sequence[Predictions],
    metric: str = "f1_micro",
    seed: int = 0,
    *,
    grouping: Grouping = "speaker",
    pairs: Sequence[tuple[str, str]] | None = None,
    repeated: Mapping[str, Sequence[Predictions]] = MappingProxyType({}),
) -> list[Comparison]:
    """Compare systems in pairs.

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
    pairs : sequence of tuple of str, optional
        Names of the systems to be compared, a confirmatory family chosen before the results
        were seen; by default all pairs.
    repeated : mapping of str to sequence of Predictions, optional
        Systems to their predictions under every seed, the same number for each. The metric of
        such a system is the mean over seeds, and a swap exchanges whole speakers under all
        seeds together; a system that is not repeated counts with its predictions under each.

    Returns
    -------
    list of Comparison
        One per pair, in the order of `pairs` or of `systems`.

    Raises
    ------
    ValueError
        If there are fewer than two systems, two have one name, a pair names another, they are
        not aligned, the numbers of seeds differ, or the metric cannot be compared.
    """
    chosen = METRICS.get(metric)
    if chosen is None or chosen.local is None:
        known = [name for name, each in METRICS.items() if each.local is not None]
        raise ValueError(f"Systems cannot be compared by {metric!r}; choose among {known}.")
    value, local = chosen.value, chosen.local
    names = [each.system for each in systems]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"Got systems {names}; expected two or more of different names.")
    every = {each.system: repeated.get(each.system, [each]) for each in systems}
    for other in chain.from_iterable(every.values()):
        systems[0].check_aligned(other)
    n_seeds = max(map(len, every.values()))
    if odd := [name for name, tables in every.items() if len(tables) not in (1, n_seeds)]:
        raise ValueError(f"{odd[0]!r} has {len(every[odd[0]])} seeds; expected {n_seeds}.")
    family = "all pairs" if pairs is None else "confirmatory"
    chosen_pairs = list(combinations(names, 2)) if pairs is None else list(pairs)
    if unknown := sorted({name for pair in chosen_pairs for name in pair} - set(names)):
        raise ValueError(f"No system is named {unknown[0]!r}; expected pairs of {names}.")
    tallies = {
        name: [group_tallies(each, chosen, each.groups(grouping))[1] for each in tables]
        for name, tables in every.items()
    }
    units = systems[0].groups(grouping)
    sizes = np.unique(units, return_counts=True)[1]
    # The corrected t test takes n folds that train on n - 1 parts of n: not with +content.
    crossed = len({*zip(units.tolist(), systems[0].folds.tolist(), strict=True)}) > len(sizes)
    left_out = _average(tallies, lambda t: pooled_and_left_out(value, t)[1])
    pooled = _average(every, lambda t: chosen.compute(t.labels, t.proba, t.y_pred))
    folds = _average(every, lambda t: local(group_tallies(t, chosen, t.fold_names())[1]))
    patterns = swap_patterns(len(sizes), seed)
    # A single seed, axis 1, is compared with each of several.
    stacked = {name: np.stack(found, axis=1) for name, found in tallies.items()}
    mean = _mean_over_seeds(value)
    contrasts = [Contrast(mean, stacked[a], stacked[b]) for a, b in chosen_pairs]
    alone, adjusted = swap_p_values(contrasts, patterns)
    width = chosen.high - chosen.low
    comparisons = []
    for (a, b), p, p_adjusted in zip(
        chosen_pairs, alone.tolist(), adjusted.tolist(), strict=True
    ):
        difference = float(pooled[a] - pooled[b])
        low, high = jackknife_interval(
            difference, left_out[a] - left_out[b], sizes, low=-width, high=width
        )
        over_folds = None if crossed else _nadeau_bengio_p_value(folds[a] - folds[b])
        comparisons.append(
            Comparison(
                family=family,
                a=a,
                b=b,
                metric=metric,
                difference=difference,
                low=low,
                high=high,
                p=p,
                p_adjusted=p_adjusted,
                p_nadeau_bengio=over_folds,
                smallest_p=patterns.smallest_p,
                method=_describe(
                    patterns, grouping, len(chosen_pairs), max(len(every[a]), len(every[b]))
                ),
                n_speakers=len(np.unique(systems[0].speakers)),
            )
        )
    return comparisons


def _average(
    of_systems: Mapping[str, Sequence[Any]], measure: Callable[[Any], Any]
) -> dict[str, Floats]:
    """Average a measure of every system over its seeds."""
    return {
        name: np.mean([measure(each) for each in found], axis=0)
        for name, found in of_systems.items()
    }


def _mean_over_seeds(value: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    """Average a metric over seeds, the axis before those of a tally."""
    return lambda tallies: np.asarray(value(tallies).mean(axis=-1))


def _describe(patterns: _SwapPatterns, grouping: Grouping, n_pairs: int, n_seeds: int) -> str:
    n_patterns, n_groups = patterns.swapped.shape
    # Of all patterns only one of each mirrored pair is kept.
    method = f"exact swap over {n_groups} {grouping}s ({2 * n_patterns} patterns)"
    if not patterns.exact:
        method = f"swap over {n_groups} {grouping}s ({n_patterns} seeded patterns)"
    method += f"; max-T over {n_pairs} pair{'s' * (n_pairs > 1)}"
    if patterns.smallest_p > ALPHA:
        method += f"; not decidable: p cannot fall below {patterns.smallest_p}"
    return method + (f"; mean over {n_seeds} seeds" if n_seeds > 1 else "")
