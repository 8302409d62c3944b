"""The compiled passes over the frames; importing this file imports the compiler.

The idea. A file of ``n_frames x n_dims`` numbers is cut into blocks of 64 dimensions, copied
so that the 64 numbers of a frame lie side by side. Such a block stays in the processor's
cache, so it may be passed over several times, once for each group of statistics asked for,
and the inner loop of every pass runs over the 64 dimensions at once in vector registers.
Order statistics come from one sort along time. A sort that branches on the data could not run
for 64 dimensions at once; a sorting network can, since it compares the same rows whatever they
hold: runs of 16 rows are sorted in registers (Batcher's odd-even merge), then runs are merged
two by two (his bitonic merge: fold the second run back over the first, then compare rows at
half the distance until neighbours are ordered). Of the last merge only those rows are finished
that hold a rank asked for.

Numbers are compared as integers: the bits of a float, with all but the sign turned over where
it is negative, order like the float, and NaN sorts beyond infinity instead of spoiling the
order. Means are summed in float64. All else is summed over the differences to the mean, in
units of the dimension's range, so that neither offset nor unit costs digits: eight frames at
a time in the arithmetic of the block (float32, or float64 where the sequence is long or the
numbers are), gathered in float64. What overflows or is not finite shows in the results, and
the caller then asks the plain definitions.

References
----------
.. [1] K. E. Batcher, "Sorting networks and their applications", AFIPS 1968.
"""

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np

LANES = 64  # dimensions in a block
RUN = 16  # rows that are sorted in registers
STEP = 8  # frames that one turn of a pass takes together

NAMES = (
    *("mean", "std", "min", "max", "range", "first", "last"),
    *("p01", "p05", "p10", "p25", "p50", "p75", "p90", "p95", "p99"),
    *("iqr", "skew", "kurtosis", "slope", "curvature", "argmax_position", "argmin_position"),
    *("delta_mean_abs", "delta_std", "delta_max_abs", "delta_p90_abs"),
    *("lag1", "share_above_mean", "crossing_rate"),
    *("mean_start", "mean_middle", "mean_end", "std_start", "std_middle", "std_end"),
)
"""What is compiled, in the order of the results of a block."""
MEAN, STD, MIN, MAX, RANGE, FIRST, LAST, P01 = range(8)
IQR, SKEW, KURTOSIS, SLOPE, CURVATURE, ARGMAX, ARGMIN = range(16, 23)
DELTA_MEAN, DELTA_STD, DELTA_MAX, DELTA_P90, LAG1, SHARE, CROSSING = range(23, 30)
MEAN_THIRD, STD_THIRD = 30, 33
SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)

# Rows of `lanes`: extremes, factor that makes the range less than 1, centre, partial sums.
LOW, HIGH, UNIT, CENTRE, PART = range(5)
# Rows of `sums`; a third has a sum of deviations and one of their squares.
TOTAL, POWERS, PRODUCTS, TREND, DELTA, SLIP, VARIES, THIRDS, N_SUMS = (
    0,
    3,
    6,
    7,
    9,
    11,
    12,
    13,
    19,
)

Number = Any  # one value in Python's eyes, a register of values in the compiled loop
Array = Any  # contiguous; rows of LANES values stand one after the other


class Buffers(NamedTuple):
    """Memory that one thread uses again for every sequence.

    Parameters
    ----------
    block, block_bits : ndarray of shape (n_rows * LANES,)
        The frames of one block, seen as floats and as integers; at least ``n_frames + 24``
        rows, like the other long buffers. In the end they are sorted here.
    deviations, deviation_bits : ndarray of shape (n_rows * LANES,)
        Differences to the centre in units of the range; in the end the deltas.
    weights : ndarray of shape (2 * n_rows,)
        Of the slope, then of the curvature.
    lanes, lane_bits : ndarray of shape (7 * LANES,)
        What each dimension needs, in the type of the block, and seen as integers.
    sums : ndarray of shape (N_SUMS * LANES,), float64
        Totals over the frames.
    results : ndarray of shape (len(NAMES) * LANES,), float64
        One row a statistic.
    wanted : ndarray of shape (2 * n_rows // RUN,), bool
        Runs of sorted frames that hold a rank asked for, then the same of deltas.
    """

    block: Array
    block_bits: Array
    deviations: Array
    deviation_bits: Array
    weights: Array
    lanes: Array
    lane_bits: Array
    sums: Array
    results: Array
    wanted: Array


Function = TypeVar("Function", bound=Callable[..., Any])


# Division follows IEEE 754 instead of raising, or loops could not run in vectors; nothing is
# allocated, so that slices need not be counted.
_njit: Any = numba.njit  # whose types know only some of its options
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "no_cfunc_wrapper": True,
    "_nrt": False,
}


