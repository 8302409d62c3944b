"""Order statistics and temporal statistics of blocks of frames.

Order statistics come from one sort along time, for many dimensions at once. A sort that
branches on the data could not run for many dimensions at once; a sorting network can, since it
compares the same rows whatever they hold. Runs of 16 rows are sorted in registers (Batcher's
odd-even merge), then runs are merged two by two (his bitonic merge [1]_: fold the second run
back over the first, then compare rows at half the distance until neighbours are ordered).

References
----------
.. [1] K. E. Batcher, "Sorting networks and their applications", AFIPS 1968.
"""

import math
from functools import partial
from typing import Any

import numpy as np

from toolkit.jit import LANES, Array, Number, copy_results, fill, jit, jit_cached

_inline = partial(jit, inline=True)

RUN = 16
"""Rows that are sorted in registers."""


@_inline
def _order(a: Number, b: Number) -> Any:
    return min(a, b), max(a, b)


@_inline
def _merge2(a: Any, b: Any) -> Any:
    a0, b0 = _order(a[0], b[0])
    a1, b1 = _order(a[1], b[1])
    a1, b0 = _order(a1, b0)
    return a0, a1, b0, b1


@_inline
def _merge4(a: Any, b: Any) -> Any:
    a0, a2, b0, b2 = _merge2((a[0], a[2]), (b[0], b[2]))
    a1, a3, b1, b3 = _merge2((a[1], a[3]), (b[1], b[3]))
    a1, a2 = _order(a1, a2)
    a3, b0 = _order(a3, b0)
    b1, b2 = _order(b1, b2)
    return a0, a1, a2, a3, b0, b1, b2, b3


@_inline
def _load8(rows: Array, first: int, j: int) -> Any:
    """Read dimension `j` of eight successive rows."""
    i = first * LANES + j
    low = rows[i], rows[i + LANES], rows[i + 2 * LANES], rows[i + 3 * LANES]
    i += 4 * LANES
    return *low, rows[i], rows[i + LANES], rows[i + 2 * LANES], rows[i + 3 * LANES]


@_inline
def _store8(rows: Array, first: int, j: int, values: Any) -> None:
    i = first * LANES + j
    rows[i], rows[i + LANES] = values[0], values[1]
    rows[i + 2 * LANES], rows[i + 3 * LANES] = values[2], values[3]
    i += 4 * LANES
    rows[i], rows[i + LANES] = values[4], values[5]
    rows[i + 2 * LANES], rows[i + 3 * LANES] = values[6], values[7]


@_inline
def _sort8(a: Any) -> Any:
    a0, a1 = _order(a[0], a[1])
    a2, a3 = _order(a[2], a[3])
    b0, b1 = _order(a[4], a[5])
    b2, b3 = _order(a[6], a[7])
    return _merge4(_merge2((a0, a1), (a2, a3)), _merge2((b0, b1), (b2, b3)))


@jit
def _sort_runs(keys: Array, n_rows: int) -> None:
    for start in range(0, n_rows, RUN):
        rows = keys[start * LANES : (start + RUN) * LANES]
        for j in range(LANES):
            a, b = _sort8(_load8(rows, 0, j)), _sort8(_load8(rows, 8, j))
            # The even ranks of both halves are merged, then the odd ones, then neighbours.
            a0, a2, a4, a6, b0, b2, b4, b6 = _merge4(
                (a[0], a[2], a[4], a[6]), (b[0], b[2], b[4], b[6])
            )
            a1, a3, a5, a7, b1, b3, b5, b7 = _merge4(
                (a[1], a[3], a[5], a[7]), (b[1], b[3], b[5], b[7])
            )
            a1, a2 = _order(a1, a2)
            a3, a4 = _order(a3, a4)
            a5, a6 = _order(a5, a6)
            a7, b0 = _order(a7, b0)
            b1, b2 = _order(b1, b2)
            b3, b4 = _order(b3, b4)
            b5, b6 = _order(b5, b6)
            _store8(rows, 0, j, (a0, a1, a2, a3, a4, a5, a6, a7))
            _store8(rows, 8, j, (b0, b1, b2, b3, b4, b5, b6, b7))


@_inline
def _order4(a: Any, b: Any) -> Any:
    a0, b0 = _order(a[0], b[0])
    a1, b1 = _order(a[1], b[1])
    a2, b2 = _order(a[2], b[2])
    a3, b3 = _order(a[3], b[3])
    return (a0, a1, a2, a3), (b0, b1, b2, b3)


