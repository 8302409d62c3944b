"""Linear probes: what features tell of people held out, beside what they tell by chance."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from toolkit.data import Manifest
from toolkit.models import Features
from toolkit.models.tfidf import TextColumns
from toolkit.validation import fixed as probes_module
from toolkit.validation.fixed import (
    _deal_groups,
    _draw_targets,
    _predict_probe,
    _score_probe,
    make_probes,
    measure_probes,
    project_rows,
)
from toolkit.validation.metrics import METRICS
from toolkit.validation.scores import score_interval

N_PEOPLE, N_EACH = 8, 12
SEX = np.array(["f", "m"])[np.repeat(np.arange(N_PEOPLE) % 2, N_EACH)]


@pytest.fixture(autouse=True)
def _one_draw(monkeypatch):
    """Permute the targets once in place of 20 times."""
    monkeypatch.setattr(probes_module, "N_PROBE_DRAWS", 1)


def make_manifest(**changes):
    n = N_PEOPLE * N_EACH
    number = np.arange(n)
    given = {
        "source": "table.csv",
        "root": None,
        "modalities": ("audio",),
        "classes": ("calm", "loud"),
        "codes": ("0", "1"),
        "utterances": np.array([f"u{i:03d}" for i in number]),
        "labels": number % 2,
        "speakers": np.array([f"P{i // N_EACH}" for i in number]),
        "sessions": None,
        "dialogues": None,
        "splits": None,
        "paths": {},
        "contents": np.array([f"line{i % N_EACH // 2 % 4}" for i in number]),
        "traits": {"sex": {f"P{k}": "fm"[k % 2] for k in range(N_PEOPLE)}},
    }
    return Manifest(**(given | changes))


def make_features(parts, *, n_dims=8, seed=0):
    """Noise of size 1, plus an own random vector of size 2 of each value of every part."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(N_PEOPLE * N_EACH, n_dims))
    for part in parts:
        names, numbers = np.unique(part, return_inverse=True)
        values += 2 * rng.normal(size=(len(names), n_dims))[numbers]
    names = tuple(f"audio__value__{k}" for k in range(n_dims))
    present = np.ones(len(values), dtype=bool)
    return Features(values.astype(np.float32), names, present, {"all": np.arange(n_dims)})


def predict(features, probe):
    """Targets, predictions and scored rows of the target and its permutations, by row."""
    codes = _draw_targets(probe, np.flatnonzero(features.present), 0)
    predicted, scored = np.full_like(codes, -1), np.zeros_like(codes, dtype=bool)
    for part in range(5 if len(np.unique(probe.groups)) > 4 else 4):
        test, *answers = _predict_probe(features, 0, (probe, part))
        assert (predicted[:, test] == -1).all()
        predicted[:, test], scored[:, test] = answers
    return codes, predicted, scored


def measure(manifest, features, *targets):
    probes = [probe for probe in make_probes(manifest)[0] if probe.target in targets]
    found = measure_probes(manifest, features, probes, modality="audio", seed=0)
    return {score.target: score for score in found}


@pytest.mark.parametrize("planted", ["label", "speaker", "sex", "content", "nothing"])
def test_a_probe_tells_what_was_planted_and_nothing_else(planted):
    manifest = make_manifest()
    parts = {"label": manifest.labels, "speaker": manifest.speakers, "sex": SEX}
    parts["content"] = manifest.contents
    # Of sex, eight people are too few for a verdict, and it excludes half of the people.
    others = {"label", "speaker", "content"} - {planted}
    others -= {"speaker"} if planted == "sex" else set()

    features = make_features([parts[planted]] if planted in parts else [])
    found = measure(manifest, features, planted, *others)

    if planted in parts:
        assert found[planted].value > 0.9
        assert found[planted].value > found[planted].chance
    for target in others:
        score = found[target]
        assert abs(score.value - 1 / score.n_classes) < 0.2, target
        assert abs(score.chance - 1 / score.n_classes) < 0.2, target


@pytest.mark.parametrize("common", ["f", "m"])
def test_a_fold_that_trains_on_one_class_predicts_it_whatever_its_name(common):
    # One person of eight has the other value: the fold of that person trains on one class.
    rare = "m" if common == "f" else "f"
    traits = {"sex": {f"P{k}": rare if k == 0 else common for k in range(N_PEOPLE)}}
    manifest = make_manifest(traits=traits)
    [probe] = [probe for probe in make_probes(manifest)[0] if probe.target == "sex"]
    answers = [_predict_probe(make_features([]), 0, (probe, part)) for part in range(5)]

    single = [
        (predicted[0], probe.names[test])
        for test, predicted, scored in answers
        if not scored[0].all()
    ]
    [(predicted, truth)] = single
    assert set(predicted.tolist()) == {"fm".index(common)}
    assert rare in truth


