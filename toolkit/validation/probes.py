"""What features know: linear probes of label, person and content, and projections of rows.

A split that leaks adds to a score where features tell the person or the content, and these go
with the label. A probe is the project's logistic regression with one penalty, and classes of
equal weight.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from toolkit.data import Manifest
from toolkit.models import Features, LinearPath
from toolkit.validation.folds import derive_seed, permute_labels
from toolkit.validation.metrics import METRICS, Floats, GroupedRows
from toolkit.validation.scores import pooled_and_left_out, score_interval

_Codes = NDArray[np.int64]
#: Permutations of the target, for the level of chance: the fewest that can reach p = .05.
N_PROBE_DRAWS: Final = 20
_N_FOLDS: Final = 5
#: Multiple of C = 1 / p, the middle of those that studies choose from.
_MULTIPLE: Final = 10
_N_COMPONENTS: Final = 50
_MOST_POINTS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeScore:
    """How well a linear probe tells a target from the features of a modality.

    Parameters
    ----------
    modality, target : str
        The modality, and the target: ``label``, ``speaker``, ``content`` or a trait.
    held_out : str
        What no fold has on both sides: ``speaker``, ``content``, ``dialogue`` or ``utterance``.
    value : float
        Unweighted average recall (UAR) of all folds together.
    low, high : float, optional
        Its 95 % jackknife interval over speakers.
    chance : float
        Mean UAR of the same fits on permuted targets.
    p : float
        One-sided, ``(b + 1) / (N + 1)``, where b of N permutations score at least as well.
    n_classes, n_utterances, n_speakers : int
        Classes, scored utterances and their speakers.
    n_unseen : int
        Utterances whose class is in no training row of their fold; they are not scored.
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
class Probe:
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


def make_probes(
    manifest: Manifest, traits: Mapping[str, NDArray[np.str_]]
) -> tuple[list[Probe], list[str]]:
    """List the targets of probes, and describe those that the table lacks.

    - traits: Name of a trait of people, such as sex, to that of each utterance's speaker.
    """
    people, everything = manifest.speakers, np.zeros(len(manifest), dtype=str)
    labels = np.array(manifest.classes)[manifest.labels]
    # Another utterance of one dialogue shares room and topic with the tested one.
    parts = {"content": manifest.contents, "dialogue": manifest.dialogues}
    parts["utterance"] = manifest.utterances
    kind, groups = next((k, each) for k, each in parts.items() if each is not None)
    probes = [Probe("label", labels, "speaker", people, people)]
    probes += [Probe("speaker", people, kind, groups, everything)]
    probes += [Probe(name, own, "speaker", people, people) for name, own in traits.items()]
    if manifest.contents is not None:
        probes.append(Probe("content", manifest.contents, "speaker", people, people))
    gaps = [] if manifest.contents is not None else ["content"]
    gaps += [] if traits else ["sex"]
    return probes, [f"Probes: the table has no column of {name}." for name in gaps]


def predict_probe(
    features: Features, probe: Probe, draw: int, seed: int
) -> tuple[_Codes, _Codes, NDArray[np.bool_]]:
    """Fit a probe in every fold; give its targets, predictions and the rows that are scored.

    - draw: Number of the permutation of the target; 0 for the target itself.
    """
    rows = np.flatnonzero(features.present)
    names, codes = np.unique(probe.names[rows], return_inverse=True)
    own_seed = derive_seed(seed, "probe", probe.target, draw)
    if draw:
        codes = permute_labels(codes, probe.within[rows], own_seed)
    columns = next(iter(features.presets.values()))
    predicted, scored = np.zeros_like(codes), np.zeros(len(rows), dtype=bool)
    for train, test in _deal_groups(probe.groups[rows], _N_FOLDS, seed):
        counts = np.bincount(codes[train], minlength=len(names))
        scored[test] = counts[codes[test]] > 0
        if (counts > 0).sum() < 2:
            continue
        # Classes of equal weight: holding people out changes the shares of the classes.
        weights = 1 / counts[codes[train]]
        fitted = features.fit(rows[train])
        path = LinearPath(
            fitted.take(rows[train], columns),
            codes[train],
            n_classes=len(names),
            weights=weights / weights.mean(),
        )
        X = fitted.take(rows[test], columns)
        predicted[test] = path.fit(_MULTIPLE).predict_proba(X).argmax(axis=1)
    return codes, predicted, scored


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


Predict = Callable[[list[tuple[Probe, int]]], list[tuple[_Codes, _Codes, NDArray[np.bool_]]]]
"""Calls :func:`predict_probe` for every probe and draw, and returns the results in order."""


def measure_probes(
    manifest: Manifest,
    features: Features,
    probes: Sequence[Probe],
    *,
    modality: str,
    predict_all: Predict,
) -> list[ProbeScore]:
    """Score probes of one modality beside their level of chance."""
    tasks = [(probe, draw) for probe in probes for draw in range(N_PROBE_DRAWS + 1)]
    answers = iter(predict_all(tasks))
    speakers = manifest.speakers[features.present]
    return [
        _score_probe(
            probe, [next(answers) for _ in range(N_PROBE_DRAWS + 1)], speakers, modality
        )
        for probe in probes
    ]


def _score_probe(
    probe: Probe,
    answers: Sequence[tuple[_Codes, _Codes, NDArray[np.bool_]]],
    speakers: NDArray[np.str_],
    modality: str,
) -> ProbeScore:
    metric = METRICS["uar"]
    (codes, predicted, scored), *_ = answers
    values = []
    for truth, answer, used in answers:
        # A class without a scored row has no recall.
        kept, places = np.unique(truth[used], return_inverse=True)
        recalls = [(answer[used] == truth[used])[places == k].mean() for k in range(len(kept))]
        values.append(float(np.mean(recalls)) if recalls else 0.0)
    people, numbers, sizes = np.unique(
        speakers[scored], return_inverse=True, return_counts=True
    )
    kept, places = np.unique(codes[scored], return_inverse=True)
    answer = np.searchsorted([*kept, np.inf], predicted[scored])
    answer[~np.isin(predicted[scored], kept)] = len(kept)
    proba = np.zeros((len(places), len(kept) + 1))
    tallies = metric.tally(GroupedRows(places, answer, proba, numbers, len(people)))
    if probe.target == "speaker":
        # Each speaker is a class: without one the mean is over the others.
        recall = tallies[:, 0].sum(axis=1) / sizes
        left_out = (recall.sum() - recall) / max(len(people) - 1, 1)
    else:
        _, left_out = pooled_and_left_out(metric.local or metric.value, tallies)
    low, high = score_interval(metric, values[0], left_out, sizes)
    nulls = np.array(values[1:])
    return ProbeScore(
        modality=modality,
        target=probe.target,
        held_out=probe.held_out,
        value=values[0],
        low=low,
        high=high,
        chance=float(nulls.mean()),
        # Sums in another order differ in their last bits.
        p=float(((nulls >= values[0] - 1e-12).sum() + 1) / (len(nulls) + 1)),
        n_classes=len(kept),
        n_utterances=int(scored.sum()),
        n_speakers=len(people),
        n_unseen=int((~scored).sum()),
    )


def project_rows(manifest: Manifest, features: Features, *, seed: int) -> Projection | None:
    """Fit PCA and LDA on half of the speakers and project utterances of the others.

    None with a single column, or where these speakers have a single class.
    Fitted and shown on the same rows, LDA separates the classes of noise as well.
    """
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
