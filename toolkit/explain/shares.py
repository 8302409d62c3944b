"""Which share of what a system says comes from which modality and family of statistics.

A share is of magnitudes: the sum over utterances and classes of |what the modality's features
contribute together|, normalised. Features of one modality may cancel, and cancelled they say
nothing; the sum of single magnitudes, which noise makes grow with the number of features,
stands beside it under a name that says so. What labels that mean nothing give stands there too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from toolkit.explain.families import family_of
from toolkit.explain.totals import centre
from toolkit.validation.scores import FEWEST_UNITS, jackknife_interval

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from toolkit.explain.totals import Totals
    from toolkit.validation import Predictions

LEVELS: Final = ("modality", "family", "statistic")
"""How finely a system's contributions are parted."""

OUTCOMES: Final = ("all", "right", "wrong")
"""Which predictions are looked at."""


@dataclass(frozen=True, slots=True)
class ShareRecord:
    """The share of one part of a system's contributions.

    Parameters
    ----------
    system : str
        The system.
    level : str
        One of :data:`LEVELS`; the parts of one level add up to 1.
    modality : str
        The part's modality.
    part : str
        Family or statistic; empty at the level of modalities.
    outcome : str
        One of :data:`OUTCOMES`.
    speaker, class_name : str
        Whose utterances and the margin of which class; empty for all.
    n : int
        Utterances behind the number.
    share : float
        Part of the magnitudes of joint contributions, centred over the classes.
    low, high : float or None
        Ends of its 95 % jackknife interval over speakers, where all speakers are looked at.
    permuted : float or None
        The same share under labels permuted within speaker, mean over repeats; None where
        that was not run.
    permuted_low, permuted_high : float or None
        Smallest and largest over the repeats.
    grows_with_width : float
        Part of the sum of single magnitudes, which grows with the number of features.
    grows_with_width_permuted : float or None
        The same under permuted labels.
    toward_truth : float
        Mean contribution to the margin of the true class, centred; below 0 it misleads.
    """

    system: str
    level: str
    modality: str
    part: str
    outcome: str
    speaker: str
    class_name: str
    n: int
    share: float
    low: float | None
    high: float | None
    permuted: float | None
    permuted_low: float | None
    permuted_high: float | None
    grows_with_width: float
    grows_with_width_permuted: float | None
    toward_truth: float


def compute_shares(
    predictions: Predictions, totals: Totals, permuted: Sequence[Totals] = ()
) -> list[ShareRecord]:
    """Compute shares by modality, family and statistic, outcome, speaker and class.

    Parameters
    ----------
    predictions : Predictions
        The system.
    totals : Totals
        Its contributions, row by row with the predictions; rows that no model explains
        (``trained`` False throughout) are left out.
    permuted : sequence of Totals
        Of the same rows by models that learnt from labels permuted within speaker.

    Returns
    -------
    list of ShareRecord
        Scopes without any utterance are left out; statistics are of all speakers together.

    Raises
    ------
    ValueError
        If the totals are of other rows.
    """
    for total in (totals, *permuted):
        if len(total.signed) != len(predictions):
            raise ValueError(
                f"Contributions of {len(total.signed)} rows do not belong to the "
                f"{len(predictions)} predictions of {predictions.system!r}."
            )
    speakers, numbers = np.unique(predictions.speakers, return_inverse=True)
    records: list[ShareRecord] = []
    for level in LEVELS:
        # Under permuted labels screening may keep a part that the system itself never uses.
        known = [_part(part, level) for total in (totals, *permuted) for part in total.parts]
        parts = list(dict.fromkeys(known))
        tally, *nulls = (
            _tally(predictions, total, level, parts, numbers) for total in (totals, *permuted)
        )
        # Statistics are many: speaker by speaker they would drown the rest.
        people = range(-1, 0 if level == "statistic" else len(speakers))
        for outcome in range(len(OUTCOMES)):
            for speaker in people:
                for code in range(-1, len(predictions.classes)):
                    records += _records(
                        predictions, level, parts, tally, nulls, (outcome, speaker, code)
                    )
    return records


@dataclass(frozen=True, slots=True, eq=False)
class _Tally:
    """Sums by outcome, speaker, class and part, and how many utterances are behind them."""

    joint: NDArray[np.float64]
    single: NDArray[np.float64]
    truth: NDArray[np.float64]
    n: NDArray[np.int64]
    speakers: tuple[str, ...]


