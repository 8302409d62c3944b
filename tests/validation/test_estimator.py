"""The grouped search behaves as scikit-learn expects of a classifier."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from toolkit.data import Manifest
from toolkit.models import Features
from toolkit.validation import GroupedBoostingClassifier, Protocol, SearchOptions, run_unit
from toolkit.validation.folds import final_fold

ALONE = "ignore:No groups were given:UserWarning"
#: One small trial: the checks fit about a hundred times.
QUICK = {"trials": 1, "inner": 2, "max_rounds": 10, "screening": ("none",)}


@pytest.mark.slow
@pytest.mark.filterwarnings(ALONE)
@parametrize_with_checks([GroupedBoostingClassifier(**QUICK)])
def test_scikit_learn_finds_no_fault(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def rows():
    """Features, classes and groups of 80 rows, with a signal in the first column."""
    rng = np.random.default_rng(0)
    y, groups = np.tile(["sad", "glad"], 40), np.repeat([f"s{i}" for i in range(8)], 10)
    X = rng.normal(size=(80, 4))
    X[:, 0] += 2 * (y == "glad")
    X[rng.random(X.shape) < 0.1] = np.nan
    X[5] = np.nan
    return X, y, groups


def test_the_search_holds_groups_out():
    # Groups differ from one another and each has one class: a model that has met the group
    # knows the class, and for another group there is nothing to know.
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(12), 10)
    X = rng.normal(size=(12, 6))[groups] + 0.01 * rng.normal(size=(120, 6))
    y = rng.permutation(np.repeat([0, 1], 6))[groups]
    search = GroupedBoostingClassifier(**QUICK | {"max_rounds": 40, "linear": "none"})

    held_out = search.fit(X, y, groups=groups).best_score_
    with pytest.warns(UserWarning, match=r"each row as a group of its own.*groups=speakers"):
        mixed = search.fit(X, y).best_score_

    assert held_out < 0.75
    assert mixed > 0.95


def test_it_is_the_unit_of_a_study_on_all_rows(rows):
    X, y, groups = rows
    codes, values = (y == "sad").astype(int), X.astype(np.float32)
    manifest = Manifest(
        source="rows",
        root=Path(),
        modalities=(),
        classes=("glad", "sad"),
        codes=("0", "1"),
        utterances=np.array([f"{row:03d}" for row in range(80)]),
        labels=codes,
        speakers=groups,
        sessions=None,
        dialogues=None,
        splits=None,
        paths={},
    )
    names = tuple(f"f{i}" for i in range(4))
    present = np.arange(80) != 5
    features = Features(values, names, present, {"all": np.arange(4)})
    options = SearchOptions(
        statistics=("all",), screening=("none",), n_trials=3, max_rounds=10, metric="uar"
    )
    unit = run_unit(
        manifest,
        features,
        final_fold(manifest),
        system="classifier",
        protocol=Protocol(inner=2, seed=7),
        options=options,
    )

    search = GroupedBoostingClassifier(
        **QUICK | {"trials": 3, "metric": "uar", "random_state": 7}
    ).fit(X, y, groups=groups)

    chosen = dict(unit.search.params) | {"n_rounds": unit.search.n_rounds}
    assert search.best_params_ == {k: v for k, v in chosen.items() if k != "statistics"}
    assert search.best_score_ == unit.search.score
    proba = search.predict_proba(X)
    np.testing.assert_array_equal(proba[present], unit.booster.predict_proba(values[present]))
    np.testing.assert_array_equal(proba[5], [0.5, 0.5])
    assert search.predict(X[:3]).tolist() == search.classes_[proba[:3].argmax(axis=1)].tolist()


def test_names_of_columns_are_kept_and_asked_for(rows):
    X, y, groups = rows
    frame = pd.DataFrame(X, columns=["pitch [Hz]", "a,b", "ä", "{x}"])

    search = GroupedBoostingClassifier(**QUICK).fit(frame, y, groups=groups)

    assert search.feature_names_in_.tolist() == frame.columns.tolist()
    assert search.n_features_in_ == 4
    with pytest.raises(ValueError, match="feature names should match"):
        search.predict(frame.rename(columns={"ä": "b"}))


def test_it_is_scored_on_groups_held_out(rows):
    X, y, groups = rows
    search = GroupedBoostingClassifier(**QUICK)
    cv, params = GroupKFold(2), {"groups": groups}

    scores = cross_val_score(search, X, y, groups=groups, cv=cv, params=params)
    with config_context(enable_metadata_routing=True):
        routed = cross_val_score(search, X, y, cv=cv, params=params)

    by_hand = [
        search.fit(X[train], y[train], groups=groups[train]).score(X[test], y[test])
        for train, test in cv.split(X, y, groups)
    ]
    assert scores.tolist() == routed.tolist() == by_hand
    assert min(by_hand) > 0.6


@pytest.mark.parametrize("kind", ["xgboost", "both"])
def test_a_clone_and_a_pickle_predict_the_same(rows, kind):
    X, y, groups = rows
    search = GroupedBoostingClassifier(**QUICK | {"booster": kind, "trials": 2})

    proba = search.fit(X, y, groups=groups).predict_proba(X)

    again = clone(search).fit(X, y, groups=groups).predict_proba(X)
    np.testing.assert_array_equal(again, proba)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(search)).predict_proba(X), proba)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"booster": "catboost"}, r"booster is 'catboost'; expected one of lightgbm, xgboost"),
        ({"metric": "auc"}, r"metric is 'auc'; expected one of f1_micro"),
        ({"trials": 0}, r"trials is 0; expected 1 or more"),
        ({"inner": 1}, r"inner is 1; expected 2 or more"),
        ({"linear": "yes"}, r"linear is 'yes'; expected one of auto, none"),
        ({"imbalance": "wieghts"}, r"wieghts"),
    ],
)
def test_unknown_parameters_are_refused(rows, change, message):
    X, y, groups = rows

    with pytest.raises(ValueError, match=message):
        GroupedBoostingClassifier(**QUICK | change).fit(X, y, groups=groups)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["a"] * 80, "All rows are of 1 group"),
        (["a", "b"], "There are 2 groups for 80 rows"),
        (["a"] * 40 + [None] * 40, "A group is missing"),
        ([1.0] * 40 + [np.nan] * 40, "A group is missing"),
    ],
)
def test_groups_that_hold_nothing_out_are_refused(rows, groups, message):
    X, y, _ = rows

    with pytest.raises(ValueError, match=message):
        GroupedBoostingClassifier(**QUICK).fit(X, y, groups=groups)


def test_equal_seeds_and_equal_groups_fit_the_same_model(rows):
    X, y, _ = rows
    whole = np.repeat(np.arange(8), 10)
    # Each group is written as 1 in one half of its rows, and as 1.0 in the other.
    spelled = [float(name) if k % 2 else int(name) for k, name in enumerate(whole)]
    spelled = np.array(spelled, dtype=object)

    def predict(groups, **options):
        search = GroupedBoostingClassifier(**QUICK | options)
        return search.fit(X, y, groups=groups).predict_proba(X).tolist()

    expected = predict(whole, random_state=3)
    assert predict(whole, random_state=4) != expected
    assert predict(whole, random_state=np.int64(3)) == expected
    assert predict(spelled, random_state=3) == expected
    assert predict(whole, random_state=3, n_jobs=None) == expected


def test_numbers_beyond_32_bits_are_refused(rows):
    X, y, groups = rows

    with pytest.raises(ValueError, match=r"beyond 3\.4e\+38"):
        GroupedBoostingClassifier(**QUICK).fit(np.where(X > 3, 1e39, X), y, groups=groups)
