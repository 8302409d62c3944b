"""Containers, files of many arrays: npz, HDF5 (also the ``.csd`` of CMU-SDK) and Parquet.

A path cell names one array, as in ``features.h5#Ses01F_impro01_F001``.
"""

import importlib
import os
import re
import threading
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from toolkit.data.headers import FIRST_READ, LEAVE_EMPTY, SequenceError, SequenceHeader
from toolkit.data.roles import ROLES, suggest

NAMES = "names"
"""Array of an npz file, or attribute of an HDF5 data set, that names the dimensions."""

_TEXT_EXTENSIONS = (".csv", ".tsv", ".arff")
CONTAINER_EXTENSIONS = (".npz", ".h5", ".hdf5", ".csd", ".parquet", *_TEXT_EXTENSIONS)
_LIBRARIES = {".h5": "h5py", ".hdf5": "h5py", ".csd": "h5py", ".parquet": "pyarrow"}
# Features of a recording have a path of this kind too, as toolkit.data.audio writes it.
_ENDINGS = "|".join(map(re.escape, CONTAINER_EXTENSIONS)) + r"|\.(?:wav|flac|ogg)(?=#[a-z-]+@)"
_MEMBER = re.compile(
    rf"(.*?(?:{_ENDINGS}))(?:\[([^\[\]]*)\])?(?:#(.*))?", re.IGNORECASE | re.DOTALL
)

_CSD_NAME = re.compile(r"[^/]*/data/([^/]*)/features")
_LOCAL_HEADER = 30  # bytes before the name of a zip entry
_MOST_NAMES, _DEEPEST = 1000, 8  # data sets listed of an HDF5 file, and their groups


class _Member(NamedTuple):
    """One array of a container; its name is None if the path gives none.

    - columns: Chosen columns of a table; empty for all that are dimensions.
    """

    file: Path
    name: str | None
    columns: str = ""


def split_member(path: Path | str) -> _Member | None:
    """Split a path into a container and the name of one of its arrays.

    Parameters
    ----------
    path : Path or str
        A path, or the text of a path cell.

    Returns
    -------
    _Member or None
        The container as `file`, and the array as `name` or None; None for an ordinary file.

    Examples
    --------
    >>> split_member("audio.h5#Ses01F_impro01_F001").name
    'Ses01F_impro01_F001'
    >>> split_member("audio.npy") is None
    True
    """
    parts = _MEMBER.fullmatch(str(path))
    return parts and _Member(Path(parts[1]), parts[3] or None, unquote(parts[2] or ""))


def missing_dependency(path: Path | str) -> str | None:
    """Explain which library is missing to read a file; None if none is."""
    member = split_member(path)
    try:
        _import_library(member.file.suffix.casefold() if member else "")
    except ImportError as error:
        return str(error)
    return None


def _import_library(ending: str) -> Any:
    """Import the library of an ending; None if numpy is enough."""
    library = _LIBRARIES.get(ending)
    if library is None:
        return None
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ImportError(
            f"{ending} files need {library}, which is not installed: pip install {library}"
        ) from error


def _resolve_member(names: Collection[str], path: Path | str, read_shape: Any = None) -> str:
    """Find the array of a path among those of its container; the shapes are for a message."""
    member = split_member(path)
    if member is None or not names:
        raise SequenceError(f"{path} holds no array; write the file again.")
    if member.name is not None and member.name in names:
        return member.name
    shown = [*names][:5]
    if read_shape is not None and member.name is None:
        with suppress(SequenceError):  # of an array that is not asked for
            shown = [f"{name} of shape {read_shape(name)}" for name in shown]
    first = ", ".join(shown) + (", ..." if len(names) > 5 else "")
    if member.name is None:
        only, *others = [name for name in names if name != NAMES] or [NAMES]
        if not others:
            return only
        raise SequenceError(
            f"{path} holds {len(names):,} arrays ({first}); name one of them as in "
            f"{member.file.name}#{only}, or call each as its utterance."
        )
    raise SequenceError(
        f"{member.file} holds no array {member.name!r};{suggest(member.name, [*names])} it has "
        f"{len(names):,}: {first}. Leave the cell empty where the modality is missing."
    )