def _part(part: tuple[str, str], level: str) -> tuple[str, str]:
    modality, statistic = part
    return modality, {"modality": "", "family": family_of(statistic), "statistic": statistic}[
        level
    ]


def _tally(
    predictions: Predictions,
    totals: Totals,
    level: str,
    parts: list[tuple[str, str]],
    speakers: NDArray[np.int64],
) -> _Tally:
    belongs = np.zeros((len(totals.parts), len(parts)))
    for row, part in enumerate(totals.parts):
        belongs[row, parts.index(_part(part, level))] = 1
    centred = centre(totals.signed @ belongs, totals.trained)
    single = totals.absolute @ belongs
    explained = totals.trained.any(axis=1)
    right = predictions.decided == predictions.labels
    n_classes = len(predictions.classes)
    names = tuple(np.unique(predictions.speakers).tolist())
    shape = (len(OUTCOMES), len(names), n_classes, len(parts))
    sums = np.zeros((3, *shape))
    counts = np.zeros(shape[:3], dtype=np.int64)
    rows = np.arange(len(predictions))
    truth = np.zeros_like(centred)
    truth[rows, predictions.labels] = centred[rows, predictions.labels]
    for outcome, chosen in enumerate((explained, explained & right, explained & ~right)):
        for place, values in enumerate((np.abs(centred), single, truth)):
            np.add.at(sums[place, outcome], speakers[chosen], values[chosen])
        np.add.at(counts[outcome], (speakers[chosen], predictions.labels[chosen]), 1)
    joint, alone, toward = sums
    return _Tally(joint, alone, toward, counts, names)


def _records(  # noqa: PLR0917
    predictions: Predictions,
    level: str,
    parts: list[tuple[str, str]],
    tally: _Tally,
    nulls: list[_Tally],
    scope: tuple[int, int, int],
) -> Iterator[ShareRecord]:
    outcome, speaker, code = scope
    people = slice(None) if speaker < 0 else [speaker]
    classes = slice(None) if code < 0 else [code]
    n = int(tally.n[outcome, people].sum())
    joint = tally.joint[outcome, people][:, classes].sum(axis=1)
    if n == 0 or joint.sum() == 0:
        return
    shares = _normalise(joint.sum(axis=0))
    single = _normalise(tally.single[outcome, people][:, classes].sum(axis=(0, 1)))
    there = joint.sum(axis=1) > 0
    ends: list[tuple[float | None, float | None]] = [(None, None)] * len(parts)
    if speaker < 0 and there.sum() >= FEWEST_UNITS:
        left_out = _normalise((joint.sum(axis=0) - joint)[there])
        ends = [
            jackknife_interval(float(share), without, low=0, high=1)
            for share, without in zip(shares, left_out.T, strict=True)
        ]
    null = np.array(
        [_normalise(t.joint[outcome, people][:, classes].sum(axis=(0, 1))) for t in nulls]
    )
    null_single = np.array(
        [_normalise(t.single[outcome, people][:, classes].sum(axis=(0, 1))) for t in nulls]
    )
    n_true = int(tally.n[outcome, people][:, classes].sum())
    truth = tally.truth[outcome, people][:, classes].sum(axis=(0, 1)) / max(n_true, 1)
    for place, (modality, part) in enumerate(parts):
        yield ShareRecord(
            system=predictions.system,
            level=level,
            modality=modality,
            part=part,
            outcome=OUTCOMES[outcome],
            speaker="" if speaker < 0 else tally.speakers[speaker],
            class_name="" if code < 0 else predictions.classes[code],
            n=n,
            share=float(shares[place]),
            low=ends[place][0],
            high=ends[place][1],
            permuted=float(null[:, place].mean()) if nulls else None,
            permuted_low=float(null[:, place].min()) if nulls else None,
            permuted_high=float(null[:, place].max()) if nulls else None,
            grows_with_width=float(single[place]),
            grows_with_width_permuted=float(null_single[:, place].mean()) if nulls else None,
            toward_truth=float(truth[place]),
        )


def _normalise(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    total = sums.sum(axis=-1, keepdims=True)
    return np.asarray(sums / np.where(total > 0, total, 1))
