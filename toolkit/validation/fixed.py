"""Configurations that nothing searched: trees under many splits, linear probes, and chance.

A leaking split would leak into the inner folds of a search as well. The trees are few and
strongly regularised, so that a thousand fits take minutes. A probe is the project's logistic
regression with one penalty, and classes of equal weight: it shows whether features know the
label, the person or the content. A split that leaks adds to a score where they do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from toolkit.data import Manifest
from toolkit.models import Features, class_priors
from toolkit.models.boosters import fit_booster
from toolkit.models.linear import LinearPath
from toolkit.models.preparation import Recipe, prepare
from toolkit.validation.folds import (
    Fold,
    derive_seed,
    has_one_label_each,
    permute_labels,
    speaker_folds,
)
from toolkit.validation.metrics import METRICS, Floats
from toolkit.validation.scores import score_interval

_N_ROUNDS: Final = 80
#: Most points of a learning curve.
N_SIZES: Final = 5
# Scores this close are equal: sums in another order differ in their last bits.
_TOLERANCE: Final = 1e-12

_Codes = NDArray[np.int64]
#: Permutations of a probe's target, for its level of chance: the fewest that can reach p = .05.
N_PROBE_DRAWS: Final = 20
_N_FOLDS: Final = 5
#: Multiple of C = 1 / p, the middle of those that studies choose from.
_MULTIPLE: Final = 10
_N_COMPONENTS: Final = 50
_MOST_POINTS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class PremiumScore:
    """A score of a split, a difference of two, a premium, or the level of chance.

    - quantity: One of these, where ``speaker`` may also be ``session``, ``partner`` or
      ``content``:

      - ``"score"``: the score of a split;
      - ``"speaker difference"``: the lenient split less the strict one, above 0 where the
        lenient one looks better; for losses too;
      - ``"score, rows permuted"`` and ``"speaker difference, rows permuted"``: the same on
        features whose rows are permuted over all utterances;
      - ``"speaker premium"``: the difference less the difference on permuted rows;
      - ``"score, first seed"``: what the level of chance is compared with;
      - ``"chance"``: the score on permuted labels, under the same split and seed.
    - split, against: The split; of a difference, the split whose score is subtracted; of the
      level of chance, the permutation of the labels in words.
    - group: The speaker; empty for all utterances pooled.
    - value: A mean over its `n_repeats` seeds or permutations.
    - low, high: 95 % jackknife interval over speakers, of a pooled number; of the level of
      chance, the 2.5 % and 97.5 % quantiles of the permutations.
    - p, p_adjusted: Of a pooled premium: two-sided p of swapping whole speakers between the
      splits, alone and adjusted for all premiums of the modality. Of the level of chance: p of
      the score with the real labels, one-sided.
    - sd: Standard deviation (ddof 1) over the repeats; None for a single one.
    """

    modality: str
    metric: str
    quantity: str
    split: str
    against: str = ""
    group: str = ""
    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    sd: float | None = None
    n_repeats: int = 1
    n_utterances: int


@dataclass(frozen=True, slots=True, eq=False)
class FixedFits:
    """Fits of the fixed configuration that share their bin edges.

    - binned: Rows of the features whose values set the bin edges, increasing.
    - fits: For each fit its seed, its training rows (increasing, among `binned`) and the labels
      of all rows.
    """

    binned: NDArray[np.int64]
    fits: tuple[tuple[int, NDArray[np.int64], NDArray[np.int64]], ...]


FitAll = Callable[[list[FixedFits]], list[list[Floats]]]
"""Calls :func:`predict_rest` for every task, and returns the results in order."""


def predict_rest(features: Features, task: FixedFits, *, n_classes: int) -> list[Floats]:
    """Fit the fixed configuration to some rows and predict all the others.

    Gives, for each fit, class probabilities (n_rest, n_classes) of the rows that are not its
    training rows, in their order. The first preset is used, of the training rows that have the
    modality. A row without it gets the class shares of the training rows; so do all rows where
    the rows to learn from have a single class.
    """
    n = len(features.present)
    recipe, own = _fix_configuration(features, n)
    make = partial(prepare, recipe, features, n_classes=n_classes, seed=0)
    binned = task.binned[features.present[task.binned]]
    bins = None
    probas = []
    for seed, train, labels in task.fits:
        rest = np.setdiff1d(np.arange(n), train)
        proba = np.tile(class_priors(labels[train], n_classes), (len(rest), 1))
        rows, present = train[features.present[train]], features.present[rest]
        if len(np.unique(labels[rows])) > 1 and present.any():
            # LightGBM copies the rows' bins: binning takes longer than the fit. Transcripts
            # have other features in each training set, and so other bins.
            if bins is None and not features.texts:
                bins = make(binned, labels).data
            places = np.searchsorted(binned, rows)
            prepared = make(rows, labels, reference=bins, positions=places)
            own_seed = derive_seed(seed, "premium", "booster")
            booster = fit_booster(
                prepared.data, own, n_rounds=_N_ROUNDS, seed=own_seed, release_rows=False
            )
            X = prepared.features.take(rest[present], prepared.columns)
            proba[present] = booster.predict_proba(X, names=prepared.data.names)
        probas.append(proba)
    return probas


def predict_curve(
    features: Features,
    manifest: Manifest,
    outer_folds: Sequence[Fold],
    *,
    seed: int,
    on_done: Callable[[str], None],
) -> dict[int, list[Floats]]:
    """Predict the outer test rows by the fixed configuration, trained on few speakers.

    Gives, by number of training speakers, up to five from 2 to all of the smallest fold, the
    probabilities of each fold's test rows; nothing with fewer than three training speakers.
    The training speakers of a fold are drawn once, in random order: a smaller set is a part of
    a larger one, and no test row, nor any other speaker's row, decides anything. `on_done`
    takes the name of each finished fit.
    """
    trained = [np.unique(manifest.speakers[fold.train]) for fold in outer_folds]
    most = min(map(len, trained))
    sizes = sorted({round(size) for size in np.geomspace(2, most, N_SIZES)}) if most > 2 else []
    probas: dict[int, list[Floats]] = {size: [] for size in sizes}
    for fold, names in zip(outer_folds, trained, strict=True):
        own_seed = derive_seed(seed, "learning curve", fold.number)
        drawn = np.random.default_rng(own_seed).permutation(names)
        for size in sizes:
            train = fold.train[np.isin(manifest.speakers[fold.train], drawn[:size])]
            task = FixedFits(train, ((own_seed, train, manifest.labels),))
            (proba,) = predict_rest(features, task, n_classes=len(manifest.classes))
            rest = np.setdiff1d(np.arange(len(manifest)), train)
            probas[size].append(proba[np.searchsorted(rest, fold.test)])
            on_done(f"fold {fold.name}, {size} speakers")
    return probas


def _fix_configuration(features: Features, n_rows: int) -> tuple[Recipe, dict[str, Any]]:
    """Return the one configuration of all fits."""
    preset = next(iter(features.presets))
    n_features = len(features.presets[preset])
    return Recipe("lightgbm", preset, "none", "none", 63), {
        "learning_rate": 0.12,
        "num_leaves": 7,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 5.0,
        "extra_trees": True,
        "feature_fraction": min(1.0, max(8.0, n_features**0.5) / n_features),
        "min_data_in_leaf": max(1, round(0.5 * n_rows**0.5)),
    }


def measure_chance(
    manifest: Manifest,
    *,
    modality: str,
    metric: str,
    seed: int,
    n_permutations: int,
    fit_all: FitAll,
) -> list[PremiumScore]:
    """Score the split by speakers on permuted labels, beside its score on the real ones.

    Gives the score with the real labels, then the level of chance with the p of this score.
    """
    folds = speaker_folds(manifest)
    label_sets = [manifest.labels]
    for draw in range(n_permutations):
        own = derive_seed(seed, "premium", "labels", draw)
        label_sets.append(permute_labels(manifest.labels, manifest.speakers, own))
    answers = fit_all(
        [
            FixedFits(f.train, tuple((seed, f.train, labels) for labels in label_sets))
            for f in folds
        ]
    )
    chosen = METRICS[metric]
    rows = np.concatenate([fold.test for fold in folds])
    found, *nulls = [
        chosen.compute(labels[rows], np.concatenate(probas))
        for labels, probas in zip(label_sets, zip(*answers, strict=True), strict=True)
    ]
    sign = 1 if chosen.direction == "maximize" else -1
    n_as_good = sum(sign * (null - found) >= -_TOLERANCE for null in nulls)
    real = PremiumScore(
        modality=modality,
        metric=metric,
        quantity="score, first seed",
        split="speaker",
        value=found,
        n_utterances=len(manifest),
    )
    low, high = np.quantile(nulls, (0.025, 0.975)).tolist()
    exchanged = has_one_label_each(manifest.labels, manifest.speakers)
    chance = replace(
        real,
        quantity="chance",
        against=f"labels {'exchanged between' if exchanged else 'permuted within'} speakers",
        value=float(np.mean(nulls)),
        low=low,
        high=high,
        # Phipson and Smyth (2010): the real labels are one of the permutations.
        p=(n_as_good + 1) / (n_permutations + 1),
        sd=float(np.std(nulls, ddof=1)) if n_permutations > 1 else None,
        n_repeats=n_permutations,
    )
    return [real, chance]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeScore:
    """How well a linear probe tells a target from the features of a modality.

    - held_out: What no fold has on both sides: speaker, content, dialogue or utterance.
    - value: Unweighted average recall (UAR) of all folds together.
    - low, high: Its 95 % jackknife interval over speakers, if there is one.
    - chance: Mean UAR of the same fits on permuted targets.
    - p: One-sided, ``(b + 1) / (N + 1)``, where b of N permutations score at least as well.
    - n_unseen: Utterances whose class is in no training row of their fold; they are not scored.
    """

    modality: str
    target: str
    held_out: str
    value: float
    low: float | None
    high: float | None
    chance: float
    p: float
    n_classes: int
    n_utterances: int
    n_speakers: int
    n_unseen: int


@dataclass(frozen=True, slots=True, eq=False)
class _Probe:
    """A target, shape (n,), what is held out, and the groups within which it is permuted."""

    target: str
    names: NDArray[np.str_]
    held_out: str
    groups: NDArray[np.str_]
    within: NDArray[np.str_]


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """Utterances of people whose rows fitted neither axis.

    - pca, lda: shape (n, 2); of two classes the second axis of `lda` is that of `pca`.
    - explained: Shares of the variance of the fitted rows on both axes of `pca`.
    - n_fitted: Speakers that the axes were fitted on.
    """

    pca: Floats
    lda: Floats
    labels: _Codes
    speakers: NDArray[np.str_]
    explained: tuple[float, float]
    n_fitted: int
    n_all: int


def make_probes(manifest: Manifest) -> tuple[list[_Probe], list[str]]:
    """List the targets of probes, and describe those that the table lacks."""
    people, everything = manifest.speakers, np.zeros(len(manifest), dtype=str)
    labels = np.array(manifest.classes)[manifest.labels]
    # Another utterance of one dialogue shares room and topic with the tested one.
    parts = {"content": manifest.contents, "dialogue": manifest.dialogues}
    parts["utterance"] = manifest.utterances
    kind, groups = next((k, each) for k, each in parts.items() if each is not None)
    probes = [_Probe("label", labels, "speaker", people, people)]
    probes += [_Probe("speaker", people, kind, groups, everything)]
    gaps = [] if manifest.traits else ["no trait of people was named, such as --by sex"]
    for name, values in manifest.traits.items():
        own = np.array([values[speaker] for speaker in people.tolist()], dtype=str)
        if (own != "").all() and 1 < len(np.unique(own)) < len(np.unique(people)):
            probes.append(_Probe(name, own, "speaker", people, people))
        else:
            gaps.append(
                f"{name} is not known of everybody, or has one value, or one per person"
            )
    if manifest.contents is not None:
        probes.append(_Probe("content", manifest.contents, "speaker", people, people))
    else:
        gaps.append("the table has no column of content")
    return probes, [f"Probes: {gap}." for gap in gaps]


def _draw_targets(probe: _Probe, rows: _Codes, seed: int) -> _Codes:
    """Give the target of rows and its permutations, shape (1 + N, n)."""
    codes = np.unique(probe.names[rows], return_inverse=True)[1]
    seeds = [derive_seed(seed, "probe", probe.target, k + 1) for k in range(N_PROBE_DRAWS)]
    return np.stack([codes, *(permute_labels(codes, probe.within[rows], s) for s in seeds)])


def _predict_probe(
    features: Features, seed: int, task: tuple[_Probe, int]
) -> tuple[_Codes, _Codes, NDArray[np.bool_]]:
    """Fit a probe in one fold; give its test rows, their predictions and those to score.

    The latter two are of the target and of its permutations, shape (1 + N, n_test).
    """
    probe, part = task
    rows = np.flatnonzero(features.present)
    targets = _draw_targets(probe, rows, seed)
    train, test = _deal_groups(probe.groups[rows], _N_FOLDS, seed)[part]
    columns = next(iter(features.presets.values()))
    predicted = np.zeros((len(targets), len(test)), dtype=np.int64)
    scored = np.zeros_like(predicted, dtype=bool)
    # One thread: the last bits of sums must not depend on the cores.
    with threadpool_limits(1):
        fitted = features.fit(rows[train])
        X, X_test = (fitted.take(rows[own], columns) for own in (train, test))
        for draw, codes in enumerate(targets):
            counts = np.bincount(codes[train], minlength=codes.max() + 1)
            scored[draw] = counts[codes[test]] > 0
            if (counts > 0).sum() < 2:
                predicted[draw] = counts.argmax()
                continue
            # Classes of equal weight: holding people out changes the shares of the classes.
            weights = 1 / counts[codes[train]]
            weights /= weights.mean()
            path = LinearPath(X, codes[train], n_classes=len(counts), weights=weights)
            predicted[draw] = path.fit(_MULTIPLE).predict_proba(X_test).argmax(axis=1)
    return test, predicted, scored


def _deal_groups(
    groups: NDArray[np.str_], n_parts: int, seed: int
) -> list[tuple[_Codes, _Codes]]:
    """Deal groups out at random; training and test rows of each part.

    The target plays no role, so that its permutations are scored under the same folds.
    """
    names, numbers = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(derive_seed(seed, "probe", "folds"))
    part = (np.arange(len(names)) % n_parts)[rng.permutation(len(names))][numbers]
    parts = range(min(n_parts, len(names)))
    return [(np.flatnonzero(part != k), np.flatnonzero(part == k)) for k in parts]


def measure_probes(
    manifest: Manifest,
    features: Features,
    probes: Sequence[_Probe],
    *,
    modality: str,
    seed: int,
    run: Callable[..., Sequence[Any]] = map,  # type: ignore[assignment]
) -> list[ProbeScore]:
    """Score probes of one modality beside their level of chance.

    - run: Calls a function for every task, as ``map`` does.
    """
    rows = np.flatnonzero(features.present)
    found = []
    for probe in probes:
        n_parts = min(_N_FOLDS, len(np.unique(probe.groups[rows])))
        tasks = [(probe, part) for part in range(n_parts)]
        answers = list(run(partial(_predict_probe, features, seed), tasks))
        test, predicted, scored = (
            np.concatenate(each, axis=-1) for each in zip(*answers, strict=True)
        )
        codes, people = _draw_targets(probe, rows, seed)[:, test], manifest.speakers[rows[test]]
        found.append(_score_probe(probe, codes, predicted, scored, people, modality))
    return found


def _score_probe(  # noqa: PLR0917
    probe: _Probe,
    codes: _Codes,
    predicted: _Codes,
    scored: NDArray[np.bool_],
    people: NDArray[np.str_],
    modality: str,
) -> ProbeScore:
    """Score predictions of the target and its permutations, each of shape (1 + N, n)."""
    answers = zip(codes, predicted, scored, strict=True)
    value, *nulls = (_recall(truth[used], answer[used]) for truth, answer, used in answers)
    truth, answer, people = (each[scored[0]] for each in (codes[0], predicted[0], people))
    names, sizes = np.unique(people, return_counts=True)
    kept = (people != name for name in names)
    left_out = np.array([_recall(truth[others], answer[others]) for others in kept])
    low, high = score_interval(METRICS["uar"], value, left_out, sizes)
    return ProbeScore(
        modality=modality,
        target=probe.target,
        held_out=probe.held_out,
        value=value,
        low=low,
        high=high,
        chance=float(np.mean(nulls)),
        # Sums in another order differ in their last bits.
        p=(sum(null >= value - _TOLERANCE for null in nulls) + 1) / (len(nulls) + 1),
        n_classes=len(np.unique(truth)),
        n_utterances=len(truth),
        n_speakers=len(names),
        n_unseen=int((~scored[0]).sum()),
    )


def _recall(truth: _Codes, answer: _Codes) -> float:
    """Average the recalls of the classes that have a row."""
    counts = np.bincount(truth)
    hits = np.bincount(truth[truth == answer], minlength=len(counts))
    return float(np.mean(hits[counts > 0] / counts[counts > 0])) if len(truth) else 0.0


def project_rows(manifest: Manifest, features: Features, *, seed: int) -> Projection | None:
    """Fit PCA and LDA on half of the speakers and project utterances of the others.

    None with a single column, or where these speakers have a single class.
    Fitted and shown on the same rows, LDA separates the classes of noise as well.
    """
    from sklearn.decomposition import PCA  # noqa: PLC0415  (slow)
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis  # noqa: PLC0415

    rows = np.flatnonzero(features.present)
    labels, speakers = manifest.labels[rows], manifest.speakers[rows]
    train, test = _deal_groups(speakers, 2, seed)[0]
    columns = next(iter(features.presets.values()))
    n_components = min(_N_COMPONENTS, len(train) - 1, len(columns))
    if n_components < 2 or len(np.unique(labels[train])) < 2:
        return None
    features = features.fit(rows[train])
    X = features.take(rows[train], columns)
    path = LinearPath(X, labels[train], n_classes=len(manifest.classes))
    scale = path.fit(_MULTIPLE).centred  # standardised and clipped, as the probes see them
    drawn = np.random.default_rng(derive_seed(seed, "points")).permutation(test)[:_MOST_POINTS]
    shown = np.sort(drawn)
    pca = PCA(n_components, svd_solver="randomized", random_state=0)
    fitted = pca.fit_transform(scale(X))
    found = pca.transform(scale(features.take(rows[shown], columns)))
    lda = LinearDiscriminantAnalysis().fit(fitted, labels[train]).transform(found)[:, :2]
    if lda.shape[1] == 1:
        lda = np.hstack([lda, found[:, :1]])
    first, second = pca.explained_variance_ratio_[:2].tolist()
    return Projection(
        pca=found[:, :2],
        lda=lda,
        labels=labels[shown],
        speakers=speakers[shown],
        explained=(first, second),
        n_fitted=len(np.unique(speakers[train])),
        n_all=len(test),
    )
