"""One file becomes one row: what is noted of it, and what its sequence gives."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.data import split_member
from toolkit.pooling.drafts import NOTE, UNREADABLE, WITHOUT_FRAMES, hash_place, is_settled
from toolkit.pooling.kernels import narrow, pool_frames
from toolkit.pooling.nonfinite import FramesPolicy, NonFiniteError, clean_frames
from toolkit.pooling.statistics import VALUE

_NOT_THERE = -1
_COUNTED = ("frames_dropped", "frames_interpolated", "values_missing")


def note_file(row: int, path: Path) -> np.void:
    """Note what can be said of a file before it is read."""
    note: np.void = np.zeros(1, dtype=NOTE)[0]
    note["row"], note["place"], note["seen"] = row, hash_place(path), time.time_ns()
    try:
        status = _file_of(path).stat()
    except OSError:
        note["size"] = _NOT_THERE
        return note
    note["size"] = status.st_size
    note["changed"] = max(status.st_mtime_ns, status.st_ctime_ns)
    return note


def is_unchanged(note: np.void, path: Path) -> bool:
    """Whether a file is the one noted, for all that its size and times can tell."""
    if not is_settled(note):
        return False
    try:
        status = _file_of(path).stat()
    except OSError:
        return bool(note["size"] == _NOT_THERE)
    changed = max(status.st_mtime_ns, status.st_ctime_ns)
    return bool(status.st_size == note["size"] and changed == note["changed"])


def count_notes(notes: Sequence[np.void | None]) -> dict[str, int]:
    """Count what was not as it should be."""
    there = [note for note in notes if note is not None]
    counts = {
        "files_absent": len(notes) - len(there),
        "files_unreadable": sum(int(n["outcome"] == UNREADABLE) for n in there),
        "files_without_finite_frames": sum(int(n["outcome"] == WITHOUT_FRAMES) for n in there),
        "files_with_dropped_frames": sum(int(n["frames_dropped"] > 0) for n in there),
        "files_with_interpolated_frames": sum(int(n["frames_interpolated"] > 0) for n in there),
    }
    for name in _COUNTED:
        counts[name] = sum(int(note[name]) for note in there)
    return {name: count for name, count in sorted(counts.items()) if count}


def pool_row(
    sequence: NDArray[np.floating[Any]],
    note: np.void,
    *,
    statistics: Sequence[str],
    frames: FramesPolicy,
    missing: str,
) -> NDArray[np.float32] | None:
    """Pool one sequence, and note what that took.

    Parameters
    ----------
    sequence : ndarray of shape (n_frames, n_dims) or (n_dims,)
        As read.

    Returns
    -------
    ndarray of shape (n_features,) or None
        The row; None where no finite frame is left and that is allowed.
    """
    if sequence.ndim == 1:
        return _take_values(sequence, note, missing)
    note["n_frames"] = len(sequence)
    try:
        return pool_frames(sequence, statistics).reshape(-1)
    except NonFiniteError:
        if frames == "refuse":
            raise
    clean = clean_frames(sequence, frames)
    note["n_frames"] = len(clean.frames)
    if len(clean.frames) == 0:
        if missing == "refuse":
            raise NonFiniteError("no finite frame is left.")
        note["outcome"] = WITHOUT_FRAMES
        return None
    note["frames_dropped"] = clean.n_dropped
    note["frames_interpolated"] = clean.n_interpolated
    return pool_frames(clean.frames, statistics).reshape(-1)


def _take_values(
    sequence: NDArray[np.floating[Any]], note: np.void, missing: str
) -> NDArray[np.float32]:
    finite = np.isfinite(sequence)
    if not finite.all() and missing == "refuse":
        dimension = int(np.argmin(finite))
        raise NonFiniteError(
            f"dimension {dimension} is {sequence[dimension]} ({(~finite).sum()} such "
            "values); expected finite numbers. Write the features again, or allow missing "
            "ones."
        )
    note["values_missing"] = int((~finite).sum())
    known = np.where(finite, sequence, 0).astype(np.float64)
    row: NDArray[np.float32] = narrow(known[None], (VALUE,))[0]
    row[~finite] = np.nan
    return row


def _file_of(path: Path) -> Path:
    member = split_member(path)
    return path if member is None else member.file
