"""Safe reading of one feature file, header first.

The size in the header is compared with the file before anything is allocated, and nothing is
ever unpickled, since a file from elsewhere may claim any size and hold any code.
"""

import os
import stat
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.data.audio import extract_features, is_recording
from toolkit.data.containers import CONTAINER_EXTENSIONS, is_table, read_member, split_member
from toolkit.data.headers import FIRST_READ, LEAVE_EMPTY, SequenceError, SequenceHeader
from toolkit.data.tables import NumberTable

SEQUENCE_EXTENSIONS = (".npy", *CONTAINER_EXTENSIONS)
"""File name endings of feature files, which make a column of the table a modality."""

# O_NONBLOCK: opening a pipe without a writer would wait for ever.
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def read_header(path: Path | str) -> SequenceHeader:
    """Read and check the header of a feature file, without its numbers.

    Parameters
    ----------
    path : Path or str
        A ``.npy`` file of format version 1, 2 or 3, the frames of a CSV file, or one array of
        an ``.npz``, HDF5, ``.csd``, Parquet or CSV file, as in ``features.h5#Ses01F_F001``.

    Returns
    -------
    SequenceHeader
        Shape, type and layout; the file has exactly the bytes that they need.

    Raises
    ------
    SequenceError
        If the file cannot be opened, has another format or size than it announces, or holds
        anything but a non-empty array of integers or floats with one or two axes.
    ImportError
        If the format needs a library that is not installed.
    """
    if (array := _read_inside(path)) is not None:
        return SequenceHeader(array.shape, array.dtype, fortran_order=False, offset=0)
    file, size = _open(path)
    with file:
        return _parse(file, size, path)


def read_sequence(path: Path | str) -> NDArray[np.floating[Any]]:
    """Read one feature file.

    Values that are not finite are kept: pooling treats them.

    Parameters
    ----------
    path : Path or str
        As in :func:`read_header`, in any byte order and memory order.

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
    if (array := _read_inside(path)) is not None:
        return as_floats(array)
    header, numbers = read_stored(path)
    with header.within_memory(path):
        return as_floats(numbers.T if header.fortran_order else numbers)


def _read_inside(path: Path | str) -> NDArray[Any] | None:
    """Read the array of a table, a recording or a container; None for a file of its own."""
    if is_table(path):
        return NumberTable.read_rows(path)
    if (member := split_member(path)) is None:
        return None
    return extract_features(path) if is_recording(member.file) else read_member(path)


def read_stored(
    path: Path | str, allocate: Callable[..., NDArray[Any]] = np.empty
) -> tuple[SequenceHeader, NDArray[Any]]:
    """Read a ``.npy`` file in the type of the file, transposed where the order is Fortran's.

    - allocate: Gives an array of a shape and type, which a reader of many files may reuse.
    """
    file, size = _open(path)
    with file:
        header = _parse(file, size, path)
        # The numbers of a Fortran-order file are those of the transpose in C order.
        shape = header.shape[::-1] if header.fortran_order else header.shape
        with header.within_memory(path):
            numbers = allocate(shape, header.dtype)
            file.seek(header.offset)
            _fill(file, numbers.reshape(-1).view(np.uint8).data, path)
    return header, numbers


def as_array(values: Any) -> NDArray[Any]:
    """Take values in memory as an array; refuse masked ones, since numpy drops their mask."""
    parts = values if isinstance(values, list | tuple) else (values,)
    if any(map(np.ma.is_masked, parts)):
        remedy = "fill them with NaN: array.astype(float).filled(np.nan)"
        raise ValueError(f"Some values are masked, and would count; {remedy}.")
    return np.asarray(values)


def as_floats(numbers: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """Bring numbers to C order, and to float32 where that holds them exactly, else float64."""
    small = numbers.dtype.itemsize <= (4 if numbers.dtype.kind == "f" else 2)
    kind = np.float32 if small else np.float64
    # Read-only arrays are another type to the compiler, which would compile everything anew.
    return np.require(numbers, dtype=kind, requirements=("C", "W"))


def _open(path: Path | str) -> tuple[FileIO, int]:
    """Open an ordinary file without a buffer, and return its size."""
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
    except FileNotFoundError as error:
        raise SequenceError(f"{path} does not exist. {LEAVE_EMPTY}") from error
    except PermissionError as error:
        if Path(path).is_dir():  # Windows denies permission to open folders
            raise SequenceError(f"{path} is a folder; expected a .npy file.") from error
        raise SequenceError(
            f"{path} may not be read by this user; change its permissions."
        ) from error
    except (OSError, ValueError) as error:  # the latter for a null character in the name
        raise SequenceError(f"{path} cannot be opened: {error}.") from error
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return FileIO(descriptor), status.st_size
    os.close(descriptor)
    kind = "folder" if stat.S_ISDIR(status.st_mode) else "device or a pipe"
    raise SequenceError(f"{path} is a {kind}; expected a .npy file.")


def _parse(file: FileIO, size: int, path: Path | str) -> SequenceHeader:
    try:
        start = file.read(FIRST_READ)
    except OSError as error:
        raise SequenceError(f"{path} cannot be read: {error}.") from error
    return SequenceHeader.parse(start, size, path)


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
