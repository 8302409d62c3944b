import json
from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from toolkit.models.balancing import _IMBALANCE, RESAMPLING, balance
from toolkit.models.spaces import _IMBALANCE_GRID, IMBALANCE_AUTO
from toolkit.study.config import StudyConfig

MAKERS = ["smote", "borderline", "smote_tomek"]


def parents_of(balanced, position):
    """The given rows that one row may come from."""
    if balanced.rows[position] >= 0:
        return balanced.rows[[position]]
    return next(given for _, added, given in balanced.origins if position in added)


@pytest.fixture
def uneven():
    """60 rows of six features in classes of 40, 15 and 5 that overlap."""
    rng = np.random.default_rng(1)
    y = rng.permutation(np.repeat([0, 1, 3], [40, 15, 5]))
    X = (rng.normal(size=(60, 6)) + 0.4 * y[:, None]).astype(np.float32)
    X[:, 4] = 2
    return X * np.float32([1, 1000, 1, 1, 1, 1]), y


@pytest.mark.parametrize("strategy", _IMBALANCE)
def test_given_rows_come_first_and_unchanged(strategy, uneven):
    X, y = uneven

    balanced = balance(X, y, strategy, seed=0)

    kept = np.setdiff1d(np.arange(60), balanced.record["removed"])
    assert_array_equal(balanced.rows[: len(kept)], kept)
    assert_array_equal(balanced.X[: len(kept)], X[kept])
    assert_array_equal(balanced.y[: len(kept)], y[kept])
    assert balanced.X.dtype == np.float32
    assert balanced.X.flags.c_contiguous


@pytest.mark.parametrize("strategy", ["oversample", "smote", "borderline"])
def test_every_class_becomes_as_large_as_the_largest(strategy, uneven):
    balanced = balance(*uneven, strategy, seed=0)

    assert Counter(balanced.y.tolist()) == {0: 40, 1: 40, 3: 40}
    assert balanced.record["before"] == {"0": 40, "1": 15, "3": 5}
    assert balanced.record["after"] == {"0": 40, "1": 40, "3": 40}


@pytest.mark.parametrize("strategy", _IMBALANCE)
def test_the_seed_decides_everything(strategy, uneven):
    one, two, other = (balance(*uneven, strategy, seed=seed) for seed in (5, 5, 6))

    assert_array_equal(one.X, two.X)
    assert_array_equal(one.rows, two.rows)
    assert one.record == two.record
    if strategy not in ("none", "weights"):
        assert one.X.shape != other.X.shape or (one.X != other.X).any()


@pytest.mark.parametrize("strategy", _IMBALANCE)
def test_the_record_is_plain_enough_for_json(strategy, uneven):
    record = balance(*uneven, strategy, seed=0).record

    assert json.loads(json.dumps(record)) == record
    assert record["strategy"] == strategy


def test_none_changes_nothing(uneven):
    balanced = balance(*uneven, "none", seed=0)

    assert balanced.X is uneven[0]
    assert balanced.weights is None
    assert balanced.rows.tolist() == list(range(60))


def test_weights_are_one_on_average_and_equal_over_classes(uneven):
    X, y = uneven

    weights = balance(X, y, "weights", seed=0).weights

    assert_allclose(weights.mean(), 1)
    assert_allclose([weights[y == label].sum() for label in (0, 1, 3)], 20)


def test_copies_are_rows_of_their_class_and_their_own_parents(uneven):
    X, y = uneven

    balanced = balance(X, y, "oversample", seed=0)

    assert_array_equal(balanced.X, X[balanced.rows])
    assert_array_equal(balanced.y, y[balanced.rows])
    assert parents_of(balanced, 100).tolist() == [balanced.rows[100]]
    assert balanced.record["copied"] == {"1": 25, "3": 35}


@pytest.mark.parametrize("strategy", MAKERS)
def test_a_synthetic_row_lies_between_two_of_its_parents(strategy, uneven):
    X, y = uneven

    balanced = balance(X, y, strategy, seed=0)

    made = np.flatnonzero(balanced.rows < 0)
    assert len(made) > 40
    for position in made:
        parents = parents_of(balanced, position)
        assert set(y[parents]) == {balanced.y[position]}
        scaled, row = X[parents] / [1, 1000, 1, 1, 1, 1], balanced.X[position]
        row = row / [1, 1000, 1, 1, 1, 1]
        to_each = np.linalg.norm(scaled - row, axis=1)
        apart = np.linalg.norm(scaled[:, None] - scaled, axis=2)
        detour = to_each[:, None] + to_each - apart
        detour[np.diag_indices(len(parents))] = np.inf
        assert detour.min() < 1e-4