def _shorten(name: object) -> str:
    """Write a name or type of a file, which may be of any length, into a message."""
    text = str(name)
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."


def file_signature(file: Path) -> tuple[str, int, int, int]:
    """Identify one version of a file by its path, inode, size and time of change."""
    try:
        status = os.stat(file)  # noqa: PTH116  (called for every array)
    except FileNotFoundError as error:
        raise SequenceError(f"{file} does not exist. {LEAVE_EMPTY}") from error
    except (OSError, ValueError) as error:  # the latter for a null character in the name
        raise SequenceError(f"{file} cannot be opened: {error}.") from error
    return str(file), status.st_ino, status.st_size, status.st_mtime_ns


#: Far above what ids and arrays of a study need; a file may claim far more than it holds.
_LONGEST_NAME, _LONGEST_ID, _MOST_ROWS, _LARGEST_CHUNK = 80, 1_000, 10_000_000, 1 << 24


def read_member(path: Path | str) -> NDArray[Any]:
    """Read one array in the type of the file, its header checked first."""
    member = split_member(path)
    if member is None:
        raise SequenceError(f"{path} names no array in a file of many.")
    ending = member.file.suffix.casefold()
    library = _import_library(ending)
    if ending == ".npz":
        return _read_npz(member, path)
    if ending == ".parquet":
        return _read_parquet(member, path)
    return _read_hdf5(library, member, path)


def _read_npz(member: _Member, path: Path | str) -> NDArray[Any]:
    entries = _load_entries(file_signature(member.file))

    def read_start(name: str) -> tuple[bytes, SequenceHeader]:
        packed, entry = _read_packed(entries[name], member.file, path), entries[name]
        # The header alone first: the size of the array is checked before it is expanded.
        start = _unpack(entry, packed, FIRST_READ, path)
        return packed, SequenceHeader.parse(start, entry.file_size, path)

    name = _resolve_member(entries, path, lambda name: read_start(name)[1].shape)
    entry, (packed, header) = entries[name], read_start(name)
    SequenceHeader.of_array(header.shape, header.dtype, len(packed), path)
    # One byte more than announced, so that a longer entry is noticed.
    content = _unpack(entry, packed, entry.file_size + 1, path)
    if len(content) != entry.file_size or zlib.crc32(content) != entry.CRC:
        raise SequenceError(
            f"{path} is damaged: its checksum does not hold. Copy or write the file again."
        )
    flat = np.frombuffer(content, header.dtype, offset=header.offset)
    if header.fortran_order:
        return flat.reshape(header.shape[::-1]).T
    return flat.reshape(header.shape)


@lru_cache(maxsize=4)  # listing takes long
def _load_entries(signature: tuple[Any, ...]) -> dict[str, ZipInfo]:
    file = signature[0]
    try:
        with ZipFile(file) as archive:
            entries = archive.infolist()
    # zipfile calls an archive of a later version than it knows "not implemented".
    except (BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise SequenceError(
            f"{file} cannot be read as an .npz archive: {error}. Write the file again with "
            "np.savez."
        ) from error
    return {e.filename[: -len(".npy")]: e for e in entries if e.filename.endswith(".npy")}


def _read_packed(entry: ZipInfo, file: Path, path: Path | str) -> bytes:
    # By hand, since ZipFile would read the directory of the archive again for every array.
    if entry.flag_bits & 1 or entry.compress_type not in {ZIP_STORED, ZIP_DEFLATED}:
        raise SequenceError(
            f"{path} is encrypted or packed in an unusual way; write the file again with "
            "np.savez or np.savez_compressed."
        )
    with file.open("rb") as archive:
        archive.seek(entry.header_offset)
        local = archive.read(_LOCAL_HEADER)
        lengths = int.from_bytes(local[26:28], "little"), int.from_bytes(local[28:30], "little")
        archive.seek(sum(lengths), 1)
        packed = archive.read(entry.compress_size)
    if not local.startswith(b"PK\x03\x04") or len(packed) < entry.compress_size:
        raise SequenceError(f"{path} is cut short or damaged; copy or write the file again.")
    return packed


def _unpack(entry: ZipInfo, packed: bytes, most: int, path: Path | str) -> bytes:
    """Decompress an entry to `most` bytes at most."""
    if entry.compress_type == ZIP_STORED:
        return packed[:most]
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, most)
    except zlib.error as error:
        raise SequenceError(
            f"{path} is damaged ({error}); copy or write the file again."
        ) from error


