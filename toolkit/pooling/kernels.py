"""From the frames of one sequence to its row of statistics: what runs.

Three compiled kernels do the work: :mod:`toolkit.pooling.moments` whatever is summed,
:mod:`toolkit.pooling.order` whatever is ranked, :mod:`toolkit.pooling.order` the rest. The
compiler is loaded with the first sequence, and a kernel that is not asked for is never
compiled. Three things take another way: a statistic of the user's own runs as it is; the ranks
of a long sequence are sorted by numpy, since a sorting network grows faster than the sequence
and would leave the cache; and where a sum or a result is not finite, the plain definitions
decide whether that is so.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolkit.pooling.frames import clean_frames, interpolate_rank
from toolkit.pooling.statistics import BUILT_IN, PERCENTILES, compute_statistics

LANES = 64
"""Dimensions in a block, as in :mod:`toolkit.jit`, which loads the compiler."""

LONG = 4096
"""Frames from which on ranks are numpy's."""

# Numbers that stay in the cache between kernels. The whole of an ordinary file: every call of a
# kernel hands the interpreter from one thread to the other and back.
_IN_CACHE = 1 << 19
_CAPS = MappingProxyType({4: 2.0**126, 8: 2.0**1022})

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
    out : ndarray of shape (len(statistics), n_dims)
        Where the result goes, C-contiguous.
    """
    if _pool_compiled(frames, tuple(statistics), out) and np.isfinite(out).all():
        return
    clean_frames(frames)
    out[:] = narrow(compute_statistics(frames, statistics), statistics)


def _pool_compiled(
    frames: NDArray[np.floating[Any]], statistics: tuple[str, ...], out: NDArray[np.float32]
) -> bool:
    """Pool by the compiled passes; False where they cannot tell the result."""
    plan = _make_plan(statistics)
    finite = _run(frames, plan.of_frames, out)
    if finite and plan.of_deltas is not None:
        with np.errstate(over="ignore"):
            deltas = np.abs(np.diff(frames, axis=0)) if len(frames) > 1 else frames * 0
        finite = _run(deltas, plan.of_deltas, out)
    if finite and plan.own:
        with np.errstate(over="ignore"):
            names = [statistics[row] for row in plan.own]
            out[list(plan.own)] = compute_statistics(frames, names)
    return finite


@dataclass(frozen=True, slots=True, eq=False)
class _Passes:
    """Rows of the output that each kernel fills; a kernel with none is not run."""

    moments: NDArray[np.int64]
    course: NDArray[np.int64] | None
    shares: NDArray[np.float64]
    ordered: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    of_frames: _Passes
    of_deltas: _Passes | None
    own: tuple[int, ...]


@lru_cache(maxsize=64)
def _make_plan(statistics: tuple[str, ...]) -> _Plan:
    rows = {name: row for row, name in enumerate(statistics)}
    deltas = {
        of_delta: rows[name]
        for name, of_delta in (("delta_max_abs", "max"), ("delta_p90_abs", "p90"))
        if name in rows
    }
    own = tuple(row for name, row in rows.items() if name not in BUILT_IN)
    return _Plan(_make_passes(rows), _make_passes(deltas) if deltas else None, own)


def _make_passes(rows: dict[str, int]) -> _Passes:
    from toolkit.pooling import moments, order  # noqa: PLC0415  (load the compiler)

    of_moments, of_course = (
        np.array([rows.get(name, -1) for name in module.NAMES], dtype=np.int64)
        for module in (moments, order)
    )
    shares = {name: (share, -1.0) for name, share in PERCENTILES.items()}
    shares["iqr"] = 0.75, 0.25
    ranked = [name for name in rows if name in shares]
    return _Passes(
        moments=of_moments,
        course=of_course if (of_course >= 0).any() else None,
        shares=np.array([shares[name] for name in ranked], dtype=np.float64).reshape(-1, 2),
        ordered=np.array([rows[name] for name in ranked], dtype=np.int64),
    )


def _run(frames: NDArray[np.floating[Any]], passes: _Passes, out: NDArray[np.float32]) -> bool:
    """Run the kernels over a few blocks at a time, which stay in the cache between them."""
    from toolkit.pooling import moments, order  # noqa: PLC0415  (load the compiler)

    n_frames, n_dims = frames.shape
    # A whole number of steps and of runs fits behind the last frame.
    n_rows = -(-(n_frames + moments.STEP) // order.RUN) * order.RUN
    span = min(max(_IN_CACHE // n_rows // LANES, 1), -(-n_dims // LANES)) * LANES
    memory, weights, narrow, wide = _get_memory(
        span * n_rows, moments.N_WEIGHTS * n_rows, frames.dtype
    )
    cap = _CAPS[frames.itemsize]
    finite = True
    for first in range(0, n_dims, span):
        last = min(first + span, n_dims)
        blocks = memory[: -(-(last - first) // LANES) * LANES * n_rows]
        finite &= moments.pool_moments(
            frames, first, last, passes.moments, cap, blocks, weights, narrow, wide, out
        )
        if passes.course is not None:
            order.pool_course(blocks, n_frames, first, last, passes.course, wide, out)
        if passes.ordered.size and n_frames <= LONG:
            order.pool_order(
                blocks, n_frames, first, last, passes.shares, passes.ordered, wide, out
            )
    if finite and n_frames > LONG:
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
            value = interpolate_rank(ordered, share)
            out[row, columns] = value - interpolate_rank(ordered, less) if less >= 0 else value


def _get_memory(size: int, n_weights: int, dtype: np.dtype[Any]) -> tuple[NDArray[Any], ...]:
    """Memory of this thread: blocks, at least as long as asked for, weights, lanes, sums."""
    from toolkit.pooling import moments, order  # noqa: PLC0415  (load the compiler)

    kept: dict[str, tuple[NDArray[Any], ...]] = _of_thread.__dict__.setdefault("memory", {})
    if dtype.char not in kept or kept[dtype.char][0].size < size:
        kept[dtype.char] = (
            _align(max(size, _IN_CACHE), dtype),
            np.zeros(n_weights, dtype),
            _align(moments.N_NARROW * LANES, dtype),
            _align(max(moments.N_WIDE, order.N_WIDE) * LANES, np.dtype(np.float64)),
        )
    if kept[dtype.char][1].size != n_weights:
        blocks, _, narrow, wide = kept[dtype.char]
        kept[dtype.char] = blocks, np.zeros(n_weights, dtype), narrow, wide
    return kept[dtype.char]


def _align(size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Zeros that begin with a cache line: vectors across two lines cost twice."""
    line = 64
    memory = np.zeros(size * dtype.itemsize + line, dtype=np.uint8)
    begin = -memory.ctypes.data % line
    return memory[begin : begin + size * dtype.itemsize].view(dtype)


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
    kind = np.float32 if small else np.float64
    # Read-only arrays are another type to the compiler, which would compile everything anew.
    return np.require(array, dtype=kind, requirements=("C", "W"))


def narrow(rows: NDArray[np.float64], statistics: Sequence[str]) -> NDArray[np.float32]:
    """Store results as float32, refusing those that it cannot hold.

    Parameters
    ----------
    rows : ndarray of shape (n_statistics, n_dims)
        Results in float64.

    Returns
    -------
    ndarray of shape (n_statistics, n_dims)
        The nearest numbers in float32.
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
