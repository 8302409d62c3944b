"""What depends on the order of frames one by one: positions, sides of the mean, thirds.

These are asked for less often than the sums of :mod:`toolkit.pooling.moments`, work on the
blocks that those leave behind, and take one frame after the other in float64: plain and exact
rather than fastest.
"""

import math

import numpy as np

from toolkit.jit import LANES, Array, fill, jit, jit_cached

NAMES = (
    *("argmax_position", "argmin_position", "share_above_mean", "crossing_rate"),
    *("std_start", "std_middle", "std_end"),
)
"""What is computed here, in the order of the results of a block."""
ARGMAX, ARGMIN, SHARE, CROSSING, THIRDS = range(5)

# Rows of `wide` after the results.
LOW, HIGH, MEAN, SIDE = range(len(NAMES), len(NAMES) + 4)
N_WIDE = SIDE + 1


@jit
def _measure(block: Array, begin: int, end: int, wide: Array) -> None:
    """Extremes and mean of some of the frames."""
    start = block[begin * LANES : (begin + 1) * LANES]
    for j in range(LANES):
        wide[LOW * LANES + j] = start[j]
        wide[HIGH * LANES + j] = start[j]
        wide[MEAN * LANES + j] = 0.0
    for t in range(begin, end):
        x = block[t * LANES : (t + 1) * LANES]
        for j in range(LANES):
            value = np.float64(x[j])
            wide[LOW * LANES + j] = min(wide[LOW * LANES + j], value)
            wide[HIGH * LANES + j] = max(wide[HIGH * LANES + j], value)
            wide[MEAN * LANES + j] += value - start[j]
    for j in range(LANES):
        wide[MEAN * LANES + j] = start[j] + wide[MEAN * LANES + j] / (end - begin)


@jit
def _find_positions(block: Array, n_frames: int, extreme: Array, position: Array) -> None:
    """First frame that holds the extreme, as a share of the way."""
    length = max(n_frames - 1, 1)
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
            extent = wide[HIGH * LANES + j] - wide[LOW * LANES + j]
            distance = x[j] - wide[MEAN * LANES + j]
            up = 1.0 if distance > 1e-6 * extent else 0.0
            now = up if distance >= -1e-6 * extent else -1.0
            side = wide[SIDE * LANES + j]
            wide[SHARE * LANES + j] += up if extent > 0 else 0.0
            wide[CROSSING * LANES + j] += 1.0 if extent > 0 and side * now < 0 else 0.0
            wide[SIDE * LANES + j] = now if now != 0 else side
    for j in range(LANES):
        wide[SHARE * LANES + j] /= n_frames
        wide[CROSSING * LANES + j] /= max(n_frames - 1, 1)


@jit
def _spread_third(block: Array, begin: int, end: int, wide: Array, std: Array) -> None:
    _measure(block, begin, end, wide)
    for t in range(begin, end):
        x = block[t * LANES : (t + 1) * LANES]
        for j in range(LANES):
            deviation = x[j] - wide[MEAN * LANES + j]
            std[j] += deviation * deviation
    for j in range(LANES):
        varies = wide[HIGH * LANES + j] > wide[LOW * LANES + j]
        std[j] = math.sqrt(std[j] / (end - begin)) if varies else 0.0


@jit_cached
def pool_course(  # noqa: PLR0917  (called once a sequence: keywords cost a dictionary)
    blocks: Array, n_frames: int, first: int, last: int, rows: Array, wide: Array, out: Array
) -> None:
    """Pool blocks of frames that are in their order.

    Parameters
    ----------
    blocks : ndarray of shape (n_blocks * n_rows * LANES,)
        As :func:`toolkit.pooling.moments.pool_moments` fills them.
    rows : ndarray of shape (len(NAMES),), int64
        Row of each statistic in `out`, or -1.
    wide : ndarray of shape (N_WIDE * LANES,), float64
        Memory to work in.
    out : ndarray of shape (n_statistics, n_dims), float32
        Where the results go.
    """
    n_blocks = (last - first + LANES - 1) // LANES
    size = blocks.size // n_blocks
    for number in range(n_blocks):
        block = blocks[number * size : (number + 1) * size]
        fill(wide, 0, N_WIDE, 0.0)
        _measure(block, 0, n_frames, wide)
        _find_positions(block, n_frames, wide[HIGH * LANES :], wide[ARGMAX * LANES :])
        _find_positions(block, n_frames, wide[LOW * LANES :], wide[ARGMIN * LANES :])
        _count_sides(block, n_frames, wide)
        for k in range(3):
            if rows[THIRDS + k] >= 0:
                begin = k * n_frames // 3
                end = max((k + 1) * n_frames // 3, begin + 1)
                _spread_third(block, begin, end, wide, wide[(THIRDS + k) * LANES :])
        begin = first + number * LANES
        width = min(LANES, last - begin)
        for k in range(rows.size):
            if rows[k] >= 0:
                line, row = out[rows[k], begin : begin + width], wide[k * LANES :]
                for j in range(width):
                    line[j] = row[j]