def _read_hdf5(h5py: Any, member: _Member, path: Path | str) -> NDArray[Any]:
    file_signature(member.file)  # h5py does not distinguish absent files from damaged ones
    try:
        with h5py.File(member.file, "r") as root:
            found = find_dataset(h5py, root, member, path)
            if found.shape is None:
                raise SequenceError(f"{path} is empty; write the file again.")
            if found.external or found.is_virtual:
                raise SequenceError(
                    f"{path} keeps its numbers in other files; copy them into this one."
                )
            dtype = _read_type(h5py, found, path)
            chunk = prod(found.chunks or ()) * dtype.itemsize
            # A chunk is unpacked whole, whatever is read of it.
            if chunk > max(_LARGEST_CHUNK, 2 * found.nbytes):
                raise SequenceError(
                    f"{path} keeps {found.nbytes:,} bytes in chunks of {chunk:,}; write the "
                    "file again, with chunks no larger than the array."
                )
            SequenceHeader.of_array(found.shape, dtype, found.id.get_storage_size(), path)
            return np.asarray(found[...])
    except (OSError, RuntimeError, KeyError) as error:
        raise SequenceError(
            f"{path} cannot be read as HDF5: {error}. Copy or write the file again."
        ) from error


def _read_type(h5py: Any, found: Any, path: Path | str) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = found.dtype
    except (TypeError, ValueError, OverflowError, NotImplementedError) as error:
        fault = f"{path} is of a type that NumPy lacks ({_shorten(error)})"
        raise SequenceError(f"{fault}. Save numbers, for example as float32.") from error
    if h5py.check_enum_dtype(dtype) is not None:
        fault = f"{path} holds names (an HDF5 enumeration), whose numbers stand for nothing"
        raise SequenceError(f"{fault}. Save a dimension per name, of zeros and ones.")
    return dtype


def find_dataset(h5py: Any, root: Any, member: _Member, path: Path | str) -> Any:
    """Find the data set of a path in an open HDF5 file."""
    if member.name is None:
        names = [*islice(_iterate_datasets(h5py, root), _MOST_NAMES)]
        only = _resolve_member(names, path, lambda name: root[name].shape)
        return _follow(h5py, root, only, path)
    found = _follow(h5py, root, member.name, path)
    if found is None:  # CMU-SDK: FEATURES/data/UTTERANCE/features
        inside = [f"{name}/data/{member.name}" for name in root]
        nodes = {place: _follow(h5py, root, place, path) for place in inside}
        places = [place for place, node in nodes.items() if node is not None]
        if len(places) > 1:
            first, second = map(_shorten, places[:2])
            raise SequenceError(
                f"{path} is {first} and {second}; name one, as in {member.file.name}#{first}."
            )
        found = nodes[places[0]] if places else None
    if found is not None and not isinstance(found, h5py.Dataset):
        found = _follow(h5py, found, "features", path)
    if isinstance(found, h5py.Dataset):
        return found
    names = [*islice(_iterate_datasets(h5py, root), _MOST_NAMES)]
    matches = (_CSD_NAME.fullmatch(name) for name in names)
    _resolve_member([match[1] for match in matches if match] or names, path)
    raise SequenceError(f"{path} is no data set; name one.")


def _follow(h5py: Any, node: Any, name: str, path: Path | str) -> Any:
    """Go down from group to group; None where the name does not exist."""
    for step in name.strip("/").split("/"):
        if not isinstance(node, h5py.Group) or step in {"", ".", ".."}:
            return None
        link = node.get(step, getlink=True) if step in node else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise SequenceError(
                f"{path} is a link, perhaps to another file; copy the array to its place."
            )
        node = node[step]
    return node