def test_origins_are_class_added_rows_and_the_rows_they_come_from():
    X = [[0.0, 1.0], [1.0, 1.0], [2.0, 2.0], [7.0, 8.0], [9.0, 9.0]]

    [(label, added, given)] = balance(X, [0, 0, 0, 1, 1], "smote", seed=0).origins

    assert (label, added.tolist(), given.tolist()) == (1, [5], [3, 4])


def test_neighbours_are_looked_for_on_scaled_features():
    # Class 0 lies on a line of 20 places; the second feature, in small units, is the one that
    # sets its two halves apart. By the raw units a row's neighbours are those beside it in
    # the first feature, by scaled ones those of its own half.
    place = np.arange(20.0)
    X = np.column_stack([place * 10, np.where(place % 2, 0.001, 0)])
    X = np.vstack([X, np.column_stack([np.linspace(0, 190, 60), np.full(60, 0.0005)])])
    y = np.repeat([0, 1], [20, 60])

    made = balance(X, y, "smote", seed=0).X[80:]

    near_a_half = np.minimum(np.abs(made[:, 1]), np.abs(made[:, 1] - 0.001)) < 1e-6
    assert near_a_half.mean() > 0.9


def test_a_class_smaller_than_its_neighbourhood_is_clipped_and_recorded(uneven):
    record = balance(*uneven, "smote", seed=0).record

    assert record["clipped"] == [{"class": 3, "n_neighbors": 4, "groups": 1}]
    assert record["made"] == {"1": 25, "3": 35}
    assert record["fallbacks"] == []


@pytest.mark.parametrize("strategy", MAKERS)
def test_a_class_of_one_row_is_copied_and_recorded(strategy):
    X = np.array([[0.0], [1.0], [2.5], [3.0], [9.0]])

    balanced = balance(X, [0, 0, 0, 0, 1], strategy, seed=0)

    assert balanced.X[5:].tolist() == [[9], [9], [9]]
    assert balanced.rows[5:].tolist() == [4, 4, 4]
    assert balanced.record["copied"] == {"1": 3}
    assert balanced.record["fallbacks"] == [
        {
            "class": 1,
            "rows": 3,
            "why": "fewer than two rows of the class have the same features",
        }
    ]


def test_borderline_starts_from_rows_near_other_classes():
    # Class 1 is ten rows far out and five at the rim of class 0.
    rng = np.random.default_rng(0)
    far, near = rng.normal(50, 1, (10, 2)), rng.normal(2.5, 0.3, (5, 2))
    X = np.vstack([rng.normal(0, 1, (40, 2)), far, near])
    y = np.repeat([0, 1], [40, 15])

    made = {s: balance(X, y, s, seed=0) for s in ("smote", "borderline")}

    far_out = {s: (b.X[55:] > 45).all(axis=1).mean() for s, b in made.items()}
    assert made["borderline"].record["fallbacks"] == []
    assert far_out["borderline"] < 0.2
    assert far_out["smote"] > 0.5


def test_borderline_without_a_border_makes_rows_as_smote_does():
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(0, 1, (30, 2)), rng.normal(90, 1, (12, 2))])
    y = np.repeat([0, 1], [30, 12])

    borderline, plain = (balance(X, y, s, seed=0) for s in ("borderline", "smote"))

    assert_array_equal(borderline.X, plain.X)
    assert borderline.record["fallbacks"] == [
        {"class": 1, "rows": 18, "why": "no row is near another class"}
    ]


def test_borderline_among_rows_of_one_class_alone_makes_rows_as_smote_does():
    X = np.random.default_rng(0).normal(size=(20, 2))
    y = np.repeat([0, 1], [14, 6])
    X[y == 1, 1] = np.nan

    borderline, plain = (balance(X, y, s, seed=0) for s in ("borderline", "smote"))

    assert_array_equal(borderline.X, plain.X)
    assert borderline.record["fallbacks"][0]["why"] == "no row is near another class"


def test_tomek_links_lose_both_their_rows_and_are_recorded():
    X = [[0.0], [1.0], [4.0], [4.1], [9.0], [10.0]]

    balanced = balance(X, [0, 0, 0, 1, 1, 1], "smote_tomek", seed=0)

    assert balanced.rows.tolist() == [0, 1, 4, 5]
    assert balanced.record["removed"] == [2, 3]
    assert balanced.record["removed_made"] == 0


def test_a_class_that_cleaning_would_empty_keeps_its_rows():
    X = [[0.0], [1.0], [4.0], [4.1]]

    balanced = balance(X, [0, 0, 0, 1], "smote_tomek", seed=0)

    assert set(balanced.y.tolist()) == {0, 1}


