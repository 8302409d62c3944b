"""The leakage premium: the difference that a leaking split makes to a score.

One cheap fixed configuration is fitted under several splits. A random split has utterances of
one person on both sides: its score minus that of a split by speakers is the speaker premium. A
split by speakers leaves the dialogue partner in training, and with it topic, room and
equipment. The partner premium compares leaving out the partner with leaving out another
person, so that both learn from as many people. Random splits exist in this module alone, and
their names contain "leaking".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.data import Manifest
from toolkit.models import Features
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
from toolkit.validation.metrics import METRICS, Floats, Metric
from toolkit.validation.nested import gather_predictions
from toolkit.validation.predictions import Predictions
from toolkit.validation.scores import group_tallies, jackknife_interval, pooled_and_left_out

_Task = tuple[int, NDArray[np.int64]]

#: Fits of every split are repeated with this many seeds, and their scores averaged.
N_PREMIUM_SEEDS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PremiumScore:
    """A score of one split, or a premium: the difference of two. Both are means over seeds.

    Parameters
    ----------
    modality : str
        The modality of the features.
    metric : str
        Key of :data:`toolkit.validation.METRICS`.
    quantity : str
        ``"score"``, ``"speaker premium"``, ``"session premium"`` or ``"partner premium"``.
    split, against : str
        The split; of a premium, the split whose score is subtracted.
    group : str
        The speaker; empty for all utterances pooled.
    value : float
        The number.
    low, high : float, optional
        95 % jackknife t interval over speakers, of a pooled number.
    p, p_adjusted : float, optional
        Of a pooled premium: two-sided p of swapping whole speakers between the splits, alone
        and adjusted for all premiums of the modality.
    sd_seeds : float
        Standard deviation (ddof 1) over the seeds.
    n_utterances : int
        Number of utterances.
    """

    modality: str
    metric: str
    quantity: str
    split: str
    against: str
    group: str
    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    sd_seeds: float
    n_utterances: int


@dataclass(frozen=True, slots=True)
class _PremiumSplit:
    """Folds to be scored with the fixed configuration, which test no row twice."""

    # Contains "leaking" where the split leaks, which is where it is by utterances.
    name: str
    grouping: Literal["utterance", "speaker", "session"]
    folds: tuple[Fold, ...]


@dataclass(frozen=True, slots=True)
class _PremiumPair:
    """Two splits of the same utterances: the premium is the lenient score minus the strict."""

    quantity: str
    lenient: _PremiumSplit
    strict: _PremiumSplit


def _premium_pairs(manifest: Manifest, *, seed: int) -> tuple[_PremiumPair, ...]:
    """Make the splits that are compared, those with sessions only where the data allow it."""
    by_speaker = _PremiumSplit("speaker", "speaker", speaker_folds(manifest))
    pairs = [_against_random(manifest, by_speaker, seed)]
    if _why_no_sessions(manifest):
        return tuple(pairs)
    by_session = _PremiumSplit("session", "session", session_folds(manifest))
    pairs.append(_against_random(manifest, by_session, seed))
    if partners := _partners(manifest):
        pairs.append(_also_hold_out("partner", partners, manifest, by_speaker.folds, seed))
    return tuple(pairs)


def describe_gaps(manifest: Manifest) -> tuple[str, ...]:
    """Describe the comparisons that the data do not allow.

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
    speakers = np.unique(manifest.speakers).tolist()
    partners = _partners(manifest)
    lonely = [name for name in speakers if name not in partners]
    if not lonely:
        return ()
    subject = f"All but {', '.join(lonely)}" if partners else "No speaker"
    needed = "it takes another person in the session, and as many people outside it"
    return (f"{subject} can be in the partner premium: {needed}.",)