def _iterate_datasets(h5py: Any, group: Any) -> Iterator[str]:
    """Iterate over the names of the data sets below a group, each group once."""
    waiting, seen = [(group, "")], set[Any]()
    while waiting:
        node, above = waiting.pop()
        # Groups may be members of themselves, under many names.
        if (place := h5py.h5o.get_info(node.id).addr) in seen:
            continue
        seen.add(place)
        inner = []
        for name in node:
            if not isinstance(node.get(name, getlink=True), h5py.HardLink):
                continue
            member = node[name]
            if isinstance(member, h5py.Dataset):
                yield f"{above}{name}"
            elif isinstance(member, h5py.Group) and above.count("/") < _DEEPEST:
                inner.append((member, f"{above}{name}/"))
        waiting += reversed(inner)


class _ParquetIndex:
    """The row group and row of each id of a Parquet file, and the row group read last."""

    def __init__(self, signature: tuple[Any, ...]) -> None:
        from pyarrow import parquet  # noqa: PLC0415  (an extra)

        self.file = file = Path(signature[0])
        with parquet.ParquetFile(file) as source:
            schema, self.n_groups = source.schema_arrow, source.metadata.num_row_groups
        self.lists = [field.name for field in schema if _is_list(field.type)]
        ids = [name for name in schema.names if name.casefold() in ROLES["utterance"]]
        self.has_ids = bool(ids)
        # Text stays a dictionary, which a few bytes may name millions of times.
        with parquet.ParquetFile(file, read_dictionary=ids) as source:
            for field in schema:
                _check_type(field, file)
            self.rows: dict[str, list[tuple[int, int]]] = {}
            for group in range(self.n_groups if ids else 0):
                _measure_ids(source.metadata.row_group(group), ids[0], file)
                column = source.read_row_group(group, columns=ids[:1]).column(0)
                _check_ids(column, file)
                for row, name in enumerate(map(str, column.to_pylist())):
                    self.rows.setdefault(name, []).append((group, row))
        self._of_thread = threading.local()  # threads read different groups

    def read_group(self, group: int, path: Path | str) -> Any:
        """Read the lists of one row group."""
        from pyarrow import parquet  # noqa: PLC0415  (an extra)

        last: tuple[int, Any] = getattr(self._of_thread, "last", (-1, None))
        if last[0] != group:
            with parquet.ParquetFile(self.file) as source:
                found = source.metadata.row_group(group)
                columns = [found.column(k) for k in range(found.num_columns)]
                lists = [c for c in columns if c.path_in_schema.split(".")[0] in self.lists]
                n_values = sum(column.num_values for column in lists)
                stored = sum(column.total_compressed_size for column in lists)
                # The type of the values is not known yet; float64 is the largest.
                SequenceHeader.of_array((n_values,), np.dtype(np.float64), stored, path)
                table = source.read_row_group(group, columns=self.lists)
            self._of_thread.last = last = group, table.column(0).combine_chunks()
        return last[1]


_index_version = lru_cache(maxsize=4)(_ParquetIndex)  # listing takes long


def _check_type(field: Any, file: Path) -> None:
    """Refuse lists of anything but numbers before they are read: text may expand."""
    from pyarrow import types  # noqa: PLC0415  (an extra)

    kind = field.type
    while _is_list(kind):
        kind = kind.value_type
    numbers = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    if _is_list(field.type) and not numbers:
        raise SequenceError(
            f"{file}: the lists of column {_shorten(field.name)!r} are of type "
            f"{_shorten(kind)}; expected numbers."
        )


def _measure_ids(group: Any, name: str, file: Path) -> None:
    """Refuse a row group whose ids would need more memory than ids do."""
    columns = [group.column(k) for k in range(group.num_columns)]
    size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema == name)
    if group.num_rows > _MOST_ROWS or size > _LONGEST_ID * (group.num_rows + _LONGEST_ID):
        raise SequenceError(
            f"{file} has {group.num_rows:,} ids of {size:,} bytes in one row group; expected "
            f"at most {_MOST_ROWS:,} ids, of at most {_LONGEST_ID:,} characters each."
        )


