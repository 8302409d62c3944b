"""Every file of one modality, pooled into one table: row by row, in the manifest's order."""

import hashlib
import json
import logging
import os
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from toolkit.data import (
    Manifest,
    ManifestError,
    SequenceError,
    read_header,
    read_sequence,
    split_member,
)
from toolkit.pooling.frames import (
    FramesPolicy,
    NonFiniteError,
    check_frames_policy,
    clean_frames,
)
from toolkit.pooling.kernels import narrow, pool_frames
from toolkit.pooling.statistics import PRESETS, VALUE, resolve_statistics
from toolkit.pooling.table import FeatureTable, load_table, save_table, table_key

_LANES = 32
_BLOCK = 16 * _LANES  # words of 64 bits between two scrambles


class Reader:
    """Reads one file after the other into the same buffer; one for each thread.

    Fresh memory for every file would cost as much as pooling it: the system hands it out page
    by page.
    """

    def __init__(self) -> None:
        self._buffer = np.empty(0, dtype=np.uint8)

    def read(self, path: Path) -> tuple[NDArray[np.floating[Any]], bytes]:
        """Read a file.

        Returns
        -------
        sequence : ndarray of shape (n_frames, n_dims) or (n_dims,)
            As :func:`toolkit.data.read_sequence` gives it; valid until the next call.
        """
        if split_member(path) is not None:
            return self._read_member(path)
        header = read_header(path)
        size = header.n_bytes
        n_words = self._make_room(size)
        with path.open("rb", buffering=0) as file:
            file.seek(header.offset)
            filled = 0
            while filled < size:  # one call reads at most 2 GB
                n_read = file.readinto(self._buffer[filled:size].data)
                if not n_read:
                    raise SequenceError(f"{path} became shorter while it was read; run again.")
                filled += n_read
        self._buffer[size : 8 * n_words] = 0
        said = f"{header.dtype.str} {header.shape} {header.fortran_order}"
        fingerprint = fingerprint_words(self._buffer[: 8 * n_words].view(np.uint64), said)
        shape = header.shape[::-1] if header.fortran_order else header.shape
        numbers: NDArray[Any] = self._buffer[:size].view(header.dtype).reshape(shape)
        if header.fortran_order:
            numbers = numbers.T
        small = header.dtype.itemsize <= (4 if header.dtype.kind == "f" else 2)
        kind = np.dtype(np.float32 if small else np.float64)
        sequence: NDArray[np.floating[Any]] = np.ascontiguousarray(numbers, dtype=kind)
        return sequence, fingerprint

    def _read_member(self, path: Path) -> tuple[NDArray[np.floating[Any]], bytes]:
        sequence = read_sequence(path)
        n_words = self._make_room(sequence.nbytes)
        self._buffer[: sequence.nbytes] = sequence.reshape(-1).view(np.uint8)
        self._buffer[sequence.nbytes : 8 * n_words] = 0
        said = f"{sequence.dtype.str} {sequence.shape} False"
        words = self._buffer[: 8 * n_words].view(np.uint64)
        return sequence, fingerprint_words(words, said)

    def _make_room(self, size: int) -> int:
        """Grow the buffer to a whole number of blocks, and give their words."""
        n_words = -(-size // (8 * _BLOCK)) * _BLOCK
        if self._buffer.size < 8 * n_words:
            self._buffer = np.empty(8 * n_words, dtype=np.uint8)
        return n_words


def fingerprint_words(words: NDArray[np.uint64], said: str) -> bytes:
    """Hash numbers at the speed of memory.

    A cryptographic hash of a corpus would take longer than pooling it. Nobody gains by forging
    a collision here, so a fast mixture of the words is enough; only that is hashed by SHA-256.

    Parameters
    ----------
    said : str
        What else is part of the content, such as type and shape.
    """
    accumulators = np.zeros((2, _LANES), dtype=np.uint64)
    from toolkit.pooling import mixing  # noqa: PLC0415  (loads the compiler)

    mixing.mix_words(words, _SECRET, accumulators[0], accumulators[1])
    return hashlib.sha256(accumulators.tobytes() + said.encode()).digest()


_SECRET = np.frombuffer(
    hashlib.shake_256(b"modality-toolkit content").digest(8 * _BLOCK), dtype="<u8"
).astype(np.uint64)


POOLED, UNREADABLE, WITHOUT_FRAMES = range(3)

NOTE = np.dtype(
    [
        ("row", "<i8"),
        ("place", "V16"),  # hash of the path
        ("size", "<i8"),
        ("changed", "<i8"),  # nanoseconds: the later of the two times of the file
        ("seen", "<i8"),  # nanoseconds: when these were asked for
        ("fingerprint", "V32"),
        ("outcome", "<i4"),
        ("n_axes", "<i4"),
        ("n_dims", "<i8"),
        ("n_frames", "<i8"),
        ("frames_dropped", "<i8"),
        ("frames_interpolated", "<i8"),
        ("values_missing", "<i8"),
        ("row_checksum", "<u8"),
        ("checksum", "<u8"),
    ]
)
"""What is known of one file and its row."""

Notes = NDArray[np.void]

# File systems keep times in ticks of some milliseconds: a file that changed so shortly before
# it was looked at may have changed again within the same tick.
_SETTLED = 2_000_000_000


def hash_place(path: Path) -> bytes:
    """Hash the place of a file."""
    return hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).digest()[:16]