def _compile(function: Function) -> Function:
    """Compile what only compiled code calls."""
    return cast("Function", _njit(no_cpython_wrapper=True, **_OPTIONS)(function))


def _inline(function: Function) -> Function:
    return cast(
        "Function", _njit(no_cpython_wrapper=True, forceinline=True, **_OPTIONS)(function)
    )


def _compile_once(function: Function) -> Function:
    """Compile for Python to call, and keep that on disk where a folder can be written."""
    try:
        compiled = _njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # no folder was found
        _warn_not_kept()
        return cast("Function", _njit(**_OPTIONS)(function))

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return compiled(*arguments)
        except OSError:  # one was found, but it was full or has been locked since
            _warn_not_kept()
            return compiled(*arguments)

    return cast("Function", call)


def _warn_not_kept() -> None:
    warnings.warn(
        "The compiled pooling cannot be kept on disk, since no folder for it can be written, "
        "and is compiled again in every process. Set NUMBA_CACHE_DIR to a folder that can be "
        "written.",
        RuntimeWarning,
        stacklevel=3,
    )


# --- sorting -----------------------------------------------------------------------------


@_inline
def _order(a: Number, b: Number) -> Any:
    return min(a, b), max(a, b)


@_inline
def _merge2(a0: Number, a1: Number, b0: Number, b1: Number) -> Any:
    a0, b0 = _order(a0, b0)
    a1, b1 = _order(a1, b1)
    a1, b0 = _order(a1, b0)
    return a0, a1, b0, b1


@_inline
def _merge4(  # noqa: PLR0917  (a tuple would be taken apart first)
    a0: Number,
    a1: Number,
    a2: Number,
    a3: Number,
    b0: Number,
    b1: Number,
    b2: Number,
    b3: Number,
) -> Any:
    a0, a2, b0, b2 = _merge2(a0, a2, b0, b2)
    a1, a3, b1, b3 = _merge2(a1, a3, b1, b3)
    a1, a2 = _order(a1, a2)
    a3, b0 = _order(a3, b0)
    b1, b2 = _order(b1, b2)
    return a0, a1, a2, a3, b0, b1, b2, b3


@_inline
def _sort8(  # noqa: PLR0917  (a tuple would be taken apart first)
    a0: Number,
    a1: Number,
    a2: Number,
    a3: Number,
    b0: Number,
    b1: Number,
    b2: Number,
    b3: Number,
) -> Any:
    a0, a1 = _order(a0, a1)
    a2, a3 = _order(a2, a3)
    b0, b1 = _order(b0, b1)
    b2, b3 = _order(b2, b3)
    a0, a1, a2, a3 = _merge2(a0, a1, a2, a3)
    b0, b1, b2, b3 = _merge2(b0, b1, b2, b3)
    return _merge4(a0, a1, a2, a3, b0, b1, b2, b3)


@_compile
def _turn(bits: Array, begin: int, end: int, mask: int) -> None:
    """Make the bits of floats order like the floats, or back."""
    rows = bits[begin * LANES : end * LANES]
    for i in range((end - begin) * LANES):
        bits_of_one = rows[i]
        rows[i] = bits_of_one if bits_of_one >= 0 else bits_of_one ^ mask


@_compile
def _sort_runs(keys: Array, n_rows: int, mask: int) -> None:
    for start in range(0, n_rows, RUN):
        _turn(keys, start, start + RUN, mask)
        rows = keys[start * LANES : (start + RUN) * LANES]
        for j in range(LANES):
            a0, a1, a2, a3, a4, a5, a6, a7 = _sort8(
                rows[j],
                rows[LANES + j],
                rows[2 * LANES + j],
                rows[3 * LANES + j],
                rows[4 * LANES + j],
                rows[5 * LANES + j],
                rows[6 * LANES + j],
                rows[7 * LANES + j],
            )
            b0, b1, b2, b3, b4, b5, b6, b7 = _sort8(
                rows[8 * LANES + j],
                rows[9 * LANES + j],
                rows[10 * LANES + j],
                rows[11 * LANES + j],
                rows[12 * LANES + j],
                rows[13 * LANES + j],
                rows[14 * LANES + j],
                rows[15 * LANES + j],
            )
            a0, a2, a4, a6, b0, b2, b4, b6 = _merge4(a0, a2, a4, a6, b0, b2, b4, b6)
            a1, a3, a5, a7, b1, b3, b5, b7 = _merge4(a1, a3, a5, a7, b1, b3, b5, b7)
            rows[j] = a0
            rows[LANES + j], rows[2 * LANES + j] = _order(a1, a2)
            rows[3 * LANES + j], rows[4 * LANES + j] = _order(a3, a4)
            rows[5 * LANES + j], rows[6 * LANES + j] = _order(a5, a6)
            rows[7 * LANES + j], rows[8 * LANES + j] = _order(a7, b0)
            rows[9 * LANES + j], rows[10 * LANES + j] = _order(b1, b2)
            rows[11 * LANES + j], rows[12 * LANES + j] = _order(b3, b4)
            rows[13 * LANES + j], rows[14 * LANES + j] = _order(b5, b6)
            rows[15 * LANES + j] = b7


