"""Every file of one modality, pooled into one table: row by row, in the manifest's order."""

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final, Literal
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from toolkit.data import (
    Manifest,
    ManifestError,
    SequenceError,
    read_header,
)
from toolkit.pooling.cache import load_table, save_table, table_key
from toolkit.pooling.drafts import (
    NOTE,
    POOLED,
    UNREADABLE,
    Draft,
    Notes,
    check_row,
    hash_place,
    keep_whole,
)
from toolkit.pooling.nonfinite import FramesPolicy, check_frames_policy
from toolkit.pooling.reading import Reader
from toolkit.pooling.rows import count_notes, is_unchanged, note_file, pool_row
from toolkit.pooling.statistics import PRESETS, VALUE, resolve_statistics
from toolkit.pooling.table import FeatureTable

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
