"""Names of the dimensions of a modality: labels of plots and tables, which decide no number."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile, ZipFile

import numpy as np

from toolkit.data.audio import is_recording, name_features
from toolkit.data.containers import NAMES, find_dataset, is_table, split_member
from toolkit.data.headers import SequenceError
from toolkit.data.manifest import Manifest
from toolkit.data.tables import NumberTable

#: Bytes of a file or an array of names: far above the names of 20,000 dimensions.
_LARGEST: Final = 1 << 22
_LONGEST: Final = 200


def name_dimensions(
    manifest: Manifest, n_dims: Mapping[str, int], files: Mapping[str, Path]
) -> dict[str, tuple[str, ...]]:
    """Read the names of dimensions: of a text file, else of the files of the modality.

    - n_dims: Modalities to their numbers of dimensions; those without names are left out.
    - files: Modalities to text files with a name per line.
    """
    for name in files:
        if name not in manifest.available:
            raise SequenceError(
                f"--names {name}: there is no such modality; choose among "
                f"{', '.join(manifest.available)}."
            )
    found = {}
    for modality, n in n_dims.items():
        file = files.get(modality)
        paths = () if modality in manifest.texts else manifest.paths[modality]
        names = _read_common(paths)  # which must be the same in all files
        names = _read_text(file) if file else names
        if names:
            source = str(file) if file else f"The files of modality {modality!r}"
            _check_names(names, n, modality=modality, source=source)
            found[modality] = names
    return found


def _read_text(path: Path) -> tuple[str, ...]:
    """Read a text file with one name per line, in the order of the dimensions."""
    try:
        if path.stat().st_size > _LARGEST:
            raise SequenceError(f"{path} is too large for a list of names.")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SequenceError(
            f"The names in {path} cannot be read: {error}. Write one name per line, in UTF-8."
        ) from error
    return tuple(line.strip() for line in text.removesuffix("\n").split("\n"))


def _read_common(paths: Iterable[Path | None]) -> tuple[str, ...]:
    """Read the names that the files of one modality give their dimensions.

    They are an array ``names`` of an npz file, an attribute ``names`` of an HDF5 data set, or
    the header of a CSV or Parquet file with a column per dimension.
    Nothing is returned where no file has any; files whose names differ are refused.
    """
    first: tuple[str, tuple[str, ...]] | None = None
    for where, names in _read_all(paths):
        if first is None:
            first = where, names
        elif names != first[1]:
            raise SequenceError(
                f"{where} names the dimensions differently from {first[0]}: "
                f"{_describe_difference(names, first[1])}. All files of a modality need the "
                "same names in the same order."
            )
    return () if first is None else first[1]


def _describe_difference(names: tuple[str, ...], others: tuple[str, ...]) -> str:
    if len(names) != len(others):
        return f"{len(names):,} names and {len(others):,}"
    at = next(k for k, pair in enumerate(zip(names, others, strict=True)) if len({*pair}) > 1)
    return f"dimension {at} is {names[at][:_LONGEST]!r} and {others[at][:_LONGEST]!r}"


def _read_all(paths: Iterable[Path | None]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Read the names of every array that has some, each container opened once."""
    members: dict[Path, list[Path]] = {}
    for path in paths:
        member = None if path is None else split_member(path)
        if path is not None and member is not None:
            members.setdefault(member.file, []).append(path)
    for file, arrays in members.items():
        # An unreadable file is a problem of its features, and refused or counted there.
        try:
            if is_table(file):
                with suppress(SequenceError):
                    yield str(file), NumberTable.load(arrays[0]).names
            elif is_recording(file):
                yield str(arrays[0]), name_features(arrays[0])
            elif file.suffix.casefold() == ".npz":
                yield from _read_npz(file)
            elif file.suffix.casefold() != ".parquet":
                yield from _read_hdf5(file, arrays)
        except (OSError, KeyError, BadZipFile, ImportError, RuntimeError, NotImplementedError):
            continue


def _read_npz(file: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    with ZipFile(file) as archive:
        if f"{NAMES}.npy" not in archive.namelist():
            return
        entry = archive.getinfo(f"{NAMES}.npy")
        where = f"{file}#{NAMES}"
        if entry.file_size > _LARGEST:
            raise SequenceError(f"{where} is too large for a list of names.")
        try:
            with archive.open(entry) as content:
                names = np.lib.format.read_array(content, allow_pickle=False)
        except (ValueError, MemoryError, EOFError) as error:
            raise SequenceError(f"{where} is no list of names: {error}") from error
    yield where, _to_texts(names, where)


def _read_hdf5(file: Path, arrays: Sequence[Path]) -> Iterator[tuple[str, tuple[str, ...]]]:
    import h5py  # noqa: PLC0415  (an extra)

    with h5py.File(file, "r") as root:
        for path in arrays:
            member = split_member(path)
            assert member is not None
            try:
                attributes = find_dataset(h5py, root, member, path).attrs
            except SequenceError:  # no such array: a problem of the features
                continue
            if NAMES not in attributes:
                continue
            where = f"the attribute {NAMES!r} of {path}"
            if attributes.get_id(NAMES).get_storage_size() > _LARGEST:
                raise SequenceError(f"{where} is too large for a list of names.")
            yield where, _to_texts(np.asarray(attributes[NAMES]), where)


def _to_texts(names: Any, where: str) -> tuple[str, ...]:
    texts = [n.decode("utf-8", "replace") if isinstance(n, bytes) else n for n in names.flat]
    if names.ndim != 1 or not all(isinstance(text, str) for text in texts):
        raise SequenceError(
            f"{where} has shape {names.shape} and type {names.dtype}; expected one text per "
            "dimension, as np.array(list_of_names)."
        )
    return tuple(str(text).strip() for text in texts)


def _check_names(names: Sequence[str], n_dims: int, *, modality: str, source: str) -> None:
    """Refuse names that are not one different, printable text per dimension."""
    for number, name in enumerate(names, 1):
        if not name:
            raise SequenceError(f"{source}: name {number} is empty; write one per dimension.")
        if len(name) > _LONGEST or not name.isprintable():
            raise SequenceError(
                f"{source}: name {number}, {name[:40]!r}, is longer than {_LONGEST} characters "
                "or holds characters that cannot be printed."
            )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        first, second = [k for k, name in enumerate(names, 1) if name == twice[0]][:2]
        raise SequenceError(
            f"{source}: names {first} and {second} are both {twice[0]!r}; each dimension needs "
            "a name of its own."
        )
    if len(names) != n_dims:
        raise SequenceError(
            f"{source} has {len(names):,} names and modality {modality!r} {n_dims:,} "
            "dimensions; write one name per dimension, in their order."
        )
