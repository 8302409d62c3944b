"""One feature file examined: its shape, its gaps, its padding, and a key of its numbers."""

import math
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from toolkit.data.audio import Sound
from toolkit.data.headers import SequenceError
from toolkit.data.sequences import read_sequence

# Statistics reach some ten times the largest number of a file, and are kept in float32.
_LARGEST = 1e37
_INFINITE = 1e38  # stands for numbers beyond float32 where files are compared
_N_SAMPLED = 64
_FEW = 8  # numbers of a file that may well be equal, such as three counts of 0
_MANTISSA_BITS = 11  # of float16
_SMALLEST = 2.0**-14  # the least number that float16 holds with all of them


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file as read: no path for an empty cell, no shape if it is unreadable.

    - problem: Reason why the options do not allow the file; empty without one.
    - refused: Shape of an array that is no sequence.
    - low, high: Least and largest finite number.
    - still: Whether all frames are the same, or all numbers of a file that is not small.
    - padding: Number of all-zero frames at the beginning or the end, the larger.
    - key: Shape and some numbers, which are equal in all files of the same numbers.
    - gaps: Values that are not finite, per dimension; `dead` are those without a finite one.
    - usable: Whether anything is left to pool.
    - sound: The recording that the numbers were computed from, without its samples.
    """

    path: Path | None = None
    problem: str = ""
    refused: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    n_bytes: int = 0
    low: float = 0.0
    high: float = 0.0
    still: bool = False
    padding: int = 0
    key: bytes | None = None
    gaps: tuple[tuple[int, int], ...] = ()
    dead: tuple[int, ...] = ()
    usable: bool = False
    sound: Sound | None = None

    @classmethod
    def of_text(cls, path: Path | None) -> Self:
        """Give the facts of a transcript in a table; its words have no dimensions yet."""
        return cls() if path is None else cls(path, shape=(0,), usable=True)

    @classmethod
    def read(cls, path: Path | None, frames: str, *, allow_missing: bool) -> Self:
        """Read one file and collect its facts under the policies of a study."""
        if path is None:
            return cls()
        try:
            sequence = read_sequence(path)
            sound = Sound.describe(path)
        except SequenceError as error:
            return cls(path, str(error), error.shape)
        with np.errstate(invalid="ignore"):
            low, high = float(sequence.min()), float(sequence.max())
        problem, usable, finite = "", True, None
        # The least or the largest number is not finite if any is: large files need no mask.
        if not (math.isfinite(low) and math.isfinite(high)):
            finite = np.isfinite(sequence)
            problem, usable = _explain_gaps(finite, path, frames, allow_missing=allow_missing)
            low = float(sequence.min(where=finite, initial=np.inf))
            high = float(sequence.max(where=finite, initial=-np.inf))
        if max(high, -low) > _LARGEST and finite is None:
            largest = high if high > -low else low
            problem = (
                f"{path}: {largest:.3g} is too large, since features are kept in float32; at "
                f"most {_LARGEST:.0e} is. Bring the features to a smaller unit."
            )
        return cls(
            path,
            problem,
            shape=sequence.shape,
            n_bytes=sequence.nbytes,
            low=low,
            high=high,
            still=_is_still(sequence, varies=low < high),
            padding=_count_padding(sequence),
            key=f"{sequence.shape}".encode() + _sample(sequence),
            usable=usable,
            sound=sound,
            **({} if finite is None else _count_gaps(finite)),
        )

    @property
    def kind(self) -> tuple[int, int]:
        """Number of axes and of dimensions: the same in all files of a modality."""
        return len(self.shape), self.shape[-1]

    @property
    def n_frames(self) -> int:
        """Number of frames; 0 without a time axis."""
        return self.shape[0] if len(self.shape) == 2 else 0

    def hash_numbers(self) -> tuple[bytes, bytes, bool]:
        """Hash the numbers of a readable file, whatever their type, order and file format.

        In float32, rounded as float16 would, and whether float16 holds them as they are.
        """
        assert self.path is not None
        sequence = read_sequence(self.path)
        single, rounded = _to_single(sequence), _coarsen(sequence)
        hashes = [blake2b(array.data, digest_size=16).digest() for array in (single, rounded)]
        return hashes[0], hashes[1], bool((single == rounded).all())


def _count_gaps(finite: NDArray[np.bool_]) -> dict[str, Any]:
    n_gaps = (~np.atleast_2d(finite)).sum(axis=0)
    found = np.flatnonzero(n_gaps).tolist()
    length = len(finite) if finite.ndim == 2 else 1
    return {
        "gaps": tuple((dimension, int(n_gaps[dimension])) for dimension in found),
        "dead": tuple(dimension for dimension in found if n_gaps[dimension] == length),
    }


def _explain_gaps(
    finite: NDArray[np.bool_], path: Path, frames: str, *, allow_missing: bool
) -> tuple[str, bool]:
    """Explain why gaps make a file unusable, if they do, and whether anything can be pooled."""
    if not finite.any():
        reason = (
            f"{path}: all of its numbers are not finite, so that no finite frame is left. "
            "Leave its cell in the table empty, or take such files as missing with --missing "
            "allow."
        )
        return ("" if allow_missing else reason), False
    if finite.ndim == 1:
        reason = (
            f"{path}: dimension {int(finite.argmin())} is not a finite number, one of "
            f"{int((~finite).sum()):,}. Write the file again, or take such values as missing "
            "with --missing allow."
        )
        return ("" if allow_missing else reason), True
    alive: NDArray[np.bool_] = np.any(finite, axis=0)
    whole: NDArray[np.bool_] = np.all(finite[:, alive], axis=1)
    if frames == "refuse" and not (allow_missing and whole.all()):
        if not alive.all():
            return (
                f"{path}: dimension {int(alive.argmin())} is not finite in any frame, one of "
                f"{int((~alive).sum()):,} such dimensions. Write the file again, or keep the "
                "clip without them with --missing allow, --frames drop or --frames "
                "interpolate."
            ), True
        return (
            f"{path}: {int((~whole).sum()):,} of {len(whole):,} frames are not finite, the "
            f"first is frame {int(whole.argmin())}. Write the file again, or "
            "repair such frames with --frames drop or --frames interpolate."
        ), True
    # Interpolating needs one finite value per dimension, dropping one finite frame.
    if frames != "drop" or whole.any():
        return "", True
    reason = (
        f"{path}: no finite frame is left. Repair its frames with --frames interpolate, leave "
        "its cell in the table empty, or take such files as missing with --missing allow."
    )
    return ("" if allow_missing else reason), False


def _is_still(sequence: NDArray[np.floating[Any]], *, varies: bool) -> bool:
    if not varies:
        return sequence.size >= _FEW
    if sequence.ndim == 1 or len(sequence) < 2 or (sequence[0] != sequence[-1]).any():
        return False
    return bool((sequence == sequence[0]).all())


def _count_padding(sequence: NDArray[np.floating[Any]]) -> int:
    if sequence.ndim == 1 or (sequence[0].any() and sequence[-1].any()):
        return 0
    filled = np.flatnonzero(sequence.any(axis=1))
    # A file of nothing but zeros is still, and no padding.
    return max(filled[0], len(sequence) - 1 - filled[-1]) if len(filled) else 0


def _sample(sequence: NDArray[np.floating[Any]]) -> bytes:
    flat = sequence.reshape(-1)
    return _coarsen(flat[:: -(-flat.size // _N_SAMPLED)]).tobytes()


def _to_single(numbers: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        single = numbers.astype(np.float32)
    bounded = np.nan_to_num(single, posinf=_INFINITE, neginf=-_INFINITE)
    return bounded + np.float32(0)  # -0 becomes 0


def _coarsen(numbers: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Round to the precision of float16, so that a copy in another type gives the same."""
    mantissa, exponent = np.frexp(_to_single(numbers))
    rounded = np.ldexp(np.rint(np.ldexp(mantissa, _MANTISSA_BITS)), exponent - _MANTISSA_BITS)
    result: NDArray[np.float32] = np.where(np.abs(rounded) < _SMALLEST, 0, rounded) + 0
    return result
