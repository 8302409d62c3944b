import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.feature_selection import f_classif

from toolkit.models import Features, parse_screening
from toolkit.models.linear import column_blocks, standard_deviations
from toolkit.models.preparation import (
    _SCORES,
    _column_medians,
    _f_scores,
    _gain_scores,
    _mutual_scores,
    rank_columns,
)


@pytest.fixture
def gappy():
    """1,100 columns, more than a block, every third value missing."""
    X = np.random.default_rng(3).normal(5, 2, size=(31, 1100)).astype(np.float32)
    X.reshape(-1)[::3] = np.nan
    return X


def test_blocks_cover_every_column_once():
    covered = np.concatenate([np.arange(2500)[block] for block in column_blocks(9, 2500)])

    assert_array_equal(covered, np.arange(2500))


def test_blocks_of_long_tables_are_narrow_and_give_the_same_numbers():
    widths = [block.stop - block.start for block in column_blocks(2_000_000, 100)]
    X = np.random.default_rng(0).normal(size=(600_000, 60)).astype(np.float32)

    assert (max(widths), sum(widths)) == (16, 100)
    assert [*column_blocks(len(X), 60)] == [slice(0, 55), slice(55, 60)]
    assert_array_equal(standard_deviations(X), X.astype(np.float64).std(axis=0))


def test_medians_are_those_of_the_values_that_are_there(gappy):
    assert_array_equal(_column_medians(gappy), np.nanmedian(gappy.astype(np.float64), axis=0))


def test_scales_are_population_standard_deviations(gappy):
    expected = np.nanstd(gappy.astype(np.float64), axis=0)

    assert_allclose(standard_deviations(gappy), expected, rtol=1e-12)


def test_a_column_without_values_has_median_0_and_scale_1():
    X = np.full((3, 1), np.nan, dtype=np.float32)

    assert _column_medians(X).tolist() == [0]
    assert standard_deviations(X).tolist() == [1]


def test_a_constant_column_has_scale_1_though_its_mean_is_rounded():
    X = np.full((7, 1), 0.1, dtype=np.float64)

    assert X.std() > 0
    assert standard_deviations(X).tolist() == [1]


def rank(X, y, method):
    """Positions of the features, the first to keep first."""
    X, y = np.asarray(X, dtype=np.float32), np.asarray(y)
    names, presets = tuple(map(str, range(X.shape[1]))), {"all": np.arange(X.shape[1])}
    features = Features(X, names, np.ones(len(X), dtype=bool), presets)
    return rank_columns(features, "all", method, np.arange(len(X)), y)


def keep(X, y, method, n_kept):
    """Positions of the features to keep."""
    return np.sort(rank(X, y, method)[:n_kept])


def test_scores_are_those_of_an_analysis_of_variance():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 60)
    X = (rng.normal(size=(60, 1500)) + 0.3 * y[:, None]).astype(np.float32)

    assert_allclose(_f_scores(X, y), f_classif(X.astype(np.float64), y)[0], rtol=1e-9)


def test_f_is_infinite_without_variance_in_the_classes_and_nan_for_a_constant():
    X = np.array([[0, 7, 0], [0, 7, 1], [1, 7, 2], [1, 7, 3]], dtype=np.float32)

    assert_array_equal(_f_scores(X, np.array([0, 0, 1, 1])), [np.inf, np.nan, 8])


def test_a_feature_far_from_zero_keeps_its_score():
    X = np.array([[0, 0], [1, 1], [2, 2], [3, 3]], dtype=np.float32)
    X[:, 1] += 2**20

    near, far = _f_scores(X, np.array([0, 0, 1, 1]))

    assert near == far == 8  # between 4 / 1, within (4 x .25) / 2


def test_missing_values_count_as_the_median_of_training():
    y = np.array([0, 0, 0, 1, 1, 1])
    gappy = np.array([[1], [2], [np.nan], [5], [6], [np.nan]], dtype=np.float32)
    filled = np.where(np.isnan(gappy), np.float32(3.5), gappy)

    assert_array_equal(_f_scores(gappy, y), _f_scores(filled, y))


def test_a_constant_feature_comes_last_and_a_perfect_one_first():
    y = [0, 0, 1, 1]
    constant, empty, weak, perfect = [0.1] * 4, [np.nan] * 4, [0, 1, 0, 2], [3, 3, 4, 4]
    X = np.transpose([constant, empty, weak, perfect])

    assert keep(X, y, "ftest", 1).tolist() == [3]
    assert keep(X, y, "ftest", 2).tolist() == [2, 3]
    assert keep(X, y, "ftest", 3).tolist() == [0, 2, 3]