def is_settled(note: np.void) -> bool:
    """Whether the file's times tell for certain that it is unchanged."""
    return bool(note["seen"] - note["changed"] > _SETTLED)


def check_row(values: NDArray[np.float32]) -> int:
    """Checksum of a row of a table.

    Parameters
    ----------
    values : ndarray of shape (n_features,), float32
        Contiguous.
    """
    return zlib.crc32(np.ascontiguousarray(values).view(np.uint8).data)


def seal(note: np.void) -> None:
    """Set the checksum of a note."""
    note["checksum"] = zlib.crc32(note.tobytes()[:-8])


def keep_whole(notes: Notes) -> Notes:
    """Leave out notes that are not as they were written."""
    whole = [zlib.crc32(note.tobytes()[:-8]) == note["checksum"] for note in notes]
    return notes[np.array(whole, dtype=np.bool_)]


class Draft:
    """Values and journal of a table that is not finished.

    - folder: Where it is kept; created, or gone on with if it is of the same table.
    - shape: ``(n_utterances, n_features)``.
    - utterances: Ids of the rows.
    """

    OWN_FILES = ("plan", "journal")
    """What no finished table needs."""

    def __init__(self, folder: Path, shape: tuple[int, int], utterances: Sequence[str]) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        plan = hashlib.sha256(repr((shape, NOTE, tuple(utterances))).encode()).hexdigest()
        if not self._is_of(plan):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            np.lib.format.open_memmap(
                folder / "values.npy", mode="w+", dtype=np.float32, shape=shape
            ).flush()
            (folder / "journal").touch()
            (folder / "plan").write_text(plan, encoding="utf-8")
        self.n_features = shape[1]
        self._row_bytes = 4 * shape[1]
        self._offset = (folder / "values.npy").stat().st_size - shape[0] * self._row_bytes
        self._values = (folder / "values.npy").open("r+b", buffering=0)
        self._journal = (folder / "journal").open("r+b", buffering=0)
        self.notes = self._read_notes()

    def _is_of(self, plan: str) -> bool:
        try:
            return (self.folder / "plan").read_text(encoding="utf-8") == plan
        except (OSError, UnicodeDecodeError):
            return False

    def _read_notes(self) -> Notes:
        """Read the notes whose rows are as noted; cut off what follows the last whole note."""
        content = self._journal.read()
        n_notes = len(content) // NOTE.itemsize
        self._journal.truncate(n_notes * NOTE.itemsize)
        self._journal.seek(0, 2)
        notes = keep_whole(np.frombuffer(content, dtype=NOTE, count=n_notes))
        whole = [
            note["outcome"] != POOLED
            or check_row(self.read(int(note["row"]))) == note["row_checksum"]
            for note in notes
        ]
        return notes[np.array(whole, dtype=np.bool_)]

    def read(self, row: int) -> NDArray[np.float32]:
        """Read a row back.

        Returns
        -------
        ndarray of shape (n_features,), float32
            Its values.
        """
        with self._lock:
            self._values.seek(self._offset + row * self._row_bytes)
            return np.frombuffer(self._values.read(self._row_bytes), dtype=np.float32)

    def write(self, note: np.void, values: NDArray[np.float32]) -> None:
        """Write a row, then note that it is done.

        Parameters
        ----------
        values : ndarray of shape (n_features,), float32
            The row.
        """
        content = np.ascontiguousarray(values).view(np.uint8).data
        note["row_checksum"] = zlib.crc32(content)
        seal(note)
        with self._lock:
            self._values.seek(self._offset + int(note["row"]) * self._row_bytes)
            _write_all(self._values, content)
            _write_all(self._journal, note.tobytes())

    def write_note(self, note: np.void) -> None:
        """Note a file that gives no row."""
        seal(note)
        with self._lock:
            _write_all(self._journal, note.tobytes())

    def leave_out(self, row: int) -> None:
        """Fill the row of a missing modality with NaN."""
        missing = np.full(self.n_features, np.nan, dtype=np.float32)
        with self._lock:
            self._values.seek(self._offset + row * self._row_bytes)
            _write_all(self._values, missing.view(np.uint8).data)

    def close(self) -> None:
        """Close the files; the draft stays."""
        self._values.close()
        self._journal.close()


