"""One feature file, opened safely and header first.

A ``.npy`` file comes from somebody else: it may be cut short, be something else under that
name, claim a size that would fill the memory, or hold Python objects whose unpickling runs
code. So the size that the header claims is compared with the file before anything is
allocated, nothing is ever unpickled, and every way in which a file can be wrong has its own
sentence.
"""

import os
import stat
from dataclasses import dataclass
from io import FileIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.data.npy import MAGIC, HeaderError, describe_other, parse_header

SEQUENCE_EXTENSIONS = (".npy",)
"""File name endings that mark a column of the table as a modality."""

# A header of plain numbers takes under 130 bytes; 10,000 is numpy's own bound on what is
# safe to hand to ast.literal_eval. Four length bytes could announce 4 GB.
_LONGEST_HEADER = 10_000
_FIRST_READ = 512
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class SequenceError(ValueError):
    """A feature file cannot be read as one sequence of numbers.

    The message names the file, what is wrong with it, and what would mend it.
    """


@dataclass(frozen=True, slots=True)
class SequenceHeader:
    """What a feature file says about itself, checked against the size of the file.

    Parameters
    ----------
    shape : tuple of int
        ``(n_frames, n_dims)``, or ``(n_dims,)`` where there is no time axis; none is 0.
    dtype : numpy.dtype
        Type of the numbers in the file, in the file's byte order.
    fortran_order : bool
        Whether the numbers of one dimension (rather than of one frame) stand together.
    offset : int
        Position of the first number in the file, in bytes.

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


def read_header(path: Path | str) -> SequenceHeader:
    """Read and check what a feature file says about itself, without its numbers.

    Parameters
    ----------
    path : Path or str
        A ``.npy`` file of format version 1, 2 or 3.

    Returns
    -------
    SequenceHeader
        Shape, type and layout; the file holds exactly the bytes that they ask for.

    Raises
    ------
    SequenceError
        If the file cannot be opened, is no ``.npy`` file, is cut short or too long, or holds
        anything but a non-empty array of integers or floats with one or two axes.
    """
    descriptor, size = _open(path)
    try:
        return _parse(descriptor, size, path)
    finally:
        os.close(descriptor)


def read_sequence(path: Path | str) -> NDArray[np.floating[Any]]:
    """Read one feature file.

    Values that are not finite are kept: what becomes of them is decided where frames are
    pooled.

    Parameters
    ----------
    path : Path or str
        A ``.npy`` file of format version 1, 2 or 3, in any byte order and memory order.

    Returns
    -------
    ndarray of shape (n_frames, n_dims) or (n_dims,)
        C-contiguous and in native byte order. Floats of 16 and 32 bits and integers of at
        most 16 bits come as float32, which holds them exactly; all others as float64.

    Raises
    ------
    SequenceError
        As :func:`read_header`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "Ses01F_impro01_F001.npy")
    ...     np.save(path, np.array([[1, 2, 3], [4, 5, 6]], dtype=">i2"))
    ...     sequence = read_sequence(path)
    >>> sequence.shape, sequence.dtype.name
    ((2, 3), 'float32')
    """
    descriptor, size = _open(path)
    with FileIO(descriptor) as file:
        header = _parse(descriptor, size, path)
        # The numbers of a Fortran-order file are those of the transpose in C order.
        shape = header.shape[::-1] if header.fortran_order else header.shape
        numbers: NDArray[Any] = np.empty(shape, dtype=header.dtype)
        file.seek(header.offset)
        _fill(file, numbers.reshape(-1).view(np.uint8).data, path)
    if header.fortran_order:
        numbers = numbers.T
    small = header.dtype.itemsize <= (4 if header.dtype.kind == "f" else 2)
    return np.ascontiguousarray(numbers, dtype=np.float32 if small else np.float64)


def _open(path: Path | str) -> tuple[int, int]:
    """Open an ordinary file, without waiting for ever on a pipe that nobody writes to.

    Bare descriptors, because a corpus has thousands of small files: opening one through a
    Python file object costs more than parsing its header.
    """
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
    except FileNotFoundError as error:
        raise SequenceError(
            f"{path} does not exist. Leave its cell in the table empty if the modality is "
            "missing there."
        ) from error
    except PermissionError as error:
        if Path(path).is_dir():  # how Windows answers
            raise SequenceError(f"{path} is a folder; expected a .npy file.") from error
        raise SequenceError(
            f"{path} may not be read by this user; change its permissions."
        ) from error
    except (OSError, ValueError) as error:  # the latter for a null character in the name
        raise SequenceError(f"{path} cannot be opened: {error}.") from error
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return descriptor, status.st_size
    os.close(descriptor)
    kind = "folder" if stat.S_ISDIR(status.st_mode) else "device or a pipe"
    raise SequenceError(f"{path} is a {kind}; expected a .npy file.")


def _parse(descriptor: int, size: int, path: Path | str) -> SequenceHeader:
    start = _read(descriptor, _FIRST_READ, path)
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
    if length > _LONGEST_HEADER:
        raise SequenceError(
            f"{path} announces a header of {length:,} bytes; a plain array of numbers needs "
            "about 120. Copy the file again, or save its array alone with np.save."
        )
    end = begin + length
    if end > len(start):
        start += _read(descriptor, end - len(start), path)
    if len(start) < end or len(start) < begin:
        raise SequenceError(
            f"{path} is cut short inside its header; copy or write the file again."
        )
    try:
        header = SequenceHeader(*parse_header(start[begin:end], version), end)
    except HeaderError as error:
        raise SequenceError(f"{path} {error}") from error
    _check_shape(header.shape, path)
    _check_size(header, size, path)
    return header


def _check_shape(shape: tuple[int, ...], path: Path | str) -> None:
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


def _read(descriptor: int, n_bytes: int, path: Path | str) -> bytes:
    try:
        return os.read(descriptor, n_bytes)
    except OSError as error:
        raise SequenceError(f"{path} cannot be read: {error}.") from error


def _fill(file: FileIO, buffer: memoryview, path: Path | str) -> None:
    filled = 0
    while filled < len(buffer):  # one call reads at most 2 GB
        try:
            n_read = file.readinto(buffer[filled:])
        except OSError as error:
            raise SequenceError(f"{path} cannot be read: {error}.") from error
        if not n_read:
            raise SequenceError(f"{path} became shorter while it was read; run again.")
        filled += n_read
