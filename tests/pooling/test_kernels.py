"""The compiled passes against the plain definitions, over every kind of input."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from toolkit.pooling import (
    kernels,
    pool_frames,
    pooler,
    register_statistic,
    unregister_statistic,
)
from toolkit.pooling.statistics import (
    BUILT_IN,
    NonFiniteError,
    clean_frames,
    compute_statistics,
)

DIMENSIONLESS = {"skew", "kurtosis", "lag1"}
COUNTED = {"argmax_position", "argmin_position", "share_above_mean", "crossing_rate"}
RANKED = {"min", "max", "first", "last", "iqr", "range", "delta_p90_abs"}
# A quadratic over so few frames that it bends by eight times the range between them.
STEEPNESS = {"slope": 4, "curvature": 16}


def assert_as_defined(frames, names=BUILT_IN):
    """Compare with float64 numpy: tolerances are shares of the spread of a dimension."""
    numbers = np.asarray(frames, dtype=np.float64)
    spread = numbers.max(axis=0) - numbers.min(axis=0)
    pooled = pool_frames(frames, names)
    for name, row, expected in zip(
        names, pooled, compute_statistics(numbers, names), strict=True
    ):
        stored = expected.astype(np.float32).astype(np.float64)
        if name in COUNTED:
            allowed = np.zeros_like(spread)
        elif name in DIMENSIONLESS:
            allowed = 1e-5 * np.maximum(1, np.abs(expected))
        else:
            share = 1e-6 if name in RANKED or name[0] == "p" else 1e-5
            # Two numbers apart by little may be stored as neighbours in float32.
            storage = np.spacing(np.abs(stored).astype(np.float32)).astype(np.float64)
            allowed = share * STEEPNESS.get(name, 1) * spread + storage
        assert (np.abs(row - stored) <= allowed).all(), name


@st.composite
def sequences(draw):
    shape = draw(st.integers(1, 70)), draw(st.integers(1, 140))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["normal", "ties", "walk", "spike", "constant"]))
    frames = rng.normal(size=shape)
    if kind == "ties":
        frames = rng.integers(-2, 3, size=shape).astype(np.float64)
    elif kind == "walk":
        frames = frames.cumsum(axis=0)
    elif kind == "spike":
        frames[0] += 1000
    elif kind == "constant":
        frames[:] = frames[0]
    offset = draw(st.sampled_from([0, 0, 1, -10_000]))
    dtype = draw(st.sampled_from(["f4", "f4", "f8", ">f4", "f2", "i2", "i4"]))
    scale = draw(st.sampled_from([1.0, 1e-30, 1e-38, 1e30] if dtype[-2:] != "f2" else [1.0]))
    if dtype[0] == "i":
        scale = 100.0
    if dtype == "f2":
        frames = np.clip(frames, -100, 100)
        offset = min(abs(offset), 1)
    frames = ((frames + offset) * scale).astype(dtype)
    return np.asfortranarray(frames) if draw(st.booleans()) else frames


@settings(max_examples=150, deadline=None)
@given(sequences())
def test_any_sequence_is_pooled_as_defined(frames):
    assert_as_defined(frames)


@pytest.mark.parametrize("n_dims", [1, 63, 64, 65, 128, 200])
@pytest.mark.parametrize("n_frames", [1, 2, 3, 8, 16, 17, 33, 129, 300])
def test_no_shape_falls_between_the_blocks(n_frames, n_dims):
    frames = np.random.default_rng(n_frames).normal(size=(n_frames, n_dims))

    assert_as_defined(frames.astype(np.float32))


@pytest.mark.parametrize("n_dims", [64, 200])
def test_a_file_too_large_for_the_cache_is_pooled_in_parts(monkeypatch, n_dims):
    frames = np.random.default_rng(5).normal(size=(50, n_dims)).astype(np.float32)
    whole = pool_frames(frames, BUILT_IN)
    monkeypatch.setattr(kernels, "_IN_CACHE", 1)

    np.testing.assert_array_equal(pool_frames(frames, BUILT_IN), whole)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_statistic_alone_is_the_same_as_in_company(name):
    frames = np.random.default_rng(1).normal(size=(41, 70)).astype(np.float32)

    alone = pool_frames(frames, [name])

    np.testing.assert_array_equal(alone[0], pool_frames(frames, BUILT_IN)[BUILT_IN.index(name)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-20, 1e12, 1e37])
def test_neither_tiny_nor_huge_units_cost_digits(dtype, scale):
    frames = np.random.default_rng(2).integers(-3, 4, size=(30, 5)) * dtype(scale)

    assert_as_defined(frames, [name for name in BUILT_IN if name != "curvature"])


def test_an_offset_of_ten_thousand_spreads_costs_no_digits():
    frames = np.random.default_rng(3).normal(size=(100, 3)).astype(np.float32)
    names = ["std", "skew", "kurtosis", "lag1", "slope", "delta_mean_abs", "delta_std"]
    with_offset = (frames + np.float32(10_000)).astype(np.float32)

    assert_as_defined(with_offset, names)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_long_sequences_are_pooled_as_defined(monkeypatch, dtype):
    monkeypatch.setattr(kernels, "_LONG", 40)
    frames = np.random.default_rng(4).normal(size=(90, 70)).astype(dtype)

    assert_as_defined(frames)


def test_where_a_sum_overflows_the_definitions_answer():
    frames = np.array([[1e308, 0.0], [1e308, 1.0], [-1.0, 2.0], [1.0, 3.0], [2.0, 4.0]])

    assert pool_frames(frames, ["p50"]).tolist() == [[2.0, 2.0]]


def test_a_result_beyond_float32_is_named():
    frames = np.array([[3e38, 0], [-3e38, 0]], dtype=np.float32)

    assert pool_frames(frames, ["mean", "lag1"]).tolist() == [[0, 0], [-0.5, 0]]
    with pytest.raises(ValueError, match=r"'range' of dimension 0 is 6e\+38"):
        pool_frames(frames, ["mean", "range"])


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["p50", "max", "first", "crossing_rate", "delta_p90_abs"])
def test_what_is_not_finite_is_refused_whatever_is_asked_for(bad, name):
    frames = np.random.default_rng(5).normal(size=(20, 66)).astype(np.float32)
    frames[13, 65] = bad

    with pytest.raises(NonFiniteError, match="frame 13, dimension 65"):
        pool_frames(frames, [name])


@pytest.mark.parametrize("policy", ["drop", "interpolate"])
def test_cleaned_frames_are_pooled_as_defined(policy):
    frames = np.random.default_rng(6).normal(size=(30, 5)).astype(np.float32)
    frames[[0, 7, 29], [1, 2, 3]] = np.nan

    assert_as_defined(clean_frames(frames, policy).frames)


def test_interpolation_fills_each_dimension_and_holds_its_ends():
    frames = np.array([[np.nan, 1], [2, 1], [np.nan, np.inf], [np.nan, 1], [8, np.nan]])

    cleaned = clean_frames(frames, "interpolate")

    assert cleaned.frames.tolist() == [[2, 1], [2, 1], [4, 1], [6, 1], [8, 1]]
    assert cleaned.n_interpolated == 4


@pytest.mark.parametrize("policy", ["drop", "interpolate"])
def test_without_any_finite_frame_nothing_is_left(policy):
    frames = np.array([[np.nan, -np.inf], [np.inf, np.nan]])

    assert len(clean_frames(frames, policy).frames) == 0


@pytest.mark.parametrize(
    ("policy", "missing", "kept"),
    [
        ("drop", "refuse", [[np.nan, 1.0], [np.nan, 3.0]]),
        ("interpolate", "refuse", [[np.nan, 1.0], [np.nan, 2.0], [np.nan, 3.0]]),
    ],
)
def test_a_dimension_without_a_finite_frame_leaves_the_others(policy, missing, kept):
    frames = np.array([[np.nan, 1.0], [np.inf, np.nan], [np.nan, 3.0]])

    cleaned = clean_frames(frames, policy, missing)

    assert_array_equal(cleaned.frames, kept)
    assert cleaned.n_dropped + cleaned.n_interpolated == 1


def test_missing_values_that_are_allowed_excuse_whole_dimensions_alone():
    dead, gap = np.ones((3, 2)), np.ones((3, 2))
    dead[:, 0] = -np.inf
    gap[1, 0] = np.nan

    assert_array_equal(clean_frames(dead, "refuse", "allow").frames, [[np.nan, 1.0]] * 3)
    for frames, missing in ((dead, "refuse"), (gap, "allow")):
        with pytest.raises(NonFiniteError, match="dimension 0"):
            clean_frames(frames, "refuse", missing)


def test_a_statistic_of_ones_own_is_pooled_beside_the_others():
    frames = np.random.default_rng(7).normal(size=(30, 5)).astype(np.float32)
    register_statistic("energy", lambda x: (x**2).mean(axis=0))

    try:
        pooled = pool_frames(frames, ["max", "energy", "p50"])
    finally:
        unregister_statistic("energy")

    expected = [frames.max(0), (frames.astype(np.float64) ** 2).mean(0), np.median(frames, 0)]
    np.testing.assert_allclose(pooled, expected, rtol=1e-6, atol=1e-7)


def test_a_statistic_of_ones_own_must_give_one_number_a_dimension():
    register_statistic("wrong", lambda x: x.mean())

    try:
        with pytest.raises(ValueError, match=r"'wrong' gave shape \(\)"):
            pool_frames(np.zeros((3, 2)), ["wrong"])
    finally:
        unregister_statistic("wrong")


@pytest.mark.parametrize("name", ["mean", "rich", "value", "Two Words"])
def test_a_statistic_cannot_take_any_name(name):
    with pytest.raises(ValueError, match="name"):
        register_statistic(name, lambda x: x.mean(axis=0))


def test_threads_do_not_share_their_buffers():
    rng = np.random.default_rng(8)
    many = [rng.normal(size=(n, 100)).astype(np.float32) for n in range(5, 60)]
    expected = [pool_frames(frames, BUILT_IN) for frames in many]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda frames: pool_frames(frames, BUILT_IN), many))

    for one, other in zip(together, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("frames", [np.zeros(3), np.zeros((0, 3)), np.zeros((2, 0))])
def test_only_frames_of_numbers_are_pooled(frames):
    with pytest.raises(ValueError, match="shape"):
        pool_frames(frames, ["mean"])


@pytest.mark.parametrize("dtype", [complex, bool, str])
def test_only_numbers_are_pooled(dtype):
    with pytest.raises(ValueError, match="are of type"):
        pool_frames(np.zeros((2, 2), dtype), ["mean"])


def test_the_compiler_is_loaded_with_the_first_sequence():
    code = "import sys, toolkit.pooling; sys.exit('numba' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


COMPILED = """
import sys
import numpy as np
from numba.core.event import install_recorder
from toolkit.pooling import pool_frames
with install_recorder("numba:compile") as recorder:
    pool_frames(np.ones((3, 2), np.float32), sys.argv[1:])
