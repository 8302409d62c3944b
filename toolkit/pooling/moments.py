"""Extremes, moments, trends and deltas: all that is summed over the frames, in two passes.

The idea. A file of ``n_frames x n_dims`` numbers is cut into blocks of 64 dimensions, copied
so that the 64 numbers of a frame lie side by side. Such a block stays in the processor's
cache, and the inner loop of every pass runs over the 64 dimensions at once in vector
registers. The first pass finds extremes and mean; the second sums over the differences to the
mean, in units of the dimension's range, so that neither offset nor unit costs digits: eight
frames at a time in the arithmetic of the file, gathered in float64. The blocks are left as
they are for whoever sorts them. What overflows or is not finite shows in the results, and the
caller then asks the plain definitions.
"""

import math

import numpy as np

from toolkit.jit import LANES, Array, fill, jit, jit_cached

STEP = 8
"""Frames that one turn of a pass takes together; a block has as many rows to spare."""

NAMES = (
    *("mean", "min", "max", "range", "first", "last", "mean_start", "mean_middle", "mean_end"),
    *("std", "skew", "kurtosis", "lag1", "delta_mean_abs", "delta_std", "slope", "curvature"),
)
"""What is computed here, in the order of the results of a block."""
MEAN, MIN, MAX, RANGE, FIRST, LAST, THIRDS = range(7)
STD, SKEW, KURTOSIS, LAG1, DELTA_MEAN, DELTA_STD, SLOPE, CURVATURE = range(9, 17)

# Rows of `narrow`: what each dimension needs, then partial sums.
LOW, HIGH, CENTRE, FACTOR, NET, PART = range(6)
N_NARROW = PART + 8
N_WEIGHTS = 3
"""Weights of a frame: in slope and curvature, and whether a delta begins there."""

# Rows of `wide` after the results.
SUMS = len(NAMES)
TOTALS, TWO = SUMS, SUMS + 3  # the first are of the thirds
THREE, FOUR, PRODUCT, DELTA, SQUARE, TREND, BOWL = range(TWO + 1, TWO + 8)
N_WIDE = BOWL + 1


@jit
def _load(frames: Array, first: int, width: int, block: Array) -> None:
    """Copy some dimensions, and repeat the first frame for a whole step after the last."""
    n_frames = frames.shape[0]
    for t in range(n_frames + STEP):
        row = frames[t if t < n_frames else 0, first : first + width]
        lanes = block[t * LANES : t * LANES + width]
        for j in range(width):
            lanes[j] = row[j]


@jit
def _gather(narrow: Array, n_rows: int, sums: Array) -> None:
    """Add the sums of one step in float64; apart, or its width would be that of all."""
    sums_of_step = narrow[PART * LANES : (PART + n_rows) * LANES]
    for j in range(n_rows * LANES):
        sums[j] += sums_of_step[j]


