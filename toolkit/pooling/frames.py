"""Frames of one sequence: quantities that its statistics share, and policies for NaN."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Frames:
    """Finite frames of one sequence, and the quantities that several statistics share."""

    def __init__(self, frames: ArrayLike) -> None:
        self.frames: Floats = np.asarray(frames, dtype=np.float64)
        self.check_shape(self.frames)
        self.n_frames = len(self.frames)

    @staticmethod
    def check_shape(frames: NDArray[Any]) -> None:
        """Refuse what is not at least one frame of at least one dimension."""
        if frames.ndim != 2 or 0 in frames.shape:
            raise ValueError(
                f"Frames have shape {frames.shape}; expected (n_frames, n_dims) with at least "
                "one of each."
            )

    @cached_property
    def ordered(self) -> Floats:
        """Frames sorted along time, one sort for all order statistics."""
        return np.sort(self.frames, axis=0)

    @cached_property
    def constant(self) -> NDArray[np.bool_]:
        """Whether the maximum of a dimension equals its minimum."""
        return np.asarray(self.frames.max(axis=0) == self.frames.min(axis=0))

    @cached_property
    def exponent(self) -> NDArray[np.intc]:
        """Power of two above the largest magnitude of each dimension.

        Dividing by it is exact and keeps fourth powers inside float64 whatever the unit.
        """
        return np.asarray(np.frexp(np.abs(self.frames).max(axis=0))[1])

    @cached_property
    def shifted(self) -> Floats:
        """Frames in units of ``2 ** exponent``, less the first frame."""
        scaled = np.ldexp(self.frames, -self.exponent)
        return np.asarray(scaled - scaled[0])

    @cached_property
    def deviations(self) -> Floats:
        """`shifted` less its mean."""
        return np.asarray(self.shifted - self.shifted.mean(axis=0))

    @cached_property
    def power(self) -> Floats:
        """Mean squared deviation, 1 where constant so that it can be divided by."""
        return np.where(self.constant, 1.0, (self.deviations**2).mean(axis=0))

    @cached_property
    def deltas(self) -> Floats:
        """Differences of successive frames; one of 0 where there is a single frame."""
        if self.n_frames == 1:
            return np.zeros_like(self.shifted)
        return np.diff(self.shifted, axis=0)

    @cached_property
    def ordered_abs_deltas(self) -> Floats:
        """Magnitudes of the deltas, sorted along time."""
        return np.sort(np.abs(self.deltas), axis=0)

    @cached_property
    def time(self) -> Floats:
        """Time of each frame, from 0 to 1."""
        return np.arange(self.n_frames) / max(self.n_frames - 1, 1)

    @cached_property
    def signs(self) -> NDArray[np.int8]:
        """Side of the mean; 0 within a millionth of the range, which rounding could turn."""
        extent = self.shifted.max(axis=0) - self.shifted.min(axis=0)
        side = np.sign(self.deviations).astype(np.int8)
        return np.where(np.abs(self.deviations) <= 1e-6 * extent, np.int8(0), side)

    @cached_property
    def slope_weights(self) -> Floats:
        """Weights whose sum with the frames is the least-squares slope over time from 0 to 1.

        They are ``(t - mean t) / sum (t - mean t)^2``; a single frame has slope 0.
        """
        if self.n_frames == 1:
            return np.zeros(1)
        time = np.linspace(0, 1, self.n_frames) - 0.5
        return np.asarray(time / (time @ time))

    @cached_property
    def curvature_weights(self) -> Floats:
        """Weights whose sum with the frames is the quadratic coefficient over time from 0 to 1.

        They are the third row of the pseudoinverse of ``[1, t, t^2]``; fewer than three frames
        have curvature 0.
        """
        if self.n_frames < 3:
            return np.zeros(self.n_frames)
        # t^2 less its projection on 1 and t: with time centred, the odd part drops out.
        time = np.linspace(0, 1, self.n_frames) - 0.5
        bowl = time**2 - (time**2).mean()
        return np.asarray(bowl / (bowl @ bowl))

    def third(self, number: int) -> slice:
        """Frames of third 0, 1 or 2; at least one, even of fewer than three."""
        begin = number * self.n_frames // 3
        return slice(begin, max((number + 1) * self.n_frames // 3, begin + 1))

    def unscaled(self, values: Floats) -> Floats:
        """Bring what was computed on `shifted` back to the unit of the frames."""
        return np.asarray(np.ldexp(values, self.exponent))

    def unless_constant(self, values: Floats) -> Floats:
        """Set values to 0 in constant dimensions."""
        return np.where(self.constant, 0.0, values)


def interpolate_rank(ordered: Floats, share: float) -> Floats:
    """Percentile by linear interpolation, at rank ``share * (n - 1)`` of the sorted rows."""
    rank = share * (len(ordered) - 1)
    lower = int(rank)
    upper = min(lower + 1, len(ordered) - 1)
    return np.asarray(ordered[lower] + (rank - lower) * (ordered[upper] - ordered[lower]))


FramesPolicy = Literal["refuse", "drop", "interpolate"]
"""Ways to treat frames that are not finite; the choice is declared before pooling."""


class NonFiniteError(ValueError):
    """Frames hold NaN or infinity where they may not."""


@dataclass(frozen=True, slots=True, eq=False)
class _CleanFrames:
    """Finite frames (n_frames, n_dims), possibly none, and counts of those changed."""

    frames: NDArray[np.floating[Any]]
    n_dropped: int = 0
    n_interpolated: int = 0


def check_frames_policy(policy: str) -> None:
    """Refuse an unknown policy."""
    if policy not in get_args(FramesPolicy):
        raise ValueError(
            f"Unknown policy {policy!r} for frames that are not finite; expected one of "
            f"{', '.join(get_args(FramesPolicy))}."
        )


def clean_frames(
    frames: NDArray[np.floating[Any]],
    policy: FramesPolicy = "refuse",
    missing: Literal["refuse", "allow"] = "refuse",
) -> _CleanFrames:
    """Apply the declared policies to frames that hold NaN or infinity.

    A dimension without any finite frame is NaN throughout: its features will be missing, and
    the other dimensions stay.

    Parameters
    ----------
    frames : ndarray of shape (n_frames, n_dims)
        Floats; not changed.
    policy : {"refuse", "drop", "interpolate"}, default="refuse"
        ``drop`` removes the whole frame, and the frames around it become neighbours.
        ``interpolate`` fills each dimension linearly over the frame number from its finite
        frames and holds its ends.
    missing : {"refuse", "allow"}, default="refuse"
        Whether ``refuse`` takes dimensions without any finite frame as missing.

    Returns
    -------
    _CleanFrames
        The frames to pool and the counts; no frame where nothing finite is left.

    Raises
    ------
    NonFiniteError
        Under ``refuse``, naming the first such frame.

    Examples
    --------
    >>> frames = np.array([[1.0, 5.0], [np.nan, 6.0], [3.0, 7.0]])
    >>> clean_frames(frames, "drop").frames.tolist()
    [[1.0, 5.0], [3.0, 7.0]]
    >>> clean_frames(frames, "interpolate").frames.tolist()
    [[1.0, 5.0], [2.0, 6.0], [3.0, 7.0]]
    """
    check_frames_policy(policy)
    finite = np.isfinite(frames)
    if finite.all():
        return _CleanFrames(frames)
    alive: NDArray[np.bool_] = np.any(finite, axis=0)
    excused = alive if policy != "refuse" or missing == "allow" else np.ones_like(alive)
    whole: NDArray[np.bool_] = np.all(finite[:, excused], axis=1)
    n_broken = int((~whole).sum())
    if policy == "refuse" and n_broken:
        frame = int(np.argmin(whole))
        dimension = int(np.argmin(finite[frame] | ~excused))
        raise NonFiniteError(
            f"frame {frame}, dimension {dimension} is {frames[frame, dimension]} (in all "
            f"{n_broken} of {len(frames)} frames are not finite); expected finite numbers. "
            "Write the features again, or declare what becomes of such frames: --frames drop "
            "or --frames interpolate."
        )
    if not alive.any():
        return _CleanFrames(frames[:0], n_dropped=len(frames))
    filled = np.where(alive, frames, np.nan).astype(frames.dtype, copy=False)
    if policy == "drop":
        return _CleanFrames(np.ascontiguousarray(filled[whole]), n_dropped=n_broken)
    positions = np.arange(len(frames))
    for dimension in np.flatnonzero(alive & ~finite.all(axis=0)).tolist():
        mask = finite[:, dimension]
        filled[~mask, dimension] = np.interp(
            positions[~mask], positions[mask], frames[mask, dimension]
        )
    return _CleanFrames(filled, n_interpolated=n_broken)
