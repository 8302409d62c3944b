"""Splits that are compared for what they leak, fitted with one fixed configuration.

The random split, which has utterances of one person on both sides, exists here alone and
carries its label in its name: it is no outer protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from toolkit.models import class_shares
from toolkit.validation.fits import InnerFits
from toolkit.validation.folds import (
    Fold,
    session_folds,
    speaker_folds,
    speakers_between_sessions,
)
from toolkit.validation.ledger import Ledger
from toolkit.validation.nested import gather_predictions
from toolkit.validation.seeds import derive_seed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from toolkit.data import Manifest
    from toolkit.models import Features
    from toolkit.validation.predictions import Predictions

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
    proba[rest] = class_shares(manifest.labels[train], n_classes)
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
