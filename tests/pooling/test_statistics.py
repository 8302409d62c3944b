"""The definitions, against scipy, numpy and hand calculation; and their symmetries."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from toolkit.pooling import PRESETS, pool_frames
from toolkit.pooling.statistics import STATISTICS, resolve_statistics

FRAMES = np.random.default_rng(0).normal(size=(23, 5)) * [1, 10, 0.1, 1, 3] + [0, 5, -2, 100, 0]
TIME = np.linspace(0, 1, 23)
DELTAS = np.diff(FRAMES, axis=0)
THIRDS = FRAMES[0:7], FRAMES[7:15], FRAMES[15:23]
DEVIATIONS = FRAMES - FRAMES.mean(axis=0)

EXPECTED = {
    "mean": FRAMES.mean(axis=0),
    "std": FRAMES.std(axis=0),
    "min": FRAMES.min(axis=0),
    "max": FRAMES.max(axis=0),
    "range": np.ptp(FRAMES, axis=0),
    "first": FRAMES[0],
    "last": FRAMES[-1],
    **{
        f"p{q:02d}": np.percentile(FRAMES, q, axis=0)
        for q in (1, 5, 10, 25, 50, 75, 90, 95, 99)
    },
    "iqr": stats.iqr(FRAMES, axis=0),
    "skew": stats.skew(FRAMES, axis=0),
    "kurtosis": stats.kurtosis(FRAMES, axis=0),
    "slope": np.polyfit(TIME, FRAMES, 1)[0],
    "curvature": np.polyfit(TIME, FRAMES, 2)[0],
    "argmax_position": FRAMES.argmax(axis=0) / 22,
    "argmin_position": FRAMES.argmin(axis=0) / 22,
    "delta_mean_abs": np.abs(DELTAS).mean(axis=0),
    "delta_std": DELTAS.std(axis=0),
    "delta_max_abs": np.abs(DELTAS).max(axis=0),
    "delta_p90_abs": np.percentile(np.abs(DELTAS), 90, axis=0),
    "lag1": (DEVIATIONS[1:] * DEVIATIONS[:-1]).sum(axis=0) / (DEVIATIONS**2).sum(axis=0),
    "share_above_mean": (DEVIATIONS > 0).mean(axis=0),
    "crossing_rate": (np.diff(np.sign(DEVIATIONS), axis=0) != 0).sum(axis=0) / 22,
    **{
        f"{kind}_{place}": getattr(third, kind)(axis=0)
        for kind in ("mean", "std")
        for place, third in zip(("start", "middle", "end"), THIRDS, strict=True)
    },
}


def pool(frames, name):
    return pool_frames(np.asarray(frames, dtype=np.float64), (name,))[0]


def test_every_statistic_has_an_independent_value_here():
    assert set(EXPECTED) == set(STATISTICS)


@pytest.mark.parametrize("name", sorted(STATISTICS))
def test_a_statistic_is_its_definition(name):
    assert_allclose(pool(FRAMES, name), EXPECTED[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted(STATISTICS))
def test_one_frame_and_a_constant_have_a_value(name):
    of_one, of_constant = pool([[3.0, -1.0]], name), pool(np.full((7, 2), [3.0, -1.0]), name)

    levels = {"mean", "min", "max", "first", "last", "mean_start", "mean_middle", "mean_end"}
    is_level = name in levels or name[0] == "p"
    expected = [3, -1] if is_level else [0, 0]
    assert_allclose(of_one, expected)
    assert_allclose(of_constant, expected)


@pytest.mark.parametrize("name", ["skew", "kurtosis", "lag1", "share_above_mean", "std"])
def test_a_constant_with_a_rounded_mean_is_still_constant(name):
    # The mean of 0.1 seven times over is not 0.1 in floating point.
    assert pool(np.full((7, 1), 0.1), name).item() == 0


@pytest.mark.parametrize(
    ("name", "sign"), [("slope", -1), ("curvature", 1), ("lag1", 1), ("delta_mean_abs", 1)]
)
def test_turning_time_around_flips_the_slope_alone(name, sign):
    assert_allclose(pool(FRAMES[::-1], name), sign * pool(FRAMES, name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["std", "iqr", "range", "slope", "delta_std", "skew", "lag1"])
def test_an_offset_changes_no_spread(name):
    assert_allclose(pool(FRAMES + 50, name), pool(FRAMES, name), rtol=1e-4, atol=1e-4)


def test_the_first_of_equal_extremes_gives_the_position():
    frames = [[0.0], [2.0], [0.0], [2.0], [1.0]]

    assert pool(frames, "argmax_position").item() == 0.25
    assert pool(frames, "argmin_position").item() == 0


def test_frames_at_the_mean_count_on_neither_side():
    # Deviations -1, 0, 1: one of three is above; the zero is skipped: one crossing in 2 steps.
    frames = [[0.0], [1.0], [2.0]]

    assert_allclose(pool(frames, "share_above_mean"), [1 / 3])
    assert_allclose(pool(frames, "crossing_rate"), [1 / 2])


@pytest.mark.parametrize(
    ("n_frames", "expected"),
    [(1, [0, 0, 0]), (2, [0, 0, 1]), (3, [0, 1, 2]), (4, [0, 1, 2.5]), (5, [0, 1.5, 3.5])],
)
def test_thirds_of_short_sequences(n_frames, expected):
    # Third k holds frames floor(kT/3) up to max(floor((k+1)T/3), floor(kT/3) + 1).
    frames = np.arange(float(n_frames))[:, None]

    names = ("mean_start", "mean_middle", "mean_end")
    assert_allclose([pool(frames, name).item() for name in names], expected)


def test_presets_are_as_documented():
    assert PRESETS["minimal"] == ("mean",)
    assert PRESETS["basic"] == ("mean", "max", "std", "p25", "p50", "p75", "delta_mean_abs")
    assert len(PRESETS["rich"]) == 18
    assert set(PRESETS["full"]) == set(STATISTICS)


def test_names_in_a_text_keep_their_order():
    assert resolve_statistics("p90, slope") == ("p90", "slope")


@pytest.mark.parametrize(
    ("spec", "message"),
    [("median", "median"), ("mean,mean", "mean"), ("", "statistic")],
)
def test_statistics_that_cannot_be_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        resolve_statistics(spec)


def test_a_result_beyond_float32_is_refused_rather_than_infinite():
    with pytest.raises(ValueError, match="32 bits"):
        pool([[1e300], [-1e300]], "range")
