"""The leakage premium: the part of a score that a leaking split adds.

One fixed configuration is fitted under several splits. A random split has utterances of one
person on both sides, so it may score higher than a split by speakers. Part of that difference
is no leak: holding people out also changes the class shares that a model learns. That part is
measured on features whose rows are permuted over all utterances, and subtracted.

A split by speakers leaves the dialogue partner in training, and with it topic, room and
equipment. The partner premium compares leaving out the partner with leaving out another
person, so that both learn from as many people. It also leaves in training the lines that
several people speak: the content premium compares leaving out the script or sentence of the
tested utterances with leaving out as many others of the same classes. Random splits exist in
this module alone, and their names contain "leaking".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.data import Manifest
from toolkit.data.manifest import HeldOut
from toolkit.models import Features
from toolkit.validation.comparison import Contrast, swap_p_values, swap_patterns
from toolkit.validation.fixed import FitAll, FixedFits, PremiumScore
from toolkit.validation.folds import (
    CONTENT_PARTS,
    Fold,
    deal_content,
    derive_seed,
    make_folds,
    speaker_folds,
)
from toolkit.validation.ledger import Ledger
from toolkit.validation.metrics import METRICS, Floats, Metric
from toolkit.validation.nested import gather_predictions
from toolkit.validation.predictions import Predictions
from toolkit.validation.scores import (
    group_tallies,
    jackknife_interval,
    pooled_and_left_out,
    score_interval,
)

_Pair = tuple[Predictions, Predictions]
#: Names that are held out, and their rows; a random choice of rows has no names.
_LeftOut = tuple[tuple[str, ...], NDArray[np.int64]]
#: A fold that holds out a speaker, and what else its training rows lose in either split.
_Case = tuple[Fold, _LeftOut, _LeftOut]

#: Fits of every split are repeated with this many seeds, and their scores averaged.
N_PREMIUM_SEEDS: Final = 3
#: Permutations of the rows of the features, fitted with these seeds in turn.
N_ROW_DRAWS: Final = 20


@dataclass(frozen=True, slots=True)
class _PremiumSplit:
    """Folds to be scored with the fixed configuration, which test no row twice."""

    # Contains "leaking" where the split leaks, which is where it is by utterances.
    name: str
    grouping: Literal["utterance"] | HeldOut
    folds: tuple[Fold, ...]


@dataclass(frozen=True, slots=True)
class _PremiumPair:
    """Two splits of the same utterances, named by what the lenient one leaves in training."""

    kind: str
    lenient: _PremiumSplit
    strict: _PremiumSplit


def _premium_pairs(
    manifest: Manifest, *, seed: int, content_parts: int = CONTENT_PARTS
) -> tuple[_PremiumPair, ...]:
    """Make the splits that are compared, those with sessions only where the data allow it."""
    by_speaker = _PremiumSplit("speaker", "speaker", speaker_folds(manifest))
    pairs = [_against_random(manifest, by_speaker, seed)]
    if not _why_no_sessions(manifest):
        by_session = _PremiumSplit(
            "session", "session", make_folds(manifest, "session", seed=0)
        )
        pairs.append(_against_random(manifest, by_session, seed))
        if partners := _leave_out_partners(manifest, by_speaker.folds, seed):
            pairs.append(_also_hold_out("partner", "speaker", partners))
    if contents := _leave_out_content(manifest, seed, content_parts):
        pairs.append(_also_hold_out("content", "speaker+content", contents))
    return tuple(pairs)


def describe_gaps(manifest: Manifest, *, content_parts: int = CONTENT_PARTS) -> tuple[str, ...]:
    """Describe the comparisons that the data do not allow, in sentences."""
    gaps = []
    if reason := _why_no_sessions(manifest):
        gaps.append(f"{reason}: the session and the partner premium are left out.")
    else:
        partners = _partners(manifest)
        if lonely := sorted(set(manifest.speakers.tolist()) - partners.keys()):
            subject = f"All but {', '.join(lonely)}" if partners else "No speaker"
            needed = "it takes another person in the session, and as many people outside it"
            gaps.append(f"{subject} can be in the partner premium: {needed}.")
    cases = _leave_out_content(manifest, 0, content_parts)
    n_missing = len(manifest) - sum(len(fold.test) for fold, *_ in cases)
    if manifest.contents is not None and n_missing:
        gaps.append(
            f"{n_missing:,} of {len(manifest):,} utterances are not in the content premium: "
            "without their content, fewer than two classes are left to learn from."
        )
    return tuple(gaps)


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
    return _PremiumPair(strict.name, leaking, strict)


def _also_hold_out(kind: str, grouping: HeldOut, cases: Sequence[_Case]) -> _PremiumPair:
    """Leave related rows out of training too, against a control with as many others out."""
    strict: list[Fold] = []
    control: list[Fold] = []
    for number, (fold, *sides) in enumerate(cases):
        for made, (names, rows) in zip((strict, control), sides, strict=True):
            train, held_out = np.setdiff1d(fold.train, rows), (*fold.held_out, *names)
            made.append(Fold(number, train, fold.test, held_out))
    other = "another" if kind == "partner" else "others"
    return _PremiumPair(
        kind,
        _PremiumSplit(f"speaker, {other} left out", "speaker", tuple(control)),
        _PremiumSplit(f"speaker, {kind} left out", grouping, tuple(strict)),
    )


def _leave_out_partners(manifest: Manifest, folds: Sequence[Fold], seed: int) -> list[_Case]:
    """Pair the partners of each speaker with as many other people.

    A speaker without a partner is in neither split. `folds` hold out one speaker each.
    """
    partners = _partners(manifest)
    everyone = set(manifest.speakers.tolist())
    cases: list[_Case] = []
    for fold in folds:
        (speaker,) = fold.held_out
        if speaker not in partners:
            continue
        out = partners[speaker]
        others = sorted(everyone - {speaker, *out})
        draw = np.random.default_rng(derive_seed(seed, "premium", "another", speaker))
        drawn = tuple(sorted(draw.permutation(others)[: len(out)].tolist()))
        related, other = (
            (names, np.flatnonzero(np.isin(manifest.speakers, names))) for names in (out, drawn)
        )
        cases.append((fold, related, other))
    return cases


def _leave_out_content(manifest: Manifest, seed: int, n_parts: int) -> list[_Case]:
    """Pair the content of each speaker's utterances, part by part, with as many others.

    The others are drawn from other content: of every class as many as the content has among the
    training rows, and where there are too few, of any class, then of the content itself.
    """
    contents, labels = manifest.contents, manifest.labels
    if contents is None or (n_contents := len(np.unique(contents))) < 2:
        return []
    # The same parts under every seed: what is drawn is the control.
    parts = deal_content(manifest, min(n_parts, n_contents), seed=0)
    cases: list[_Case] = []
    for fold, (number, part) in product(speaker_folds(manifest), enumerate(parts)):
        test = np.intersect1d(fold.test, part)
        within = np.isin(fold.train, part)
        related, others = fold.train[within], fold.train[~within]
        if not len(test) or len(np.unique(labels[others])) < 2:
            continue
        own_seed = derive_seed(seed, "premium", "others", *fold.held_out, number)
        draw = np.random.default_rng(own_seed)
        shuffled, last = draw.permutation(others), draw.permutation(related)
        wanted = np.zeros(len(shuffled), dtype=bool)
        for code in range(len(manifest.classes)):
            n_wanted = int((labels[related] == code).sum())
            wanted[np.flatnonzero(labels[shuffled] == code)[:n_wanted]] = True
        first = np.concatenate([shuffled[wanted], shuffled[~wanted], last])
        names = tuple(f"content:{name}" for name in np.unique(contents[part]).tolist())
        control = np.sort(first[: len(related)])
        cases.append((replace(fold, test=test), (names, related), ((), control)))
    return cases


def _why_no_sessions(manifest: Manifest) -> str:
    if manifest.sessions is None:
        return "The recordings have no sessions"
    if moving := manifest.speakers_between_sessions():
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


def _training_sets(pairs: Sequence[_PremiumPair]) -> dict[bytes, NDArray[np.int64]]:
    """List the training sets of all folds, each once: some splits learn from the same rows."""
    splits = [split for pair in pairs for split in (pair.lenient, pair.strict)]
    return {fold.train.tobytes(): fold.train for split in splits for fold in split.folds}


@dataclass(frozen=True, slots=True, eq=False)
class _Repeat:
    """All splits, to be fitted with one seed on the features, or on them with rows permuted."""

    seed: int
    pairs: tuple[_PremiumPair, ...]
    # Every utterance gets the features of the row named here; None leaves them as they are.
    order: NDArray[np.int64] | None

    def make_tasks(self, labels: NDArray[np.int64]) -> list[FixedFits]:
        """List the fits: a task per training set, or one task for all sets of permuted rows."""
        sets = _training_sets(self.pairs).values()
        if self.order is None:
            return [FixedFits(train, ((self.seed, train, labels),)) for train in sets]
        # Labels and splits are moved to other rows, which is the same as moving the features.
        # Permuted rows hold nothing about either, so one set of bin edges serves all fits.
        moved = np.empty_like(labels)
        moved[self.order] = labels
        fits = tuple((self.seed, np.sort(self.order[train]), moved) for train in sets)
        return [FixedFits(np.arange(len(labels)), fits)]

    def gather(
        self, manifest: Manifest, present: NDArray[np.bool_], fitted: Sequence[Floats]
    ) -> list[_Pair]:
        """Gather the predictions of both splits of every pair."""
        everything = np.arange(len(manifest))
        order = everything if self.order is None else self.order
        probas = {}
        for (key, train), proba in zip(_training_sets(self.pairs).items(), fitted, strict=True):
            # Training rows stay NaN: no split may score them.
            whole = np.full((len(manifest), proba.shape[1]), np.nan)
            whole[np.setdiff1d(everything, order[train])] = proba
            probas[key] = whole[order]
        gather = partial(_gather_split, manifest, present[order], probas)
        return [(gather(pair.lenient), gather(pair.strict)) for pair in self.pairs]


def _gather_split(
    manifest: Manifest,
    present: NDArray[np.bool_],
    probas: Mapping[bytes, Floats],
    split: _PremiumSplit,
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
        [present[fold.test] for fold in split.folds],
    )


def measure_premium(
    manifest: Manifest,
    features: Features,
    *,
    modality: str,
    metric: str,
    seed: int,
    fit_all: FitAll,
    content_parts: int = CONTENT_PARTS,
) -> list[PremiumScore]:
    """Fit all splits on real and on permuted rows, and compare their scores.

    Gives scores of the splits, then differences and premiums: each pooled and per speaker. The
    first preset is used; a training set of a single class raises ValueError.

    - metric: One that has a value for a single speaker.
    - seed: The first of :data:`N_PREMIUM_SEEDS`.
    - content_parts: Parts of the content, of which the content premium leaves out one at a
      time; at most as many as there are contents.
    """
    make = partial(_premium_pairs, manifest, content_parts=content_parts)
    pairs = [make(seed=seed + k) for k in range(N_PREMIUM_SEEDS)]
    for train in (rows for each in pairs for rows in _training_sets(each).values()):
        labels = manifest.labels[train[features.present[train]]]
        if (n_seen := len(np.unique(labels))) < 2:
            raise ValueError(
                f"A training set of {len(labels)} utterances holds {n_seen} class(es) only; "
                "the premium needs two in every fold. Choose other --classes, or another "
                "--modality."
            )
    repeats = []
    # Tasks of permuted rows take longest. Started first, they leave no worker idle at the end.
    for draw in range(N_ROW_DRAWS):
        rng = np.random.default_rng(derive_seed(seed, "premium", "rows", draw))
        k, order = draw % N_PREMIUM_SEEDS, rng.permutation(len(manifest))
        repeats.append(_Repeat(seed + k, pairs[k], order))
    repeats += [_Repeat(seed + k, own, None) for k, own in enumerate(pairs)]
    tasks = [each.make_tasks(manifest.labels) for each in repeats]
    answers = iter(fit_all([task for own in tasks for task in own]))
    gathered = []
    for each, own in zip(repeats, tasks, strict=True):
        fitted = [proba for _ in own for proba in next(answers)]
        gathered.append(each.gather(manifest, features.present, fitted))
    kinds = [pair.kind for pair in pairs[0]]
    permuted, real = (
        dict(zip(kinds, zip(*part, strict=True), strict=True))
        for part in (gathered[:N_ROW_DRAWS], gathered[N_ROW_DRAWS:])
    )
    return _compute_premium(real, permuted, modality=modality, metric=metric)


def _tally_pairs(repeats: Sequence[_Pair], metric: Metric) -> Floats:
    """Tally pairs of splits: shape (n_speakers, n_repeats, 2, ...), the lenient first."""
    lenient, strict = repeats[0]
    if not np.array_equal(lenient.utterances, strict.utterances):
        raise ValueError(
            f"{lenient.system!r} and {strict.system!r} tested different utterances; expected "
            "splits of one pair."
        )
    tallies = [
        [group_tallies(side, metric, side.speakers)[1] for side in pair] for pair in repeats
    ]
    return np.moveaxis(np.array(tallies), 2, 0)


def _compute_premium(
    real: Mapping[str, Sequence[_Pair]],
    permuted: Mapping[str, Sequence[_Pair]],
    *,
    modality: str,
    metric: str,
) -> list[PremiumScore]:
    """Score every split, subtract within each pair, and subtract that of permuted rows.

    The arguments give the predictions of both splits, one pair per repeat, by kind of premium.
    """
    chosen = METRICS[metric]
    # A premium is the mean over the seeds less the mean over the permuted rows.
    counts = [len(next(iter(each.values()))) for each in (real, permuted)]
    weights = np.repeat(np.divide((1, -1), counts), counts)

    def subtract(values: Floats) -> Floats:
        # Above 0 where the lenient split looks better, also for losses.
        sign = 1 if chosen.direction == "maximize" else -1
        return np.asarray(sign * (values[..., 0] - values[..., 1]))

    def premium(values: Floats) -> Floats:
        return np.asarray(subtract(values) @ weights)[..., None]

    def average(tallies: Floats) -> Floats:
        return np.asarray(chosen.value(tallies) @ weights)

    everyone = sorted({name for (pair, *_) in real.values() for name in pair[0].speakers})
    # A split may be in several pairs: its scores are listed once.
    scores: dict[tuple[str, str], list[PremiumScore]] = {}
    differences: list[PremiumScore] = []
    premiums, contrasts = [], []
    for kind in real:
        names = [each.system for each in real[kind][0]]
        speakers, sizes = np.unique(real[kind][0][0].speakers, return_counts=True)
        rows = partial(
            _list_rows, speakers=speakers, sizes=sizes, modality=modality, metric=chosen
        )
        parts = [_tally_pairs(each[kind], chosen) for each in (real, permuted)]
        for part, suffix in zip(parts, ("", ", rows permuted"), strict=True):
            for side, split in enumerate(names):
                take = partial(np.take, indices=side, axis=-1)
                scores[suffix, split] = rows(part, take, f"score{suffix}", split)
            differences += rows(part, subtract, f"{kind} difference{suffix}", *names)
        both = np.concatenate(parts, axis=1)
        premiums.append(rows(both, premium, f"{kind} premium", *names))
        # A speaker that is in no split of the pair has nothing to swap.
        padded = np.zeros((len(everyone), *both.shape[1:]))
        padded[np.searchsorted(everyone, speakers)] = both
        contrasts.append(Contrast(average, padded[:, :, 0], padded[:, :, 1]))
    alone, adjusted = swap_p_values(contrasts, swap_patterns(len(everyone)))
    listed = [row for own in scores.values() for row in own] + differences
    for (pooled, *others), p, p_adjusted in zip(
        premiums, alone.tolist(), adjusted.tolist(), strict=True
    ):
        listed += [replace(pooled, p=p, p_adjusted=p_adjusted), *others]
    return listed


def _list_rows(
    tallies: Floats,
    combine: Callable[[Floats], Floats],
    quantity: str,
    split: str,
    against: str = "",
    *,
    speakers: NDArray[np.str_],
    sizes: NDArray[np.int64],
    modality: str,
    metric: Metric,
) -> list[PremiumScore]:
    """List a pooled number, then that of every speaker.

    `combine` takes values of both splits, shape (..., n_repeats, 2), and gives the numbers of
    the repeats, shape (..., n_repeats).
    """

    def make(group: str, values: Floats, n: int) -> PremiumScore:
        return PremiumScore(
            modality=modality,
            metric=metric.name,
            quantity=quantity,
            split=split,
            against=against,
            group=group,
            value=float(values.mean()),
            sd=float(values.std(ddof=1)) if len(values) > 1 else None,
            n_repeats=len(values),
            n_utterances=n,
        )

    pooled, left_out = pooled_and_left_out(lambda each: combine(metric.value(each)), tallies)
    row = make("", pooled, int(sizes.sum()))
    without = left_out.mean(axis=1)
    if against:
        # A difference of two scores has twice the range, that of two differences four times.
        reach = (metric.high - metric.low) * (2 if quantity.endswith("premium") else 1)
        low, high = jackknife_interval(row.value, without, sizes, low=-reach, high=reach)
    else:
        low, high = score_interval(metric, row.value, without, sizes)
    own = combine((metric.local or metric.value)(tallies))
    by_speaker = zip(speakers.tolist(), own, sizes.tolist(), strict=True)
    return [replace(row, low=low, high=high), *(make(*speaker) for speaker in by_speaker)]