names = {event.data["dispatcher"].py_func.__name__ for _, event in recorder.buffer}
print(" ".join(sorted(name for name in names if name.startswith(("pool_", "_pool_")))))
"""


def start_compiling(folder, *names):
    return subprocess.Popen(
        [sys.executable, "-c", COMPILED, *names],
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_of_two_processes_one_compiles_and_only_what_is_asked_for(tmp_path):
    processes = [start_compiling(tmp_path, "mean") for _ in range(2)]

    compiled = [process.communicate()[0].strip() for process in processes]

    assert sorted(compiled) == ["", "_pool_moments"]


def test_read_only_frames_are_no_type_of_their_own():
    frames = np.ones((3, 2), dtype=np.float32)
    frames.flags.writeable = False

    assert pooler._as_frames(frames).flags.writeable
    assert pooler._as_frames(np.ones((3, 2))).dtype == np.float64


@pytest.mark.parametrize("n_frames", [3, 4, 7, 40, 300])
def test_equal_deltas_have_no_spread(n_frames):
    # The mean of their squares less the square of their mean would be rounding alone.
    ramp = np.linspace(0, 1, n_frames, dtype=np.float32)[:, None] * np.float32([1, -3])

    assert_as_defined(ramp)


@pytest.mark.parametrize("n_frames", [4096, 4097, 70_000])
def test_no_length_falls_between_the_ways(n_frames):
    rng = np.random.default_rng(9)
    frames = rng.normal(size=(n_frames, 3)).astype(np.float32)
    frames[n_frames // 2, 1] = 1000

    assert_as_defined(frames)
