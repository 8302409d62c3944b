"""From the frames of one sequence to its row of statistics: what runs.

The compiled passes of :mod:`toolkit.pooling.compiled` do the work; the compiler is loaded with
the first sequence, not before. Three things take another way: a statistic of the user's own
runs as it is; the ranks of a long sequence are sorted by numpy, since a sorting network grows
faster than the sequence and would leave the cache; and where a sum or a result is not finite,
the plain definitions decide whether that is so.
"""

import threading
from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolkit.pooling.frames import interpolate_rank
from toolkit.pooling.nonfinite import clean_frames
from toolkit.pooling.statistics import PERCENTILES, compute_statistics

if TYPE_CHECKING:
    from toolkit.pooling.compiled import Buffers

LONG = 4096
"""Frames from which on arithmetic is in float64 and ranks are numpy's."""

ENDLESS = 65_536
"""Frames from which on the buffers would outgrow the file: the plain definitions take over."""

_of_thread = threading.local()


def pool_frames(frames: ArrayLike, statistics: Sequence[str]) -> NDArray[np.float32]:
    """Summarise the frames of one sequence, each dimension on its own.

    Parameters
    ----------
    frames : array-like of shape (n_frames, n_dims)
        At least one frame of numbers, all finite, of any numeric type and memory order.
    statistics : sequence of str
        Keys of :data:`toolkit.pooling.STATISTICS`.

    Returns
    -------
    ndarray of shape (len(statistics), n_dims)
        One row a statistic.

    Raises
    ------
    ValueError
        If the frames have another shape or are not finite, or if a result is not finite in
        float32.

    Examples
    --------
    >>> pool_frames([[1, 10], [2, 10], [6, 10]], ["mean", "max", "delta_mean_abs"]).tolist()
    [[3.0, 10.0], [6.0, 10.0], [2.5, 0.0]]
    """
    numbers = as_frames(frames)
    rows = np.empty((len(statistics), numbers.shape[1]), dtype=np.float32)
    pool_into(numbers, statistics, rows)
    return rows


def pool_into(
    frames: NDArray[np.floating[Any]], statistics: Sequence[str], out: NDArray[np.float32]
) -> None:
    """Pool frames that are as :func:`as_frames` gives them.

    Parameters
    ----------
    frames : ndarray of shape (n_frames, n_dims)
        C-contiguous float32 or float64.
    statistics : sequence of str
        Keys of :data:`toolkit.pooling.STATISTICS`.
    out : ndarray of shape (len(statistics), n_dims)
        Where the result goes, C-contiguous.

    Raises
    ------
    NonFiniteError
        If frames are not finite.
    ValueError
        If a result is not.
    """
    if _pool_compiled(frames, tuple(statistics), out) and np.isfinite(out).all():
        return
    clean_frames(frames)
    out[:] = narrow(compute_statistics(frames, statistics), statistics)


def _pool_compiled(
    frames: NDArray[np.floating[Any]], statistics: tuple[str, ...], out: NDArray[np.float32]
) -> bool:
    """Pool by the compiled passes; False where they cannot tell the result."""
    if len(frames) > ENDLESS:
        return False
    rows, own, ranked = _plan(statistics)
    numbers, network = frames, len(frames) <= LONG
    if not network:
        numbers = frames.astype(np.float64, copy=False)
    mask = np.iinfo(f"i{numbers.itemsize}").max
    buffers = _get_buffers(len(numbers), numbers.dtype)
    compiled = _load_compiled()
    finite = compiled.pool_blocks(numbers, rows, mask, network, buffers, out)
    if not finite:
        return False
    if ranked and not network:
        _sort_ranks(frames, statistics, ranked, out)
    if own:
        with np.errstate(over="ignore"):
            out[list(own)] = compute_statistics(frames, [statistics[row] for row in own])
    return True


@lru_cache(maxsize=64)
def _plan(
    statistics: tuple[str, ...],
) -> tuple[NDArray[np.int64], tuple[int, ...], tuple[int, ...]]:
    """Rows of the compiled statistics, of the user's own, and of those that need ranks."""
    names = _load_compiled().NAMES
    rows = np.full(len(names), -1, dtype=np.int64)
    for row, name in enumerate(statistics):
        if name in names:
            rows[names.index(name)] = row
    own = tuple(row for row, name in enumerate(statistics) if name not in names)
    by_rank = {*PERCENTILES, "iqr", "delta_p90_abs"}
    ranked = tuple(row for row, name in enumerate(statistics) if name in by_rank)
    return rows, own, ranked


