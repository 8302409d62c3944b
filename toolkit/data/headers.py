"""What a feature file says about itself, and what no feature file may say."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.npy import MAGIC, HeaderError, describe_other, parse_header

# A header of plain numbers takes under 130 bytes; 10,000 is numpy's own bound on what is
# safe to hand to ast.literal_eval. Four length bytes could announce 4 GB.
LONGEST_HEADER = 10_000


class SequenceError(ValueError):
    """A feature file cannot be read as one sequence of numbers.

    The message names the file, what is wrong with it, and what would mend it.
    """


@dataclass(frozen=True, slots=True)
class SequenceHeader:
    """What a feature file says about itself, checked against the size of the file.

    - shape: ``(n_frames, n_dims)``, or ``(n_dims,)`` where there is no time axis; none is 0.
    - dtype: Type of the numbers in the file, in the file's byte order.
    - fortran_order: Whether the numbers of one dimension (rather than of one frame) stand
      together.
    - offset: Position of the first number in the file, in bytes.

    Examples
    --------
    >>> header = SequenceHeader((120, 64), np.dtype("<f4"), fortran_order=False, offset=128)
    >>> header.n_frames, header.n_dims, header.n_bytes
    (120, 64, 30720)
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    offset: int

    @property
    def has_time(self) -> bool:
        """Whether there are frames to pool; a fixed-size feature has none."""
        return len(self.shape) == 2

    @property
    def n_frames(self) -> int:
        """Number of frames, 0 where there is no time axis."""
        return self.shape[0] if self.has_time else 0

    @property
    def n_dims(self) -> int:
        """Number of dimensions of one frame, or of the whole fixed-size feature."""
        return self.shape[-1]

    @property
    def n_bytes(self) -> int:
        """Size of the numbers in the file, without the header."""
        return prod(self.shape) * self.dtype.itemsize


def parse_start(
    start: bytes, size: int, path: Path | str, *, more: Callable[[int], bytes]
) -> SequenceHeader:
    """Read and check the header of a ``.npy`` file."""
    if not start.startswith(MAGIC):
        raise SequenceError(f"{path} {describe_other(start)}.")
    version = tuple(start[6:8])
    if len(version) == 2 and version not in {(1, 0), (2, 0), (3, 0)}:
        raise SequenceError(
            f"{path} is written in version {version[0]}.{version[1]} of the .npy format; "
            "versions 1.0, 2.0 and 3.0 are known. Save it again with np.save."
        )
    begin = 10 if version == (1, 0) else 12
    length = int.from_bytes(start[8:begin], "little")
    if length > LONGEST_HEADER:
        raise SequenceError(
            f"{path} announces a header of {length:,} bytes; a plain array of numbers needs "
            "about 120. Copy the file again, or save its array alone with np.save."
        )
    end = begin + length
    if end > len(start):
        start += more(end - len(start))
    if len(start) < end or len(start) < begin:
        raise SequenceError(
            f"{path} is cut short inside its header; copy or write the file again."
        )
    try:
        header = SequenceHeader(*parse_header(start[begin:end], version), end)
    except HeaderError as error:
        raise SequenceError(f"{path} {error}") from error
    check_shape(header.shape, path)
    _check_size(header, size, path)
    return header


def check_shape(shape: tuple[int, ...], path: Path | str) -> None:
    """Refuse arrays that are no sequence.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array.
    """
    if len(shape) == 0:
        raise SequenceError(
            f"{path} holds a single number without an axis; expected (n_frames, n_dims) or "
            "(n_dims,). Save a feature of one dimension with shape (1,)."
        )
    if len(shape) > 2:
        mend = "array[0]" if shape[0] == 1 else "array.reshape(len(array), -1)"
        raise SequenceError(
            f"{path} has {len(shape)} axes, shape {shape}; expected (n_frames, n_dims) or "
            f"(n_dims,). Save {mend}, or whatever puts one frame in a row."
        )
    if shape[-1] == 0:
        raise SequenceError(
            f"{path} has no dimensions, shape {shape}; expected at least one number"
            f"{' a frame' if len(shape) == 2 else ''}. Write the file again."
        )
    if shape[0] == 0:
        raise SequenceError(
            f"{path} has no frames, shape {shape}; expected at least one. Leave its cell in "
            "the table empty if the modality is missing there."
        )


def _check_size(header: SequenceHeader, size: int, path: Path | str) -> None:
    expected = header.offset + header.n_bytes
    if size < expected:
        raise SequenceError(
            f"{path} is cut short: shape {header.shape} of {header.dtype.name} needs "
            f"{expected:,} bytes and the file has {size:,}. Copy or write the file again."
        )
    if size > expected:
        raise SequenceError(
            f"{path} has {size - expected:,} bytes after its array of shape {header.shape}. "
            "Perhaps two arrays were saved into one file: save each into its own."
        )
