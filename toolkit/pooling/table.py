"""Pooled features of one modality: a float32 matrix on disk with a name per column."""

import hashlib
import inspect
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from toolkit.files import checksum, replace_file, write_text
from toolkit.pooling.statistics import (
    BUILT_IN,
    STATISTICS,
    UNTIMED,
    FeatureName,
    resolve_statistics,
)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FeatureTable:
    """One row per utterance, one column per statistic and dimension.

    Parameters
    ----------
    modality : str
        Name of the modality.
    statistics : tuple of str
        Statistics in column order; ``("value",)`` where the files have no time axis.
    names : tuple of str
        ``modality__statistic__dimension`` for each column, statistic by statistic.
    values : ndarray of shape (n_utterances, n_features), float32
        Read-only and memory-mapped, C order; NaN where the modality is missing.
    present : ndarray of shape (n_utterances,), bool
        False where the modality is missing.
    n_frames : ndarray of shape (n_utterances,), int64
        Frames that were pooled; 0 where missing or without a time axis.
    digest : str
        Hash of the content: which utterance has which numbers, whatever the statistics.
    counts : mapping of str to int
        Irregular files and frames: ``files_absent`` (empty cells), ``files_unreadable``,
        ``files_without_finite_frames``, ``files_with_dropped_frames``, ``frames_dropped``,
        ``files_with_interpolated_frames``, ``frames_interpolated``,
        ``files_with_missing_dimensions``, ``values_missing``.
    texts : tuple of str, optional
        Transcripts, empty where missing. Their features are fitted on training rows, and
        ``values`` hold NaN.
    """

    modality: str
    statistics: tuple[str, ...]
    names: tuple[str, ...]
    values: NDArray[np.float32]
    present: NDArray[np.bool_]
    n_frames: NDArray[np.int64]
    digest: str
    counts: Mapping[str, int]
    texts: tuple[str, ...] = ()

    def __repr__(self) -> str:
        n_rows, n_columns = self.values.shape
        return (
            f"<FeatureTable of {self.modality}: {n_rows:,} utterances x {n_columns:,} columns "
            f"({', '.join(self.statistics)} of {self.n_dims:,} dimensions), "
            f"{int((~self.present).sum()):,} missing>"
        )

    @staticmethod
    def load(folder: Path) -> "FeatureTable | None":
        """Open a pooled table of the cache, memory-mapped.

        Parameters
        ----------
        folder : Path
            Folder of the table.

        Returns
        -------
        FeatureTable or None
            The table; None if there is none, or any byte has changed.
        """
        record = _read_record(folder / _RECORD) or {}
        with suppress(OSError, ValueError, KeyError, TypeError):
            sums = record["checksums"].items()
            if all(checksum(folder / name) == expected for name, expected in sums):
                return _open_table(folder, record)
        return None

    def check_unchanged(self) -> None:
        """Refuse a table whose file in the cache has changed since it was opened."""
        if isinstance(self.values, np.memmap):
            folder = Path(str(self.values.filename)).parent
            if FeatureTable.load(folder) is None:
                raise ValueError(
                    f"The pooled {self.modality} features in {folder} changed while they were "
                    "used, so what was made from them is not kept. Run the same command again: "
                    "they are pooled anew."
                )

    @property
    def has_time(self) -> bool:
        """Whether frames were pooled, not one fixed-size feature."""
        return UNTIMED.isdisjoint(self.statistics)

    @property
    def n_dims(self) -> int:
        """Number of dimensions under each statistic."""
        return len(self.names) // len(self.statistics)

    def select(self, statistics: str | Sequence[str]) -> NDArray[np.int64]:
        """Find the columns of statistics.

        Parameters
        ----------
        statistics : str or sequence of str
            A preset or names; all columns are meant where there is no time axis.

        Returns
        -------
        ndarray of shape (n_selected,), int64
            Positions in `names`, in the order of the statistics asked for.

        Raises
        ------
        ValueError
            If the table does not hold one of them.
        """
        if not self.has_time:
            return np.arange(len(self.names), dtype=np.int64)
        wanted = resolve_statistics(statistics)
        if absent := [name for name in wanted if name not in self.statistics]:
            raise ValueError(
                f"The table of modality {self.modality!r} does not hold {', '.join(absent)}; "
                f"it was pooled with {', '.join(self.statistics)}."
            )
        starts = np.array([self.statistics.index(name) for name in wanted]) * self.n_dims
        return (starts[:, None] + np.arange(self.n_dims)).reshape(-1).astype(np.int64)