def _sort_ranks(
    frames: NDArray[np.floating[Any]],
    statistics: tuple[str, ...],
    ranked: tuple[int, ...],
    out: NDArray[np.float32],
) -> None:
    """Order statistics of a long sequence, a few dimensions at a time."""
    n_lanes = _load_compiled().LANES
    for first in range(0, frames.shape[1], n_lanes):
        columns = slice(first, first + n_lanes)
        lanes = np.ascontiguousarray(frames[:, columns].T).astype(np.float64)
        ordered = np.sort(lanes, axis=1).T
        for row in ranked:
            name = statistics[row]
            if name in PERCENTILES:
                out[row, columns] = interpolate_rank(ordered, PERCENTILES[name])
            elif name == "iqr":
                upper, lower = (interpolate_rank(ordered, share) for share in (0.75, 0.25))
                out[row, columns] = upper - lower
            else:
                deltas = np.sort(np.abs(np.diff(lanes, axis=1)), axis=1).T
                out[row, columns] = interpolate_rank(deltas, 0.9)


def _get_buffers(n_frames: int, dtype: np.dtype[Any]) -> "Buffers":
    """Memory of this thread, at least as long as asked for."""
    kept: dict[str, tuple[int, Buffers]] = _of_thread.__dict__.setdefault("buffers", {})
    n_rows, buffers = kept.get(dtype.char, (0, None))
    if buffers is None or n_rows < n_frames:
        # A whole number of steps and of runs fits behind the last frame.
        n_rows = -(-n_frames // 64) * 64
        buffers = _make_buffers(n_rows + 32, dtype)
        kept[dtype.char] = n_rows, buffers
    return buffers


def _make_buffers(n_rows: int, dtype: np.dtype[Any]) -> "Buffers":
    compiled = _load_compiled()
    lanes = compiled.LANES
    integer = np.dtype(f"i{dtype.itemsize}")
    block, deviations = (_align(n_rows * lanes, dtype) for _ in range(2))
    narrow_lanes = _align(7 * lanes, dtype)
    return compiled.Buffers(  # type: ignore[no-any-return]
        block=block,
        block_bits=block.view(integer),
        deviations=deviations,
        deviation_bits=deviations.view(integer),
        weights=_align(2 * n_rows, dtype),
        lanes=narrow_lanes,
        lane_bits=narrow_lanes.view(integer),
        sums=_align(compiled.N_SUMS * lanes, np.dtype(np.float64)),
        results=_align(len(compiled.NAMES) * lanes, np.dtype(np.float64)),
        wanted=np.zeros(2 * -(-n_rows // compiled.RUN), dtype=np.bool_),
    )


def _align(size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Zeros that begin with a cache line: vectors across two lines cost twice."""
    line = 64
    memory = np.zeros(size * dtype.itemsize + line, dtype=np.uint8)
    begin = -memory.ctypes.data % line
    return memory[begin : begin + size * dtype.itemsize].view(dtype)


def _load_compiled() -> ModuleType:
    """Import the compiler with the first sequence: it takes most of a second."""
    from toolkit.pooling import compiled  # noqa: PLC0415

    return compiled


def as_frames(frames: ArrayLike) -> NDArray[np.floating[Any]]:
    """Bring frames into the types and the layout that are pooled.

    Parameters
    ----------
    frames : array-like of shape (n_frames, n_dims)
        Numbers of any type and memory order.

    Returns
    -------
    ndarray of shape (n_frames, n_dims)
        C-contiguous float32 where that holds every number, else float64.

    Raises
    ------
    ValueError
        If the shape or the type is another one.
    """
    array = np.asarray(frames)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"Frames have shape {array.shape}; expected (n_frames, n_dims) with at least one "
            "of each."
        )
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise ValueError(f"Frames are of type {array.dtype}; expected integers or floats.")
    small = array.dtype.itemsize <= (4 if array.dtype.kind == "f" else 2)
    return np.ascontiguousarray(array, dtype=np.float32 if small else np.float64)


def narrow(rows: NDArray[np.float64], statistics: Sequence[str]) -> NDArray[np.float32]:
    """Store results as float32, refusing those that it cannot hold.

    Parameters
    ----------
    rows : ndarray of shape (n_statistics, n_dims)
        Results in float64.
    statistics : sequence of str
        Their names, for the message.

    Returns
    -------
    ndarray of shape (n_statistics, n_dims)
        The nearest numbers in float32.

    Raises
    ------
    ValueError
        If a result is NaN or beyond float32.
    """
    with np.errstate(over="ignore"):
        narrowed = rows.astype(np.float32)
    finite = np.isfinite(narrowed)
    if not finite.all():
        row, dimension = np.argwhere(~finite)[0]
        raise ValueError(
            f"statistic {statistics[row]!r} of dimension {dimension} is "
            f"{rows[row, dimension]:.3g}; expected a finite number that 32 bits hold "
            "(magnitudes up to 3.4e+38). Bring the features to a smaller unit."
        )
    return narrowed