@pytest.fixture
def gappy():
    """Rows of two classes of which some lack the last two of four features."""
    rng = np.random.default_rng(2)
    X = rng.normal(size=(40, 4)).astype(np.float32)
    y = np.repeat([0, 1], [28, 12])
    X[y == 1, 0] += 3
    X[[0, 1, 2, 3, 4, 5, 28, 29, 30], 2:] = np.nan
    return X, y


@pytest.mark.parametrize("strategy", MAKERS)
def test_rows_are_made_between_rows_that_lack_the_same_features(strategy, gappy):
    X, y = gappy

    balanced = balance(X, y, strategy, seed=0)

    made = np.flatnonzero(balanced.rows < 0)
    lacking = np.isnan(balanced.X[made])
    assert {tuple(row) for row in lacking.tolist()} == {
        (False,) * 4,
        (False, False, True, True),
    }
    for position in made:
        parents = parents_of(balanced, position)
        assert (np.isnan(X[parents]) == np.isnan(balanced.X[position])).all()
        assert (y[parents] == balanced.y[position]).all()


def test_new_rows_are_shared_out_by_the_size_of_the_groups(gappy):
    balanced = balance(*gappy, "smote", seed=0)

    made = balanced.X[balanced.rows < 0]
    assert len(made) == 16
    assert np.isnan(made[:, 3]).sum() == 4  # 16 x 3 / 12


def test_scales_ignore_missing_values():
    X = np.array([[0, 0], [3, np.nan], [6, 5], [9, 5], [1, 5], [2, 5]], dtype=np.float32)

    balanced = balance(X, [0, 0, 0, 0, 1, 1], "smote", seed=0)

    assert not np.isnan(balanced.X[6:]).any()
    assert_allclose(balanced.X[6:, 1], 5, rtol=1e-6)


def test_a_lonely_pattern_is_copied_and_the_rest_made(gappy):
    X, y = gappy
    X[[29, 30]] = 0

    balanced = balance(X, y, "smote", seed=0)

    copied = balanced.rows[40:][balanced.rows[40:] >= 0]
    assert set(copied.tolist()) == {28}
    assert balanced.record["copied"] == {"1": 1}
    assert balanced.record["made"] == {"1": 15}


@pytest.mark.parametrize("strategy", MAKERS)
def test_rows_without_any_feature_are_copied(strategy):
    X = np.full((5, 2), np.nan)
    X[:3] = [[0, 0], [1, 1], [2, 3]]

    balanced = balance(X, [0, 0, 0, 1, 1], strategy, seed=0)

    assert np.isnan(balanced.X[5:]).all()
    assert set(balanced.rows[5:].tolist()) <= {3, 4}


@pytest.mark.parametrize("strategy", _IMBALANCE)
@pytest.mark.parametrize("y", [[0, 0, 0], [0, 1, 2]], ids=["one class", "equal classes"])
def test_there_is_nothing_to_do_where_classes_are_equal(strategy, y):
    balanced = balance([[0.0], [5.0], [9.0]], y, strategy, seed=0)

    assert balanced.y.tolist() == y
    assert balanced.record["made"] == balanced.record["copied"] == {}


def test_an_unknown_strategy_is_refused_with_those_that_exist(uneven):
    with pytest.raises(ValueError, match=r"'adasyn'; choose among \['none', 'weights'"):
        balance(*uneven, "adasyn", seed=0)


def test_float_labels_are_refused(uneven):
    with pytest.raises(ValueError, match=r"expected one whole number a row"):
        balance(uneven[0], uneven[1].astype(float), "smote", seed=0)


def test_infinite_features_are_refused():
    with pytest.raises(ValueError, match=r"takes as infinite"):
        balance([[np.inf], [0.0]], [0, 1], "smote", seed=0)


def test_a_study_takes_the_strategies_that_there_are():
    # The configuration lists them itself, since it imports nothing heavy.
    with pytest.raises(ValueError, match=f"choose among {', '.join(('auto', *_IMBALANCE))} "):
        StudyConfig(imbalance="adasyn")
    help_text = StudyConfig.model_fields["imbalance"].description

    assert help_text.endswith(f"any of {', '.join(_IMBALANCE)}, comma-separated")
    assert {*RESAMPLING, *IMBALANCE_AUTO, *_IMBALANCE_GRID} <= set(_IMBALANCE)


@pytest.mark.parametrize("strategy", _IMBALANCE)
def test_a_strategy_resamples_or_keeps_the_rows(strategy, uneven):
    balanced = balance(*uneven, strategy, seed=0)

    assert (len(balanced.y) != 60) == (strategy in RESAMPLING)
