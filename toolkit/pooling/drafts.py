"""A table in the making: rows written in place, and a journal of those that are done.

Whatever stops a pooling, the rows noted in the journal stay: each note has a checksum of
itself and of its row, so that a torn end or a row that never reached the disk is seen. The
notes of the last finished table of the same files serve in the same way: a file that has not
changed since gives its row without being read, one that was only touched without being pooled.
"""

import hashlib
import shutil
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
