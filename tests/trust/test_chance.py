"""What cannot be known scores as chance does, and a leak scores better."""

from dataclasses import replace

import lightgbm
import numpy as np
import pytest

from toolkit.models import Features
from toolkit.validation import (
    Protocol,
    SearchOptions,
    fits,
    gather_predictions,
    make_folds,
    run_unit,
)
from toolkit.validation.ledger import Ledger

OPTIONS = SearchOptions(
    imbalance=("smote",), screening=("ftest-6",), n_trials=2, max_rounds=15, patience=5
)
PROTOCOL = Protocol(outer="5", inner=2)
N_REFERENCE = 20


@pytest.fixture(scope="module")
def people(manifest):
    """150 utterances whose speakers are told by code; labels are set by each test."""
    return replace(manifest, sessions=None)


def as_features(values):
    return Features(
        values=values.astype(np.float32),
        names=tuple(f"text__value__{i:04d}" for i in range(values.shape[1])),
        present=np.ones(len(values), dtype=bool),
        presets={"rich": np.arange(values.shape[1])},
    )


def score(manifest, values, protocol=PROTOCOL, linear="auto"):
    """F1-micro of the whole nested pipeline."""
    options = replace(OPTIONS, linear=linear)
    folds = make_folds(manifest, protocol.outer, seed=0)
    features = as_features(values)
    units = [
        run_unit(manifest, features, fold, system="text", protocol=protocol, options=options)
        for fold in folds
    ]
    table = gather_predictions(
        manifest, folds, "text", [u.proba for u in units], [u.present for u in units]
    )
    return float((table.proba.argmax(axis=1) == manifest.labels).mean())


def permute_within_speakers(manifest, rng):
    labels = manifest.labels.copy()
    for name in np.unique(manifest.speakers):
        rows = np.flatnonzero(manifest.speakers == name)
        labels[rows] = rng.permutation(labels[rows])
    return labels


def reference_score(values, labels, speakers):
    """Nested by hand, with LightGBM alone: two speakers of ten are predicted by the others.

    Classes weigh the same, as SMOTE makes them in the searches.
    """
    names = np.unique(speakers)
    right = 0
    for held_out in np.split(names, 5):
        test = np.isin(speakers, held_out)
        weights = 1 / np.bincount(labels[~test])[labels[~test]]
        data = lightgbm.Dataset(values[~test], labels[~test], weight=weights)
        plain = {
            "objective": "multiclass",
            "num_class": 4,
            "verbosity": -1,
            "num_threads": 1,
            "min_data_in_leaf": 5,
            "min_sum_hessian_in_leaf": 0,
            "num_leaves": 7,
        }
        model = lightgbm.train(plain, data, 15)
        right += (model.predict(values[test]).argmax(axis=1) == labels[test]).sum()
    return right / len(labels)


@pytest.fixture(scope="module")
def planted(people):
    """Features that tell the class of a person never seen."""
    values = np.random.default_rng(1).normal(size=(len(people), 12))
    values[:, :4] += 1.5 * np.eye(4)[people.labels]
    return values


@pytest.fixture(scope="module")
def null(people, planted):
    """Mean and spread of the reference where labels are permuted within speakers."""
    rng = np.random.default_rng(2)
    speakers = people.speakers
    found = [
        reference_score(planted, permute_within_speakers(people, rng), speakers)
        for _ in range(N_REFERENCE)
    ]
    return np.mean(found), np.std(found, ddof=1)


@pytest.mark.parametrize("seed", range(3))
def test_permuted_labels_score_as_in_an_independent_loop(people, planted, null, seed):
    labels = permute_within_speakers(people, np.random.default_rng(100 + seed))
    mean, spread = null

    found = score(replace(people, labels=labels), planted, linear="none")

    assert abs(found - mean) <= 3 * spread


@pytest.mark.parametrize("seed", range(3))
def test_a_linear_part_gains_nothing_from_permuted_labels(people, planted, null, seed):
    # It weighs what finds nothing down to the priors of the training folds, whose largest class
    # is rare where it is tested: such scores lie below those of trees that guess.
    labels = permute_within_speakers(people, np.random.default_rng(100 + seed))
    mean, spread = null

    assert score(replace(people, labels=labels), planted) <= mean + 3 * spread


def test_the_labels_themselves_are_outside_that_null(people, planted, null):
    mean, spread = null

    assert score(people, planted) > mean + 3 * spread


def test_a_leak_is_outside_that_null(people, planted, null, monkeypatch):
    # The control on noise: synthetic rows between rows that are to be predicted.
    labels = permute_within_speakers(people, np.random.default_rng(100))
    honest = fits.prepare

    def prepare(recipe, features, _, labels, **others):
        return honest(recipe, features, np.arange(len(labels)), labels, **others)

    monkeypatch.setattr(fits, "prepare", prepare)
    # The ledger would stop the run before it is scored.
    monkeypatch.setattr(Ledger, "_refuse", lambda *_: None)
    mean, spread = null

    assert score(replace(people, labels=labels), planted) > mean + 3 * spread


@pytest.mark.slow
@pytest.mark.nightly
def test_knowing_who_speaks_gains_nothing_under_grouped_folds(people):
    # Everybody has a mood of their own, and the features tell who speaks and no more.
    rng = np.random.default_rng(3)
    names, who = np.unique(people.speakers, return_inverse=True)
    mood = np.arange(len(names)) % 4
    labels = np.where(rng.random(len(who)) < 0.7, mood[who], rng.integers(0, 4, len(who)))
    moody = replace(people, labels=labels)
    strangers = replace(moody, speakers=rng.permutation(people.speakers))
    grouped, mixed = [], []
    for _ in range(4):
        traits = rng.normal(size=(len(names), 12))
        identity = traits[who] + 0.1 * rng.normal(size=(len(who), 12))
        grouped.append(score(moody, identity))
        mixed.append(score(strangers, identity))  # the control: folds that split people

    share = np.bincount(labels).max() / len(labels)
    assert np.mean(grouped) <= share + 0.05
    assert min(mixed) > share + 0.2