def test_people_are_told_from_other_content_and_all_else_from_other_people():
    probes, gaps = make_probes(make_manifest())

    assert [(p.target, p.held_out) for p in probes] == [
        ("label", "speaker"),
        ("speaker", "content"),
        ("sex", "speaker"),
        ("content", "speaker"),
    ]
    assert gaps == []
    assert np.array_equal(probes[1].groups, make_manifest().contents)


@pytest.mark.parametrize("own", [{}, {"sex": {f"P{k}": "f" for k in range(N_PEOPLE)}}])
def test_without_content_and_sex_utterances_are_held_out_and_the_gaps_are_named(own):
    probes, gaps = make_probes(make_manifest(contents=None, traits=own))

    assert [(p.target, p.held_out) for p in probes] == [
        ("label", "speaker"),
        ("speaker", "utterance"),
    ]
    assert [("sex" in gap, "content" in gap) for gap in gaps] == [(True, False), (False, True)]


def test_no_group_is_on_both_sides_and_each_row_is_tested_once():
    groups = make_manifest().speakers

    folds = _deal_groups(groups, 5, 0)

    assert len(folds) == 5
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(len(groups)))
    assert not any({*groups[train]} & {*groups[test]} for train, test in folds)


@pytest.mark.parametrize("target", ["label", "sex", "content"])
def test_no_probe_but_that_of_speakers_learns_from_a_tested_person(target, monkeypatch):
    manifest = make_manifest()
    numbers = np.unique(manifest.speakers, return_inverse=True)[1]
    features = make_features([])
    values = features.values.copy()
    values[:, 0] = numbers
    tested = []

    class Spy:
        def __init__(self, X, y, **_):
            self.seen = {*X[:, 0]}

        def fit(self, multiple):
            return self

        def predict_proba(self, X):
            tested.extend(X[:, 0])
            assert not self.seen & {*X[:, 0]}
            return np.ones((len(X), 1))

    monkeypatch.setattr(probes_module, "LinearPath", Spy)
    measure(manifest, replace(features, values=values), target)

    assert sorted(tested) == sorted([*numbers, *numbers])  # the target, and its permutation


def test_value_and_interval_are_the_mean_recall_and_its_jackknife():
    manifest = make_manifest()
    features = make_features([manifest.labels], seed=1)
    probe = make_probes(manifest)[0][0]

    codes, predicted, scored = (each[0] for each in predict(features, probe))
    score = measure(manifest, features, "label")["label"]

    assert scored.all()
    assert score.value == pytest.approx(balanced_accuracy_score(codes, predicted))
    people = np.unique(manifest.speakers)
    left_out = [
        balanced_accuracy_score(codes[kept], predicted[kept])
        for kept in (manifest.speakers != name for name in people)
    ]
    expected = score_interval(METRICS["uar"], score.value, left_out, [N_EACH] * N_PEOPLE)
    assert (score.low, score.high) == pytest.approx(expected)


def test_the_jackknife_of_the_speaker_probe_leaves_out_a_class():
    manifest = make_manifest()
    features = make_features([], seed=2)
    probe = make_probes(manifest)[0][1]

    codes, predicted, _ = (each[0] for each in predict(features, probe))
    score = measure(manifest, features, "speaker")["speaker"]

    recalls = np.array([(predicted[codes == k] == k).mean() for k in range(N_PEOPLE)])
    left_out = [np.delete(recalls, k).mean() for k in range(N_PEOPLE)]
    expected = score_interval(METRICS["uar"], recalls.mean(), left_out, [N_EACH] * N_PEOPLE)
    assert score.value == pytest.approx(recalls.mean())
    assert (score.low, score.high) == pytest.approx(expected)


def test_content_that_no_training_row_has_is_counted_and_not_scored():
    contents = make_manifest().contents.astype("<U9")
    contents[:5] = "only here"

    manifest = make_manifest(contents=contents)
    score = measure(manifest, make_features([contents]), "content")["content"]

    assert (score.n_unseen, score.n_classes) == (5, 4)
    assert score.n_utterances == N_PEOPLE * N_EACH - 5
    assert score.value > 0.9


