import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from toolkit.validation.scores import (
    jackknife_half_width,
    jackknife_interval,
    mean_interval,
)

VALUES = np.array([0.31, 0.52, 0.48, 0.77, 0.60, 0.55])
SIZES = np.array([40.0, 400, 90, 120, 60, 210])


def pooled_without(values, sizes):
    keep = ~np.eye(len(values), dtype=bool)
    return np.array([np.average(values[k], weights=sizes[k]) for k in keep])


def test_the_jackknife_of_a_mean_is_the_t_interval():
    left_out = pooled_without(VALUES, np.ones(6))
    expected = stats.t.interval(0.95, 5, VALUES.mean(), stats.sem(VALUES))

    assert_allclose(jackknife_interval(VALUES.mean(), left_out), expected)


def test_the_jackknife_of_a_pooled_value_follows_its_formula():
    left_out = pooled_without(VALUES, SIZES)
    theta = np.average(VALUES, weights=SIZES)
    spread = sum((value - left_out.mean()) ** 2 for value in left_out)
    half = stats.t.ppf(0.975, 5) * np.sqrt(5 / 6 * spread)

    assert_allclose(jackknife_interval(theta, left_out), (theta - half, theta + half))


def test_half_widths_of_a_stack_are_those_of_each():
    stack = np.stack([pooled_without(VALUES, SIZES), pooled_without(VALUES, np.ones(6))])

    assert_allclose(jackknife_half_width(stack), [jackknife_half_width(row) for row in stack])


def test_fewer_than_five_units_give_no_jackknife_interval():
    assert jackknife_interval(0.5, VALUES[:4]) == (None, None)
    assert None not in jackknife_interval(0.5, VALUES[:5])


def test_intervals_stay_within_the_range_of_what_they_describe():
    assert jackknife_interval(0.5, VALUES, low=0.4, high=0.6) == (0.4, 0.6)
    assert mean_interval([0.0, 1.0], low=0, high=1) == (0.0, 1.0)


def test_the_mean_over_units_has_the_plain_t_interval():
    expected = stats.t.interval(0.95, 5, VALUES.mean(), stats.sem(VALUES))

    assert_allclose(mean_interval(VALUES), expected)


def test_a_single_unit_gives_no_interval():
    assert mean_interval([0.5]) == (None, None)


def test_ends_are_floats_even_where_the_range_clips():
    ends = jackknife_interval(0.5, VALUES, low=0, high=1)

    assert [type(end) for end in ends] == [float, float]


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_equal_units_have_an_interval_of_no_width(shift):
    value = 0.5 + shift

    assert jackknife_interval(value, np.full(8, value)) == (value, value)