@jit
def _scan(block: Array, n_frames: int, narrow: Array, wide: Array) -> None:
    """Extremes, and the sums over thirds of the differences to the first frame."""
    for j in range(LANES):
        narrow[LOW * LANES + j] = block[j]
        narrow[HIGH * LANES + j] = block[j]
    for t in range(0, n_frames, STEP):
        x = block[t * LANES : (t + STEP) * LANES]
        for j in range(LANES):
            low, high, start = narrow[LOW * LANES + j], narrow[HIGH * LANES + j], block[j]
            total = x[j] - start
            low = min(low, x[j])
            high = max(high, x[j])
            for r in range(1, STEP):
                value = x[r * LANES + j]
                total += value - start
                low = min(low, value)
                high = max(high, value)
            narrow[LOW * LANES + j] = low
            narrow[HIGH * LANES + j] = high
            narrow[PART * LANES + j] = total
        number = (t >= n_frames // 3) + (t >= 2 * n_frames // 3)
        _gather(narrow, 1, wide[(TOTALS + number) * LANES :])
    for number in range(1, 3):  # frames of a step that began in the third before
        begin = number * n_frames // 3
        for t in range(begin, min((begin + STEP - 1) // STEP * STEP, n_frames)):
            x = block[t * LANES : (t + 1) * LANES]
            for j in range(LANES):
                moved = np.float64(x[j]) - np.float64(block[j])
                wide[(TOTALS + number - 1) * LANES + j] -= moved
                wide[(TOTALS + number) * LANES + j] += moved


@jit
def _finish_scan(block: Array, n_frames: int, cap: float, narrow: Array, wide: Array) -> None:
    last = block[(n_frames - 1) * LANES : n_frames * LANES]
    for j in range(LANES):
        begin, end = np.float64(block[j]), np.float64(last[j])
        low, high = np.float64(narrow[LOW * LANES + j]), np.float64(narrow[HIGH * LANES + j])
        total = wide[TOTALS * LANES + j] + wide[(TOTALS + 1) * LANES + j]
        mean = begin + (total + wide[(TOTALS + 2) * LANES + j]) / n_frames
        extent = high - low
        factor = min(1.0 / extent, cap) if extent > 0 else 1.0
        wide[MEAN * LANES + j] = mean
        wide[MIN * LANES + j] = low
        wide[MAX * LANES + j] = high
        wide[RANGE * LANES + j] = extent
        wide[FIRST * LANES + j] = begin
        wide[LAST * LANES + j] = end
        narrow[CENTRE * LANES + j] = mean
        narrow[FACTOR * LANES + j] = factor
        narrow[NET * LANES + j] = (end - begin) * factor / max(n_frames - 1, 1)
    for k in range(3):
        first, after = k * n_frames // 3, (k + 1) * n_frames // 3
        x = block[first * LANES : (first + 1) * LANES]
        for j in range(LANES):
            total = wide[(TOTALS + k) * LANES + j]
            mean = block[j] + total / (after - first) if n_frames > 2 else x[j]
            wide[(THIRDS + k) * LANES + j] = mean


@jit
def _repeat_centre(block: Array, n_frames: int, narrow: Array) -> None:
    """So that a whole step after the last frame adds nothing."""
    for t in range(n_frames, n_frames + STEP):
        rest = block[t * LANES : (t + 1) * LANES]
        for j in range(LANES):
            rest[j] = narrow[CENTRE * LANES + j]


@jit
def _add_shape(block: Array, n_frames: int, weights: Array, narrow: Array, wide: Array) -> None:
    """Powers, products of neighbours, deltas and trends; in the end stands the centre."""
    n_rows = weights.size // N_WEIGHTS
    for t in range(0, n_frames, STEP):
        x = block[t * LANES : (t + STEP + 1) * LANES]
        w = weights[t:]
        for j in range(LANES):
            centre, factor = narrow[CENTRE * LANES + j], narrow[FACTOR * LANES + j]
            net = narrow[NET * LANES + j]
            d = (x[j] - centre) * factor
            two = three = four = product = one = square = slope = bowl = d - d
            for r in range(STEP):
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
            narrow[PART * LANES + j] = two
            narrow[(PART + 1) * LANES + j] = three
            narrow[(PART + 2) * LANES + j] = four
            narrow[(PART + 3) * LANES + j] = product
            narrow[(PART + 4) * LANES + j] = one
            narrow[(PART + 5) * LANES + j] = square
            narrow[(PART + 6) * LANES + j] = slope
            narrow[(PART + 7) * LANES + j] = bowl
        _gather(narrow, 8, wide[TWO * LANES :])


@jit
def _finish_shape(block: Array, n_frames: int, narrow: Array, wide: Array) -> None:
    """Moments about the mean from those about the centre, which is almost there."""
    last = block[(n_frames - 1) * LANES : n_frames * LANES]
    n_deltas = max(n_frames - 1, 1)
    some = 1.0 if n_frames > 2 else 0.0  # deltas that could differ
    for j in range(LANES):
        centre = np.float64(narrow[CENTRE * LANES + j])
        factor = np.float64(narrow[FACTOR * LANES + j])
        varies = 1.0 if wide[RANGE * LANES + j] > 0 else 0.0
        m = (wide[MEAN * LANES + j] - centre) * factor
        two = wide[TWO * LANES + j] / n_frames
        three = wide[THREE * LANES + j] / n_frames
        four = wide[FOUR * LANES + j] / n_frames
        variance = two - m * m if varies > 0 else 1.0
        third = three - 3 * m * two + 2 * m * m * m
        fourth = four - 4 * m * three + 6 * m * m * two - 3 * m * m * m * m
        ends = (np.float64(block[j]) - centre + np.float64(last[j]) - centre) * factor
        product = wide[PRODUCT * LANES + j] + m * ends - m * m * (n_frames + 1)
        root = math.sqrt(variance)
        wide[STD * LANES + j] = varies * root / factor
        wide[SKEW * LANES + j] = varies * third / (variance * root)
        wide[KURTOSIS * LANES + j] = varies * (fourth / (variance * variance) - 3.0)
        wide[LAG1 * LANES + j] = varies * product / (variance * n_frames)
        wide[DELTA_MEAN * LANES + j] = wide[DELTA * LANES + j] / n_deltas / factor
        deviation = math.sqrt(wide[SQUARE * LANES + j] / n_deltas)
        wide[DELTA_STD * LANES + j] = some * varies * deviation / factor
        wide[SLOPE * LANES + j] = varies * wide[TREND * LANES + j] / factor
        wide[CURVATURE * LANES + j] = varies * wide[BOWL * LANES + j] / factor


@jit
def _weigh_time(n_frames: int, weights: Array) -> None:
    """Weights of the slope, the curvature and the deltas; zero past the end."""
    n_rows = weights.size // N_WEIGHTS
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
    for t in range(n_frames + STEP):
        there = t < n_frames
        square = (t - middle) * (t - middle)
        weights[t] = (t - middle) * slope if there else 0.0
        weights[n_rows + t] = (square - even) * bowl if there else 0.0
        weights[2 * n_rows + t] = 1.0 if t < n_frames - 1 else 0.0


@jit_cached
def pool_moments(  # noqa: PLR0917  (called once a sequence: keywords cost a dictionary)
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
    """Copy some dimensions of a sequence into blocks, and pool them.

    Parameters
    ----------
    frames : ndarray of shape (n_frames, n_dims)
        C-contiguous and writable.
    rows : ndarray of shape (len(NAMES),), int64
        Row of each statistic in `out`, or -1.
    blocks : ndarray of shape (n_blocks * n_rows * LANES,)
        Receives the blocks; at least ``n_frames + STEP`` rows each.
    wide : ndarray of shape (N_WIDE * LANES,), float64
        Memory to work in.
    out : ndarray of shape (n_statistics, n_dims), float32
        Where the results go.
    """
    n_frames = frames.shape[0]
    n_blocks = (last - first + LANES - 1) // LANES
    size = blocks.size // n_blocks
    shape = False
    for k in range(STD, len(NAMES)):
        shape = shape or rows[k] >= 0
    _weigh_time(n_frames, weights)
    nothing = 0.0
    for number in range(n_blocks):
        block = blocks[number * size : (number + 1) * size]
        begin = first + number * LANES
        width = min(LANES, last - begin)
        if width < LANES:
            fill(block, 0, n_frames + STEP, 0.0)
        fill(wide, SUMS, N_WIDE, 0.0)
        _load(frames, begin, width, block)
        _scan(block, n_frames, narrow, wide)
        _finish_scan(block, n_frames, cap, narrow, wide)
        if shape:
            _repeat_centre(block, n_frames, narrow)
            _add_shape(block, n_frames, weights, narrow, wide)
            _finish_shape(block, n_frames, narrow, wide)
        for j in range(LANES):
            nothing += wide[MEAN * LANES + j] * 0.0
        for k in range(len(NAMES)):
            if rows[k] >= 0:
                line, row = out[rows[k], begin : begin + width], wide[k * LANES :]
                for j in range(width):
                    line[j] = row[j]
    return nothing == 0.0
