"""Run the compiled kernels over the frames of one sequence; importing this loads numba.

:mod:`toolkit.pooling.moments` computes all that is summed over the frames, and
:mod:`toolkit.pooling.order` ranks and temporal statistics. A kernel that is not needed is never
compiled. Two kinds of statistics take another way: registered ones run as they are; ranks of a
long sequence are sorted by numpy, since a sorting network grows faster than the sequence and
would leave the cache.
"""

import threading
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.jit import LANES
from toolkit.pooling import moments, order
from toolkit.pooling.frames import interpolate_rank
from toolkit.pooling.statistics import BUILT_IN, PERCENTILES, compute_statistics

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
        for names in (moments.MOMENTS, order.TEMPORAL)
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
    n_rows = -(-(n_frames + moments.STEP) // order.RUN) * order.RUN
    span = min(max(_IN_CACHE // n_rows // LANES, 1), -(-n_dims // LANES)) * LANES
    memory, narrow, wide = _get_memory(span * n_rows, frames.dtype)
    weights = np.zeros(moments.N_WEIGHTS * n_rows, frames.dtype)
    cap = _CAPS[frames.itemsize]
    finite = True
    for first in range(0, n_dims, span):
        last = min(first + span, n_dims)
        blocks = memory[: -(-(last - first) // LANES) * LANES * n_rows]
        finite &= moments.pool_moments(
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
            value = interpolate_rank(ordered, share)
            out[row, columns] = value - interpolate_rank(ordered, less) if less >= 0 else value


def _get_memory(size: int, dtype: np.dtype[Any]) -> tuple[NDArray[Any], ...]:
    """Memory of this thread: blocks, at least as long as asked for, lanes and sums."""
    kept: dict[str, tuple[NDArray[Any], ...]] = _of_thread.__dict__.setdefault("memory", {})
    if dtype.char not in kept or kept[dtype.char][0].size < size:
        kept[dtype.char] = (
            _align(max(size, _IN_CACHE), dtype),
            _align(moments.N_NARROW * LANES, dtype),
            _align(max(moments.N_WIDE, order.N_WIDE) * LANES, np.dtype(np.float64)),
        )
    return kept[dtype.char]


def _align(size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Zeros that begin with a cache line: vectors across two lines cost twice."""
    line = 64
    memory = np.zeros(size * dtype.itemsize + line, dtype=np.uint8)
    begin = -memory.ctypes.data % line
    return memory[begin : begin + size * dtype.itemsize].view(dtype)
