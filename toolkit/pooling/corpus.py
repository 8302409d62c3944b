"""Pool every file or transcript of one modality into one table, in the manifest's order."""

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.data import (
    Manifest,
    ManifestError,
    SequenceError,
    read_header,
    read_sequence,
    split_member,
)
from toolkit.data.audio import has_recordings
from toolkit.data.sequences import as_floats, read_stored
from toolkit.files import checksum
from toolkit.pooling.pooler import pool_sequence
from toolkit.pooling.statistics import (
    HASHING,
    PRESETS,
    TFIDF,
    VALUE,
    FramesPolicy,
    check_frames_policy,
    resolve_statistics,
)
from toolkit.pooling.table import FeatureTable, TableDraft

logger = logging.getLogger(__name__)

#: Arguments of scikit-learn's vectorizers: words and pairs of words, one letter long or more,
#: and two to four characters of one word.
NGRAMS: Final[dict[str, dict[str, Any]]] = {
    "words": {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"},
    "characters": {"analyzer": "char_wb", "ngram_range": (2, 4)},
}
#: Most columns of TF-IDF: components of the truncated SVD.
_N_COMPONENTS: Final = 100
#: Columns per kind of n-grams, hashed.
_N_HASHED: Final = 512

#: Files that a thread takes at a time: handing out small ones singly took longer than pooling.
_FILES_PER_TASK: Final = 16

#: Bytes of a file from which on another thread helps. Smaller ones are read and summed in the
#: time that two threads take to hand the interpreter to each other.
_WORTH_A_THREAD: Final = 1 << 18

#: Nanoseconds. File systems keep times in ticks of some milliseconds: a file that changed so
#: shortly before its times were read may change again within the same tick.
_SETTLED: Final = 2_000_000_000
_ABSENT, _TOO_RECENT = -1, -1
_NO_ROWS: Final = np.empty((0, 0), np.float32)


def pool_manifest(
    manifest: Manifest,
    modality: str,
    *,
    statistics: str | Sequence[str] = PRESETS["rich"],
    cache: Path | str,
    missing: Literal["refuse", "allow"] = "refuse",
    frames: FramesPolicy = "refuse",
    progress: Callable[[int, int], None] | None = None,
    n_threads: int = 1,
) -> FeatureTable:
    """Pool every file of one modality, or take the table from the cache.

    Files are read and pooled one by one, so that memory does not grow with the corpus. In a
    corpus that changed, only the files that changed are pooled again. A pooling that was
    killed leaves no table, and starts again.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    modality : str
        One of its modalities.
    statistics : str or sequence of str, default="rich"
        A preset or names. Files without a time axis give the single statistic ``value``.
    cache : Path or str
        Folder of pooled tables. One whose content, statistics and policies are the same is
        taken from there, if its checksums still hold.
    missing : {"refuse", "allow"}, default="refuse"
        Whether unreadable files count as missing modalities, and values of a fixed-size
        feature that are not finite as missing values.
    frames : {"refuse", "drop", "interpolate"}, default="refuse"
        Treatment of frames that are not finite.
    progress : callable, optional
        Called with the number of files pooled and their total.
    n_threads : int, default=1
        Files that are pooled at the same time, where they are large enough for that to help;
        the table is the same.

    Returns
    -------
    FeatureTable
        One row per utterance, in the manifest's order.

    Raises
    ------
    ManifestError
        With every file that cannot be pooled, or if the files are of several kinds.
    ValueError
        If the modality, a statistic or a policy is unknown.
    """
    check_frames_policy(frames)
    names = resolve_statistics(statistics)
    if missing not in {"refuse", "allow"}:
        raise ValueError(f"Unknown policy {missing!r} for missing; expected refuse or allow.")
    if modality not in manifest.paths:
        raise ValueError(
            f"Unknown modality {modality!r}; expected one of {', '.join(manifest.modalities)}."
        )
    job = _Job(manifest, modality, names, missing, frames, progress, n_threads)
    cache = Path(cache).absolute()
    # Tables of the same files share a lock and an index, whatever the content of the files.
    name = job.key(str(manifest.root))
    with TableDraft.lock(cache, name) as draft:
        index = draft.read_index() or {"table": "", "files": {}}
        records = {path: _Record(*fields) for path, fields in index["files"].items()}
        if (finished := _find_table(job, cache, records)) is not None:
            return finished
        source = FeatureTable.load(cache / index["table"]) if records else None
        older = _Older(records, source.values if source else _NO_ROWS)
        table, new_records = _pool_table(job, draft, older)
        index["table"] = job.key(table.digest)
        index["files"] = {
            str(path): record
            for path, record in zip(job.paths, new_records, strict=True)
            if record is not None
        }
        draft.write_index(index)
        return table


@dataclass(frozen=True, slots=True)
class _Job:
    """One modality, and the arguments of :func:`pool_manifest`."""

    manifest: Manifest
    modality: str
    statistics: tuple[str, ...]
    missing: Literal["refuse", "allow"]
    frames: FramesPolicy
    progress: Callable[[int, int], None] | None
    n_threads: int

    @property
    def paths(self) -> tuple[Path | None, ...]:
        return self.manifest.paths[self.modality]

    def key(self, content: str) -> str:
        """Name a table by the digest of its content, or the tables of all files of a folder."""
        return TableDraft.make_key(
            self.modality, self.statistics, self.missing, self.frames, content
        )

    def locate(self, row: int) -> str:
        return f"utterance {str(self.manifest.utterances[row])!r}, modality {self.modality!r}"


class _Record(NamedTuple):
    """State of one file and outcome of its row in the table; kept as a JSON list.

    - size: bytes, or _ABSENT.
    - changed: nanoseconds, the later of the two times of the file, or _TOO_RECENT.
    - fingerprint: hash of type, shape and numbers; empty where the file is unreadable.
    """

    row: int
    size: int
    changed: int
    fingerprint: str = ""
    n_axes: int = 0
    n_dims: int = 0
    n_frames: int = 0
    frames_dropped: int = 0
    frames_interpolated: int = 0
    values_missing: int = 0
    dimensions_missing: int = 0
    pooled: bool = False


class _Older(NamedTuple):
    """The last table of the same files: its records by path, and its values."""

    records: Mapping[str, _Record]
    values: NDArray[np.float32]

    def copy_row(self, record: _Record, values: NDArray[np.float32], row: int) -> _Record:
        """Take a row that was pooled before."""
        if record.pooled:
            values[row] = self.values[record.row]
        return record._replace(row=row)


def _stat_file(path: Path) -> tuple[int, int]:
    """Size and time of a file, as :class:`_Record` keeps them."""
    member = split_member(path)
    now = time.time_ns()
    try:
        status = (path if member is None else member.file).stat()
    except OSError:
        return _ABSENT, 0
    changed = max(status.st_mtime_ns, status.st_ctime_ns)
    return status.st_size, changed if now - changed > _SETTLED else _TOO_RECENT


def _is_unchanged(record: _Record, path: Path) -> bool:
    size, changed = _stat_file(path)
    return changed != _TOO_RECENT and (record.size, record.changed) == (size, changed)


def _find_table(job: _Job, cache: Path, previous: Mapping[str, _Record]) -> FeatureTable | None:
    """Find the finished table of files that have all been read and not changed since."""
    records: list[_Record | None] = []
    for path in job.paths:
        record = None if path is None else previous.get(str(path))
        if path is not None and (record is None or not _is_unchanged(record, path)):
            return None
        records.append(record)
    return FeatureTable.load(cache / job.key(_hash_content(job, records)))


def _pool_table(
    job: _Job, draft: TableDraft, older: _Older
) -> tuple[FeatureTable, list[_Record | None]]:
    """Pool the files into a draft, and save it as the table of their content."""
    n_axes, n_dims = _find_kind(job.paths)
    statistics = job.statistics if n_axes == 2 else (VALUE,)
    shape = len(job.paths), max(len(statistics) * n_dims, 1)
    if older.values.shape[1] != shape[1]:
        older = _Older({}, _NO_ROWS)
    # No name for the values: Windows renames no folder of a file that is still mapped.
    results = _fill_rows(job, draft.create_values(shape), older)
    records = [None if isinstance(result, str) else result for result in results]
    problems = _compare_kinds(job, records)
    problems += [result for result in results if isinstance(result, str)]
    present = np.array([record is not None and record.pooled for record in records])
    if not problems and not present.any():
        problems = [f"modality {job.modality!r} has no file at all."]
    if problems:
        raise ManifestError(problems, source=job.manifest.source)
    digest = _hash_content(job, records)
    table = draft.save(
        job.key(digest),
        present,
        np.array([0 if r is None else r.n_frames for r in records], np.int64),
        modality=job.modality,
        statistics=statistics,
        digest=digest,
        counts=_count_outcomes(records),
    )
    return table, records


def _fill_rows(
    job: _Job, values: NDArray[np.float32], older: _Older
) -> list[_Record | str | None]:
    """Fill the rows of all files; per row its record, the problem, or None without a file."""
    reader, rows = _Reader(), range(len(job.paths))

    def pool_files(rows: Iterable[int]) -> list[_Record | str | None]:
        return [_pool_file(job, row, reader, values, older) for row in rows]

    first_sizes = [_stat_file(path)[0] for path in job.paths[:64] if path is not None]
    large = sum(first_sizes) >= _WORTH_A_THREAD * len(first_sizes)
    several = job.n_threads > 1 and (large or has_recordings(job.paths))
    size = _FILES_PER_TASK if several else 1  # so that progress follows each
    tasks = [rows[first : first + size] for first in rows[::size]]
    results: list[_Record | str | None] = []
    start = time.perf_counter()
    with ThreadPoolExecutor(job.n_threads if several else 1) as threads:
        try:
            finished = threads.map(pool_files, tasks) if several else map(pool_files, tasks)
            for result in chain.from_iterable(finished):
                if job.progress is not None:
                    job.progress(len(results), len(rows))
                results.append(result)
        finally:  # an interrupt waits for no further file
            threads.shutdown(cancel_futures=True)
    megabytes = sum(r.size for r in results if isinstance(r, _Record)) / 1e6
    rate = megabytes / max(time.perf_counter() - start, 1e-9)
    logger.debug("%s: %.0f MB pooled at %.0f MB/s", job.modality, megabytes, rate)
    return results


def _pool_file(
    job: _Job, row: int, reader: "_Reader", values: NDArray[np.float32], older: _Older
) -> _Record | str | None:
    path = job.paths[row]
    if path is None:
        return None
    old = older.records.get(str(path))
    if old and _is_unchanged(old, path):
        return older.copy_row(old, values, row)
    # Taken before reading: of a file that changes meanwhile, these are not the times.
    record = _Record(row, *_stat_file(path))
    try:
        sequence, fingerprint = reader.read(path)
        if old and old.fingerprint == fingerprint:
            old = older.copy_row(old, values, row)
            return old._replace(size=record.size, changed=record.changed)
        record = record._replace(
            fingerprint=fingerprint, n_axes=sequence.ndim, n_dims=sequence.shape[-1]
        )
        features, counts = pool_sequence(sequence, job.statistics, job.frames, job.missing)
    except SequenceError as error:
        # Problems are collected, so that one run names every file that cannot be pooled.
        return f"{job.locate(row)}: {error}" if job.missing == "refuse" else record
    except ValueError as error:
        return f"{job.locate(row)}, {path}: {error}"
    if features is not None and features.size == values.shape[1]:  # else refused in the end
        values[row] = features
    return record._replace(pooled=features is not None, **counts)


class _Reader(threading.local):
    """Read one file after the other into the same buffer, of which each thread has its own.

    Fresh memory for every file would cost as much as pooling it: the system hands it out page
    by page.
    """

    _buffer = np.empty(0, dtype=np.uint8)

    def read(self, path: Path) -> tuple[NDArray[np.floating[Any]], str]:
        """Read a sequence, which is valid until the next call, and its fingerprint."""
        if split_member(path) is not None:
            sequence = np.ascontiguousarray(read_sequence(path))
            layout = f"{sequence.dtype.str} {sequence.shape} False"
            return sequence, checksum(sequence, layout.encode())
        header, numbers = read_stored(path, self._allocate)
        layout = f"{header.dtype.str} {header.shape} {header.fortran_order}"
        fingerprint = checksum(numbers, layout.encode())
        with header.within_memory(path):
            return as_floats(numbers.T if header.fortran_order else numbers), fingerprint

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        size = prod(shape) * dtype.itemsize
        if self._buffer.size < size:
            self._buffer = np.empty(size, dtype=np.uint8)
        return self._buffer[:size].view(dtype).reshape(shape)


def _find_kind(paths: Iterable[Path | None]) -> tuple[int, int]:
    """Axes and dimensions of the first file that can be read."""
    for path in filter(None, paths):
        with suppress(SequenceError):
            header = read_header(path)
            return len(header.shape), header.n_dims
    return 2, 0


def _compare_kinds(job: _Job, records: Sequence[_Record | None]) -> list[str]:
    """Describe the difference if files differ in their axes or dimensions."""
    kinds: dict[tuple[int, int], str] = {}
    for utterance, path, record in zip(
        job.manifest.utterances.tolist(), job.paths, records, strict=True
    ):
        if record is not None and record.fingerprint:
            kinds.setdefault((record.n_axes, record.n_dims), f"utterance {utterance!r}, {path}")
    if len(kinds) < 2:
        return []
    found = "; ".join(
        f"{'a' if axes == 2 else 'no'} time axis and {width} dimensions, first in {first}"
        for (axes, width), first in kinds.items()
    )
    return [
        f"modality {job.modality!r} has files of several kinds: {found}; all must be alike."
    ]


def _hash_content(job: _Job, records: Iterable[_Record | None]) -> str:
    """Hash utterances and numbers with SHA-256; paths and statistics are no part of it."""
    content = hashlib.sha256()
    for utterance, record in zip(job.manifest.utterances.tolist(), records, strict=True):
        # An unreadable file counts as a missing one: neither has numbers.
        fingerprint = (record.fingerprint if record is not None else "") or "missing"
        content.update(f"{json.dumps(utterance)} {fingerprint}\n".encode())
    return content.hexdigest()


def _count_outcomes(records: Sequence[_Record | None]) -> dict[str, int]:
    """Count the files and frames that were not as they should be."""
    files = [record for record in records if record is not None]
    counts = {
        "files_absent": len(records) - len(files),
        "files_unreadable": sum(not r.fingerprint for r in files),
        "files_without_finite_frames": sum(bool(r.fingerprint) and not r.pooled for r in files),
        "files_with_dropped_frames": sum(r.frames_dropped > 0 for r in files),
        "files_with_interpolated_frames": sum(r.frames_interpolated > 0 for r in files),
        "files_with_missing_dimensions": sum(r.dimensions_missing > 0 for r in files),
        "frames_dropped": sum(r.frames_dropped for r in files),
        "frames_interpolated": sum(r.frames_interpolated for r in files),
        "values_missing": sum(r.values_missing for r in files),
    }
    return {name: count for name, count in sorted(counts.items()) if count}


def count_columns(extractor: str, texts: Sequence[str]) -> int:
    """Count the columns of transcripts; an empty one is missing.

    Those of TF-IDF are 100, but fewer than transcripts, whatever is in these.
    """
    if extractor == HASHING:
        return _N_HASHED * len(NGRAMS)
    return max(min(_N_COMPONENTS, sum(map(bool, texts)) - 1), 1)


def pool_modality(
    manifest: Manifest,
    modality: str,
    extractor: str = "",
    *,
    cache: Path,
    n_dims: int | None = None,
    **options: Any,
) -> FeatureTable:
    """Pool the files of a modality, or its transcripts, or take the table from the cache.

    The table of ``hashing`` holds features. That of ``tfidf`` holds the transcripts, and NaN
    in place of features, which are fitted on training rows.

    - extractor: That of transcripts.
    - n_dims: Columns, where a model was trained on another number of transcripts.
    - options: Those of :func:`pool_manifest`, for files.
    """
    if modality not in manifest.texts:
        return pool_manifest(manifest, modality, cache=cache, **options)
    texts = manifest.texts[modality]
    present = np.array([text != "" for text in texts], dtype=bool)
    rows = json.dumps([manifest.utterances.tolist(), texts], ensure_ascii=True)
    digest = hashlib.sha256(rows.encode("ascii")).hexdigest()
    shape = (len(texts), n_dims or count_columns(extractor, texts))
    name = TableDraft.make_key(modality, (), extractor, str(shape), repr(NGRAMS), digest)
    cache = Path(cache).absolute()
    with TableDraft.lock(cache, name) as draft:
        if (finished := FeatureTable.load(cache / name)) is not None:
            return finished
        values = draft.create_values(shape)
        if extractor == HASHING:
            values[present] = _hash_ngrams([text for text in texts if text])
        values.flush()
        n_empty = int((~present).sum())
        return draft.save(
            name,
            present,
            np.zeros(len(texts), dtype=np.int64),
            modality=modality,
            statistics=[extractor],
            digest=digest,
            counts={"files_absent": n_empty} if n_empty else {},
            **({"texts": list(texts)} if extractor == TFIDF else {}),
        )


def _hash_ngrams(texts: Sequence[str]) -> NDArray[np.float32]:
    """Hash n-grams into columns, with signs; each kind has length 1, or 0 without n-grams."""
    from sklearn.feature_extraction.text import HashingVectorizer  # noqa: PLC0415  (slow)

    hashed = [
        HashingVectorizer(n_features=_N_HASHED, **kind).transform(texts).toarray()
        for kind in NGRAMS.values()
    ]
    return np.hstack(hashed).astype(np.float32)
