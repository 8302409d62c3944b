"""Compiled passes over the frames of one sequence; importing this loads numba.

Here is all that is summed over the frames, and the choice of the passes that statistics need;
:mod:`toolkit.pooling.order` has ranks and temporal statistics. A kernel that is not needed is
never compiled. Two kinds of statistics take another way: registered ones run as they are; ranks
of a long sequence are sorted by numpy, since a sorting network grows faster than the sequence
and would leave the cache.

A file of ``n_frames x n_dims`` numbers is cut into blocks of 64 dimensions, copied so that the
64 numbers of a frame lie side by side. Such a block stays in the processor's cache, and the
inner loop of every pass runs over the 64 dimensions at once in vector registers. The first pass
finds extremes and mean. The second sums over the differences to the mean, in units of the
dimension's range, so that neither offset nor unit costs digits: eight frames at a time in the
arithmetic of the file, gathered in float64. The blocks are left as they are, to be sorted next.
An overflow or a number that is not finite shows in the results.
"""

import math
import threading
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.jit import LANES, Array, copy_results, fill, jit, jit_cached
from toolkit.pooling import order
from toolkit.pooling.statistics import BUILT_IN, PERCENTILES, Frames, compute_statistics

#: Frames that one turn of a pass takes together; a block has as many rows to spare.
_STEP = 8

MOMENTS = (
    *("mean", "min", "max", "range", "first", "last", "mean_start", "mean_middle", "mean_end"),
    *("std", "skew", "kurtosis", "lag1", "delta_mean_abs", "delta_std", "slope", "curvature"),
)
"""Statistics, in the order of the results of a block."""
_MEAN, _MIN, _MAX, _RANGE, _FIRST, _LAST, _THIRDS = range(7)
_STD, _SKEW, _KURTOSIS, _LAG1, _DELTA_MEAN, _DELTA_STD, _SLOPE, _CURVATURE = range(9, 17)

# Rows of `narrow`: what each dimension needs, then partial sums.
_LOW, _HIGH, _CENTRE, _FACTOR, _NET, _PART = range(6)
_N_NARROW = _PART + 8
#: Weights of a frame: in the slope, in the curvature, and 1 where a delta begins.
_N_WEIGHTS = 3

# Rows of `wide` after the results.
_SUMS = len(MOMENTS)
_TOTALS, _TWO = _SUMS, _SUMS + 3  # the first are of the thirds
_THREE, _FOUR, _PRODUCT, _DELTA, _SQUARE, _TREND, _BOWL = range(_TWO + 1, _TWO + 8)
_N_WIDE = _BOWL + 1


@jit
def _load(frames: Array, first: int, width: int, block: Array) -> None:
    """Copy `width` dimensions, and repeat the first frame for a whole step after the last."""
    n_frames = frames.shape[0]
    # Sums are taken over differences to the first frame, so its repetition adds nothing.
    for t in range(n_frames + _STEP):
        row = frames[t if t < n_frames else 0, first : first + width]
        lanes = block[t * LANES : t * LANES + width]
        for j in range(width):
            lanes[j] = row[j]


@jit
def _gather(narrow: Array, n_rows: int, sums: Array) -> None:
    """Add the sums of one step in float64; apart, or its width would be that of all."""
    sums_of_step = narrow[_PART * LANES : (_PART + n_rows) * LANES]
    for j in range(n_rows * LANES):
        sums[j] += sums_of_step[j]