def test_of_equal_scores_the_first_feature_is_kept():
    # Three kinds of columns take turns; the best 200, and of the second best the first 30.
    kinds = np.transpose([[0.0, 1, 1, 2], [0, 0, 1, 1], [0, 1, 2, 3]])
    X = np.tile(kinds, 200)

    kept = keep(X, [0, 0, 1, 1], "ftest", 230)

    best, second = np.arange(1, 600, 3), np.arange(2, 600, 3)
    assert_array_equal(kept, np.sort([*best, *second[:30]]))


def test_the_order_of_rows_and_the_names_of_classes_do_not_matter(sample):
    X, y = sample
    kept = keep(X, y, "ftest", 4)

    assert_array_equal(keep(X[::-1], 2 - y[::-1], "ftest", 4), kept)


def test_as_many_classes_as_rows_still_give_an_order():
    X = [[0.0, 1, 5], [0, 2, 5], [0, 9, 5]]

    assert keep(X, [0, 1, 2], "ftest", 1).tolist() == [1]


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ([[0.0], [np.inf]], [0, 1], "inf at row 1, column 0"),
        ([[0.0], [1.0]], [1, 1], r"2 rows of a single class"),
    ],
)
def test_what_cannot_be_screened_is_refused(X, y, message):
    with pytest.raises(ValueError, match=message):
        rank(X, y, "ftest")


@pytest.mark.parametrize("method", _SCORES)
def test_every_method_keeps_what_tells_the_classes_apart(method, sample):
    X, y = sample

    assert set(keep(X, y, method, 3)) == {0, 1, 2}


@pytest.mark.parametrize("method", _SCORES)
def test_every_method_says_the_same_twice_and_puts_constants_last(method, sample):
    X, y = sample
    X = np.column_stack([np.full(len(y), 7.0), X, np.full(len(y), np.nan)])

    ranking = rank(X, y, method)

    assert ranking[-2:].tolist() == [0, 13]
    assert_array_equal(rank(X, y, method), ranking)


def test_mutual_information_sees_a_difference_in_spread_that_f_does_not():
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    X = rng.normal(size=(400, 3)).astype(np.float32)
    X[:, 1] *= 1 + 3 * y
    for label in (0, 1):
        X[y == label, 1] -= X[y == label, 1].mean()

    assert _mutual_scores(X, y).argmax() == 1
    assert _f_scores(X, y).argmax() != 1


def test_gain_gives_a_copy_of_a_feature_little():
    rng = np.random.default_rng(0)
    y = np.arange(300) % 2
    strong = rng.normal(size=300) + 2 * y
    weak = rng.normal(size=300) + 0.8 * y
    X = np.column_stack([strong, strong, strong, weak])

    assert set(rank(X, y, "ftest")[:3]) == {0, 1, 2}
    assert 3 in rank(X, y, "gain")[:2]


def test_a_gain_is_that_among_all_columns_of_a_wide_table(gappy):
    y = np.arange(len(gappy)) % 2
    gappy[:, [3, 1050]] += 3 * y[:, None]

    expected = np.argsort(-_gain_scores(gappy, y), kind="stable")
    assert_array_equal(rank(gappy, y, "gain"), expected)


def test_features_without_gain_follow_by_their_f():
    rng = np.random.default_rng(1)
    y = np.arange(40) % 2
    X = rng.normal(size=(40, 1500)).astype(np.float32)

    gains, f = _gain_scores(X, y), _f_scores(X, y)

    unused = np.flatnonzero(gains <= 0)
    assert len(unused) > 100
    assert_array_equal(np.argsort(-gains[unused]), np.argsort(-f[unused]))


def test_gain_takes_classes_by_any_name():
    rng = np.random.default_rng(1)
    y = np.arange(200) % 2
    X = rng.normal(size=(200, 5)).astype(np.float32)

    assert_array_equal(_gain_scores(X, 3 * y), _gain_scores(X, y))


@pytest.mark.parametrize("screening", ["chi2-5", "ftest", "ftest-0", "auto"])
def test_a_screening_that_is_no_method_with_a_number_is_refused(screening):
    with pytest.raises(ValueError, match=f"Unknown screening '{screening}'; choose none, or"):
        parse_screening(screening)