def _against_random(manifest: Manifest, strict: _PremiumSplit, seed: int) -> _PremiumPair:
    """Compare with as many folds that deal out each class's utterances, across speakers."""
    n_folds = len(strict.folds)
    draw = np.random.default_rng(derive_seed(seed, "premium", "random", n_folds))
    shuffled = draw.permutation(len(manifest))
    dealt = shuffled[np.argsort(manifest.labels[shuffled], kind="stable")]
    everything = np.arange(len(manifest))
    folds = []
    # Sorted by class and dealt in turn, so that every fold has the class shares of the whole.
    for number in range(n_folds):
        test = np.sort(dealt[number::n_folds])
        held_out = tuple(manifest.utterances[test].tolist())
        folds.append(Fold(number, np.setdiff1d(everything, test), test, held_out))
    leaking = _PremiumSplit(f"random-{n_folds} (leaking)", "utterance", tuple(folds))
    return _PremiumPair(f"{strict.name} premium", leaking, strict)


def _also_hold_out(
    kind: str,
    related: Mapping[str, tuple[str, ...]],
    manifest: Manifest,
    folds: Sequence[Fold],
    seed: int,
) -> _PremiumPair:
    """Leave related speakers out of training too, against a control with as many others out.

    `related` maps speakers to theirs; a speaker without any is in neither split. `folds` hold
    out one speaker each.
    """
    strict: list[Fold] = []
    control: list[Fold] = []
    everyone = set(manifest.speakers.tolist())
    for fold in folds:
        (speaker,) = fold.held_out
        if speaker not in related:
            continue
        out = related[speaker]
        others = sorted(everyone - {speaker, *out})
        draw = np.random.default_rng(derive_seed(seed, "premium", "another", speaker))
        drawn = tuple(sorted(draw.permutation(others)[: len(out)].tolist()))
        for made, absent in ((strict, out), (control, drawn)):
            train = fold.train[~np.isin(manifest.speakers[fold.train], absent)]
            made.append(Fold(fold.number, train, fold.test, (speaker, *absent)))
    return _PremiumPair(
        f"{kind} premium",
        _PremiumSplit("speaker, another left out", "speaker", tuple(control)),
        _PremiumSplit(f"speaker, {kind} left out", "speaker", tuple(strict)),
    )


def _why_no_sessions(manifest: Manifest) -> str:
    if manifest.sessions is None:
        return "The recordings have no sessions"
    if moving := speakers_between_sessions(manifest):
        return f"{len(moving)} speaker(s) are in several sessions ({', '.join(moving[:5])})"
    n_sessions = len(np.unique(manifest.sessions))
    return f"There are {n_sessions} sessions, at least 3 are needed" if n_sessions < 3 else ""