_VALUES, _ROWS, _RECORD = "values.npy", "rows.npz", "table.json"
#: Part of every table's key. Raise it with every change of the numbers that pooling gives;
#: a test holds the numbers of each version.
_POOLING_VERSION = "3"


def _describe_value(value: object) -> str:
    # By its bytes, since the text of a million numbers takes seconds.
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    # In full, since NumPy shortens arrays inside of others, and rounds their numbers.
    with np.printoptions(threshold=sys.maxsize, floatmode="unique"):
        return repr(value)


def _describe_code(name: str) -> str:
    """Describe a statistic by its code and the values that this holds: either may change."""
    function = STATISTICS[name]
    held = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    held += getattr(function, "__defaults__", None) or ()
    held += (getattr(function, "__kwdefaults__", None) or {}).values()
    code = getattr(function, "__code__", None)
    # By its own code where it was typed into a console or is no function. Python 3.13 takes
    # the text of `python -c` for the source of every function of "<string>".
    parts = (code.co_code, code.co_consts, code.co_names) if code else function
    source = _describe_value(parts)
    with suppress(OSError, TypeError):
        if code is None or code.co_filename != "<string>":
            source = inspect.getsource(function)
    return "\n".join([source, *map(_describe_value, held)])


class TableDraft:
    """A table of the cache in the making, locked against other processes."""

    def __init__(self, cache: Path, name: str) -> None:
        self._cache = cache
        # Does not exist at first, and is removed in the end.
        self.folder = cache / f".{name}.tmp"
        self._index = cache / f".{name}.index.json"

    @staticmethod
    def make_key(modality: str, statistics: Sequence[str], *settings: str) -> str:
        """Name a table by all that decides its bytes, such as a digest of the files."""
        code = [_describe_code(name) for name in statistics if name not in BUILT_IN]
        payload = json.dumps([_POOLING_VERSION, modality, [*statistics], code, [*settings]])
        return f"{modality}-{hashlib.sha256(payload.encode()).hexdigest()[:24]}"

    @classmethod
    @contextmanager
    def lock(cls, cache: Path, name: str) -> Iterator[Self]:
        """Keep a table to this process until it is made.

        Temporary folders of killed runs are removed: a lock ends with its process, so the
        folder of a free lock has no owner.
        """
        cache.mkdir(parents=True, exist_ok=True)
        for folder in cache.glob(".*.tmp/"):
            with suppress(OSError), FileLock(folder.with_suffix(".lock"), timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
        draft = cls(cache, name)
        temporary = draft.folder
        # Two processes that want the same table take turns; the second finds it finished.
        with FileLock(temporary.with_suffix(".lock")):
            shutil.rmtree(temporary, ignore_errors=True)
            try:
                yield draft
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def read_index(self) -> dict[str, Any] | None:
        """Read the index of the last tables under this lock; None if missing or damaged."""
        return _read_record(self._index)

    def write_index(self, index: Mapping[str, Any]) -> None:
        """Write the index of the tables under this lock."""
        _write_record(self._index, index)

    def create_values(
        self, shape: tuple[int, ...]
    ) -> np.memmap[tuple[Any, ...], np.dtype[np.float32]]:
        """Create the values of the table, all of them NaN, and map them."""
        self.folder.mkdir()
        path = self.folder / _VALUES
        values = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        row = np.full(shape[1], np.nan, dtype=np.float32).tobytes()
        with path.open("r+b") as file:
            file.seek(values.offset)
            # On a full disk a write raises; an assignment to a mapped file kills the process.
            for _ in range(shape[0]):
                file.write(row)
        return values

    def save(
        self, name: str, present: NDArray[np.bool_], n_frames: NDArray[np.int64], **record: Any
    ) -> FeatureTable:
        """Complete the files after :meth:`create_values`, name the table, and open it.

        - record: The table's modality, statistics, digest and counts.
        """
        temporary, folder = self.folder, self._cache / name
        np.savez(temporary / _ROWS, present=present, n_frames=n_frames)
        record["checksums"] = {file: checksum(temporary / file) for file in (_VALUES, _ROWS)}
        _write_record(temporary / _RECORD, record)
        for path in (temporary / _VALUES, temporary / _ROWS):
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        if (finished := FeatureTable.load(folder)) is not None:
            return finished
        shutil.rmtree(folder, ignore_errors=True)
        try:
            temporary.rename(folder)
        except OSError as error:
            # Another process may have been quicker, with the same bytes.
            if (finished := FeatureTable.load(folder)) is not None:
                return finished
            raise OSError(
                f"The pooled table in {folder} cannot be kept there: is the disk full?"
            ) from error
        return _open_table(folder, record)  # the checksums were taken a moment ago


def _open_table(folder: Path, record: Mapping[str, Any]) -> FeatureTable:
    values = np.load(folder / _VALUES, mmap_mode="r", allow_pickle=False)
    with np.load(folder / _ROWS, allow_pickle=False) as rows:
        present, n_frames = rows["present"], rows["n_frames"]
    present.flags.writeable = n_frames.flags.writeable = False
    statistics = tuple(record["statistics"])
    return FeatureTable(
        modality=record["modality"],
        statistics=statistics,
        names=FeatureName.list_columns(
            record["modality"], statistics, values.shape[1] // len(statistics)
        ),
        values=values,
        present=present,
        n_frames=n_frames,
        digest=record["digest"],
        counts=MappingProxyType(record["counts"]),
        texts=tuple(record.get("texts", ())),
    )


def _write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON file that ends with its own checksum."""
    text = json.dumps(record, sort_keys=True)
    write_text(path, f"{text}\n{checksum(text.encode())}\n")


def _read_record(path: Path) -> dict[str, Any] | None:
    """Read a file of :func:`_write_record`; None if it is missing or damaged."""
    with suppress(OSError, ValueError):
        text, expected = path.read_text(encoding="utf-8").rsplit("\n", 2)[:2]
        if checksum(text.encode()) == expected:
            record: dict[str, Any] = json.loads(text)
            return record
    return None


#: Columns that are brought to float64 at a time, so that memory does not grow with the table.
_COLUMNS_AT_ONCE = 1_024


def normalise_speakers(
    table: FeatureTable,
    speakers: NDArray[np.str_],
    *,
    cache: Path,
    missing: str = "refuse",
    frames: str = "refuse",
) -> FeatureTable:
    """Standardise every feature within each speaker, or take the table from the cache.

    A feature that is constant within a speaker is 0 there, and what is missing stays missing.
    The policies `missing` and `frames` of the table decide its numbers, and so its key in the
    cache. ValueError is raised unless there is one speaker per utterance.
    """
    if len(speakers) != len(table.present):
        raise ValueError(
            f"There are {len(speakers)} speakers for {len(table.present)} utterances; expected "
            "one each."
        )
    groups = hashlib.sha256(json.dumps(speakers.tolist()).encode()).hexdigest()
    settings = ("by speaker", missing, frames, table.digest, groups)
    statistics = [name for name in table.statistics if name not in UNTIMED]
    cache = Path(cache).absolute()
    name = TableDraft.make_key(table.modality, statistics, *settings)
    with TableDraft.lock(cache, name) as draft:
        if (finished := FeatureTable.load(cache / name)) is not None:
            return finished
        values = draft.create_values(table.values.shape)
        for start in range(0, values.shape[1], _COLUMNS_AT_ONCE):
            block = slice(start, start + _COLUMNS_AT_ONCE)
            columns = np.asarray(table.values[:, block], dtype=np.float64)
            for speaker in np.unique(speakers):
                rows = speakers == speaker
                values[rows, block] = _standardise(columns[rows])
        del values  # Windows renames no folder of a file that is still mapped
        record: dict[str, Any] = {"digest": table.digest, "counts": dict(table.counts)}
        record |= {"modality": table.modality, "statistics": table.statistics}
        return draft.save(name, table.present, table.n_frames, **record)


def _standardise(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Bring columns to mean 0 and standard deviation 1; constants become 0, NaN stays NaN."""
    finite = ~np.isnan(values)
    n = np.maximum(finite.sum(axis=0), 1)
    # Equal numbers can have a deviation: their sum may be off by a rounding.
    lowest = np.where(finite, values, np.inf).min(axis=0, initial=np.inf)
    highest = np.where(finite, values, -np.inf).max(axis=0, initial=-np.inf)
    distance = np.where(finite, values, 0) - np.where(finite, values, 0).sum(axis=0) / n
    deviation = np.sqrt((np.where(finite, distance, 0) ** 2).sum(axis=0) / n)
    varies = (lowest < highest) & (deviation > 0)
    result = np.where(varies, distance / np.where(varies, deviation, 1), 0)
    return np.where(finite, result, np.nan).astype(np.float32)


def write_table(
    table: FeatureTable,
    utterances: Sequence[str],
    folder: Path | str,
    *,
    form: Literal["npy", "parquet"] = "npy",
    dimensions: Sequence[str] = (),
) -> Path:
    """Write a table and, beside it, ``<modality>.schema.json``, which says what it holds.

    Parameters
    ----------
    table : FeatureTable
        From :func:`pool_manifest`.
    utterances : sequence of str
        Id of each row.
    folder : Path or str
        Created where it is missing; files of the same names are replaced.
    form : {"npy", "parquet"}, default="npy"
        ``<modality>.npy`` holds the values alone. ``<modality>.parquet`` has the columns
        ``utterance``, ``present``, ``n_frames``, and one per feature.
    dimensions : sequence of str, default=()
        Names of the dimensions, for the schema.

    Returns
    -------
    Path
        The file with the values.

    Raises
    ------
    ValueError
        If the form is unknown, or the number of utterances is not that of the rows.
    ImportError
        If pyarrow is not installed.
    """
    if form not in {"npy", "parquet"}:
        raise ValueError(f"Unknown form {form!r}; expected npy or parquet.")
    ids = [str(utterance) for utterance in utterances]
    if len(ids) != len(table.values):
        raise ValueError(
            f"Got {len(ids)} utterances for a table of {len(table.values)} rows; one per row."
        )
    folder = Path(folder)
    path = folder / f"{table.modality}.{form}"
    with replace_file(path) as temporary:
        if form == "npy":
            _write_npy(table.values, temporary)
        else:
            rows = {"utterance": ids, "present": table.present, "n_frames": table.n_frames}
            write_parquet(rows | dict(zip(table.names, table.values.T, strict=True)), temporary)
    schema = {
        "modality": table.modality,
        "values": path.name,
        "dtype": "float32",
        "shape": list(table.values.shape),
        "missing": "NaN",
        "statistics": list(table.statistics),
        "columns": list(table.names),
        "dimensions": list(dimensions),
        "rows": [
            {"utterance": name, "present": bool(present), "n_frames": int(n_frames)}
            for name, present, n_frames in zip(ids, table.present, table.n_frames, strict=True)
        ],
        "counts": dict(table.counts),
        "digest": table.digest,
    }
    text = json.dumps(schema, indent=1, ensure_ascii=False)
    write_text(folder / f"{table.modality}.schema.json", f"{text}\n")
    return path


def _write_npy(values: NDArray[np.float32], path: Path) -> None:
    if isinstance(values, np.memmap) and values.flags.c_contiguous:
        source = Path(str(values.filename))
        if values.offset + values.nbytes == source.stat().st_size:
            # The whole of a mapped file: read through the map it would all be in memory.
            shutil.copyfile(source, path)
            return
    with path.open("wb") as file:
        np.save(file, values, allow_pickle=False)


def write_parquet(columns: Mapping[str, Any], path: Path) -> None:
    """Write columns of equal length as a Parquet file."""
    try:
        import pyarrow as pa  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "Parquet needs pyarrow, which is not installed: pip install pyarrow"
        ) from error
    parquet.write_table(pa.table(dict(columns)), path)
