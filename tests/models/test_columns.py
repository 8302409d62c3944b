import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from toolkit.models.screening import column_blocks, column_medians, standard_deviations


@pytest.fixture
def gappy():
    """1,100 columns, more than a block, every third value missing."""
    X = np.random.default_rng(3).normal(5, 2, size=(31, 1100)).astype(np.float32)
    X.reshape(-1)[::3] = np.nan
    return X


def test_blocks_cover_every_column_once():
    covered = np.concatenate([np.arange(2500)[block] for block in column_blocks(2500)])

    assert_array_equal(covered, np.arange(2500))


def test_medians_are_those_of_the_values_that_are_there(gappy):
    assert_array_equal(column_medians(gappy), np.nanmedian(gappy.astype(np.float64), axis=0))


def test_scales_are_population_standard_deviations(gappy):
    expected = np.nanstd(gappy.astype(np.float64), axis=0)

    assert_allclose(standard_deviations(gappy), expected, rtol=1e-12)


def test_a_column_without_values_has_median_0_and_scale_1():
    X = np.full((3, 1), np.nan, dtype=np.float32)

    assert column_medians(X).tolist() == [0]
    assert standard_deviations(X).tolist() == [1]


def test_a_constant_column_has_scale_1_though_its_mean_is_rounded():
    X = np.full((7, 1), 0.1, dtype=np.float64)

    assert X.std() > 0
    assert standard_deviations(X).tolist() == [1]
