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
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from toolkit.models import class_priors
from toolkit.validation.comparison import max_t_p_values, permutation_p_value, swap_patterns
from toolkit.validation.fits import InnerFits
from toolkit.validation.folds import (
    Fold,
    derive_seed,
    session_folds,
    speaker_folds,
    speakers_between_sessions,
)
from toolkit.validation.ledger import Ledger
from toolkit.validation.metrics import METRICS
from toolkit.validation.nested import gather_predictions
from toolkit.validation.scores import (
    FEWEST_GROUPS,
    group_tallies,
    jackknife_interval,
    pooled_and_left_out,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from toolkit.data import Manifest
    from toolkit.models import Features
    from toolkit.validation.metrics import Floats, Metric
    from toolkit.validation.predictions import Predictions


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
        p = permutation_p_value(
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
    none = f": no interval below {FEWEST_GROUPS}" if n < FEWEST_GROUPS else ""
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


#: Fits of every split are repeated with this many seeds, and their scores averaged.
N_PREMIUM_SEEDS: Final = 3

_ROUNDS: Final = 80
_FIXED: Final = MappingProxyType(
    {
        "booster": "lightgbm",
        "screening": "none",
        "imbalance": "none",
        "max_bin": 63,
        "learning_rate": 0.12,
        "num_leaves": 7,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 5.0,
        "extra_trees": True,
    }
)
_OTHER_OUT: Final = "speaker, another left out"
_PARTNER_OUT: Final = "speaker, partner left out"


@dataclass(frozen=True, slots=True)
class PremiumSplit:
    """Folds to be scored with the fixed configuration.

    - name: What tables and figures call it; a split that leaks says so here.
    - unit: What is held out as a whole: where it is the utterance, the split leaks.
    - folds: No row is tested twice.
    """

    name: str
    unit: Literal["utterance", "speaker", "session"]
    folds: tuple[Fold, ...]


@dataclass(frozen=True, slots=True)
class PremiumPair:
    """Two splits of the same utterances, the second stricter than the first.

    - quantity: Name of the difference: ``"speaker premium"``, ``"session premium"`` or
      ``"partner premium"``.
    - lenient, strict: The premium is the score of the first minus that of the second.
    """

    quantity: str
    lenient: PremiumSplit
    strict: PremiumSplit


def premium_pairs(manifest: Manifest, *, seed: int) -> tuple[PremiumPair, ...]:
    """Make the splits that are compared.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    seed : int
        Deals out the utterances of the random splits, and decides which other speakers are
        left out where the partner is not.

    Returns
    -------
    tuple of PremiumPair
        Random against speaker, with as many folds; where there are sessions, random against
        session, and leaving out another person against leaving out the partner.
    """
    by_speaker = PremiumSplit("speaker", "speaker", speaker_folds(manifest))
    pairs = [_against_random(manifest, by_speaker, seed)]
    if _why_no_sessions(manifest):
        return tuple(pairs)
    by_session = PremiumSplit("session", "session", session_folds(manifest))
    pairs.append(_against_random(manifest, by_session, seed))
    partners = _partners(manifest)
    if partners:
        others = _draw_others(manifest, partners, seed)
        lenient, strict = (
            PremiumSplit(name, "speaker", _leave_out(manifest, by_speaker.folds, absent))
            for name, absent in ((_OTHER_OUT, others), (_PARTNER_OUT, partners))
        )
        pairs.append(PremiumPair("partner premium", lenient, strict))
    return tuple(pairs)


def describe_gaps(manifest: Manifest) -> tuple[str, ...]:
    """Say which parts of the comparison the data do not allow.

    Parameters
    ----------
    manifest : Manifest
        The utterances.

    Returns
    -------
    tuple of str
        Sentences; empty if nothing is left out.
    """
    if reason := _why_no_sessions(manifest):
        return (f"{reason}: the session and the partner premium are left out.",)
    assert manifest.sessions is not None
    speakers = np.unique(manifest.speakers).tolist()
    lonely = [name for name in speakers if name not in _partners(manifest)]
    if not lonely:
        return ()
    who = "Nobody" if len(lonely) == len(speakers) else f"All but {', '.join(lonely)}"
    needed = "it takes somebody else in the session, and as many people outside it"
    return (f"{who} can be in the partner premium: {needed}.",)


def training_sets(pairs: Sequence[PremiumPair]) -> tuple[NDArray[np.int64], ...]:
    """List the sets of rows that some fold learns from, each once.

    Parameters
    ----------
    pairs : sequence of PremiumPair
        Of one seed. Where sessions are dyads, holding out a session and leaving out the
        partner learn from the same rows.

    Returns
    -------
    tuple of ndarray of int64
        In the order of the folds.
    """
    splits = [split for pair in pairs for split in (pair.lenient, pair.strict)]
    found = {fold.train.tobytes(): fold.train for split in splits for fold in split.folds}
    return tuple(found.values())


def predict_rest(
    manifest: Manifest, features: Features, train: NDArray[np.int64], *, seed: int
) -> NDArray[np.float64]:
    """Fit the fixed configuration on some rows and predict all the others.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    features : Features
        What is seen of them; the first of its presets is used.
    train : ndarray of int64
        The rows to learn from, where they have the modality.
    seed : int
        The same for all splits, so that nothing but the rows differs between them.

    Returns
    -------
    ndarray of float64, shape (n, n_classes)
        Class probabilities of all utterances; NaN in the rows that were learnt from, so that
        nobody scores them. An utterance without the modality gets the class shares of the
        training rows.

    Raises
    ------
    ValueError
        If the rows that have the modality hold fewer than two classes.
    """
    everything = np.arange(len(manifest))
    rest = np.setdiff1d(everything, train)
    rows = train[features.present[train]]
    n_seen = len(np.unique(manifest.labels[rows]))
    if n_seen < 2:
        raise ValueError(
            f"A training set of {len(rows)} utterances holds {n_seen} class(es) only; the "
            "premium needs two in every fold. Choose other --classes, or another --modality."
        )
    n_classes = len(manifest.classes)
    fold = Fold(0, train, rest, tuple(manifest.utterances[rest].tolist()))
    fits = InnerFits(
        features,
        manifest.labels,
        rows,
        n_classes=n_classes,
        ledger=Ledger("premium", fold, manifest.utterances, manifest.utterances),
        seed=derive_seed(seed, "premium"),
    )
    params = fixed_params(features, len(manifest))
    booster, prepared = fits.fit(params, rows, fit="refit", n_rounds=_ROUNDS)
    proba = np.full((len(manifest), n_classes), np.nan)
    proba[rest] = class_priors(manifest.labels[train], n_classes)
    seen = rest[features.present[rest]]
    if len(seen):
        proba[seen] = fits.predict(booster, prepared, seen)
    return proba


def fixed_params(features: Features, n_rows: int) -> dict[str, Any]:
    """Give the one configuration that all splits are fitted with."""
    preset = next(iter(features.presets))
    n_features = len(features.presets[preset])
    return dict(_FIXED) | {
        "statistics": preset,
        "feature_fraction": min(1.0, max(8.0, n_features**0.5) / n_features),
        "min_data_in_leaf": max(1, round(0.5 * n_rows**0.5)),
    }


def gather_split(
    manifest: Manifest,
    features: Features,
    split: PremiumSplit,
    probas: Mapping[bytes, NDArray[np.float64]],
) -> Predictions:
    """Put together what a split predicted.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    features : Features
        What was seen of them.
    split : PremiumSplit
        The split.
    probas : mapping of bytes to ndarray
        What :func:`predict_rest` gave, by the bytes of the training rows.

    Returns
    -------
    Predictions
        Under the name of the split; the utterances that it tests.

    Raises
    ------
    LeakageError
        If a fold learns from what it holds out: an utterance, a speaker or a session.
    """
    groups = manifest.utterances if split.unit == "utterance" else manifest.groups(split.unit)
    for fold in split.folds:
        ledger = Ledger(split.name, fold, manifest.utterances, groups)
        ledger.record("refit", "train", fold.train)
    return gather_predictions(
        manifest,
        split.folds,
        split.name,
        [probas[fold.train.tobytes()][fold.test] for fold in split.folds],
        [features.present[fold.test] for fold in split.folds],
    )


def _against_random(manifest: Manifest, strict: PremiumSplit, seed: int) -> PremiumPair:
    """Deal the utterances of each class out to as many folds, whoever said them."""
    n_folds = len(strict.folds)
    draw = np.random.default_rng(derive_seed(seed, "premium", "random", n_folds))
    shuffled = draw.permutation(len(manifest))
    dealt = shuffled[np.argsort(manifest.labels[shuffled], kind="stable")]
    everything = np.arange(len(manifest))
    folds = []
    for number in range(n_folds):
        test = np.sort(dealt[number::n_folds])
        held_out = tuple(manifest.utterances[test].tolist())
        folds.append(Fold(number, np.setdiff1d(everything, test), test, held_out))
    leaking = PremiumSplit(f"random-{n_folds} (leaking)", "utterance", tuple(folds))
    return PremiumPair(f"{strict.name} premium", leaking, strict)


def _why_no_sessions(manifest: Manifest) -> str:
    if manifest.sessions is None:
        return "The recordings have no sessions"
    if moving := speakers_between_sessions(manifest):
        return f"{len(moving)} speaker(s) are in several sessions ({', '.join(moving[:5])})"
    n_sessions = len(np.unique(manifest.sessions))
    return f"There are {n_sessions} sessions, at least 3 are needed" if n_sessions < 3 else ""


def _partners(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """Name who else is in each speaker's sessions, where as many people are not."""
    assert manifest.sessions is not None
    speakers = np.unique(manifest.speakers).tolist()
    found = {}
    for speaker in speakers:
        rooms = manifest.sessions[manifest.speakers == speaker]
        there = np.isin(manifest.sessions, rooms)
        partners = sorted(set(manifest.speakers[there].tolist()) - {speaker})
        if partners and len(speakers) - 1 - len(partners) >= len(partners):
            found[speaker] = tuple(partners)
    return found


def _draw_others(
    manifest: Manifest, partners: Mapping[str, tuple[str, ...]], seed: int
) -> dict[str, tuple[str, ...]]:
    """Draw, for each speaker, as many people of other sessions as there are partners."""
    drawn = {}
    for speaker, there in partners.items():
        others = sorted(set(manifest.speakers.tolist()) - {speaker, *there})
        draw = np.random.default_rng(derive_seed(seed, "premium", "another", speaker))
        drawn[speaker] = tuple(sorted(draw.permutation(others)[: len(there)].tolist()))
    return drawn


def _leave_out(
    manifest: Manifest, folds: Sequence[Fold], absent: Mapping[str, tuple[str, ...]]
) -> tuple[Fold, ...]:
    """Take further people out of the training side of folds that hold out one speaker."""
    made = []
    for fold in folds:
        (speaker,) = fold.held_out
        if speaker in absent:
            out = absent[speaker]
            train = fold.train[~np.isin(manifest.speakers[fold.train], out)]
            made.append(Fold(fold.number, train, fold.test, (speaker, *out)))
    return tuple(made)
