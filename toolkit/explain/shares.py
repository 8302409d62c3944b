"""Which share of what a system says comes from which modality and family of statistics.

A share is of magnitudes: the sum over utterances and classes of |what the modality's features
contribute together|, normalised. Features of one modality may cancel, and cancelled they say
nothing; the sum of single magnitudes, which noise makes grow with the number of features,
stands beside it under a name that says so. What labels that mean nothing give stands there too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from toolkit.explain.contributions import centre, family_of, make_explainer, sum_contributions
from toolkit.validation.fits import InnerFits
from toolkit.validation.folds import derive_seed
from toolkit.validation.scores import FEWEST_GROUPS, jackknife_interval

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from toolkit.explain.contributions import Totals
    from toolkit.explain.permutation import PermutationRecord
    from toolkit.explain.shapley import GameRecord
    from toolkit.models import Features
    from toolkit.validation import Fold, Ledger, Predictions

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
    right = predictions.y_pred == predictions.labels
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
    if speaker < 0 and there.sum() >= FEWEST_GROUPS:
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


N_REPEATS: Final = 5
"""Permutations of the labels."""


def permute_within(
    labels: NDArray[np.int64], groups: NDArray[np.str_], seed: int
) -> NDArray[np.int64]:
    """Shuffle labels among the rows of each group.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        Labels.
    groups : ndarray of str, shape (n,)
        Speaker of every row: class shares of a speaker stay as they are.

    Returns
    -------
    ndarray of int64, shape (n,)
        The shuffled labels.

    Examples
    --------
    >>> import numpy as np
    >>> labels, groups = np.array([0, 1, 1, 2, 2, 2]), np.array(list("aabbbb"))
    >>> shuffled = permute_within(labels, groups, seed=0)
    >>> sorted(shuffled[:2].tolist()), sorted(shuffled[2:].tolist())
    ([0, 1], [1, 2, 2, 2])
    """
    rng = np.random.default_rng(seed)
    shuffled = labels.copy()
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        shuffled[rows] = labels[rng.permutation(rows)]
    return shuffled


def explain_permuted(
    features: Features,
    labels: NDArray[np.int64],
    speakers: NDArray[np.str_],
    fold: Fold,
    params: Mapping[str, Any],
    *,
    n_rounds: int,
    n_classes: int,
    ledger: Ledger,
    seed: int,
    n_repeats: int = N_REPEATS,
) -> list[Totals]:
    """Refit a unit on permuted labels and explain its held-out rows.

    Parameters
    ----------
    features : Features
        What the system sees.
    labels : ndarray of int64, shape (n,)
        Labels of all utterances.
    speakers : ndarray of str, shape (n,)
        Speaker of every utterance.
    fold : Fold
        The outer fold.
    params : mapping
        The parameters that its search chose.
    n_rounds : int
        The rounds that its search chose.
    n_classes : int
        Number of the study's classes.
    ledger : Ledger
        Where every fit writes down its rows.
    seed : int
        The unit's seed.
    n_repeats : int, default=5
        Permutations.

    Returns
    -------
    list of Totals
        Of the test rows that have the modality, in their order.
    """
    rows = fold.train[features.present[fold.train]]
    asked = fold.test[features.present[fold.test]]
    totals = []
    for repeat in range(n_repeats):
        shuffled = permute_within(labels, speakers, derive_seed(seed, "permuted", repeat))
        fits = InnerFits(
            features, shuffled, rows, n_classes=n_classes, ledger=ledger, seed=seed
        )
        booster, prepared = fits.fit(
            params, rows, fit=f"permuted labels {repeat}", n_rounds=n_rounds
        )
        X = features.take(asked, prepared.columns)
        totals.append(sum_contributions(make_explainer(booster), X))
    return totals


OTHERS = "all other features"
"""Name of the last column of a sample: what the features that are not shown contribute."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Contributions of a system's most important features, as plots show them.

    Parameters
    ----------
    names : tuple of str
        The features, then :data:`OTHERS`, so that a row adds up to its margin.
    contributions : ndarray of float64, shape (n_rows, n_classes, n_names)
        To the margin of each class.
    values : ndarray of float32, shape (n_rows, n_names)
        Values of the features; NaN where missing and for the others.
    base : ndarray of float64, shape (n_rows, n_classes)
        Expected margins.
    """

    names: tuple[str, ...]
    contributions: NDArray[np.float64]
    values: NDArray[np.float32]
    base: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PlayerRecord:
    """A modality, or a pair of them, as players inside the trees of a system.

    Parameters
    ----------
    system : str
        The system.
    kind : str
        ``"value"`` of a modality or ``"interaction"`` of a pair.
    players : str
        The modality, or two joined by ``"+"``.
    share : float
        Of a modality its part of the magnitudes of all values; of a pair the magnitude of
        its interaction, in the same unit.
    summed : float or None
        The modality's share where its features are the players and are summed.
    difference : float or None
        Mean magnitude by which the two ways of sharing credit differ for the modality,
        again in that unit. It says nothing else: it can be 0 where modalities interact.
    """

    system: str
    kind: str
    players: str
    share: float
    summed: float | None
    difference: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """What a study knows of which modality drives it.

    Parameters
    ----------
    system : str
        The system of all modalities (``early``), or the only one.
    modalities : tuple of str
        What it sees.
    shares : sequence of ShareRecord
        Of every explained system.
    games : sequence of GameRecord
        Over late fusion and by refit, as far as they were played.
    importance : sequence of PermutationRecord
        Of whole modalities of `system`.
    players : sequence of PlayerRecord
        Modalities inside the trees of `system`.
    totals : mapping of str to Totals
        Explained system to its contributions, a row a tested utterance.
    samples : mapping of str to Sample
        Explained system to its most important features.
    """

    system: str
    modalities: tuple[str, ...]
    shares: Sequence[ShareRecord]
    games: Sequence[GameRecord]
    importance: Sequence[PermutationRecord]
    players: Sequence[PlayerRecord]
    totals: Mapping[str, Totals]
    samples: Mapping[str, Sample]


def compare_players(
    system: str,
    modalities: Sequence[str],
    totals: Totals,
    values: NDArray[np.float64],
    interactions: NDArray[np.float64],
) -> list[PlayerRecord]:
    """Set values of modalities inside the trees beside summed contributions of features.

    Parameters
    ----------
    system : str
        The system.
    modalities : sequence of str
        The players.
    totals : Totals
        Its contributions by feature, summed by modality and statistic.
    values : ndarray of float64, shape (n_rows, n_classes, n_modalities)
        Values of the modalities as players.
    interactions : ndarray of float64, shape (n_rows, n_classes, n_modalities, n_modalities)
        Their interactions.

    Returns
    -------
    list of PlayerRecord
        Modalities, then pairs.
    """
    players = centre(values, totals.trained)
    belongs = np.array(
        [[float(part[0] == name) for name in modalities] for part in totals.parts]
    )
    summed = centre(totals.signed @ belongs, totals.trained)
    whole = float(np.abs(players).sum()) or 1.0
    by_sum = np.abs(summed).sum(axis=(0, 1))
    records = [
        PlayerRecord(
            system,
            "value",
            name,
            float(np.abs(players[:, :, place]).sum()) / whole,
            float(by_sum[place] / (by_sum.sum() or 1.0)),
            float(np.abs(players[:, :, place] - summed[:, :, place]).sum()) / whole,
        )
        for place, name in enumerate(modalities)
    ]
    pairs = centre(interactions, totals.trained)
    records += [
        PlayerRecord(
            system,
            "interaction",
            f"{modalities[a]}+{modalities[b]}",
            float(np.abs(pairs[:, :, a, b]).sum()) / whole,
            None,
            None,
        )
        for a in range(len(modalities))
        for b in range(a + 1, len(modalities))
    ]
    return records
