"""Contributions handed back to frames: exactly additive, and to the frames that matter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from toolkit.explain import (
    register_frame_weights,
)
from toolkit.explain.timeline import _frame_weights, _spread_over_frames
from toolkit.pooling import (
    register_statistic,
    unregister_statistic,
)
from toolkit.pooling.statistics import STATISTICS, compute_statistics

BUILT_IN = tuple(STATISTICS)


@given(
    n_frames=st.integers(1, 40),
    levels=st.sampled_from([2, 3, 50]),
    offset=st.sampled_from([0.0, 1e4]),
    reference=st.sampled_from([-3.0, 0.0, 0.5, 1e5, np.nan]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_weights_are_shares_of_one(n_frames, levels, offset, reference, seed):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, levels, size=(n_frames, 3)).astype(np.float32) + offset
    frames[:, 2] = offset  # constant

    for statistic in BUILT_IN:
        weights = _frame_weights(statistic, frames, np.full(3, reference))

        assert weights.shape == frames.shape, statistic
        assert (weights >= 0).all(), statistic
        assert_allclose(weights.sum(axis=0), 1, atol=1e-12, err_msg=statistic)


def weigh(statistic, x, reference=0.0):
    return _frame_weights(statistic, np.array(x, dtype=float)[:, None], [reference])[:, 0]


@pytest.mark.parametrize(
    ("statistic", "x", "reference", "expected"),
    [
        ("min", [3, 1, 1, 4], 0, [0, 0.5, 0.5, 0]),
        ("max", [3, 1, 4, 4], 0, [0, 0, 0.5, 0.5]),
        ("range", [3, 1, 4, 4], 0, [0, 0.5, 0.25, 0.25]),
        ("first", [3, 1, 4], 0, [1, 0, 0]),
        ("last", [3, 1, 4], 0, [0, 0, 1]),
        ("argmax_position", [3, 4, 4], 0, [0, 1, 0]),
        ("argmin_position", [3, 1, 1], 0, [0, 1, 0]),
        ("p50", [5, 1, 3], 0, [0, 0, 1]),
        ("p50", [5, 1, 3, 9], 0, [0.5, 0, 0.5, 0]),
        ("p25", [5, 1, 3, 9], 0, [0, 0.25, 0.75, 0]),  # rank .75
        ("iqr", [5, 1, 3, 9], 0, [0.375, 0.125, 0.375, 0.125]),
        # mean 3 above 1: parts (x - 1)/3 where above
        ("mean", [0, 3, 6], 1, [0, 2 / 7, 5 / 7]),
        # mean 3 below 5: the other way round
        ("mean", [0, 3, 6], 5, [5 / 7, 2 / 7, 0]),
        # d^2/T = 3, 0, 3 against 0
        ("std", [0, 3, 6], 0, [0.5, 0, 0.5]),
        # z^3 = -1.5^1.5, 0, 1.5^1.5: the sum is 0, above -100
        ("skew", [0, 3, 6], -100, [(100 - 1.5**1.5) / 300, 1 / 3, (100 + 1.5**1.5) / 300]),
        # l d with l = -1, 0, 1 and d = -3, 0, 3
        ("slope", [0, 3, 6], 0, [0.5, 0, 0.5]),
        # deltas 1, 1, 4: |delta|/3 against 0, half to each end
        ("delta_mean_abs", [0, 1, 2, 6], 0, [1 / 12, 2 / 12, 5 / 12, 4 / 12]),
        # deltas less their mean 2: -1, -1, 2; squares 1, 1, 4
        ("delta_std", [0, 1, 2, 6], 0, [1 / 12, 2 / 12, 5 / 12, 4 / 12]),
        ("delta_max_abs", [0, 1, 2, 6], 0, [0, 0, 0.5, 0.5]),
        # sizes 1, 3, 5; rank .9 * 2 = 1.8: .2 to the 3, .8 to the 5
        ("delta_p90_abs", [0, 1, 4, 9], 0, [0, 0.1, 0.5, 0.4]),
        # d = -2, -1, 3: products 2, -3; halves 1, -.5, -1.5 of 14; their sum is 13/14 above -1
        ("lag1", [0, 1, 5], -1, [(1 + 14 / 3) / 13, (14 / 3 - 0.5) / 13, (14 / 3 - 1.5) / 13]),
        ("share_above_mean", [0, 0, 9, 9], 0, [0, 0, 0.5, 0.5]),
        # crossings between 0 and 1, and between 2 and 3
        ("crossing_rate", [0, 9, 9, 0], 0, [0.25, 0.25, 0.25, 0.25]),
        ("crossing_rate", [0, 0, 0, 9], 0, [0, 0, 0.5, 0.5]),
        ("crossing_rate", [5, 5, 5], 0, [1 / 3, 1 / 3, 1 / 3]),
        ("mean_end", [9, 9, 9, 9, 1, 3], 0, [0, 0, 0, 0, 0.25, 0.75]),
        ("std_start", [0, 4, 9, 9, 9, 9], 0, [0.5, 0.5, 0, 0, 0, 0]),
    ],
)
def test_the_table_of_rules(statistic, x, reference, expected):
    assert_allclose(weigh(statistic, x, reference), expected, atol=5e-5)


def test_kurtosis_goes_to_the_frame_that_is_far_out():
    weights = weigh("kurtosis", [0, 0.1, -0.1, 0, 8, 0.1, 0], reference=0.0)

    assert weights[4] > 0.99


def test_curvature_goes_to_what_bends():
    time = np.linspace(0, 1, 9)
    weights = weigh("curvature", 4 * (time - 0.5) ** 2)

    assert_allclose(weights, weights[::-1], atol=1e-12)
    assert weights[0] > weights[2]


def test_sums_weigh_what_the_statistic_adds_whatever_the_offset():
    x = np.array([0.0, 1.0, 5.0, 2.0])
    for statistic in ("std", "slope", "delta_mean_abs", "lag1", "skew"):
        assert_allclose(weigh(statistic, x + 1024), weigh(statistic, x), atol=1e-9)


def test_a_planted_event_is_found():
    """A burst in frames 30 to 35 of one dimension is where every curve peaks."""
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(80, 4))
    frames[30:36, 2] += 6
    usual = {n: compute_statistics(rng.normal(size=(80, 4)), [n])[0] for n in BUILT_IN}
    for statistic in ("mean", "std", "max", "p95", "p99", "skew", "kurtosis", "delta_std"):
        phi = np.zeros((3, 4))
        phi[1, 2] = 0.7

        curve = _spread_over_frames(frames, {statistic: phi}, {statistic: usual[statistic]})

        assert curve.shape == (3, 80)
        assert_allclose(curve.sum(axis=1), phi.sum(axis=1), atol=1e-12)
        assert curve[1, 29:37].sum() > 0.5 * 0.7, statistic
        assert 29 <= curve[1].argmax() <= 36, statistic


def test_contributions_of_all_statistics_add_up_over_frames():
    rng = np.random.default_rng(1)
    frames = rng.normal(size=(17, 5)).astype(np.float32)
    phi = {name: rng.normal(size=(4, 5)) for name in BUILT_IN}
    usual = {name: rng.normal(size=5) for name in BUILT_IN}

    curve = _spread_over_frames(frames, phi, usual)

    assert_allclose(curve.sum(axis=1), sum(p.sum(axis=1) for p in phi.values()), atol=1e-10)


def test_a_single_frame_gets_everything():
    for statistic in BUILT_IN:
        assert weigh(statistic, [2.0]).tolist() == [1.0]


@pytest.fixture
def energy():
    register_statistic("energy", lambda frames: (frames**2).mean(axis=0))
    yield "energy"
    unregister_statistic("energy")


def test_a_statistic_of_ones_own_is_spread_equally_or_as_registered(energy):
    assert weigh(energy, [1, 3]).tolist() == [0.5, 0.5]

    register_frame_weights(energy, lambda frames, _: frames**2)

    assert_allclose(weigh(energy, [1, 3]), [0.1, 0.9])


def test_registered_weights_below_zero_are_refused(energy):
    register_frame_weights(energy, lambda frames, _: frames)

    with pytest.raises(ValueError, match=r"registered for 'energy' have .* least value -1"):
        weigh(energy, [-1, 3])


def test_weights_of_the_toolkits_own_statistics_cannot_be_changed():
    with pytest.raises(ValueError, match=r"'mean' is not one that register_statistic"):
        register_frame_weights("mean", lambda frames, _: frames)


@pytest.mark.parametrize("statistic", ["value", "median"])
def test_what_has_no_frames_is_refused(statistic):
    with pytest.raises(ValueError, match=r"cannot be handed back to frames"):
        weigh(statistic, [1, 2])