@_inline
def _halve8(low: Any, high: Any) -> Any:
    """Order eight bitonic numbers, given in two halves."""
    a, b = _order4(low, high)
    a, b = _order4((a[0], a[1], b[0], b[1]), (a[2], a[3], b[2], b[3]))
    a, b = _order4((a[0], b[0], a[2], b[2]), (a[1], b[1], a[3], b[3]))
    return a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3]


@jit
def _finish_runs(keys: Array, n_rows: int) -> None:
    """Order runs that are bitonic."""
    for start in range(0, n_rows, RUN):
        rows = keys[start * LANES : (start + RUN) * LANES]
        for j in range(LANES):
            a, b = _load8(rows, 0, j), _load8(rows, 8, j)
            a_low, b_low = _order4((a[0], a[1], a[2], a[3]), (b[0], b[1], b[2], b[3]))
            a_high, b_high = _order4((a[4], a[5], a[6], a[7]), (b[4], b[5], b[6], b[7]))
            _store8(rows, 0, j, _halve8(a_low, a_high))
            _store8(rows, 8, j, _halve8(b_low, b_high))


@jit
def _exchange(keys: Array, lower: int, upper: int, n_rows: int) -> None:
    """Put the smaller number of two rows into the lower row, for successive rows."""
    a = keys[lower * LANES : (lower + n_rows) * LANES]
    b = keys[upper * LANES : (upper + n_rows) * LANES]
    for j in range(n_rows * LANES):
        a[j], b[j] = _order(a[j], b[j])


@jit
def _sort_rows(keys: Array, n_rows: int) -> None:
    """Sort along time; rows past the end count as infinite: being last they never move."""
    _sort_runs(keys, n_rows)
    width = RUN
    while width < n_rows:
        for start in range(0, n_rows - width, 2 * width):
            end = start + 2 * width
            # Fold the second run back over the first: together they are bitonic.
            for row in range(max(start, end - n_rows + start), start + width):
                _exchange(keys, row, start + end - 1 - row, 1)
            distance = width // 2
            while distance >= RUN:
                for first in range(start, min(end, n_rows - distance), 2 * distance):
                    second = first + distance
                    _exchange(keys, first, second, min(distance, n_rows - second))
                distance //= 2
        width *= 2
        _finish_runs(keys, n_rows)


@jit
def _read_rank(ordered: Array, n_frames: int, share: float, factor: float, wide: Array) -> None:
    """Add a multiple of the value between the two ranks nearest to a share of the frames."""
    rank = share * (n_frames - 1)
    lower = int(rank)
    upper = min(lower + 1, n_frames - 1)
    a = ordered[lower * LANES : (lower + 1) * LANES]
    b = ordered[upper * LANES : (upper + 1) * LANES]
    for j in range(LANES):
        below = np.float64(a[j])
        wide[j] += factor * (below + (rank - lower) * (np.float64(b[j]) - below))


@jit_cached
def pool_order(  # noqa: PLR0917  (called once a sequence: keywords cost a dictionary)
    blocks: Array,
    n_frames: int,
    first: int,
    last: int,
    shares: Array,
    rows: Array,
    wide: Array,
    out: Array,
) -> None:
    """Sort blocks of frames in place and read ranks.

    A block has at least as many rows as `n_frames` rounded up to RUN. Result `k` goes to row
    ``rows[k]`` of `out`: the value at the share of frames ``shares[k, 0]``, less that at
    ``shares[k, 1]`` unless this is negative. `wide` holds LANES float64 to work in.
    """
    n_sorted = (n_frames + RUN - 1) // RUN * RUN
    n_blocks = (last - first + LANES - 1) // LANES
    size = blocks.size // n_blocks
    for number in range(n_blocks):
        block = blocks[number * size : (number + 1) * size]
        fill(block, n_frames, n_sorted, math.inf)
        _sort_rows(block, n_sorted)
        begin = first + number * LANES
        width = min(LANES, last - begin)
        for k in range(rows.size):
            fill(wide, 0, 1, 0.0)
            _read_rank(block, n_frames, shares[k, 0], 1.0, wide)
            if shares[k, 1] >= 0:
                _read_rank(block, n_frames, shares[k, 1], -1.0, wide)
            line = out[rows[k], begin : begin + width]
            for j in range(width):
                line[j] = wide[j]


TEMPORAL = (
    *("argmax_position", "argmin_position", "share_above_mean", "crossing_rate"),
    *("std_start", "std_middle", "std_end"),
)
"""Temporal statistics, in the order of the results of a block."""
_ARGMAX, _ARGMIN, _SHARE, _CROSSING, _THIRDS = range(5)

