"""Whether systems differ, with the speaker as the unit.

The predictions of whole speakers are swapped between two systems, in all ways or in many,
and the difference found is compared with the differences after swapping. McNemar's test and
others that take every utterance for a witness of its own call a third of equal systems
different.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal

import numpy as np

from toolkit.validation.intervals import jackknife_interval
from toolkit.validation.metrics import METRICS, Metric
from toolkit.validation.predictions import Predictions
from toolkit.validation.scores import group_tallies, pooled_and_left_out
from toolkit.validation.swapping import (
    SwapPatterns,
    max_t_p_values,
    nadeau_bengio_p_value,
    swap_p_value,
    swap_patterns,
)
from toolkit.validation.tallies import Floats

ALPHA: Final = 0.05
"""Adjusted p up to which a difference counts as shown."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems compared by one metric.

    Parameters
    ----------
    a, b : str
        Names of the systems.
    metric : str
        Key of :data:`~toolkit.validation.metrics.METRICS`.
    difference : float
        Pooled metric of `a` minus that of `b`; for losses, below 0 means that `a` is better.
    low, high : float or None
        95 % jackknife t interval of the difference; None with fewer than five units.
    p : float
        Two-sided p of the swap test on the pooled difference, for this pair alone.
    p_adjusted : float
        p adjusted for all pairs compared, by step-down max-T. Its statistic is Student's t
        over speakers, so it may lie on either side of `p`.
    p_nadeau_bengio : float or None
        p of the corrected resampled t test over folds: conservative, decides nothing. None
        with a single fold.
    smallest_p : float
        The smallest p that this number of units can give.
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
        return self.p_adjusted <= ALPHA


def compare_systems(
    systems: Sequence[Predictions],
    metric: str = "f1_micro",
    seed: int = 0,
    *,
    unit: Literal["speaker", "session"] = "speaker",
) -> list[Comparison]:
    """Compare all pairs of systems.

    Parameters
    ----------
    systems : sequence of Predictions
        At least two, of the same utterances in the same folds.
    metric : str, default="f1_micro"
        Key of :data:`~toolkit.validation.metrics.METRICS`; not ``"ece"``, which means
        nothing for a single speaker.
    seed : int, default=0
        Seed of the patterns where there are more than 16 units.
    unit : {"speaker", "session"}, default="speaker"
        What is swapped as a whole.

    Returns
    -------
    list of Comparison
        One a pair, in the order of `systems`.

    Raises
    ------
    ValueError
        If there are fewer than two systems, two have one name, they are not aligned, or the
        metric cannot be compared.
    """
    chosen, local = _comparable(metric)
    _check_systems(systems)
    tallies = [group_tallies(each, chosen, each.groups(unit))[1] for each in systems]
    left_out = [pooled_and_left_out(chosen.value, tally)[1] for tally in tallies]
    pooled = [chosen.compute(each.labels, each.proba, each.decided) for each in systems]
    folds = [local(group_tallies(each, chosen, each.fold_names())[1]) for each in systems]
    pairs = list(combinations(range(len(systems)), 2))
    patterns = swap_patterns(len(tallies[0]), seed)
    units = [local(tally) for tally in tallies]
    adjusted = max_t_p_values(
        np.stack([units[i] - units[j] for i, j in pairs], axis=1), patterns
    )
    width = chosen.high - chosen.low
    comparisons = []
    for (i, j), p_adjusted in zip(pairs, adjusted.tolist(), strict=True):
        difference = pooled[i] - pooled[j]
        low, high = jackknife_interval(
            difference, left_out[i] - left_out[j], low=-width, high=width
        )
        comparisons.append(
            Comparison(
                a=systems[i].system,
                b=systems[j].system,
                metric=metric,
                difference=difference,
                low=low,
                high=high,
                p=swap_p_value(chosen.value, tallies[i], tallies[j], patterns),
                p_adjusted=p_adjusted,
                p_nadeau_bengio=_resampled_p_value(folds[i] - folds[j]),
                smallest_p=patterns.smallest_p,
                method=_describe(patterns, unit, len(pairs)),
                n_speakers=len(np.unique(systems[i].speakers)),
            )
        )
    return comparisons


def _comparable(metric: str) -> tuple[Metric, Callable[[Floats], Floats]]:
    names = [name for name, each in METRICS.items() if each.local is not None]
    if metric not in names:
        raise ValueError(f"Systems cannot be compared by {metric!r}; choose among {names}.")
    chosen = METRICS[metric]
    return chosen, chosen.local or chosen.value


def _check_systems(systems: Sequence[Predictions]) -> None:
    names = [each.system for each in systems]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"Got systems {names}; expected two or more of different names.")
    for other in systems[1:]:
        systems[0].check_aligned(other)


def _resampled_p_value(differences: Floats) -> float | None:
    n_folds = len(differences)
    if n_folds < 2:
        return None
    # Folds that part the rows test, on average, 1 row for n_folds - 1 rows they train on.
    return nadeau_bengio_p_value(differences, 1 / (n_folds - 1))


def _describe(patterns: SwapPatterns, unit: str, n_pairs: int) -> str:
    how = ("exact swap", "patterns") if patterns.exact else ("swap", "seeded patterns")
    n_units = patterns.swapped.shape[1]
    method = f"{how[0]} over {n_units} {unit}s ({patterns.n_patterns} {how[1]})"
    method += f"; max-T over {n_pairs} pair{'s' * (n_pairs > 1)}"
    if patterns.smallest_p > ALPHA:
        method += f"; not decidable: p cannot fall below {patterns.smallest_p}"
    return method