def _check_ids(column: Any, file: Path) -> None:
    from pyarrow import compute, types  # noqa: PLC0415  (an extra)

    for chunk in column.chunks:
        values = chunk.dictionary if types.is_dictionary(chunk.type) else chunk
        if not (types.is_string(values.type) or types.is_large_string(values.type)):
            continue
        longest = compute.max(compute.binary_length(values)).as_py() or 0
        if longest > _LONGEST_ID:
            raise SequenceError(
                f"{file} has an id of {longest:,} bytes; expected at most {_LONGEST_ID:,}."
            )


def _read_parquet(member: _Member, path: Path | str) -> NDArray[Any]:
    from pyarrow import ArrowException  # noqa: PLC0415  (an extra)

    try:
        index = _index_version(file_signature(member.file))
        array = _to_array(_find_values(index, member, path), path)
    except (ArrowException, OSError, ValueError) as error:
        if isinstance(error, SequenceError):
            raise
        raise SequenceError(
            f"{path} cannot be read as Parquet: {error}. Copy or write the file again."
        ) from error
    SequenceHeader.of_array(array.shape, array.dtype, array.nbytes, path)
    return array


def _find_values(index: _ParquetIndex, member: _Member, path: Path | str) -> Any:
    if len(index.lists) != 1:
        raise SequenceError(
            f"{member.file} has {len(index.lists)} columns of lists "
            f"({', '.join(index.lists) or 'none'}); expected one. Write each modality into a "
            "file of its own."
        )
    if not index.has_ids:
        if member.name is not None:
            raise SequenceError(
                f"{member.file} has no column {' or '.join(ROLES['utterance'])} to find "
                f"{member.name!r} by; add one."
            )
        import pyarrow as pa  # noqa: PLC0415  (an extra)

        groups = [index.read_group(group, path) for group in range(index.n_groups)]
        return pa.concat_arrays(groups) if groups else pa.array([], pa.list_(pa.float32()))
    name = _resolve_member(index.rows, path)
    if len(index.rows[name]) > 1:
        raise SequenceError(f"{member.file} has several rows {name!r}; keep one.")
    group, row = index.rows[name][0]
    value = index.read_group(group, path)[row]
    if not value.is_valid:
        raise SequenceError(f"{path} is null. {LEAVE_EMPTY}")
    return value.values


def _is_list(kind: Any) -> bool:
    """Whether a type of pyarrow is one of lists."""
    from pyarrow import types  # noqa: PLC0415  (an extra)

    return any(f(kind) for f in (types.is_list, types.is_large_list, types.is_fixed_size_list))


def _to_array(values: Any, path: Path | str) -> NDArray[Any]:
    """Convert a list of numbers, or of lists of numbers of one length."""
    from pyarrow import compute  # noqa: PLC0415  (an extra)

    if not _is_list(values.type):
        return np.asarray(values.to_numpy(zero_copy_only=False))
    widths = compute.list_value_length(values).unique().to_pylist()
    if len(widths) > 1 or None in widths:
        raise SequenceError(
            f"{path} has frames of different lengths ({', '.join(map(str, widths[:5]))}); "
            "expected as many dimensions in each."
        )
    flat = np.asarray(values.flatten().to_numpy(zero_copy_only=False))
    return flat.reshape(len(values), widths[0] if widths else 0)


def is_table(path: Path | str) -> bool:
    """Whether a path leads into a table with a column per dimension."""
    member = split_member(path)
    if member is None:
        return False
    if member.file.suffix.casefold() != ".parquet":
        return member.file.suffix.casefold() in _TEXT_EXTENSIONS
    return _has_columns(file_signature(member.file))


@lru_cache(maxsize=64)
def _has_columns(signature: tuple[Any, ...]) -> bool:
    """Whether a Parquet file has a column of numbers per dimension, and no lists."""
    try:  # what is wrong is described where the file is read
        from pyarrow import parquet  # noqa: PLC0415  (an extra)

        with parquet.ParquetFile(signature[0]) as source:
            schema = source.schema_arrow
    except (ImportError, OSError, ValueError):
        return False
    return len(schema) > 1 and not any(_is_list(field.type) for field in schema)
