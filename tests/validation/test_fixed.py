"""The fixed configuration: what it learns from, and its level of chance."""

from dataclasses import replace

import numpy as np
import pytest

from toolkit.models import Features
from toolkit.validation import fixed, make_folds
from toolkit.validation.fixed import (
    FixedFits,
    _fix_configuration,
    measure_chance,
    predict_curve,
    predict_rest,
)

N_DIMS = 12


def make_features(values, present=None):
    present = np.ones(len(values), dtype=bool) if present is None else present
    return Features(
        values=values.astype(np.float32),
        names=tuple(f"text__value__{i:04d}" for i in range(values.shape[1])),
        present=present,
        presets={"rich": np.arange(values.shape[1])},
    )


@pytest.fixture(scope="module")
def values(manifest):
    """Features that show the class of a person never seen."""
    noise = np.random.default_rng(3).normal(size=(len(manifest), N_DIMS))
    noise[:, :4] += 1.5 * np.eye(4)[manifest.labels]
    return noise


def fit(features, train, labels, *, binned=None, seed=0):
    task = FixedFits(train if binned is None else binned, ((seed, train, labels),))
    return predict_rest(features, task, n_classes=4)[0]


def test_held_out_rows_change_no_fit(manifest, values):
    train, noise = np.arange(100), values.copy()
    noise[110:] = 1e6 * np.random.default_rng(5).normal(size=noise[110:].shape)
    labels = np.where(np.arange(len(manifest)) < 100, manifest.labels, 0)

    one = fit(make_features(values), train, manifest.labels)
    other = fit(make_features(noise), train, labels)

    assert one.shape == (len(manifest) - 100, 4)
    assert np.array_equal(one[:10], other[:10])


def test_fits_that_share_their_bins_are_those_of_each_alone(manifest, values):
    features, train = make_features(values), np.arange(100)
    reversed_labels = manifest.labels[::-1].copy()
    fits = (
        (0, train, manifest.labels),
        (1, train, manifest.labels),
        (0, train, reversed_labels),
    )

    together = predict_rest(features, FixedFits(train, fits), n_classes=4)

    for proba, (seed, rows, labels) in zip(together, fits, strict=True):
        assert np.array_equal(proba, fit(features, rows, labels, seed=seed))
    assert not np.array_equal(together[0], together[1])
    assert not np.array_equal(together[0], together[2])


def test_the_bin_edges_are_those_of_the_rows_named_for_them(manifest, values):
    features, everything = make_features(values), np.arange(len(manifest))

    own = fit(features, everything[:100], manifest.labels)
    wider = fit(features, everything[:100], manifest.labels, binned=everything)

    assert own.shape == wider.shape
    assert not np.array_equal(own, wider)


def test_an_absent_row_gets_the_class_shares_of_the_training_rows(manifest, values):
    present, train = np.arange(len(manifest)) % 5 != 0, np.arange(100)

    proba = fit(make_features(values, present), train, manifest.labels)

    shares = np.bincount(manifest.labels[train], minlength=4) / len(train)
    assert np.allclose(proba[~present[100:]], shares)
    assert not np.allclose(proba[1], shares)


def test_rows_of_one_class_predict_the_class_shares(manifest, values):
    # Permuted labels may leave one class where the modality is present.
    train = np.arange(100)
    labels = np.where(np.arange(len(manifest)) % 2 == 0, 3, manifest.labels)
    present = np.arange(len(manifest)) % 2 == 0

    proba = fit(make_features(values, present), train, labels)

    assert np.allclose(proba, np.bincount(labels[train], minlength=4) / len(train))


def test_the_configuration_depends_on_no_label_and_no_split(values):
    recipe, params = _fix_configuration(make_features(values), 150)

    assert params["feature_fraction"] == pytest.approx(8 / N_DIMS)
    assert params["min_data_in_leaf"] == 6
    assert (recipe.screening, recipe.imbalance) == ("none", "none")


def measure(manifest, features, *, metric="f1_micro", n_permutations):
    def fit_all(tasks):
        return [predict_rest(features, task, n_classes=len(manifest.classes)) for task in tasks]

    return measure_chance(
        manifest,
        modality="text",
        metric=metric,
        seed=0,
        n_permutations=n_permutations,
        fit_all=fit_all,
    )


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["f1_micro", "log_loss"])
def test_a_signal_is_outside_of_chance_in_either_direction_of_the_metric(
    manifest, values, metric
):
    real, chance = measure(manifest, make_features(values), metric=metric, n_permutations=9)

    assert (real.quantity, chance.quantity) == ("score, first seed", "chance")
    assert chance.against == "labels permuted within speakers"
    assert chance.p == pytest.approx(1 / 10)
    assert chance.n_repeats == 9
    assert chance.low < chance.value < chance.high
    outside = real.value > chance.high if metric == "f1_micro" else real.value < chance.low
    assert outside