def _write_all(file: Any, content: Any) -> None:
    view = memoryview(content)
    while view:  # one call writes at most 2 GB
        view = view[file.write(view) :]


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


logger = logging.getLogger(__name__)

#: Files that a thread takes at a time: handing out small ones singly took longer than pooling.
_AT_ONCE: Final = 16

#: Bytes of a file from which on another thread helps. Smaller ones are read and summed in the
#: time that two threads take to hand the interpreter to each other.
_WORTH_A_THREAD: Final = 1 << 18


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

    Files are read and pooled one by one, so that memory does not grow with the corpus. One
    that was stopped goes on where it was; of a corpus that changed, only the files that
    changed are pooled again.

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
        What becomes of frames that are not finite.
    progress : callable, optional
        Told the number of files pooled and their total.
    n_threads : int, default=1
        Files that are pooled at the same time, where they are large enough for that to help;
        the table is the same.

    Returns
    -------
    FeatureTable
        One row an utterance, in the manifest's order.

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
    corpus = _Corpus(manifest, modality, names, missing, frames, Path(cache).absolute())
    corpus.cache.mkdir(parents=True, exist_ok=True)
    # Two processes that want the same table take turns; the second finds it finished.
    with FileLock(corpus.beside("lock")):
        return corpus.find() or corpus.pool(progress, n_threads)