# Rows of `wide` after the results.
_LOW, _HIGH, _MEAN, _SIDE = range(len(TEMPORAL), len(TEMPORAL) + 4)
N_WIDE = _SIDE + 1


@jit
def _measure(block: Array, begin: int, end: int, wide: Array) -> None:
    """Extremes and mean of frames `begin` to `end`."""
    start = block[begin * LANES : (begin + 1) * LANES]
    for j in range(LANES):
        wide[_LOW * LANES + j] = start[j]
        wide[_HIGH * LANES + j] = start[j]
        wide[_MEAN * LANES + j] = 0.0
    for t in range(begin, end):
        x = block[t * LANES : (t + 1) * LANES]
        for j in range(LANES):
            value = np.float64(x[j])
            wide[_LOW * LANES + j] = min(wide[_LOW * LANES + j], value)
            wide[_HIGH * LANES + j] = max(wide[_HIGH * LANES + j], value)
            wide[_MEAN * LANES + j] += value - start[j]
    for j in range(LANES):
        wide[_MEAN * LANES + j] = start[j] + wide[_MEAN * LANES + j] / (end - begin)


@jit
def _find_positions(block: Array, n_frames: int, extreme: Array, position: Array) -> None:
    """Position of the first frame with the extreme, from 0 to 1."""
    length = max(n_frames - 1, 1)
    # Backwards, so that the first of equal extremes is written last, without a branch.
    for t in range(n_frames - 1, -1, -1):
        x = block[t * LANES : (t + 1) * LANES]
        for j in range(LANES):
            position[j] = t / length if x[j] == extreme[j] else position[j]


@jit
def _count_sides(block: Array, n_frames: int, wide: Array) -> None:
    """Frames above the mean and changes of side, leaving out a millionth of the range."""
    for t in range(n_frames):
        x = block[t * LANES : (t + 1) * LANES]
        for j in range(LANES):
            extent = wide[_HIGH * LANES + j] - wide[_LOW * LANES + j]
            distance = x[j] - wide[_MEAN * LANES + j]
            up = 1.0 if distance > 1e-6 * extent else 0.0
            now = up if distance >= -1e-6 * extent else -1.0
            side = wide[_SIDE * LANES + j]
            wide[_SHARE * LANES + j] += up if extent > 0 else 0.0
            wide[_CROSSING * LANES + j] += 1.0 if extent > 0 and side * now < 0 else 0.0
            wide[_SIDE * LANES + j] = now if now != 0 else side
    for j in range(LANES):
        wide[_SHARE * LANES + j] /= n_frames
        wide[_CROSSING * LANES + j] /= max(n_frames - 1, 1)


@jit
def _spread_third(block: Array, begin: int, end: int, wide: Array, std: Array) -> None:
    _measure(block, begin, end, wide)
    for t in range(begin, end):
        x = block[t * LANES : (t + 1) * LANES]
        for j in range(LANES):
            deviation = x[j] - wide[_MEAN * LANES + j]
            std[j] += deviation * deviation
    for j in range(LANES):
        varies = wide[_HIGH * LANES + j] > wide[_LOW * LANES + j]
        std[j] = math.sqrt(std[j] / (end - begin)) if varies else 0.0


@jit_cached
def pool_temporal(  # noqa: PLR0917  (called once a sequence: keywords cost a dictionary)
    blocks: Array, n_frames: int, first: int, last: int, rows: Array, wide: Array, out: Array
) -> None:
    """Compute the temporal statistics of blocks that the moments left.

    ``rows[k]`` is the row of ``TEMPORAL[k]`` in `out`, or -1. `wide` holds N_WIDE * LANES
    float64 to work in.
    """
    n_blocks = (last - first + LANES - 1) // LANES
    size = blocks.size // n_blocks
    for number in range(n_blocks):
        block = blocks[number * size : (number + 1) * size]
        fill(wide, 0, N_WIDE, 0.0)
        _measure(block, 0, n_frames, wide)
        _find_positions(block, n_frames, wide[_HIGH * LANES :], wide[_ARGMAX * LANES :])
        _find_positions(block, n_frames, wide[_LOW * LANES :], wide[_ARGMIN * LANES :])
        _count_sides(block, n_frames, wide)
        for k in range(3):
            if rows[_THIRDS + k] >= 0:
                begin = k * n_frames // 3
                end = max((k + 1) * n_frames // 3, begin + 1)
                _spread_third(block, begin, end, wide, wide[(_THIRDS + k) * LANES :])
        begin = first + number * LANES
        width = min(LANES, last - begin)
        copy_results(wide, rows, begin, width, out)