@pytest.mark.slow
def test_noise_is_within_chance(manifest, values):
    noise = np.random.default_rng(8).normal(size=values.shape)

    real, chance = measure(manifest, make_features(noise), n_permutations=19)

    assert chance.p > 0.05
    assert abs(real.value - chance.value) <= 3 * chance.sd


def test_the_p_counts_permutations_that_score_as_well_and_the_real_labels(manifest):
    # Every fit predicts class 0 for all: each permutation scores as the real labels do.
    def fit_all(tasks):
        n = len(manifest)
        return [
            [np.tile([1.0, 0, 0, 0], (n - len(train), 1)) for _, train, _ in task.fits]
            for task in tasks
        ]

    real, chance = measure_chance(
        manifest, modality="text", metric="f1_micro", seed=0, n_permutations=4, fit_all=fit_all
    )

    assert real.value == pytest.approx((manifest.labels == 0).mean())
    assert (chance.value, chance.sd) == (pytest.approx(real.value), pytest.approx(0))
    assert chance.p == 1


@pytest.mark.slow
def test_where_each_person_has_one_label_the_speakers_exchange_theirs(manifest, values):
    names, who = np.unique(manifest.speakers, return_inverse=True)
    people = replace(manifest, labels=(np.arange(len(names)) % 2)[who], classes=("a", "b"))
    seen = []

    def fit_all(tasks):
        for task in tasks:
            assert all(np.array_equal(task.binned, train) for _, train, _ in task.fits)
            seen.extend(labels for _, _, labels in task.fits)
        features = make_features(values)
        return [predict_rest(features, task, n_classes=2) for task in tasks]

    _, chance = measure_chance(
        people, modality="text", metric="f1_micro", seed=0, n_permutations=9, fit_all=fit_all
    )

    assert chance.against == "labels exchanged between speakers"
    assert chance.sd > 0
    assert len({labels.tobytes() for labels in seen}) > 5
    for labels in seen:
        for name in names:
            assert len(np.unique(labels[people.speakers == name])) == 1


@pytest.fixture(scope="module")
def curve(manifest, values):
    """Three folds, their learning curve, its fits as they were asked for, and their names."""
    folds, seen, done = make_folds(manifest, "speaker", seed=0)[:3], [], []

    def record(features, task, *, n_classes):
        seen.append(task)
        return predict_rest(features, task, n_classes=n_classes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fixed, "predict_rest", record)
        probas = predict_curve(
            make_features(values), manifest, folds, seed=4, on_done=done.append
        )
    return folds, probas, seen, done


def test_a_learning_curve_goes_from_two_speakers_to_all_of_the_smallest_fold(manifest, curve):
    folds, probas, _, done = curve

    assert list(probas) == sorted(probas)
    assert (min(probas), max(probas)) == (2, len(set(manifest.speakers.tolist())) - 1)
    for found in probas.values():
        assert [proba.shape for proba in found] == [(len(fold.test), 4) for fold in folds]
    assert len(set(done)) == len(probas) * len(folds)
    few, many = (
        np.mean(
            np.concatenate(
                [
                    proba.argmax(axis=1) == manifest.labels[fold.test]
                    for fold, proba in zip(folds, probas[size], strict=True)
                ]
            )
        )
        for size in (min(probas), max(probas))
    )
    assert many > few + 0.1


def test_a_point_of_the_curve_learns_from_its_number_of_training_speakers_alone(
    manifest, curve
):
    folds, probas, seen, _ = curve

    for number, fold in enumerate(folds):
        tasks = seen[number * len(probas) : (number + 1) * len(probas)]
        smaller = set()
        for size, task in zip(probas, tasks, strict=True):
            ((_, train, _),) = task.fits
            drawn = set(manifest.speakers[train].tolist())
            assert set(train.tolist()) <= set(fold.train.tolist())
            assert not drawn & set(manifest.speakers[fold.test].tolist())
            assert len(drawn) == size
            assert smaller <= drawn
            assert np.array_equal(task.binned, train)
            smaller = drawn


def test_too_few_speakers_have_no_curve(manifest, values):
    whole = make_folds(manifest, "speaker", seed=0)[0]
    two = np.unique(manifest.speakers[whole.train])[:2]
    fold = replace(whole, train=whole.train[np.isin(manifest.speakers[whole.train], two)])

    assert not predict_curve(make_features(values), manifest, [fold], seed=4, on_done=print)