@dataclass(slots=True)
class _Corpus:
    """The files of one modality, and what is known of them."""

    manifest: Manifest
    modality: str
    statistics: tuple[str, ...]
    missing: str
    frames: FramesPolicy
    cache: Path
    name: str = ""
    known: dict[bytes, np.void] = field(default_factory=dict)
    source: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        root = str(self.manifest.root)
        self.name = table_key(self.modality, self.statistics, self.missing, self.frames, root)

    @property
    def paths(self) -> tuple[Path | None, ...]:
        return self.manifest.paths[self.modality]

    def beside(self, suffix: str) -> Path:
        """Place of what is kept beside the tables of this corpus."""
        return self.cache / f".{self.name}.{suffix}"

    def find(self) -> FeatureTable | None:
        """Take the finished table, if no file has changed since."""
        self._read_index()
        notes: list[np.void | None] = []
        for row, path in enumerate(self.paths):
            note = None if path is None else self.known.get(hash_place(path))
            if path is not None and (note is None or not is_unchanged(note, path)):
                return None
            if note is not None:
                note = note.copy()
                note["row"] = row
            notes.append(note)
        return load_table(self._folder(self._digest(notes)))

    def pool(self, progress: Callable[[int, int], None] | None, n_threads: int) -> FeatureTable:
        """Pool what is not known yet, and finish the table."""
        n_axes, n_dims = self._find_kind()
        kept = self.statistics if n_axes == 2 else (VALUE,)
        shape = len(self.paths), max(len(kept) * n_dims, 1)
        utterances = self.manifest.utterances.tolist()
        draft = Draft(self.beside("draft"), shape, utterances)
        try:
            done = self._run(draft, progress, n_threads)
            problems = [problem for problem in done if isinstance(problem, str)]
            notes = [None if isinstance(note, str) else note for note in done]
            problems = [*self._find_kinds(notes), *problems]
            if not problems and all(n is None or n["outcome"] != POOLED for n in notes):
                problems = [f"modality {self.modality!r} has no file at all."]
            if problems:
                raise ManifestError(problems, source=self.manifest.source)
            present = np.array([n is not None and n["outcome"] == POOLED for n in notes])
            for row in np.flatnonzero(~present).tolist():
                draft.leave_out(row)
        finally:
            draft.close()
        n_frames = np.array([0 if n is None else n["n_frames"] for n in notes], np.int64)
        digest = self._digest(notes)
        self.source = None  # or a damaged folder could not be replaced on every system
        table = save_table(
            draft.folder,
            self._folder(digest),
            modality=self.modality,
            statistics=kept,
            present=present,
            n_frames=n_frames,
            digest=digest,
            counts=count_notes(notes),
        )
        self._write_index(notes, self._folder(digest).name)
        for name in Draft.OWN_FILES:
            (self._folder(digest) / name).unlink(missing_ok=True)
        return table

    def _run(
        self, draft: Draft, progress: Callable[[int, int], None] | None, n_threads: int
    ) -> list[np.void | str | None]:
        begun = {int(note["row"]): note for note in draft.notes}
        of_thread = threading.local()

        def pool(row: int) -> np.void | str | None:
            if not hasattr(of_thread, "reader"):
                of_thread.reader = Reader()
            path = self.paths[row]
            if path is None:
                return None
            return self._pool_row(row, path, begun.get(row), draft, of_thread.reader)

        total = len(self.paths)
        done: list[np.void | str | None] = []
        start = time.perf_counter()

        def follow(results: Iterable[np.void | str | None]) -> None:
            for result in results:
                if progress is not None:
                    progress(len(done), total)
                done.append(result)

        def pool_some(first: int) -> list[np.void | str | None]:
            return [pool(row) for row in range(first, min(first + _AT_ONCE, total))]

        if n_threads > 1 and self._are_large():
            with ThreadPoolExecutor(n_threads) as threads:
                some = threads.map(pool_some, range(0, total, _AT_ONCE))
                follow(chain.from_iterable(some))
        else:
            follow(map(pool, range(total)))
        size = sum(int(n["size"]) for n in done if n is not None and not isinstance(n, str))
        rate = size / 1e6 / max(time.perf_counter() - start, 1e-9)
        logger.debug("%s: %.0f MB pooled at %.0f MB/s", self.modality, size / 1e6, rate)
        return done

    def _are_large(self) -> bool:
        """Whether the first files are, on the whole, worth a thread."""
        first = [note_file(0, path) for path in self.paths[:64] if path is not None]
        return sum(int(note["size"]) for note in first) >= _WORTH_A_THREAD * len(first)

    def _pool_row(
        self, row: int, path: Path, begun: np.void | None, draft: Draft, reader: Reader
    ) -> np.void | str:
        """Fill one row; give what is known of it, or what stands against it."""
        place = hash_place(path)
        if begun is not None and begun["place"].tobytes() != place:
            begun = None
        known = self.known.get(place)
        if begun is not None and is_unchanged(begun, path):
            return begun
        if known is not None and is_unchanged(known, path):
            again = self._copy_row(row, known, known, draft)
            if again is not None:
                return again
        try:
            return self._read_row(row, path, [begun, known], draft, reader)
        except SequenceError as error:
            if self.missing == "refuse":
                return f"{self._where(row)}: {error}"
            note = note_file(row, path)
            note["outcome"] = UNREADABLE
            draft.write_note(note)
            return note
        except ValueError as error:
            return f"{self._where(row)}, {path}: {error}"

    def _where(self, row: int) -> str:
        return f"utterance {str(self.manifest.utterances[row])!r}, modality {self.modality!r}"

    def _read_row(
        self,
        row: int,
        path: Path,
        others: Sequence[np.void | None],
        draft: Draft,
        reader: Reader,
    ) -> np.void:
        """Read a file, and pool it if its content is none that was pooled before."""
        note = note_file(row, path)
        sequence, fingerprint = reader.read(path)
        note["fingerprint"] = fingerprint
        note["n_axes"], note["n_dims"] = sequence.ndim, sequence.shape[-1]
        for other in others:
            if other is not None and other["fingerprint"].tobytes() == fingerprint:
                again = self._copy_row(row, note, other, draft)
                if again is not None:
                    return again
        values = pool_row(
            sequence,
            note,
            statistics=self.statistics,
            frames=self.frames,
            missing=self.missing,
        )
        if values is None:
            draft.write_note(note)
        elif values.size == draft.n_features:  # else it is refused in the end
            draft.write(note, values)
        return note

    def _copy_row(
        self, row: int, seen: np.void, other: np.void, draft: Draft
    ) -> np.void | None:
        """Take a row that was pooled before, if it is still as it was."""
        note = other.copy()
        for name in ("place", "size", "changed", "seen"):
            note[name] = seen[name]
        note["row"] = row
        if other["outcome"] != POOLED:
            draft.write_note(note)
            return note
        for values in (self._read_source(int(other["row"])), draft.read(int(other["row"]))):
            if values.size == draft.n_features and check_row(values) == other["row_checksum"]:
                draft.write(note, values)
                return note
        return None

    def _read_source(self, row: int) -> NDArray[np.float32]:
        if self.source is None or row >= len(self.source):
            return np.empty(0, dtype=np.float32)
        return np.asarray(self.source[row])

    def _find_kind(self) -> tuple[int, int]:
        """Axes and dimensions of the first file that can be read."""
        for path in self.paths:
            if path is not None:
                try:
                    header = read_header(path)
                except SequenceError:
                    continue
                return len(header.shape), header.n_dims
        return 2, 0

    def _find_kinds(self, notes: Sequence[np.void | None]) -> list[str]:
        """Say so if files differ in their axes or dimensions."""
        kinds: dict[tuple[int, int], str] = {}
        for row, note in enumerate(notes):
            if note is not None and note["outcome"] != UNREADABLE:
                where = f"utterance {str(self.manifest.utterances[row])!r}, {self.paths[row]}"
                kinds.setdefault((int(note["n_axes"]), int(note["n_dims"])), where)
        if len(kinds) < 2:
            return []
        seen = "; ".join(
            f"{'a' if axes == 2 else 'no'} time axis and {width} dimensions, first in {first}"
            for (axes, width), first in kinds.items()
        )
        return [
            f"modality {self.modality!r} has files of several kinds: {seen}; all must be alike."
        ]

    def _digest(self, notes: Iterable[np.void | None]) -> str:
        """Hash the content of the modality: neither places nor statistics are part of it."""
        content = hashlib.sha256()
        for utterance, note in zip(self.manifest.utterances.tolist(), notes, strict=True):
            found = "missing"
            if note is not None and note["outcome"] != UNREADABLE:
                found = note["fingerprint"].tobytes().hex()
            content.update(f"{json.dumps(utterance)} {found}\n".encode())
        return content.hexdigest()

    def _folder(self, digest: str) -> Path:
        key = table_key(self.modality, self.statistics, self.missing, self.frames, digest)
        return self.cache / key

    def _read_index(self) -> None:
        """Read what the last finished table of these files was made of."""
        try:
            with np.load(self.beside("index.npz"), allow_pickle=False) as index:
                notes: Notes = keep_whole(index["notes"])
                folder = self.cache / str(index["folder"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return
        self.known = {note["place"].tobytes(): note for note in notes}
        try:
            self.source = np.load(folder / "values.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            self.source = None

    def _write_index(self, notes: Sequence[np.void | None], folder: str) -> None:
        there = [note for note in notes if note is not None]
        draft = self.beside(f"{os.getpid()}.npz")
        np.savez(draft, notes=np.array(there, dtype=NOTE), folder=np.array(folder))
        draft.replace(self.beside("index.npz"))