def test_rows_without_the_modality_are_in_no_number():
    manifest, features = make_manifest(), make_features([])
    present = features.present.copy()
    present[: 2 * N_EACH] = False
    values = features.values.copy()
    values[~present] = np.nan

    features = replace(features, values=values, present=present)
    score = measure(manifest, features, "label")["label"]

    assert (score.n_utterances, score.n_speakers) == (6 * N_EACH, 6)


def test_chance_and_p_are_of_the_permutations():
    manifest = make_manifest()
    probe = make_probes(manifest)[0][0]
    truth, used = manifest.labels, np.ones(len(manifest), dtype=bool)
    right, wrong = truth.copy(), truth.copy()
    wrong[: len(truth) // 2] = 1 - wrong[: len(truth) // 2]
    answers = np.stack([wrong, right, wrong, 1 - right])
    truths, every = np.stack([truth] * 4), np.stack([used] * 4)

    score = _score_probe(probe, truths, answers, every, manifest.speakers, "audio")

    assert score.value == pytest.approx(0.5)
    assert score.chance == pytest.approx((1 + 0.5 + 0) / 3)
    assert score.p == pytest.approx((2 + 1) / (3 + 1))


def test_a_permutation_keeps_the_folds_and_what_each_person_has():
    manifest = make_manifest()
    probe, rows = make_probes(manifest)[0], np.arange(len(manifest))

    label, sex = (_draw_targets(probe[k], rows, 0)[1] for k in (0, 2))

    assert not np.array_equal(label, manifest.labels)
    for name in np.unique(manifest.speakers):
        own = manifest.speakers == name
        assert label[own].sum() == manifest.labels[own].sum()
        assert np.ptp(sex[own]) == 0  # people exchange their sex as a whole


def test_the_projection_shows_people_that_fitted_no_axis():
    manifest = make_manifest()
    noise = make_features([], n_dims=20)
    train, test = _deal_groups(manifest.speakers, 2, 0)[0]

    found = project_rows(manifest, noise, seed=0)

    assert not {*found.speakers} & {*manifest.speakers[train]}
    assert found.n_fitted == N_PEOPLE / 2 == len(np.unique(found.speakers))
    assert found.pca.shape == found.lda.shape == (len(test), 2)
    assert np.array_equal(found.lda[:, 1], found.pca[:, 0])  # two classes have one axis
    # On the rows that it was fitted on, LDA separates the classes of noise.
    means = [found.lda[found.labels == k, 0].mean() for k in (0, 1)]
    assert abs(means[0] - means[1]) < 0.9


def test_classes_that_differ_are_apart_in_the_projection_of_others():
    manifest = make_manifest()

    found = project_rows(manifest, make_features([manifest.labels]), seed=0)

    means = [found.lda[found.labels == k, 0].mean() for k in (0, 1)]
    assert abs(means[0] - means[1]) > 2


def test_nothing_is_projected_without_two_columns_or_two_classes():
    manifest = make_manifest()
    single = manifest.labels * 0

    assert project_rows(manifest, make_features([], n_dims=1), seed=0) is None
    assert project_rows(replace(manifest, labels=single), make_features([]), seed=0) is None


def test_transcripts_are_fitted_to_the_training_rows_of_each_fold():
    manifest, fits = make_manifest(), []

    class Watched(TextColumns):
        def fit(self, rows):
            fits.append(rows)
            return super().fit(rows)

    words = tuple(f"{name} {label}" for name, label in zip(SEX, manifest.labels, strict=True))
    values = np.full((len(words), 3), np.nan, dtype=np.float32)
    names, present = ("text__tfidf__0",) * 3, np.ones(len(words), bool)
    columns = (Watched("text", 0, 3, words),)
    features = Features(values, names, present, {"all": np.arange(3)}, texts=columns)

    found = measure(manifest, features, "label")

    assert found["label"].value == 1
    splits = [train for train, _ in _deal_groups(manifest.speakers, 5, 0)]
    expected = {train.tobytes() for train in splits}
    assert {rows.tobytes() for rows in fits} == expected
    fits.clear()
    assert project_rows(manifest, features, seed=0).n_fitted == N_PEOPLE / 2
    assert [rows.tolist() for rows in fits] == [
        _deal_groups(manifest.speakers, 2, 0)[0][0].tolist()
    ]
