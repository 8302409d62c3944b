"""Permutation of whole modalities and of labels, both within speaker."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from toolkit.explain import explain_permuted, shares
from toolkit.explain.shapley import compute_importance, permute_modality
from toolkit.models import Features
from toolkit.validation import Fold, LeakageError, Predictions
from toolkit.validation.ledger import Ledger

RECIPE = {
    "booster": "lightgbm",
    "statistics": "all",
    "screening": "none",
    "imbalance": "none",
    "max_bin": 31,
    "num_leaves": 4,
}


def predict(booster, X, y, speakers):
    proba = booster.predict_proba(X)
    return Predictions(
        system="early",
        classes=("a", "b", "c", "d"),
        utterances=np.array([f"u{k:03d}" for k in range(len(X))]),
        speakers=speakers,
        sessions=None,
        folds=np.zeros(len(X), dtype=int),
        present=np.ones(len(X), dtype=bool),
        labels=y,
        proba=proba,
    )


@pytest.fixture
def speakers():
    return np.repeat([f"P{k}" for k in range(6)], 50)


def test_only_the_modality_moves_jointly_and_within_speaker(train, rows, speakers):
    X = rows[0]
    booster = train("lightgbm")
    seen = []

    class Spy:
        names, n_classes = booster.names, booster.n_classes

        def predict_proba(self, given):
            seen.append(given.copy())
            return booster.predict_proba(given)

    permute_modality(Spy(), X, speakers, "audio", seed=0, n_repeats=3)

    audio, others = [1, 2, 3], [0, 4]
    assert len(seen) == 3
    for given in seen:
        assert_allclose(given[:, others], X[:, others])
        assert not np.array_equal(given[:, audio], X[:, audio], equal_nan=True)
        for speaker in np.unique(speakers):
            here = speakers == speaker
            before = sorted(map(str, X[here][:, audio].tolist()))
            assert sorted(map(str, given[here][:, audio].tolist())) == before
        absent = np.isnan(X[:, audio]).all(axis=1)
        assert absent.any()
        assert np.isnan(given[absent][:, audio]).all()
    assert not np.array_equal(seen[0], seen[1], equal_nan=True)


def test_the_modality_that_tells_matters_and_noise_does_not(train, rows, speakers):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 5)).astype(np.float32), rows[1]
    X[np.arange(300), np.where(y == 0, 0, 0)] += 3 * y  # text alone tells
    booster = train("lightgbm", X=X)
    fresh = rng.normal(size=(300, 5)).astype(np.float32)
    fresh[:, 0] += 3 * y
    table = predict(booster, fresh, y, speakers)

    records = compute_importance(
        table,
        {
            name: permute_modality(booster, fresh, speakers, name, seed=1, n_repeats=5)
            for name in ("text", "visual")
        },
    )

    value = {(r.modality, r.class_name): r for r in records}
    assert value["text", ""].value > 0.2
    assert abs(value["visual", ""].value) < 0.03
    assert value["text", ""].low > 0
    assert value["text", "a"].value > 0.2
    assert value["text", ""].n_repeats == 5


def test_the_value_is_the_mean_drop_and_losses_grow(train, rows, speakers):
    booster = train("lightgbm")
    table = predict(booster, *rows, speakers)
    shuffled = permute_modality(booster, rows[0], speakers, "audio", seed=1, n_repeats=4)
    hit = np.mean(table.y_pred == table.labels)
    drops = [hit - np.mean(one.argmax(axis=1) == table.labels) for one in shuffled]

    by_hits = compute_importance(table, {"audio": shuffled})[0]
    by_loss = compute_importance(table, {"audio": shuffled}, metric="log_loss")[0]

    assert_allclose(by_hits.value, np.mean(drops))
    assert_allclose(by_hits.deviation, np.std(drops, ddof=1))
    assert by_loss.value > 0


def test_a_modality_that_was_screened_out_changes_nothing(train, rows, speakers):
    booster = train("lightgbm")

    proba = permute_modality(booster, rows[0], speakers, "smell", seed=0, n_repeats=2)

    assert_allclose(proba, [booster.predict_proba(rows[0])] * 2)


@pytest.fixture
def unit(rows, speakers):
    X, y = rows
    names = tuple(f"text__value__{k:04d}" for k in range(5))
    features = Features(X, names, np.arange(300) % 10 != 0, {"all": np.arange(5)})
    groups = np.flatnonzero(speakers == "P3")
    fold = Fold(3, np.setdiff1d(np.arange(300), groups), groups, ("P3",))
    ledger = Ledger("early", fold, np.array([f"u{k:03d}" for k in range(300)]), speakers)
    return features, y, fold, ledger


def test_refits_on_permuted_labels_explain_the_held_out_rows(unit, speakers):
    features, y, fold, ledger = unit

    totals = explain_permuted(
        features,
        y,
        speakers,
        fold,
        RECIPE,
        n_rounds=5,
        n_classes=3,
        ledger=ledger,
        seed=0,
        n_repeats=3,
    )

    assert len(totals) == 3
    assert totals[0].signed.shape == (features.present[fold.test].sum(), 3, 1)
    assert not np.allclose(totals[0].signed, totals[1].signed)
    fits = {entry["fit"] for entry in ledger.entries()}
    assert {"permuted labels 0", "permuted labels 2"} <= fits


def test_refits_on_permuted_labels_have_the_units_linear_part(unit, speakers):
    features, y, fold, ledger = unit
    how = {"n_rounds": 5, "n_classes": 3, "ledger": ledger, "seed": 0, "n_repeats": 1}
    linear = {"C_times_p": 3, "linear": 0.8, "trees": 0.3}

    (plain,) = explain_permuted(features, y, speakers, fold, RECIPE, **how)
    (blend,) = explain_permuted(features, y, speakers, fold, RECIPE, linear=linear, **how)

    assert_allclose(blend.trees, plain.signed, atol=1e-12)
    assert_allclose(blend.signed, 0.8 * blend.linear + 0.3 * blend.trees, atol=1e-12)
    assert np.abs(blend.linear).max() > 0.01


def test_refits_on_permuted_labels_are_as_coarse_as_those_out_of_fold(
    unit, speakers, monkeypatch
):
    features, y, fold, ledger = unit
    seen = []

    class Spy(shares.InnerFits):
        def fit(self, params, *args, n_rounds, **options):
            seen.append((params["learning_rate"], n_rounds))
            return super().fit(params, *args, n_rounds=n_rounds, **options)

    monkeypatch.setattr(shares, "InnerFits", Spy)
    how = {"n_rounds": 5, "n_classes": 3, "ledger": ledger, "seed": 0, "n_repeats": 2}
    explain_permuted(features, y, speakers, fold, RECIPE | {"learning_rate": 0.1}, **how)

    assert seen == 2 * [(0.2, 3)]


def test_refits_never_see_the_held_out_speaker(unit, speakers):
    features, y, fold, ledger = unit
    leaky = replace(fold, train=np.append(fold.train, fold.test[1]))

    with pytest.raises(LeakageError, match=r"would use 1 held out"):
        explain_permuted(
            features,
            y,
            speakers,
            leaky,
            RECIPE,
            n_rounds=2,
            n_classes=3,
            ledger=ledger,
            seed=0,
            n_repeats=1,
        )


def test_refits_learn_from_permuted_labels_of_the_training_speakers(
    unit, speakers, monkeypatch
):
    features, y, fold, ledger = unit
    rows = fold.train[features.present[fold.train]]
    seen = []

    class Spy(shares.InnerFits):
        def fit(self, *args, **options):
            seen.append(self.labels)
            return super().fit(*args, **options)

    monkeypatch.setattr(shares, "InnerFits", Spy)

    def explain(labels):
        explain_permuted(
            features,
            labels,
            speakers,
            fold,
            RECIPE,
            n_rounds=1,
            n_classes=3,
            ledger=ledger,
            seed=0,
            n_repeats=4,
        )

    explain(y)
    within, seen = seen, []
    for shuffled in within:
        assert not np.array_equal(shuffled[rows], y[rows])
        for name in np.unique(speakers[rows]):
            here = rows[speakers[rows] == name]
            assert sorted(shuffled[here]) == sorted(y[here])

    # P3 is held out: its label is given to no other, and both classes stay in training.
    one_each = np.where(speakers == "P0", 1, 0)
    explain(one_each)
    for shuffled in seen:
        labels = [
            np.unique(shuffled[rows[speakers[rows] == name]])
            for name in ["P0", "P1", "P2", "P4", "P5"]
        ]
        assert [len(each) for each in labels] == [1] * 5
        assert sorted(int(each[0]) for each in labels) == [0, 0, 0, 0, 1]
    assert len({shuffled[rows].tobytes() for shuffled in seen}) > 1