@_inline
def _halve8(  # noqa: PLR0917  (a tuple would be taken apart first)
    a0: Number,
    a1: Number,
    a2: Number,
    a3: Number,
    a4: Number,
    a5: Number,
    a6: Number,
    a7: Number,
) -> Any:
    a0, a4 = _order(a0, a4)
    a1, a5 = _order(a1, a5)
    a2, a6 = _order(a2, a6)
    a3, a7 = _order(a3, a7)
    a0, a2 = _order(a0, a2)
    a1, a3 = _order(a1, a3)
    a4, a6 = _order(a4, a6)
    a5, a7 = _order(a5, a7)
    a0, a1 = _order(a0, a1)
    a2, a3 = _order(a2, a3)
    a4, a5 = _order(a4, a5)
    a6, a7 = _order(a6, a7)
    return a0, a1, a2, a3, a4, a5, a6, a7


@_compile
def _finish_runs(keys: Array, n_rows: int, wanted: Array, every: bool) -> None:
    """Order the bitonic runs that hold a wanted rank."""
    for run in range(n_rows // RUN):
        if not (every or wanted[run]):
            continue
        rows = keys[run * RUN * LANES : (run + 1) * RUN * LANES]
        for j in range(LANES):
            a0, b0 = _order(rows[j], rows[8 * LANES + j])
            a1, b1 = _order(rows[LANES + j], rows[9 * LANES + j])
            a2, b2 = _order(rows[2 * LANES + j], rows[10 * LANES + j])
            a3, b3 = _order(rows[3 * LANES + j], rows[11 * LANES + j])
            a4, b4 = _order(rows[4 * LANES + j], rows[12 * LANES + j])
            a5, b5 = _order(rows[5 * LANES + j], rows[13 * LANES + j])
            a6, b6 = _order(rows[6 * LANES + j], rows[14 * LANES + j])
            a7, b7 = _order(rows[7 * LANES + j], rows[15 * LANES + j])
            a0, a1, a2, a3, a4, a5, a6, a7 = _halve8(a0, a1, a2, a3, a4, a5, a6, a7)
            b0, b1, b2, b3, b4, b5, b6, b7 = _halve8(b0, b1, b2, b3, b4, b5, b6, b7)
            rows[j], rows[LANES + j] = a0, a1
            rows[2 * LANES + j], rows[3 * LANES + j] = a2, a3
            rows[4 * LANES + j], rows[5 * LANES + j] = a4, a5
            rows[6 * LANES + j], rows[7 * LANES + j] = a6, a7
            rows[8 * LANES + j], rows[9 * LANES + j] = b0, b1
            rows[10 * LANES + j], rows[11 * LANES + j] = b2, b3
            rows[12 * LANES + j], rows[13 * LANES + j] = b4, b5
            rows[14 * LANES + j], rows[15 * LANES + j] = b6, b7


@_compile
def _fold(keys: Array, lower: int, upper: int) -> None:
    """Put the smaller of two rows into the lower one."""
    a = keys[lower * LANES : (lower + 1) * LANES]
    b = keys[upper * LANES : (upper + 1) * LANES]
    for j in range(LANES):
        a[j], b[j] = _order(a[j], b[j])


@_compile
def _exchange(keys: Array, lower: int, upper: int, n_rows: int) -> None:
    """Put the smaller of two rows into the lower one, for successive rows."""
    a = keys[lower * LANES : (lower + n_rows) * LANES]
    b = keys[upper * LANES : (upper + n_rows) * LANES]
    for j in range(n_rows * LANES):
        a[j], b[j] = _order(a[j], b[j])


@_compile
def _sort_rows(keys: Array, n_rows: int, wanted: Array, mask: int) -> None:
    """Sort along time; of the runs that are not wanted, only which values they hold.

    Rows past the end count as infinite: being last they never move.
    """
    _sort_runs(keys, n_rows, mask)
    width = RUN
    while width < n_rows:
        for start in range(0, n_rows - width, 2 * width):
            end = start + 2 * width
            for row in range(max(start, end - n_rows + start), start + width):
                _fold(keys, row, start + end - 1 - row)
            distance = width // 2
            while distance >= RUN:
                for first in range(start, min(end, n_rows - distance), 2 * distance):
                    second = first + distance
                    _exchange(keys, first, second, min(distance, n_rows - second))
                distance //= 2
        width *= 2
        _finish_runs(keys, n_rows, wanted, width < n_rows)
    for run in range(n_rows // RUN):
        if wanted[run]:
            _turn(keys, run * RUN, (run + 1) * RUN, mask)


# --- passes over one block ----------------------------------------------------------------


@_compile
def _fill(array: Array, begin: int, end: int, value: Number) -> None:
    for i in range(begin * LANES, end * LANES):
        array[i] = value


@_compile
def _load(frames: Array, first: int, width: int, block: Array) -> None:
    for t in range(frames.shape[0]):
        row = frames[t, first : first + width]
        lanes = block[t * LANES : t * LANES + width]
        for j in range(width):
            lanes[j] = row[j]


@_compile
def _repeat_last(n_frames: int, block: Array) -> None:
    """So that a whole step after the last frame changes neither extremes nor deltas."""
    last = block[(n_frames - 1) * LANES : (n_frames + STEP) * LANES]
    for i in range(LANES, (STEP + 1) * LANES):
        last[i] = last[i - LANES]


@_compile
def _find_extremes(block: Array, n_frames: int, lanes: Array) -> None:
    for j in range(LANES):
        lanes[j] = block[j]
        lanes[LANES + j] = block[j]
    for t in range(0, n_frames, STEP):
        x = block[t * LANES : (t + STEP) * LANES]
        for j in range(LANES):
            least, most = lanes[j], lanes[LANES + j]
            for r in range(STEP):
                value = x[r * LANES + j]
                least = min(least, value)
                most = max(most, value)
            lanes[j] = least
            lanes[LANES + j] = most


@_compile
def _add(block: Array, begin: int, end: int, sums: Array) -> None:
    steps = begin + (end - begin) // STEP * STEP
    for t in range(begin, steps, STEP):
        x = block[t * LANES : (t + STEP) * LANES]
        for j in range(LANES):
            total = sums[j]
            for r in range(STEP):
                total += x[r * LANES + j]
            sums[j] = total
    for t in range(steps, end):
        x = block[t * LANES : (t + 1) * LANES]
        for j in range(LANES):
            sums[j] += x[j]


@_compile
def _deviate(block: Array, n_frames: int, lanes: Array, out: Array) -> None:
    """Differences to the centre, in units of the range, then zeros for a whole step."""
    for t in range(0, n_frames, STEP):
        x = block[t * LANES : (t + STEP) * LANES]
        d = out[t * LANES : (t + STEP) * LANES]
        for j in range(LANES):
            factor, shift = lanes[UNIT * LANES + j], lanes[CENTRE * LANES + j]
            for r in range(STEP):
                d[r * LANES + j] = x[r * LANES + j] * factor - shift
    _fill(out, n_frames, n_frames + STEP, 0)


@_compile
def _gather(lanes: Array, n_rows: int, sums: Array) -> None:
    """Add the partial sums of a step in float64."""
    part = lanes[PART * LANES : (PART + n_rows) * LANES]
    for j in range(n_rows * LANES):
        sums[j] += part[j]


@_compile
def _add_powers(d: Array, n_frames: int, lanes: Array, sums: Array) -> None:
    """Squares, cubes and fourth powers."""
    for t in range(0, n_frames, STEP):
        x = d[t * LANES : (t + STEP) * LANES]
        for j in range(LANES):
            value = x[j]
            square = value * value
            two, three, four = square, square * value, square * square
            for r in range(1, STEP):
                value = x[r * LANES + j]
                square = value * value
                two += square
                three += square * value
                four += square * square
            lanes[PART * LANES + j] = two
            lanes[(PART + 1) * LANES + j] = three
            lanes[(PART + 2) * LANES + j] = four
        _gather(lanes, 3, sums)


@_compile
def _add_squares(d: Array, begin: int, end: int, sums: Array) -> None:
    """Values and squares of some of the frames."""
    for t in range(begin, end):
        x = d[t * LANES : (t + 1) * LANES]
        for j in range(LANES):
            value = np.float64(x[j])
            sums[j] += value
            sums[LANES + j] += value * value


@_compile
def _add_products(d: Array, n_frames: int, lanes: Array, sums: Array) -> None:
    """Products of neighbours; what follows the last frame is zero."""
    for t in range(0, n_frames, STEP):
        x = d[t * LANES : (t + STEP + 1) * LANES]
        for j in range(LANES):
            total = x[j] * x[LANES + j]
            for r in range(1, STEP):
                total += x[r * LANES + j] * x[(r + 1) * LANES + j]
            lanes[PART * LANES + j] = total
        _gather(lanes, 1, sums)


@_compile
def _add_weighted(d: Array, n_frames: int, weights: Array, lanes: Array, sums: Array) -> None:
    for t in range(0, n_frames, STEP):
        x = d[t * LANES : (t + STEP) * LANES]
        w = weights[t : t + STEP]
        for j in range(LANES):
            total = w[0] * x[j]
            for r in range(1, STEP):
                total += w[r] * x[r * LANES + j]
            lanes[PART * LANES + j] = total
        _gather(lanes, 1, sums)


@_compile
def _add_deltas(block: Array, n_frames: int, lanes: Array, sums: Array) -> None:
    """Magnitudes and squares of the deltas; after the last frame there are none."""
    for t in range(0, n_frames, STEP):
        x = block[t * LANES : (t + STEP + 1) * LANES]
        for j in range(LANES):
            factor = lanes[UNIT * LANES + j]
            value = abs((x[LANES + j] - x[j]) * factor)
            one, two = value, value * value
            for r in range(1, STEP):
                value = abs((x[(r + 1) * LANES + j] - x[r * LANES + j]) * factor)
                one += value
                two += value * value
            lanes[PART * LANES + j] = one
            lanes[(PART + 1) * LANES + j] = two
        _gather(lanes, 2, sums)


@_compile
def _find_deltas(block: Array, n_rows: int, out: Array) -> None:
    """Magnitudes of the deltas."""
    for t in range(n_rows):
        x = block[t * LANES : (t + 2) * LANES]
        lanes = out[t * LANES : (t + 1) * LANES]
        for j in range(LANES):
            lanes[j] = abs(x[LANES + j] - x[j])


@_compile
def _find_positions(block: Array, n_frames: int, extreme: Array, position: Array) -> None:
    """First frame that holds the extreme, as a share of the way."""
    length = max(n_frames - 1, 1)
    for t in range(n_frames - 1, -1, -1):
        x = block[t * LANES : (t + 1) * LANES]
        for j in range(LANES):
            position[j] = t / length if x[j] == extreme[j] else position[j]


@_compile
def _count_sides(n_frames: int, of: Buffers) -> None:
    """Frames above the mean and changes of side, leaving out a millionth of the range."""
    side = of.sums[:LANES]
    _fill(of.sums, 0, 1, 0)
    above = of.results[SHARE * LANES : (SHARE + 1) * LANES]
    crossings = of.results[CROSSING * LANES : (CROSSING + 1) * LANES]
    _fill(of.results, SHARE, CROSSING + 1, 0)
    for t in range(n_frames):
        x = of.block[t * LANES : (t + 1) * LANES]
        for j in range(LANES):
            margin = 1e-6 * of.results[RANGE * LANES + j]
            distance = x[j] - of.results[j]
            up = 1.0 if distance > margin else 0.0
            now = up if distance >= -margin else -1.0
            above[j] += up
            crossings[j] += 1.0 if side[j] * now < 0 else 0.0
            side[j] = now if now != 0 else side[j]
    for j in range(LANES):
        above[j] *= of.sums[VARIES * LANES + j] / n_frames
        crossings[j] *= of.sums[VARIES * LANES + j] / max(n_frames - 1, 1)


# --- from sums to statistics ---------------------------------------------------------------


@_compile
def _read_rank(ordered: Array, n_rows: int, share: float, out: Array) -> None:
    """Interpolate linearly between the two ranks nearest to a share of the values."""
    rank = share * (n_rows - 1)
    lower = int(rank)
    upper = min(lower + 1, n_rows - 1)
    a = ordered[lower * LANES : (lower + 1) * LANES]
    b = ordered[upper * LANES : (upper + 1) * LANES]
    for j in range(LANES):
        below = np.float64(a[j])
        out[j] = below + (rank - lower) * (np.float64(b[j]) - below)


@_compile
def _finish_extremes(n_frames: int, of: Buffers) -> None:
    """Extremes and ends, and the power of two that makes each range less than 1."""
    last = of.block[(n_frames - 1) * LANES : n_frames * LANES]
    narrow = of.lanes.itemsize == 4
    shift, top = (23, 253) if narrow else (52, 2045)  # of the exponent's bits; mirrors it
    for j in range(LANES):
        of.results[MIN * LANES + j] = of.lanes[j]
        of.results[MAX * LANES + j] = of.lanes[LANES + j]
        of.results[FIRST * LANES + j] = of.block[j]
        of.results[LAST * LANES + j] = last[j]
    for j in range(LANES):
        extent = of.results[MAX * LANES + j] - of.results[MIN * LANES + j]
        of.results[RANGE * LANES + j] = extent
        of.sums[VARIES * LANES + j] = 1.0 if extent != 0 else 0.0
        of.lanes[UNIT * LANES + j] = extent if extent != 0 else 0.5
    units = of.lane_bits[UNIT * LANES : (UNIT + 1) * LANES]
    for j in range(LANES):
        units[j] = max(top - (units[j] >> shift), 1) << shift


@_compile
def _finish_means(n_frames: int, in_thirds: bool, of: Buffers) -> None:
    for j in range(LANES):
        total = of.sums[j]
        if in_thirds:
            total = (total + of.sums[LANES + j]) + of.sums[2 * LANES + j]
        mean = total / n_frames
        centre = mean * of.lanes[UNIT * LANES + j]
        of.lanes[CENTRE * LANES + j] = centre
        of.sums[SLIP * LANES + j] = centre - of.lanes[CENTRE * LANES + j]
        of.results[j] = mean
    for k in range(3):
        begin, end = k * n_frames // 3, (k + 1) * n_frames // 3
        row = of.results[(MEAN_THIRD + k) * LANES : (MEAN_THIRD + k + 1) * LANES]
        for j in range(LANES):
            if in_thirds:
                row[j] = of.sums[k * LANES + j] / (end - begin)
            else:  # one frame each
                row[j] = of.block[begin * LANES + j]


@_compile
def _finish_slip(n_frames: int, of: Buffers) -> None:
    """In float64 no wider type tells how far the centre is from the mean: sum again."""
    slip = of.sums[SLIP * LANES : (SLIP + 1) * LANES]
    _fill(of.sums, SLIP, SLIP + 1, 0)
    _add(of.deviations, 0, n_frames, slip)
    for j in range(LANES):
        slip[j] /= n_frames
        of.results[j] += slip[j] / of.lanes[UNIT * LANES + j]


@_compile
def _finish_moments(n_frames: int, of: Buffers) -> None:
    """Moments about the mean from those about the centre, which is almost there."""
    last = of.deviations[(n_frames - 1) * LANES : n_frames * LANES]
    for j in range(LANES):
        unit, varies = of.lanes[UNIT * LANES + j], of.sums[VARIES * LANES + j]
        m = of.sums[SLIP * LANES + j]
        two = of.sums[POWERS * LANES + j] / n_frames
        three = of.sums[(POWERS + 1) * LANES + j] / n_frames
        four = of.sums[(POWERS + 2) * LANES + j] / n_frames
        variance = two - m * m if varies > 0 else 1.0
        third = three - 3 * m * two + 2 * m * m * m
        fourth = four - 4 * m * three + 6 * m * m * two - 3 * m * m * m * m
        ends = of.deviations[j] + last[j]
        products = of.sums[PRODUCTS * LANES + j] + m * ends - m * m * (n_frames + 1)
        root = math.sqrt(variance)
        of.results[STD * LANES + j] = varies * root / unit
        of.results[SKEW * LANES + j] = varies * third / (variance * root)
        of.results[KURTOSIS * LANES + j] = varies * (fourth / (variance * variance) - 3.0)
        of.results[LAG1 * LANES + j] = varies * products / (variance * n_frames)
        of.results[SLOPE * LANES + j] = varies * of.sums[TREND * LANES + j] / unit
        of.results[CURVATURE * LANES + j] = varies * of.sums[(TREND + 1) * LANES + j] / unit


@_compile
def _finish_deltas(n_frames: int, of: Buffers) -> None:
    n_deltas = max(n_frames - 1, 1)
    for j in range(LANES):
        unit = of.lanes[UNIT * LANES + j]
        net = (of.results[LAST * LANES + j] - of.results[FIRST * LANES + j]) * unit / n_deltas
        variance = of.sums[(DELTA + 1) * LANES + j] / n_deltas - net * net
        root = math.sqrt(max(variance, 0.0)) if n_frames > 2 else 0.0
        of.results[DELTA_MEAN * LANES + j] = of.sums[DELTA * LANES + j] / n_deltas / unit
        of.results[DELTA_STD * LANES + j] = root / unit


@_compile
def _finish_std_thirds(n_frames: int, of: Buffers) -> None:
    for k in range(3):
        begin = k * n_frames // 3
        end = max((k + 1) * n_frames // 3, begin + 1)
        sums = of.sums[(THIRDS + 2 * k) * LANES : (THIRDS + 2 * k + 2) * LANES]
        _add_squares(of.deviations, begin, end, sums)
        row = of.results[(STD_THIRD + k) * LANES : (STD_THIRD + k + 1) * LANES]
        for j in range(LANES):
            mean = sums[j] / (end - begin)
            variance = max(sums[LANES + j] / (end - begin) - mean * mean, 0.0)
            root = math.sqrt(variance) if end - begin > 1 else 0.0
            row[j] = of.sums[VARIES * LANES + j] * root / of.lanes[UNIT * LANES + j]


@_compile
def _weigh_time(n_frames: int, weights: Array) -> None:
    """Weights of the slope and of the curvature, zero past the end."""
    n_rows = weights.size // 2
    centre = (n_frames - 1) / 2
    even = (n_frames * n_frames - 1) / 12  # mean of (t - centre)^2
    slopes, bowls = 0.0, 0.0
    for t in range(n_frames):
        slopes += (t - centre) ** 2
        bowls += ((t - centre) ** 2 - even) ** 2
    slope = (n_frames - 1) / slopes if n_frames > 1 else 0.0
    bowl = (n_frames - 1) ** 2 / bowls if n_frames > 2 else 0.0
    for t in range(n_frames + STEP):
        weights[t] = (t - centre) * slope if t < n_frames else 0.0
        weights[n_rows + t] = ((t - centre) ** 2 - even) * bowl if t < n_frames else 0.0


@_compile
def _any(rows: Array, begin: int, end: int) -> bool:
    """Whether one of some successive statistics is asked for."""
    found = False
    for k in range(begin, end):
        found = found or rows[k] >= 0
    return found


@_compile
def _want_rank(share: float, n_rows: int, wanted: Array) -> None:
    rank = int(share * (n_rows - 1))
    wanted[rank // RUN] = True
    wanted[min(rank + 1, n_rows - 1) // RUN] = True


@_compile
def _want_ranks(rows: Array, n_frames: int, wanted: Array) -> None:
    """Mark the runs that hold a rank asked for: of the frames, then of the deltas."""
    for run in range(wanted.size):
        wanted[run] = False
    for k in range(len(SHARES)):
        if rows[P01 + k] >= 0 or rows[IQR] >= 0:
            _want_rank(SHARES[k], n_frames, wanted)
    _want_rank(0.9, max(n_frames - 1, 1), wanted[len(wanted) // 2 :])


@_compile
def _pool_order(rows: Array, n_frames: int, mask: int, of: Buffers) -> None:
    """Sort the block itself: nothing needs the frames in their order any more."""
    n_sorted = (n_frames + RUN - 1) // RUN * RUN
    _fill(of.block, n_frames, n_sorted, math.inf)
    _sort_rows(of.block_bits, n_sorted, of.wanted, mask)
    for k in range(len(SHARES)):
        if rows[P01 + k] >= 0 or rows[IQR] >= 0:
            row = of.results[(P01 + k) * LANES : (P01 + k + 1) * LANES]
            _read_rank(of.block, n_frames, SHARES[k], row)
    for j in range(LANES):
        upper, lower = of.results[(P01 + 5) * LANES + j], of.results[(P01 + 3) * LANES + j]
        of.results[IQR * LANES + j] = upper - lower


@_compile
def _pool_large_deltas(n_frames: int, sort: bool, mask: int, of: Buffers) -> None:
    """Extreme deltas, in the place of the deviations."""
    n_deltas = max(n_frames - 1, 1)
    _find_deltas(of.block, n_deltas, of.deviations)
    _fill(of.deviations, n_deltas, n_deltas + STEP, 0)
    _find_extremes(of.deviations, n_deltas, of.lanes)
    for j in range(LANES):
        of.results[DELTA_MAX * LANES + j] = of.lanes[LANES + j]
    if sort:
        n_sorted = (n_deltas + RUN - 1) // RUN * RUN
        _fill(of.deviations, n_deltas, n_sorted, math.inf)
        _sort_rows(of.deviation_bits, n_sorted, of.wanted[len(of.wanted) // 2 :], mask)
        row = of.results[DELTA_P90 * LANES : (DELTA_P90 + 1) * LANES]
        _read_rank(of.deviations, n_deltas, 0.9, row)


@_compile
def _are_finite(values: Array) -> bool:
    nothing = 0.0
    for j in range(LANES):
        nothing += values[j] * 0.0
    return nothing == 0.0


@_compile
def _pool_shape(rows: Array, n_frames: int, of: Buffers) -> None:
    """All that is summed over the deviations; the means are there already."""
    if _any(rows, SKEW, SLOPE) or rows[STD] >= 0 or rows[LAG1] >= 0:
        _add_powers(of.deviations, n_frames, of.lanes, of.sums[POWERS * LANES :])
    if rows[LAG1] >= 0:
        _add_products(of.deviations, n_frames, of.lanes, of.sums[PRODUCTS * LANES :])
    n_rows = of.weights.size // 2
    for k in range(2):
        if rows[SLOPE + k] >= 0:
            weights, sums = of.weights[k * n_rows :], of.sums[(TREND + k) * LANES :]
            _add_weighted(of.deviations, n_frames, weights, of.lanes, sums)
    _finish_moments(n_frames, of)
    if _any(rows, STD_THIRD, len(NAMES)):
        _finish_std_thirds(n_frames, of)


@_compile
def _pool_course(rows: Array, n_frames: int, sort: bool, mask: int, of: Buffers) -> None:
    """All that depends on the order of the frames themselves."""
    if _any(rows, SHARE, MEAN_THIRD):
        _count_sides(n_frames, of)
    if _any(rows, DELTA_MEAN, DELTA_MAX):
        _add_deltas(of.block, n_frames, of.lanes, of.sums[DELTA * LANES :])
        _finish_deltas(n_frames, of)
    for k in range(2):
        if rows[ARGMAX + k] >= 0:
            extreme, position = of.lanes[(1 - k) * LANES :], of.results[(ARGMAX + k) * LANES :]
            _find_positions(of.block, n_frames, extreme, position)
    if _any(rows, DELTA_MAX, LAG1):
        _pool_large_deltas(n_frames, sort and rows[DELTA_P90] >= 0, mask, of)


@_compile
def _pool_block(rows: Array, n_frames: int, sort: bool, mask: int, of: Buffers) -> None:
    _fill(of.sums, 0, N_SUMS, 0)
    _repeat_last(n_frames, of.block)
    _find_extremes(of.block, n_frames, of.lanes)
    _finish_extremes(n_frames, of)
    in_thirds = n_frames > 2 and _any(rows, MEAN_THIRD, STD_THIRD)
    for k in range(3 if in_thirds else 1):
        begin = k * n_frames // 3 if in_thirds else 0
        end = (k + 1) * n_frames // 3 if in_thirds else n_frames
        _add(of.block, begin, end, of.sums[k * LANES : (k + 1) * LANES])
    _finish_means(n_frames, in_thirds, of)
    wide = of.lanes.itemsize == 8
    spread = _any(rows, SKEW, ARGMAX) or rows[STD] >= 0 or rows[LAG1] >= 0
    if spread or wide or _any(rows, STD_THIRD, len(NAMES)):
        _deviate(of.block, n_frames, of.lanes, of.deviations)
        if wide:
            _finish_slip(n_frames, of)
        _pool_shape(rows, n_frames, of)
    _pool_course(rows, n_frames, sort, mask, of)
    if sort and _any(rows, P01, IQR + 1):
        _pool_order(rows, n_frames, mask, of)


@_compile_once
def pool_blocks(  # noqa: PLR0917  (called once a sequence: keywords cost a dictionary)
    frames: Array, rows: Array, mask: int, sort: bool, of: Buffers, out: Array
) -> bool:
    """Pool one sequence into rows of float32.

    `rows` has the row in `out` of each statistic of NAMES, or -1; `mask` is the largest integer
    as wide as a number. Without `sort`, what needs ranks is left to the caller. Returns whether
    all means are finite: if not, frames are not, or their sum overflows.
    """
    n_frames, n_dims = frames.shape
    finite = True
    _weigh_time(n_frames, of.weights)
    _want_ranks(rows, n_frames, of.wanted)
    for first in range(0, n_dims, LANES):
        width = min(LANES, n_dims - first)
        if width < LANES:
            _fill(of.block, 0, n_frames, 0)
        _load(frames, first, width, of.block)
        _pool_block(rows, n_frames, sort, mask, of)
        finite = _are_finite(of.results) and finite
        for k in range(len(NAMES)):
            if rows[k] >= 0:
                line, row = out[rows[k], first : first + width], of.results[k * LANES :]
                for j in range(width):
                    line[j] = row[j]
    return finite


@_compile_once
def mix_words(words: Array, secret: Array, sums: Array, products: Array) -> None:
    """Gather words of 64 bits in two accumulators, at the speed of memory.

    The scheme is that of XXH3's long inputs: each word is added to one accumulator, and the
    product of its halves, once changed by a secret, to the other; every 16 rows they are
    scrambled. `words` is a whole number of such blocks of 16 rows, `secret` one block.
    """
    n_lanes = sums.size
    low = np.uint64(0xFFFFFFFF)
    half, shift, prime = np.uint64(32), np.uint64(47), np.uint64(0x9E3779B1)
    for first in range(0, words.size, secret.size):
        for begin in range(0, secret.size, n_lanes):
            row = words[first + begin : first + begin + n_lanes]
            key = secret[begin : begin + n_lanes]
            for j in range(n_lanes):
                mixed = row[j] ^ key[j]
                sums[j] += row[j]
                products[j] += (mixed & low) * (mixed >> half)
        for j in range(n_lanes):
            sums[j] = (sums[j] ^ (sums[j] >> shift) ^ secret[j]) * prime
            products[j] = (products[j] ^ (products[j] >> shift) ^ secret[j]) * prime
