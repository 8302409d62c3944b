"""Fits inside an outer fold, the features of a fold, and their memory bound."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from sklearn.feature_selection import f_classif

from toolkit.models import Features
from toolkit.models.boosters import fit_booster, make_training_data
from toolkit.models.linear import LinearPath
from toolkit.models.preparation import prepare, rank_columns, split_params
from toolkit.pooling import PRESETS
from toolkit.pooling.table import FeatureTable
from toolkit.validation import make_features
from toolkit.validation.fits import (
    _CACHE_BYTES,
    InnerFits,
    _SizedCache,
    estimate_memory,
)
from toolkit.validation.folds import derive_seed, inner_folds, speaker_folds
from toolkit.validation.ledger import LeakageError, Ledger
from toolkit.validation.search import SearchOptions, search_params

N_DIMS = 10
PARAMS = {
    "booster": "lightgbm",
    "statistics": "rich",
    "screening": "none",
    "imbalance": "none",
    "max_bin": 31,
    "learning_rate": 0.3,
    "num_leaves": 4,
    "min_data_in_leaf": 3,
}
RECIPES = [
    {"screening": "none", "imbalance": "none"},
    {"screening": "ftest-4", "imbalance": "none"},
    {"screening": "none", "imbalance": "weights"},
    {"screening": "none", "imbalance": "smote"},
    {"screening": "ftest-4", "imbalance": "smote"},
]


@pytest.fixture(scope="module")
def fold(manifest):
    return speaker_folds(manifest)[4]


@pytest.fixture(scope="module")
def folds(manifest, fold):
    return inner_folds(manifest, fold, grouping="speaker", n_folds=3, seed=0, purpose="search")


@pytest.fixture(scope="module")
def values(manifest):
    values = np.random.default_rng(0).normal(size=(len(manifest), N_DIMS))
    values[:, :4] += manifest.labels[:, None] * [0.9, 0.7, 0.5, 0.3]
    return values.astype(np.float32)


@pytest.fixture
def make_fits(manifest, fold, values):
    def make(*, labels=manifest.labels, values=values, present=None):
        present = np.ones(len(manifest), dtype=bool) if present is None else present
        features = Features(
            values=np.asarray(values, dtype=np.float32),
            names=tuple(f"text__value__{i:04d}" for i in range(N_DIMS)),
            present=present,
            presets={"rich": np.arange(N_DIMS)},
        )
        return InnerFits(
            features,
            labels,
            fold.train[present[fold.train]],
            n_classes=4,
            ledger=Ledger("text", fold, manifest.utterances, manifest.speakers),
            seed=0,
        )

    return make


def learn(fits, inner, **options):
    params = PARAMS | options
    booster, prepared = fits.fit(
        params, inner.train, fit="inner 0", n_rounds=6, validation=inner.test, patience=3
    )
    return booster.to_bytes(), prepared.columns.tolist()


@pytest.mark.parametrize("recipe", RECIPES)
def test_labels_that_are_held_back_teach_nothing(make_fits, manifest, folds, recipe):
    inner, labels = folds[0], manifest.labels.copy()
    labels[inner.test] = (labels[inner.test] + 1 + np.arange(len(inner.test)) % 3) % 4

    one, other = (
        learn(make_fits(labels=each), inner, **recipe) for each in (manifest.labels, labels)
    )

    # Rounds are counted by the held-back rows; the trees that both have must be the same.
    assert one[1] == other[1]
    shorter = min(one[0], other[0], key=len).partition(b"end of trees")[0]
    trees = shorter.partition(b"Tree=0")[2]
    assert trees
    assert trees.strip() in one[0]
    assert trees.strip() in other[0]


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r["screening"] != "none"])
def test_features_that_are_held_back_are_not_screened_by(
    make_fits, manifest, folds, values, recipe
):
    # In the held-back rows alone, another feature tells the classes apart perfectly.
    inner, changed = folds[0], values.copy()
    changed[inner.test, -1] = 100 * manifest.labels[inner.test]

    one, other = (learn(make_fits(values=each), inner, **recipe) for each in (values, changed))

    assert one[1] == other[1]
    assert N_DIMS - 1 not in one[1]


def test_rows_that_are_held_back_are_no_parents_of_synthetic_ones(make_fits, manifest, folds):
    fits, inner = make_fits(), folds[0]

    _, prepared = fits.fit(
        PARAMS | {"imbalance": "smote"}, inner.train, fit="inner 0", n_rounds=2
    )

    counts = np.bincount(manifest.labels[inner.train], minlength=4)
    assert list(prepared.record["before"].values()) == counts.tolist()
    assert len(prepared.data.labels) == 4 * counts.max()


def test_a_fit_is_made_of_its_rows_and_not_of_those_of_its_namesake(make_fits, folds):
    fits = make_fits()

    first = learn(fits, folds[0])
    fits.ledger = make_fits().ledger  # one ledger would refuse both under one name
    second = learn(fits, folds[1])

    assert first != second
    assert first == learn(make_fits(), folds[0])
    assert second == learn(make_fits(), folds[1])


@pytest.mark.parametrize("imbalance", ["none", "weights"])
def test_rows_that_were_not_binned_are_not_taken_for_their_neighbours(
    make_fits, manifest, fold, values, imbalance
):
    # The edges are those of every other training row; the fit learns from the rows between.
    binned, others = fold.train[::2], fold.train[1::2]
    fits = make_fits()
    fits.outer_rows = binned
    params = PARAMS | {"imbalance": imbalance}

    booster, _ = fits.fit(params, others, fit="refit", n_rounds=4)

    recipe, own = split_params(params)
    options = {"n_classes": 4, "names": fits.features.names, "max_bin": recipe.max_bin}
    kind, labels = recipe.booster, manifest.labels
    reference = make_training_data(kind, values[binned], labels[binned], **options)
    by_hand = prepare(
        recipe, fits.features, others, labels, n_classes=4, seed=0, reference=reference
    )
    seed = derive_seed(0, "booster")
    expected = fit_booster(by_hand.data, own, n_rounds=4, seed=seed)
    assert booster.to_bytes() == expected.to_bytes()


def test_held_back_rows_are_those_of_the_call_and_not_of_its_namesake(make_fits, folds):
    inner, part = folds[0], folds[0].test[::2]

    def curve(fits, rows):
        options = {"n_rounds": 4, "validation": rows, "patience": 4}
        return fits.fit(PARAMS, inner.train, fit="inner 0", **options)[0].curve.tolist()

    fits = make_fits()
    assert curve(fits, inner.test) != curve(fits, part)
    assert curve(fits, part) == curve(make_fits(), part)


def test_out_of_fold_probabilities_are_blind_to_the_labels_of_their_own_fold(
    make_fits, manifest, folds
):
    inner, labels = folds[1], manifest.labels.copy()
    labels[inner.test] = (labels[inner.test] + 1) % 4

    (rows, one), (_, other) = (
        make_fits(labels=each).out_of_fold(PARAMS, 5, folds, purpose="out-of-fold")
        for each in (manifest.labels, labels)
    )

    own = np.isin(rows, inner.test)
    assert np.array_equal(one[own], other[own])
    assert not np.array_equal(one[~own], other[~own])


def test_absent_rows_teach_nothing_and_get_the_shares_of_what_was_learnt(
    make_fits, manifest, fold, folds, values
):
    present = np.arange(len(manifest)) % 4 != 1
    garbage = values.copy()
    garbage[~present] = 1e6 * np.random.default_rng(1).normal(size=garbage[~present].shape)
    holes = values.copy()
    holes[~present] = np.nan

    (rows, one), (_, other) = (
        make_fits(values=each, present=present).out_of_fold(
            PARAMS, 5, folds, purpose="out-of-fold"
        )
        for each in (garbage, holes)
    )

    assert rows.tolist() == fold.train.tolist()
    assert np.array_equal(one, other)
    for inner in folds:
        absent = inner.test[~present[inner.test]]
        shares = np.bincount(manifest.labels[inner.train], minlength=4) / len(inner.train)
        assert np.allclose(one[np.isin(rows, absent)], shares)


def search_once(fits, folds, **options):
    options = {"screening": ("none",), "imbalance": ("none",), "n_trials": 1} | options
    return search_params(fits, folds, SearchOptions(max_rounds=40, **options))


def test_a_trial_is_scored_by_models_that_did_not_see_the_scored_people(
    make_fits, manifest, folds
):
    # Every speaker shows the classes in a way of their own, clear to who has seen it.
    own = np.unique(manifest.speakers, return_inverse=True)[1] * 4 + manifest.labels
    values = np.random.default_rng(2).normal(size=(40, N_DIMS))[own]

    honest = search_once(make_fits(values=values), folds)
    seen = [replace(inner, train=np.union1d(inner.train, inner.test)) for inner in folds]
    fits = make_fits(values=values)
    fits.ledger._refuse = lambda *_: None

    assert honest.score < 0.6
    assert search_once(fits, seen).score > 0.8


def test_every_touch_of_a_trial_is_in_the_ledger_with_its_rows(make_fits, fold, folds):
    fits = make_fits()

    search_once(fits, folds, screening=("ftest-4",), imbalance=("smote",))

    found = {(e["fit"], e["role"]): e["n_rows"] for e in fits.ledger.entries()}
    assert found.pop(("search", "choose")) == len(fold.train)
    for inner in folds:
        fit = f"inner {inner.number}"
        # Under a screen every fit bins its own rows.
        for role in ("bin edges", "screen", "resample parent", "train"):
            assert found.pop((fit, role)) == len(inner.train)
        for role in ("validate", "early stop"):
            assert found.pop((fit, role)) == len(inner.test)
    assert not found


def test_out_of_fold_fits_are_in_the_ledger_with_both_sides(make_fits, folds):
    fits = make_fits()

    fits.out_of_fold(PARAMS, 2, folds, purpose="out-of-fold")

    found = {(e["fit"], e["role"]): e["n_rows"] for e in fits.ledger.entries()}
    for inner in folds:
        fit = f"out-of-fold {inner.number}"
        assert found[fit, "train"] == len(inner.train)
        assert found[fit, "validate"] == len(inner.test)


def test_inner_sides_that_share_a_person_are_refused(make_fits, folds):
    mixed = [replace(inner, train=np.union1d(inner.train, inner.test[:1])) for inner in folds]

    with pytest.raises(LeakageError, match="validation utterance"):
        search_once(make_fits(), mixed)
    with pytest.raises(LeakageError, match="validation utterance"):
        make_fits().out_of_fold(PARAMS, 2, mixed, purpose="out-of-fold")


def test_a_refit_is_in_the_ledger(make_fits, fold):
    fits = make_fits()

    fits.fit(PARAMS | {"imbalance": "smote"}, fold.train, fit="refit", n_rounds=2)

    entries = {(e["fit"], e["role"]) for e in fits.ledger.entries()}
    assert entries == {
        ("bins", "bin edges"),
        ("refit", "resample parent"),
        ("refit", "train"),
    }


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_refused_a_held_out_row(make_fits, fold, recipe):
    leaking = np.append(fold.train, fold.test[0])

    with pytest.raises(LeakageError, match="Leakage stopped"):
        make_fits().fit(PARAMS | recipe, leaking, fit="refit", n_rounds=2)


def test_early_stopping_on_a_held_out_row_is_refused(make_fits, fold, folds):
    options = {"fit": "refit", "n_rounds": 2, "patience": 1}

    with pytest.raises(LeakageError, match="role 'early stop'"):
        make_fits().fit(PARAMS, folds[0].train, validation=fold.test, **options)


def test_bin_edges_of_held_out_rows_are_refused(make_fits, manifest, folds):
    fits = make_fits()
    fits.outer_rows = np.arange(len(manifest))

    with pytest.raises(LeakageError, match="role 'bin edges'"):
        fits.fit(PARAMS, folds[0].train, fit="inner 0", n_rounds=2)


def test_the_order_of_columns_in_memory_changes_no_model(make_fits, folds, values):
    one = learn(make_fits(values=np.asfortranarray(values)), folds[0])

    assert one == learn(make_fits(values=values), folds[0])


RICH = PRESETS["rich"]


def make_table(modality, n_dims, statistics=RICH, *, n=5, start=0.0):
    names = tuple(f"{modality}__{name}__{k}" for name in statistics for k in range(n_dims))
    values = start + np.arange(n * len(names), dtype=np.float32).reshape(n, -1)
    present, frames = np.ones(n, dtype=bool), np.ones(n, dtype=np.int64)
    return FeatureTable(modality, statistics, names, values, present, frames, "", {})


@pytest.fixture
def tables():
    return make_table("visual", 30), make_table("text", 7, ("value",), start=9000.0)


def look_up(features, preset):
    return {
        features.names[column]: features.values[:, column].tolist()
        for column in features.presets[preset]
    }


def originals(table, preset):
    return {table.names[c]: table.values[:, c].tolist() for c in table.select(preset)}


@pytest.mark.parametrize("most_columns", [None, 540])
def test_up_to_the_limit_every_column_is_there_under_its_name(tables, most_columns):
    features = make_features(tables, ("rich", "basic"), most_columns=most_columns)

    for preset in ("rich", "basic"):
        expected = originals(tables[0], preset) | originals(tables[1], preset)
        assert look_up(features, preset) == expected
    assert not features.reduced


@pytest.mark.parametrize(("most_columns", "stand_in"), [(539, "basic"), (209, "minimal")])
@pytest.mark.parametrize("alone", [True, False])
def test_above_the_limit_the_largest_preset_that_fits_stands_in(
    tables, most_columns, stand_in, alone
):
    tables = tables[:1] if alone else tables

    features = make_features(tables, ("rich",), most_columns=most_columns)

    expected = originals(tables[0], stand_in)
    if not alone:
        expected |= originals(tables[1], "rich")
    assert look_up(features, "rich") == expected
    n_columns = 30 * len(PRESETS[stand_in])
    assert features.reduced == {
        "visual": {"rich": {"statistics": stand_in, "n_columns": n_columns, "n_asked": 540}}
    }


def test_where_nothing_fits_the_smallest_stands_in(tables):
    features = make_features(tables[:1], ("rich",), most_columns=10)

    assert features.reduced["visual"]["rich"]["statistics"] == "minimal"


def test_one_table_is_seen_and_not_copied(tables):
    features = make_features(tables[:1], ("rich", "basic"))

    assert features.values is tables[0].values


def test_columns_that_no_preset_takes_are_not_copied_side_by_side(tables):
    features = make_features(tables, ("rich",), most_columns=300)

    assert features.values.shape == (5, 30 * 7 + 7)


@pytest.mark.parametrize("asked", ["mean,std", "minimal"])
def test_named_statistics_and_the_smallest_preset_stay_as_they_are(asked):
    table = make_table("visual", 30, ("mean", "std"))

    features = make_features([table], (asked,), most_columns=5)

    assert look_up(features, asked) == originals(table, asked)
    assert not features.reduced


def test_a_preset_whose_statistics_are_not_there_cannot_stand_in():
    table = make_table("visual", 30, tuple(name for name in RICH if name != "p25"))
    # 'rich' cannot be asked of it; its statistics one by one can, and stay.
    features = make_features([table], (",".join(table.statistics),), most_columns=5)

    assert len(features.presets[",".join(table.statistics)]) == 30 * 17


@pytest.mark.parametrize(("most", "screen"), [(540, "none"), (539, "ftest-5000")])
@pytest.mark.parametrize("asked", ["rich", ",".join(RICH)])
def test_a_very_wide_modality_keeps_its_columns_and_is_screened(tables, most, screen, asked):
    for taken in (tables, tables[:1]):
        features = make_features(taken, (asked, "basic"), screen_above=most)

        assert features.screen == screen
        assert len(features.presets[asked]) == sum(len(table.names) for table in taken)
        assert not features.reduced


def test_modalities_that_are_very_wide_together_alone_are_not_screened(tables):
    features = make_features((*tables, make_table("audio", 29)), ("rich",), screen_above=540)

    assert features.screen == "none"


def test_columns_are_ranked_without_a_copy_of_all(monkeypatch):
    labels, rows = np.arange(40) % 3, np.arange(10, 40)
    values = np.random.default_rng(0).normal(size=(40, 2500)).astype(np.float32)
    features = Features(values, tuple(map(str, range(2500))), labels >= 0, {})
    columns = np.arange(2499, 99, -1)  # a preset's columns may be in another order
    features = replace(features, presets={"rich": columns})
    taken, take = [], Features.take

    def count(self, rows, columns):
        taken.append(len(columns))
        return take(self, rows, columns)

    monkeypatch.setattr(Features, "take", count)

    ranking = rank_columns(features, "rich", "ftest", rows, labels)

    scores, _ = f_classif(values[np.ix_(rows, columns)].astype(np.float64), labels[rows])
    np.testing.assert_array_equal(ranking, np.argsort(-scores, kind="stable"))
    assert taken == [1024, 1024, 352]


def test_an_utterance_is_there_where_any_table_has_it(tables):
    gone = np.array([False, True, False, True, True])
    visual = replace(tables[0], present=gone)
    text = replace(tables[1], present=~gone & (np.arange(5) > 0))

    features = make_features((visual, text), ("rich",))

    assert features.present.tolist() == [False, True, True, True, True]


def test_what_was_used_longest_ago_goes_first():
    cache, made = _SizedCache(10), []

    def look_up(key):
        return cache.get(key, lambda: (made.append(key) or key, 4))

    for key in "abacab":
        assert look_up(key) == key

    # c drives b out, since a was used after b; then b drives c out.
    assert made == ["a", "b", "c", "b"]
    assert cache.n_bytes == 8


def test_what_was_made_last_is_kept_however_large():
    cache = _SizedCache(10)
    cache.get("small", lambda: (1, 4))
    cache.get("large", lambda: (2, 50))

    assert cache.get("large", lambda: pytest.fail("made again")) == 2
    assert cache.n_bytes == 50


def test_a_boosted_unit_needs_its_rows_its_bins_and_histograms():
    n_rows, n_columns = 5000, 10_000
    rows, leaf = 11 * n_rows * n_columns, n_columns * 64 * 16

    need = estimate_memory(n_rows, n_columns, resampled=False)

    assert need == pytest.approx(250 * 2**20 + rows + _CACHE_BYTES + 24 * leaf)


def test_a_linear_part_keeps_to_the_bound_of_its_rows():
    X = np.random.default_rng(0).random(size=(2000, 8000), dtype=np.float32)
    others = estimate_memory(0, 8000, resampled=False)

    tracemalloc.start()
    try:
        LinearPath(X, np.arange(2000) % 4, n_classes=4)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert X.nbytes + peak <= 1.05 * (estimate_memory(2000, 8000, resampled=False) - others)


def test_each_further_thing_needs_more():
    plain = estimate_memory(1000, 5000, resampled=False)

    assert estimate_memory(1000, 5000) > plain
    assert estimate_memory(1000, 5000, resampled=False, side_by_side=5000) - plain == 2e7
    assert estimate_memory(1000, 5000, resampled=False, rounds=800) - plain == 4 * 1000 * 800
    assert estimate_memory(1000, 5000, logistic=True) < plain
