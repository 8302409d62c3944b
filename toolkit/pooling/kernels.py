"""From the frames of one sequence to its row of statistics: what runs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolkit.pooling.nonfinite import clean_frames
from toolkit.pooling.statistics import compute_statistics


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
    clean_frames(numbers)
    return narrow(compute_statistics(numbers, statistics), statistics)


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
