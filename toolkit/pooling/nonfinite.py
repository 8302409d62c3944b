"""What becomes of frames that hold NaN or infinity: refused, dropped, or interpolated."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

FramesPolicy = Literal["refuse", "drop", "interpolate"]
"""The three ways; which one is taken is declared before anything is pooled."""


class NonFiniteError(ValueError):
    """Frames hold NaN or infinity where they may not."""


@dataclass(frozen=True, slots=True, eq=False)
class CleanFrames:
    """Frames without NaN and infinity, and what that took.

    - frames: shape (n_frames, n_dims); Finite numbers; no frame at all where none could be
      kept.
    - n_dropped: Frames left out whole.
    - n_interpolated: Frames of which at least one dimension was filled in.
    """

    frames: NDArray[np.floating[Any]]
    n_dropped: int = 0
    n_interpolated: int = 0


def check_frames_policy(policy: str) -> None:
    """Refuse a word that is none of the three policies."""
    if policy not in get_args(FramesPolicy):
        raise ValueError(
            f"Unknown policy {policy!r} for frames that are not finite; expected one of "
            f"{', '.join(get_args(FramesPolicy))}."
        )


def clean_frames(
    frames: NDArray[np.floating[Any]], policy: FramesPolicy = "refuse"
) -> CleanFrames:
    """Apply the declared policy to frames that hold NaN or infinity.

    Parameters
    ----------
    frames : ndarray of shape (n_frames, n_dims)
        Floats; not changed.
    policy : {"refuse", "drop", "interpolate"}, default="refuse"
        ``drop`` removes the whole frame, and the frames around it become neighbours.
        ``interpolate`` fills each dimension linearly over the frame number from its finite
        frames and holds its ends; a dimension without any finite frame leaves nothing.

    Returns
    -------
    CleanFrames
        The frames to pool and the counts.

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
    whole = finite.all(axis=1)
    n_broken = int((~whole).sum())
    if n_broken == 0:
        return CleanFrames(frames)
    if policy == "refuse":
        frame = int(np.argmin(whole))
        dimension = int(np.argmin(finite[frame]))
        raise NonFiniteError(
            f"frame {frame}, dimension {dimension} is {frames[frame, dimension]} (in all "
            f"{n_broken} of {len(frames)} frames are not finite); expected finite numbers. "
            "Write the features again, or declare what becomes of such frames: --frames drop "
            "or --frames interpolate."
        )
    if policy == "drop":
        return CleanFrames(np.ascontiguousarray(frames[whole]), n_dropped=n_broken)
    if not finite.any(axis=0).all():
        return CleanFrames(frames[:0], n_dropped=len(frames))
    filled = frames.copy()
    positions = np.arange(len(frames))
    for dimension in np.flatnonzero(~finite.all(axis=0)).tolist():
        known = finite[:, dimension]
        filled[~known, dimension] = np.interp(
            positions[~known], positions[known], frames[known, dimension]
        )
    return CleanFrames(filled, n_interpolated=n_broken)