def _partners(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """Name the others in each speaker's sessions, where as many people are outside them."""
    sessions = manifest.groups("session")
    speakers = np.unique(manifest.speakers).tolist()
    found = {}
    for speaker in speakers:
        together = np.isin(sessions, sessions[manifest.speakers == speaker])
        partners = sorted(set(manifest.speakers[together].tolist()) - {speaker})
        if partners and len(speakers) - 1 - len(partners) >= len(partners):
            found[speaker] = tuple(partners)
    return found


def _training_sets(pairs: Sequence[_PremiumPair]) -> tuple[NDArray[np.int64], ...]:
    """List the training sets of all folds, each once: some splits learn from the same rows."""
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
        Their features; the first preset is used.
    train : ndarray of int64
        The rows to learn from, where they have the modality.
    seed : int
        The same for all splits, so that only the rows differ between them.

    Returns
    -------
    ndarray of float64, shape (n, n_classes)
        Class probabilities of all utterances; NaN in the training rows, which no split may
        score. An utterance without the modality gets the class priors of the training rows.

    Raises
    ------
    ValueError
        If the rows that have the modality hold fewer than two classes.
    """
    rest = np.setdiff1d(np.arange(len(manifest)), train)
    rows = train[features.present[train]]
    n_seen = len(np.unique(manifest.labels[rows]))
    if n_seen < 2:
        raise ValueError(
            f"A training set of {len(rows)} utterances holds {n_seen} class(es) only; the "
            "premium needs two in every fold. Choose other --classes, or another --modality."
        )
    n_classes = len(manifest.classes)
    # Every utterance is its own group here: the splits check their groups when gathered.
    fold = Fold(0, train, rest, tuple(manifest.utterances[rest].tolist()))
    fits = InnerFits(
        features,
        manifest.labels,
        rows,
        n_classes=n_classes,
        ledger=Ledger("premium", fold, manifest.utterances, manifest.utterances),
        seed=derive_seed(seed, "premium"),
    )
    params = _fixed_params(features, len(manifest))
    booster, prepared = fits.fit(params, rows, fit="refit", n_rounds=80)
    proba = np.full((len(manifest), n_classes), np.nan)
    proba[rest] = fits.predict_or_priors(booster, prepared, rest, train)
    return proba


def _fixed_params(features: Features, n_rows: int) -> dict[str, Any]:
    """Return the one configuration of all splits.

    It is small and strongly regularised, so that it can be fitted under every split and seed.
    Nothing is searched: a leaking split would leak into the inner folds of a search as well.
    """
    preset = next(iter(features.presets))
    n_features = len(features.presets[preset])
    return {
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
        "statistics": preset,
        "feature_fraction": min(1.0, max(8.0, n_features**0.5) / n_features),
        "min_data_in_leaf": max(1, round(0.5 * n_rows**0.5)),
    }


def _gather_split(
    manifest: Manifest,
    features: Features,
    split: _PremiumSplit,
    probas: Mapping[bytes, NDArray[np.float64]],
) -> Predictions:
    """Gather the predictions of a split, given by the bytes of its training rows."""
    if split.grouping == "utterance":
        groups = manifest.utterances
    else:
        groups = manifest.groups(split.grouping)
    # The ledger refuses a fold that trains on a group it holds out, as in a study.
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


def measure_premium(
    manifest: Manifest,
    features: Features,
    *,
    modality: str,
    metric: str,
    seed: int,
    fit_all: Callable[[list[_Task]], list[NDArray[np.float64]]],
) -> list[PremiumScore]:
    """Fit all splits with every seed, and compare their scores.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    features : Features
        Their features; the first preset is used.
    modality : str
        The modality of the features.
    metric : str
        Key of :data:`toolkit.validation.METRICS` that has a value for a single speaker.
    seed : int
        The first of the :data:`N_PREMIUM_SEEDS` seeds.
    fit_all : callable
        Calls :func:`predict_rest` for every task, a seed and its training rows, and returns
        the results in order.

    Returns
    -------
    list of PremiumScore
        Scores of the splits, pooled and per speaker; then the premiums, pooled and per
        speaker.
    """
    seeds = range(seed, seed + N_PREMIUM_SEEDS)
    pairs = {each: _premium_pairs(manifest, seed=each) for each in seeds}
    tasks = [(each, rows) for each in seeds for rows in _training_sets(pairs[each])]
    probas: dict[int, dict[bytes, NDArray[np.float64]]] = {each: {} for each in seeds}
    for (each, rows), proba in zip(tasks, fit_all(tasks), strict=True):
        probas[each][rows.tobytes()] = proba
    predictions = {
        pair.quantity: [
            (
                _gather_split(manifest, features, pairs[each][k].lenient, probas[each]),
                _gather_split(manifest, features, pairs[each][k].strict, probas[each]),
            )
            for each in seeds
        ]
        for k, pair in enumerate(pairs[seed])
    }
    return _compute_premium(predictions, modality=modality, metric=metric)


def _compute_premium(
    predictions: Mapping[str, Sequence[tuple[Predictions, Predictions]]],
    *,
    modality: str,
    metric: str,
) -> list[PremiumScore]:
    """Score every split, and subtract the scores of each pair (one pair per seed).

    A premium above 0 means that the lenient split looks better, whichever direction of the
    metric is better.
    """
    chosen = METRICS[metric]
    sides = {
        quantity: (
            _measure([lenient for lenient, _ in pairs], chosen),
            _measure([strict for _, strict in pairs], chosen),
        )
        for quantity, pairs in predictions.items()
    }
    rows = partial(_list_scores, modality=modality, metric=chosen)
    # A split may be in several pairs: its scores are listed once.
    measured = {side.name: side for pair in sides.values() for side in pair}
    scores = [row for side in measured.values() for row in rows(side, "score")]
    differences = [_subtract(lenient, strict, chosen) for lenient, strict in sides.values()]
    adjusted = _adjust(differences)
    for quantity, difference, p_adjusted in zip(sides, differences, adjusted, strict=True):
        lenient, strict = sides[quantity]
        p = permutation_p_value(
            lambda tallies: chosen.value(tallies).mean(axis=-1),
            lenient.tallies,
            strict.tallies,
            swap_patterns(len(difference.speakers)),
        )
        pooled, *speakers = rows(difference, quantity, against=strict.name)
        scores += [replace(pooled, p=p, p_adjusted=p_adjusted), *speakers]
    return scores


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """A metric of one split, or a difference of two under the name of the lenient one.

    `sizes` are utterances per speaker. Axes are speakers, then seeds; `pooled` has seeds alone.
    """

    name: str
    speakers: list[str]
    sizes: list[int]
    tallies: Floats
    pooled: Floats
    left_out: Floats
    local: Floats


def _measure(seeds: Sequence[Predictions], metric: Metric) -> _Measured:
    speakers, sizes = np.unique(seeds[0].speakers, return_counts=True)
    tallies = np.stack([group_tallies(e, metric, e.speakers)[1] for e in seeds], axis=1)
    pooled, left_out = pooled_and_left_out(metric.value, tallies)
    local = (metric.local or metric.value)(tallies)
    return _Measured(
        seeds[0].system, speakers.tolist(), sizes.tolist(), tallies, pooled, left_out, local
    )


def _subtract(lenient: _Measured, strict: _Measured, metric: Metric) -> _Measured:
    if (lenient.speakers, lenient.sizes) != (strict.speakers, strict.sizes):
        raise ValueError(
            f"{lenient.name!r} and {strict.name!r} tested different utterances; expected "
            "splits of one pair."
        )
    # Above 0 where the lenient split looks better, also for losses.
    sign = 1 if metric.direction == "maximize" else -1
    return replace(
        lenient,
        pooled=sign * (lenient.pooled - strict.pooled),
        left_out=sign * (lenient.left_out - strict.left_out),
        local=sign * (lenient.local - strict.local),
    )


def _list_scores(
    measured: _Measured, quantity: str, *, modality: str, metric: Metric, against: str = ""
) -> list[PremiumScore]:
    """List the pooled number, then that of every speaker."""

    def make(group: str, values: Floats, n: int) -> PremiumScore:
        return PremiumScore(
            modality=modality,
            metric=metric.name,
            quantity=quantity,
            split=measured.name,
            against=against,
            group=group,
            value=float(values.mean()),
            sd_seeds=float(values.std(ddof=1)) if len(values) > 1 else 0.0,
            n_utterances=n,
        )

    pooled = make("", measured.pooled, sum(measured.sizes))
    width = metric.high - metric.low
    # A difference of two scores has twice the range.
    least, most = (-width, width) if against else (metric.low, metric.high)
    low, high = jackknife_interval(
        pooled.value, measured.left_out.mean(axis=1), measured.sizes, low=least, high=most
    )
    by_speaker = zip(measured.speakers, measured.local, measured.sizes, strict=True)
    return [replace(pooled, low=low, high=high), *(make(*speaker) for speaker in by_speaker)]


def _adjust(differences: Sequence[_Measured]) -> list[float]:
    """Adjust the tests of the premiums for one another; an absent speaker counts as 0."""
    names = sorted({name for each in differences for name in each.speakers})
    table = np.zeros((len(names), len(differences)))
    for column, each in enumerate(differences):
        table[np.searchsorted(names, each.speakers), column] = each.local.mean(axis=1)
    adjusted: list[float] = max_t_p_values(table, swap_patterns(len(names))).tolist()
    return adjusted
