"""What a split that leaks adds to a score: the leakage premium.

One cheap configuration, the same for all, is fitted under several splits. A random split puts
utterances of one person on both sides: what it scores above a split that holds people out is
the premium it would have been paid for knowing the speaker. A split by speakers leaves the
partner of a dialogue in training, and with it the topic, the room and the equipment: what that
is worth is measured against leaving out somebody else instead, so that both learn from as many
people. The random split exists here alone, and carries its label in its name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from toolkit.validation.intervals import FEWEST_UNITS, jackknife_interval
from toolkit.validation.metrics import METRICS
from toolkit.validation.scores import group_tallies, pooled_and_left_out
from toolkit.validation.swapping import max_t_p_values, swap_p_value, swap_patterns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from toolkit.validation.metrics import Metric
    from toolkit.validation.predictions import Predictions
    from toolkit.validation.tallies import Floats


@dataclass(frozen=True, slots=True)
class PremiumScore:
    """A score of one split, or a difference of two, as mean over the seeds.

    Parameters
    ----------
    modality : str
        What was seen.
    metric : str
        Key of :data:`toolkit.validation.METRICS`.
    quantity : str
        ``"score"``, ``"speaker premium"``, ``"session premium"`` or ``"partner premium"``.
    split, against : str
        The split; of a premium, the split whose score was taken away.
    scope, group : str
        ``"all"`` and nothing, or ``"speaker"`` and who it is.
    value : float
        The number.
    low, high : float or None
        95 % interval over speakers, where there is one.
    low_sessions, high_sessions : float or None
        The same over sessions, where the recordings have enough of them: partners of a
        dialogue resemble one another, and an interval over speakers takes them for two.
    p, p_adjusted : float or None
        Of a premium: two-sided p of swapping whole speakers between the splits, alone and
        adjusted for all premiums of the modality.
    sd_seeds : float
        Standard deviation (ddof 1) over the seeds.
    method : str
        What value and interval are.
    n_utterances : int
        Utterances behind the number.
    """

    modality: str
    metric: str
    quantity: str
    split: str
    against: str
    scope: str
    group: str
    value: float
    low: float | None
    high: float | None
    low_sessions: float | None
    high_sessions: float | None
    p: float | None
    p_adjusted: float | None
    sd_seeds: float
    method: str
    n_utterances: int


def compute_premium(
    predictions: Mapping[str, Sequence[tuple[Predictions, Predictions]]],
    *,
    modality: str,
    metric: str,
) -> list[PremiumScore]:
    """Score every split, and take the scores of each pair away from one another.

    Parameters
    ----------
    predictions : mapping of str to sequence of tuple
        Quantity to the predictions of the lenient and of the strict split, one pair a seed.
    modality : str
        What was seen.
    metric : str
        Key of :data:`toolkit.validation.METRICS` that speakers can be compared by.

    Returns
    -------
    list of PremiumScore
        Scores of the splits, pooled and a speaker; then the premiums, pooled and a speaker:
        how much better the lenient split looks, so above 0 also where smaller values of the
        metric are better.
    """
    chosen = METRICS[metric]
    sides = {
        quantity: (
            _measure([lenient for lenient, _ in pairs], chosen),
            _measure([strict for _, strict in pairs], chosen),
        )
        for quantity, pairs in predictions.items()
    }
    measured = {side.name: side for pair in sides.values() for side in pair}
    scores = []
    for side in measured.values():
        scores += _list_scores(side, modality, metric, ("score", side.name, ""))
    differences = [_subtract(a, b, chosen) for a, b in sides.values()]
    adjusted = _adjust(differences)
    for quantity, difference, p_adjusted in zip(sides, differences, adjusted, strict=True):
        lenient, strict = sides[quantity]
        p = swap_p_value(
            lambda tallies: chosen.value(tallies).mean(axis=-1),
            lenient.tallies,
            strict.tallies,
            swap_patterns(len(difference.speakers)),
        )
        what = (quantity, lenient.name, strict.name)
        scores += _list_scores(difference, modality, metric, what, (p, p_adjusted))
    return scores


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """A metric of one split, or a difference of two: axes are speakers, then seeds."""

    name: str
    speakers: list[str]
    sizes: list[int]
    tallies: Floats
    pooled: Floats
    left_out: Floats
    sessions_left_out: Floats | None
    local: Floats
    reach: tuple[float, float]


def _measure(seeds: Sequence[Predictions], metric: Metric) -> _Measured:
    speakers, sizes = np.unique(seeds[0].speakers, return_counts=True)
    tallies = np.stack([group_tallies(e, metric, e.speakers)[1] for e in seeds], axis=1)
    pooled, left_out = pooled_and_left_out(metric.value, tallies)
    sessions_left_out = None
    if seeds[0].sessions is not None:
        by_session = [group_tallies(e, metric, e.groups("session"))[1] for e in seeds]
        _, sessions_left_out = pooled_and_left_out(metric.value, np.stack(by_session, axis=1))
    return _Measured(
        name=seeds[0].system,
        speakers=speakers.tolist(),
        sizes=sizes.tolist(),
        tallies=tallies,
        pooled=pooled,
        left_out=left_out,
        sessions_left_out=sessions_left_out,
        local=(metric.local or metric.value)(tallies),
        reach=(metric.low, metric.high),
    )


def _subtract(lenient: _Measured, strict: _Measured, metric: Metric) -> _Measured:
    if (lenient.speakers, lenient.sizes) != (strict.speakers, strict.sizes):
        raise ValueError(
            f"{lenient.name!r} and {strict.name!r} tested different utterances; expected "
            "splits of one pair."
        )
    sign = 1 if metric.direction == "maximize" else -1
    width = metric.high - metric.low
    return replace(
        lenient,
        pooled=sign * (lenient.pooled - strict.pooled),
        left_out=sign * (lenient.left_out - strict.left_out),
        sessions_left_out=None
        if lenient.sessions_left_out is None or strict.sessions_left_out is None
        else sign * (lenient.sessions_left_out - strict.sessions_left_out),
        local=sign * (lenient.local - strict.local),
        reach=(-width, width),
    )


def _list_scores(
    measured: _Measured,
    modality: str,
    metric: str,
    what: tuple[str, str, str],
    p_values: tuple[float | None, float | None] = (None, None),
) -> list[PremiumScore]:
    quantity, split, against = what

    def make(scope: str, group: str, values: Floats, method: str, n: int) -> PremiumScore:
        deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        return PremiumScore(
            modality=modality,
            metric=metric,
            quantity=quantity,
            split=split,
            against=against,
            scope=scope,
            group=group,
            value=float(values.mean()),
            low=None,
            high=None,
            low_sessions=None,
            high_sessions=None,
            p=None,
            p_adjusted=None,
            sd_seeds=deviation,
            method=f"{method}; mean of {len(values)} seeds",
            n_utterances=n,
        )

    n = len(measured.speakers)
    none = f": no interval below {FEWEST_UNITS}" if n < FEWEST_UNITS else ""
    method = f"speaker jackknife t ({n} speakers{none})"
    pooled = make("all", "", measured.pooled, method, sum(measured.sizes))

    def interval(left_out: Floats | None) -> tuple[float | None, float | None]:
        if left_out is None:
            return None, None
        least, most = measured.reach
        return jackknife_interval(pooled.value, left_out.mean(axis=1), low=least, high=most)

    low, high = interval(measured.left_out)
    low_sessions, high_sessions = interval(measured.sessions_left_out)
    p, p_adjusted = p_values
    return [
        replace(
            pooled,
            low=low,
            high=high,
            low_sessions=low_sessions,
            high_sessions=high_sessions,
            p=p,
            p_adjusted=p_adjusted,
        ),
        *(
            make("speaker", speaker, values, "value", size)
            for speaker, values, size in zip(
                measured.speakers, measured.local, measured.sizes, strict=True
            )
        ),
    ]


def _adjust(differences: Sequence[_Measured]) -> list[float]:
    """Adjust the premiums' tests for one another; a speaker who is not in one counts as 0."""
    names = sorted({name for each in differences for name in each.speakers})
    table = np.zeros((len(names), len(differences)))
    for column, each in enumerate(differences):
        table[np.searchsorted(names, each.speakers), column] = each.local.mean(axis=1)
    adjusted: list[float] = max_t_p_values(table, swap_patterns(len(names))).tolist()
    return adjusted
