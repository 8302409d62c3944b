"""Files that hold many arrays, and how a path cell names one of them.

``features.h5#Ses01F_impro01_F001`` is the array of that name in that file. ``.npz`` needs
nothing but numpy; HDF5 and the ``.csd`` files of CMU-SDK need h5py, Parquet needs pyarrow:
both come with the extra ``formats``.
"""

import importlib
import os
import re
import threading
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.data.headers import SequenceError, SequenceHeader, check_shape

CONTAINER_EXTENSIONS = (".npz", ".h5", ".hdf5", ".csd", ".parquet")
"""Endings of files that hold arrays by name."""

NEEDS = {".h5": "h5py", ".hdf5": "h5py", ".csd": "h5py", ".parquet": "pyarrow"}
"""Library that each ending needs besides numpy."""

_ENDINGS = "|".join(re.escape(ending) for ending in CONTAINER_EXTENSIONS)
_MEMBER = re.compile(rf"(.*?(?:{_ENDINGS}))(?:#(.*))?", re.IGNORECASE | re.DOTALL)

# Real features shrink to a half or a tenth; zeros shrink to a thousandth and fill the memory.
_MOST_EXPANDED = 256 << 20
_MOST_TIMES = 200


class Member(NamedTuple):
    """One array in a file of many.

    - file: The file.
    - name: Name of the array; None for the only one there is.
    """

    file: Path
    name: str | None


def split_member(path: Path | str) -> Member | None:
    """Take a path apart that leads into a file of many arrays.

    Parameters
    ----------
    path : Path or str
        A path, or what stands in a path cell.

    Returns
    -------
    Member or None
        None for an ordinary file.

    Examples
    --------
    >>> split_member("audio.h5#Ses01F_impro01_F001").name
    'Ses01F_impro01_F001'
    >>> split_member("audio.npz").name is None, split_member("audio.npy") is None
    (True, True)
    """
    parts = _MEMBER.fullmatch(str(path))
    return None if parts is None else Member(Path(parts[1]), parts[2] or None)


def find_lacking(path: Path | str) -> str | None:
    """Say so if a library is missing without which a file cannot be read.

    Parameters
    ----------
    path : Path or str
        A path, or what stands in a path cell.

    Returns
    -------
    str or None
        A sentence, or None if nothing is lacking.
    """
    member = split_member(path)
    ending = member.file.suffix.casefold() if member else ""
    try:
        require(ending)
    except ImportError as error:
        return str(error)
    return None


def require(ending: str) -> Any:
    """Import the library that an ending needs."""
    library = NEEDS.get(ending)
    if library is None:
        return None
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ImportError(
            f"{ending} files need {library}, which is not installed: "
            'pip install "modality-toolkit[formats]".'
        ) from error


def choose(names: Sequence[str], path: Path | str) -> str:
    """Find the array that a path names among those of its file."""
    member = split_member(path)
    if member is None or not names:
        raise SequenceError(f"{path} holds no array; write the file again.")
    if member.name is None:
        if len(names) == 1:
            return names[0]
        raise SequenceError(
            f"{path} holds {len(names):,} arrays ({_some(names)}); name one of them as in "
            f"{member.file.name}#{names[0]}."
        )
    if member.name in names:
        return member.name
    near = get_close_matches(member.name, names, n=1)
    raise SequenceError(
        f"{member.file} holds no array {member.name!r}"
        f"{f'; did you mean {near[0]!r}?' if near else '.'} It has {len(names):,}: "
        f"{_some(names)}. Leave the cell in the table empty if the modality is missing there."
    )


def check_array(
    shape: tuple[int, ...], dtype: np.dtype[Any], stored: int, path: Path | str
) -> SequenceHeader:
    """Refuse arrays that are no sequence of numbers, or would fill the memory.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array.
    """
    if dtype.kind not in "fiu" or dtype.itemsize > 8 or dtype.fields is not None:
        raise SequenceError(
            f"{path} is of type {dtype}; expected integers or floats of at most 64 bits. Save "
            "numbers, for example as float32."
        )
    check_shape(shape, path)
    header = SequenceHeader(shape, dtype, fortran_order=False, offset=0)
    if header.n_bytes > max(_MOST_EXPANDED, _MOST_TIMES * stored):
        raise SequenceError(
            f"{path} takes {stored:,} bytes in its file and would expand to "
            f"{header.n_bytes:,}, more than {_MOST_TIMES} times as many. Features do not "
            "shrink so much: write the file again, uncompressed if these numbers are right."
        )
    return header


def sign(file: Path) -> tuple[str, int, int, int]:
    """Tell a file from its later versions, for what is remembered of it."""
    try:
        status = os.stat(file)  # noqa: PTH116  (called for every array)
    except FileNotFoundError as error:
        raise SequenceError(
            f"{file} does not exist. Leave its cell in the table empty if the modality is "
            "missing there."
        ) from error
    except (OSError, ValueError) as error:  # the latter for a null character in the name
        raise SequenceError(f"{file} cannot be opened: {error}.") from error
    return str(file), status.st_ino, status.st_size, status.st_mtime_ns


class Remembered(threading.local):
    """What one thread remembers of the last file of a kind: its table of contents.

    Reading it again for each of thousands of arrays would take minutes.
    """

    signature: object = None
    content: Any = None


def read_member(path: Path | str) -> NDArray[Any]:
    """Read one array of a file of many.

    Returns
    -------
    ndarray of shape (n_frames, n_dims) or (n_dims,)
        In the type of the file.
    """
    header, array = _read(path, numbers=True)
    assert array is not None
    assert array.shape == header.shape
    return array


def read_member_header(path: Path | str) -> SequenceHeader:
    """Read and check what is said of one array of a file of many."""
    return _read(path, numbers=False)[0]


def _read(path: Path | str, *, numbers: bool) -> tuple[SequenceHeader, NDArray[Any] | None]:
    from toolkit.data import archives, hdf5, parquet  # noqa: PLC0415  (they import this file)

    member = split_member(path)
    if member is None:
        raise SequenceError(f"{path} names no array in a file of many.")
    ending = member.file.suffix.casefold()
    library = require(ending)
    if ending == ".npz":
        return archives.read_npz(member, path, numbers=numbers)
    if ending == ".parquet":
        return parquet.read_parquet(member, path, numbers=numbers)
    return hdf5.read_hdf5(library, member, path, numbers=numbers)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
