import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.feature_selection import f_classif

from toolkit.models.screening import (
    SCORES,
    f_scores,
    gain_scores,
    mutual_scores,
    rank_features,
    screen_features,
)


def test_scores_are_those_of_an_analysis_of_variance():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 60)
    X = (rng.normal(size=(60, 1500)) + 0.3 * y[:, None]).astype(np.float32)

    assert_allclose(f_scores(X, y), f_classif(X.astype(np.float64), y)[0], rtol=1e-9)


def test_a_feature_far_from_zero_keeps_its_score():
    X = np.array([[0, 0], [1, 1], [2, 2], [3, 3]], dtype=np.float32)
    X[:, 1] += 2**20

    near, far = f_scores(X, np.array([0, 0, 1, 1]))

    assert near == far == 8  # between 4 / 1, within (4 x .25) / 2


def test_missing_values_count_as_the_median_of_training():
    y = np.array([0, 0, 0, 1, 1, 1])
    gappy = np.array([[1], [2], [np.nan], [5], [6], [np.nan]], dtype=np.float32)
    filled = np.where(np.isnan(gappy), np.float32(3.5), gappy)

    assert_array_equal(f_scores(gappy, y), f_scores(filled, y))


def test_a_constant_feature_comes_last_and_a_perfect_one_first():
    y = [0, 0, 1, 1]
    constant, empty, weak, perfect = [0.1] * 4, [np.nan] * 4, [0, 1, 0, 2], [3, 3, 4, 4]
    X = np.transpose([constant, empty, weak, perfect])

    assert screen_features(X, y, "ftest", 1).tolist() == [3]
    assert screen_features(X, y, "ftest", 2).tolist() == [2, 3]
    assert screen_features(X, y, "ftest", 3).tolist() == [0, 2, 3]


def test_of_equal_scores_the_first_feature_is_kept():
    # Three kinds of columns take turns; the best 200, and of the second best the first 30.
    kinds = np.transpose([[0.0, 1, 1, 2], [0, 0, 1, 1], [0, 1, 2, 3]])
    X = np.tile(kinds, 200)

    kept = screen_features(X, [0, 0, 1, 1], "ftest", 230)

    best, second = np.arange(1, 600, 3), np.arange(2, 600, 3)
    assert_array_equal(kept, np.sort([*best, *second[:30]]))


@pytest.mark.parametrize(("method", "n_kept"), [("none", 1), ("ftest", 3), ("ftest", 9)])
def test_positions_are_all_kept_in_order_where_there_are_no_more(method, n_kept):
    X = [[5.0, 0, 1], [6, 1, 0], [9, 2, 1]]

    assert screen_features(X, [0, 0, 1], method, n_kept).tolist() == [0, 1, 2]


def test_the_order_of_rows_and_the_names_of_classes_do_not_matter(sample):
    X, y = sample
    kept = screen_features(X, y, "ftest", 4)

    assert_array_equal(screen_features(X[::-1], 2 - y[::-1], "ftest", 4), kept)


def test_as_many_classes_as_rows_still_give_an_order():
    X = [[0.0, 1, 5], [0, 2, 5], [0, 9, 5]]

    assert screen_features(X, [0, 1, 2], "ftest", 1).tolist() == [1]


@pytest.mark.parametrize(
    ("y", "method", "n_kept", "message"),
    [
        ([0, 1], "chi2", 1, r"Unknown screening 'chi2'; choose among \['none', 'ftest', 'mut"),
        ([0, 1], "ftest", 0, r"n_kept must be at least 1, got 0"),
        ([1, 1], "ftest", 1, r"2 rows of a single class"),
    ],
)
def test_what_cannot_be_screened_is_refused(y, method, n_kept, message):
    with pytest.raises(ValueError, match=message):
        screen_features([[0.0], [1.0]], y, method, n_kept)


@pytest.mark.parametrize("method", SCORES)
def test_every_method_keeps_what_tells_the_classes_apart(method, sample):
    X, y = sample

    assert set(screen_features(X, y, method, 3)) == {0, 1, 2}


@pytest.mark.parametrize("method", SCORES)
def test_every_method_says_the_same_twice_and_puts_constants_last(method, sample):
    X, y = sample
    X = np.column_stack([np.full(len(y), 7.0), X, np.full(len(y), np.nan)])

    ranking = rank_features(X, y, method)

    assert ranking[-2:].tolist() == [0, 13]
    assert_array_equal(rank_features(X, y, method), ranking)


def test_mutual_information_sees_a_difference_in_spread_that_f_does_not():
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    X = rng.normal(size=(400, 3)).astype(np.float32)
    X[:, 1] *= 1 + 3 * y
    for label in (0, 1):
        X[y == label, 1] -= X[y == label, 1].mean()

    assert mutual_scores(X, y).argmax() == 1
    assert f_scores(X, y).argmax() != 1


def test_gain_gives_a_copy_of_a_feature_little():
    rng = np.random.default_rng(0)
    y = np.arange(300) % 2
    strong = rng.normal(size=300) + 2 * y
    weak = rng.normal(size=300) + 0.8 * y
    X = np.column_stack([strong, strong, strong, weak])

    assert set(rank_features(X, y, "ftest")[:3]) == {0, 1, 2}
    assert 3 in rank_features(X, y, "gain")[:2]


def test_features_without_gain_follow_by_their_f():
    rng = np.random.default_rng(1)
    y = np.arange(40) % 2
    X = rng.normal(size=(40, 1500)).astype(np.float32)

    gains, f = gain_scores(X, y), f_scores(X, y)

    unused = np.flatnonzero(gains <= 0)
    assert len(unused) > 100
    assert_array_equal(np.argsort(-gains[unused]), np.argsort(-f[unused]))


def test_gain_takes_classes_by_any_name():
    rng = np.random.default_rng(1)
    y = np.arange(200) % 2
    X = rng.normal(size=(200, 5)).astype(np.float32)

    assert_array_equal(gain_scores(X, 3 * y), gain_scores(X, y))