@jit
def _scan(block: Array, n_frames: int, narrow: Array, wide: Array) -> None:
    """Extremes, and the sums over thirds of the differences to the first frame."""
    for j in range(LANES):
        narrow[_LOW * LANES + j] = block[j]
        narrow[_HIGH * LANES + j] = block[j]
    for t in range(0, n_frames, _STEP):
        x = block[t * LANES : (t + _STEP) * LANES]
        for j in range(LANES):
            low, high, start = narrow[_LOW * LANES + j], narrow[_HIGH * LANES + j], block[j]
            total = x[j] - start
            low = min(low, x[j])
            high = max(high, x[j])
            for r in range(1, _STEP):
                value = x[r * LANES + j]
                total += value - start
                low = min(low, value)
                high = max(high, value)
            narrow[_LOW * LANES + j] = low
            narrow[_HIGH * LANES + j] = high
            narrow[_PART * LANES + j] = total
        number = (t >= n_frames // 3) + (t >= 2 * n_frames // 3)
        _gather(narrow, 1, wide[(_TOTALS + number) * LANES :])
    for number in range(1, 3):  # frames of a step that began in the third before
        begin = number * n_frames // 3
        for t in range(begin, min((begin + _STEP - 1) // _STEP * _STEP, n_frames)):
            x = block[t * LANES : (t + 1) * LANES]
            for j in range(LANES):
                moved = np.float64(x[j]) - np.float64(block[j])
                wide[(_TOTALS + number - 1) * LANES + j] -= moved
                wide[(_TOTALS + number) * LANES + j] += moved


@jit
def _finish_scan(block: Array, n_frames: int, cap: float, narrow: Array, wide: Array) -> None:
    last = block[(n_frames - 1) * LANES : n_frames * LANES]
    for j in range(LANES):
        begin, end = np.float64(block[j]), np.float64(last[j])
        low, high = np.float64(narrow[_LOW * LANES + j]), np.float64(narrow[_HIGH * LANES + j])
        total = wide[_TOTALS * LANES + j] + wide[(_TOTALS + 1) * LANES + j]
        mean = begin + (total + wide[(_TOTALS + 2) * LANES + j]) / n_frames
        extent = high - low
        factor = min(1.0 / extent, cap) if extent > 0 else 1.0
        wide[_MEAN * LANES + j] = mean
        wide[_MIN * LANES + j] = low
        wide[_MAX * LANES + j] = high
        wide[_RANGE * LANES + j] = extent
        wide[_FIRST * LANES + j] = begin
        wide[_LAST * LANES + j] = end
        narrow[_CENTRE * LANES + j] = mean
        narrow[_FACTOR * LANES + j] = factor
        narrow[_NET * LANES + j] = (end - begin) * factor / max(n_frames - 1, 1)
    for k in range(3):
        first, after = k * n_frames // 3, (k + 1) * n_frames // 3
        x = block[first * LANES : (first + 1) * LANES]
        for j in range(LANES):
            total = wide[(_TOTALS + k) * LANES + j]
            mean = block[j] + total / (after - first) if n_frames > 2 else x[j]
            wide[(_THIRDS + k) * LANES + j] = mean


@jit
def _repeat_centre(block: Array, n_frames: int, narrow: Array) -> None:
    """Fill a step after the last frame with the centre, so that it adds nothing."""
    for t in range(n_frames, n_frames + _STEP):
        rest = block[t * LANES : (t + 1) * LANES]
        for j in range(LANES):
            rest[j] = narrow[_CENTRE * LANES + j]


@jit
def _add_shape(block: Array, n_frames: int, weights: Array, narrow: Array, wide: Array) -> None:
    """Powers, products of neighbours, deltas and trends, a step of frames at a time."""
    n_rows = weights.size // _N_WEIGHTS
    for t in range(0, n_frames, _STEP):
        x = block[t * LANES : (t + _STEP + 1) * LANES]
        w = weights[t:]
        for j in range(LANES):
            centre, factor = narrow[_CENTRE * LANES + j], narrow[_FACTOR * LANES + j]
            net = narrow[_NET * LANES + j]
            d = (x[j] - centre) * factor
            two = three = four = product = one = square = slope = bowl = d - d  # typed zeros
            for r in range(_STEP):
                following = (x[(r + 1) * LANES + j] - centre) * factor
                power = d * d
                two += power
                three += power * d
                four += power * power
                product += d * following
                slope += w[r] * d
                bowl += w[n_rows + r] * d
                delta = following - d
                one += w[2 * n_rows + r] * abs(delta)
                slip = delta - net
                square += w[2 * n_rows + r] * (slip * slip)
                d = following
            narrow[_PART * LANES + j] = two
            narrow[(_PART + 1) * LANES + j] = three
            narrow[(_PART + 2) * LANES + j] = four
            narrow[(_PART + 3) * LANES + j] = product
            narrow[(_PART + 4) * LANES + j] = one
            narrow[(_PART + 5) * LANES + j] = square
            narrow[(_PART + 6) * LANES + j] = slope
            narrow[(_PART + 7) * LANES + j] = bowl
        _gather(narrow, 8, wide[_TWO * LANES :])


@jit
def _finish_shape(block: Array, n_frames: int, narrow: Array, wide: Array) -> None:
    """Moments about the mean from those about the centre, which is almost there."""
    last = block[(n_frames - 1) * LANES : n_frames * LANES]
    n_deltas = max(n_frames - 1, 1)
    several = 1.0 if n_frames > 2 else 0.0  # a single delta has no spread
    for j in range(LANES):
        centre = np.float64(narrow[_CENTRE * LANES + j])
        factor = np.float64(narrow[_FACTOR * LANES + j])
        varies = 1.0 if wide[_RANGE * LANES + j] > 0 else 0.0
        m = (wide[_MEAN * LANES + j] - centre) * factor
        two = wide[_TWO * LANES + j] / n_frames
        three = wide[_THREE * LANES + j] / n_frames
        four = wide[_FOUR * LANES + j] / n_frames
        variance = two - m * m if varies > 0 else 1.0
        third = three - 3 * m * two + 2 * m * m * m
        fourth = four - 4 * m * three + 6 * m * m * two - 3 * m * m * m * m
        ends = (np.float64(block[j]) - centre + np.float64(last[j]) - centre) * factor
        product = wide[_PRODUCT * LANES + j] + m * ends - m * m * (n_frames + 1)
        root = math.sqrt(variance)
        wide[_STD * LANES + j] = varies * root / factor
        wide[_SKEW * LANES + j] = varies * third / (variance * root)
        wide[_KURTOSIS * LANES + j] = varies * (fourth / (variance * variance) - 3.0)
        wide[_LAG1 * LANES + j] = varies * product / (variance * n_frames)
        wide[_DELTA_MEAN * LANES + j] = wide[_DELTA * LANES + j] / n_deltas / factor
        deviation = math.sqrt(wide[_SQUARE * LANES + j] / n_deltas)
        wide[_DELTA_STD * LANES + j] = several * varies * deviation / factor
        wide[_SLOPE * LANES + j] = varies * wide[_TREND * LANES + j] / factor
        wide[_CURVATURE * LANES + j] = varies * wide[_BOWL * LANES + j] / factor


@jit
def _weigh_time(n_frames: int, weights: Array) -> None:
    """Weights of the slope, the curvature and the deltas; zero past the end."""
    n_rows = weights.size // _N_WEIGHTS
    middle = (n_frames - 1) / 2
    even = (n_frames * n_frames - 1) / 12  # mean of (t - middle)^2
    slopes, bowls = 0.0, 0.0
    for t in range(n_frames):
        square = (t - middle) * (t - middle)
        slopes += square
        bowls += (square - even) * (square - even)
    length = n_frames - 1.0
    slope = length / slopes if n_frames > 1 else 0.0
    bowl = length * length / bowls if n_frames > 2 else 0.0
    for t in range(n_frames + _STEP):
        inside = t < n_frames
        square = (t - middle) * (t - middle)
        weights[t] = (t - middle) * slope if inside else 0.0
        weights[n_rows + t] = (square - even) * bowl if inside else 0.0
        weights[2 * n_rows + t] = 1.0 if t < n_frames - 1 else 0.0


@jit_cached
def _pool_moments(  # noqa: PLR0917  (called once a sequence: keywords cost a dictionary)
    frames: Array,
    first: int,
    last: int,
    rows: Array,
    cap: float,
    blocks: Array,
    weights: Array,
    narrow: Array,
    wide: Array,
    out: Array,
) -> bool:
    """Copy dimensions `first` to `last` of a sequence into blocks, and pool them.

    `frames` are C-contiguous and writable. ``rows[k]`` is the row of ``MOMENTS[k]`` in `out`,
    or -1. `blocks` receives at least ``n_frames + _STEP`` rows of LANES numbers per block. To
    work in, `weights`, `narrow` and `wide` hold _N_WEIGHTS, _N_NARROW and _N_WIDE rows; the
    last is in float64. The result is False where a mean is not finite.
    """
    n_frames = frames.shape[0]
    n_blocks = (last - first + LANES - 1) // LANES
    size = blocks.size // n_blocks
    shape = False
    for k in range(_STD, len(MOMENTS)):
        shape = shape or rows[k] >= 0
    _weigh_time(n_frames, weights)
    residue = 0.0  # NaN as soon as one mean is not finite
    for number in range(n_blocks):
        block = blocks[number * size : (number + 1) * size]
        begin = first + number * LANES
        width = min(LANES, last - begin)
        if width < LANES:
            fill(block, 0, n_frames + _STEP, 0.0)
        fill(wide, _SUMS, _N_WIDE, 0.0)
        _load(frames, begin, width, block)
        _scan(block, n_frames, narrow, wide)
        _finish_scan(block, n_frames, cap, narrow, wide)
        if shape:
            _repeat_centre(block, n_frames, narrow)
            _add_shape(block, n_frames, weights, narrow, wide)
            _finish_shape(block, n_frames, narrow, wide)
        for j in range(LANES):
            residue += wide[_MEAN * LANES + j] * 0.0
        copy_results(wide, rows, begin, width, out)
    return residue == 0.0


#: Frames up to which ranks are read from a sorting network.
_LONG = 4096

# Numbers that stay in the cache between kernels. The whole of an ordinary file: every call of a
# kernel hands the interpreter from one thread to the other and back.
_IN_CACHE = 1 << 19
# By bytes of a number: the largest factor by which a range is scaled, so that the factor of the
# smallest one stays finite.
_CAPS = MappingProxyType({4: 2.0**126, 8: 2.0**1022})

_of_thread = threading.local()


def pool_compiled(
    frames: NDArray[np.floating[Any]], statistics: tuple[str, ...], out: NDArray[np.float32]
) -> bool:
    """Pool frames by the compiled passes; False where a sum is not finite.

    `frames` are float32 or float64, C-contiguous and writable. `out` has the shape
    (len(statistics), n_dims) and is C-contiguous.
    """
    of_frames, of_deltas, registered = _plan_passes(statistics)
    finite = _run(frames, of_frames, out)
    if finite and of_deltas is not None:
        with np.errstate(over="ignore"):
            deltas = np.abs(np.diff(frames, axis=0)) if len(frames) > 1 else frames * 0
        finite = _run(deltas, of_deltas, out)
    if finite and registered:
        with np.errstate(over="ignore"):
            names = [statistics[row] for row in registered]
            out[registered] = compute_statistics(frames, names)
    return finite


@dataclass(frozen=True, slots=True, eq=False)
class _Passes:
    """Rows of the output that each kernel fills; a kernel with none is not run."""

    moments: NDArray[np.int64]
    temporal: NDArray[np.int64] | None
    shares: NDArray[np.float64]
    ordered: NDArray[np.int64]


@lru_cache(maxsize=64)
def _plan_passes(statistics: tuple[str, ...]) -> tuple[_Passes, _Passes | None, list[int]]:
    """Plan the passes over frames and magnitudes of deltas, and list registered rows."""
    # Extremes and ranks of the deltas are those of another sequence; their sums are moments.
    rows = {name: row for row, name in enumerate(statistics)}
    deltas = {
        of_delta: rows[name]
        for name, of_delta in (("delta_max_abs", "max"), ("delta_p90_abs", "p90"))
        if name in rows
    }
    registered = [row for name, row in rows.items() if name not in BUILT_IN]
    return _make_passes(rows), _make_passes(deltas) if deltas else None, registered


def _make_passes(rows: dict[str, int]) -> _Passes:
    of_moments, of_temporal = (
        np.array([rows.get(name, -1) for name in names], dtype=np.int64)
        for names in (MOMENTS, order.TEMPORAL)
    )
    shares = {name: (share, -1.0) for name, share in PERCENTILES.items()}
    shares["iqr"] = 0.75, 0.25
    ranked = [name for name in rows if name in shares]
    return _Passes(
        moments=of_moments,
        temporal=of_temporal if (of_temporal >= 0).any() else None,
        shares=np.array([shares[name] for name in ranked], dtype=np.float64).reshape(-1, 2),
        ordered=np.array([rows[name] for name in ranked], dtype=np.int64),
    )


def _run(frames: NDArray[np.floating[Any]], passes: _Passes, out: NDArray[np.float32]) -> bool:
    """Run the kernels over a few blocks at a time, which stay in the cache between them."""
    n_frames, n_dims = frames.shape
    # A whole number of steps and of runs fits behind the last frame.
    n_rows = -(-(n_frames + _STEP) // order.RUN) * order.RUN
    span = min(max(_IN_CACHE // n_rows // LANES, 1), -(-n_dims // LANES)) * LANES
    memory, narrow, wide = _get_memory(span * n_rows, frames.dtype)
    weights = np.zeros(_N_WEIGHTS * n_rows, frames.dtype)
    cap = _CAPS[frames.itemsize]
    finite = True
    for first in range(0, n_dims, span):
        last = min(first + span, n_dims)
        blocks = memory[: -(-(last - first) // LANES) * LANES * n_rows]
        finite &= _pool_moments(
            frames, first, last, passes.moments, cap, blocks, weights, narrow, wide, out
        )
        if passes.temporal is not None:
            order.pool_temporal(blocks, n_frames, first, last, passes.temporal, wide, out)
        if passes.ordered.size and n_frames <= _LONG:
            order.pool_order(
                blocks, n_frames, first, last, passes.shares, passes.ordered, wide, out
            )
    if finite and n_frames > _LONG:
        _sort_long(frames, passes, out)
    return finite


def _sort_long(
    frames: NDArray[np.floating[Any]], passes: _Passes, out: NDArray[np.float32]
) -> None:
    """Order statistics of a long sequence, a few dimensions at a time."""
    for first in range(0, frames.shape[1] if passes.ordered.size else 0, LANES):
        columns = slice(first, first + LANES)
        lanes = np.ascontiguousarray(frames[:, columns].T).astype(np.float64)
        ordered = np.sort(lanes, axis=1).T
        for row, (share, less) in zip(passes.ordered, passes.shares, strict=True):
            value = Frames.interpolate_rank(ordered, share)
            if less >= 0:
                value = value - Frames.interpolate_rank(ordered, less)
            out[row, columns] = value


def _get_memory(size: int, dtype: np.dtype[Any]) -> tuple[NDArray[Any], ...]:
    """Memory of this thread: blocks, at least as long as asked for, lanes and sums."""
    kept: dict[str, tuple[NDArray[Any], ...]] = _of_thread.__dict__.setdefault("memory", {})
    if dtype.char not in kept or kept[dtype.char][0].size < size:
        kept[dtype.char] = (
            _align(max(size, _IN_CACHE), dtype),
            _align(_N_NARROW * LANES, dtype),
            _align(max(_N_WIDE, order.N_WIDE) * LANES, np.dtype(np.float64)),
        )
    return kept[dtype.char]


def _align(size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Zeros that begin with a cache line: vectors across two lines cost twice."""
    line = 64
    memory = np.zeros(size * dtype.itemsize + line, dtype=np.uint8)
    begin = -memory.ctypes.data % line
    return memory[begin : begin + size * dtype.itemsize].view(dtype)
