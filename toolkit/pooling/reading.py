"""Feature files read into memory that is used again, with a fingerprint of their content."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.data import SequenceError, read_header, read_sequence, split_member

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
    from toolkit.pooling import mixing  # noqa: PLC0415  (loads the compiler)

    accumulators = np.zeros((2, _LANES), dtype=np.uint64)
    mixing.mix_words(words, _SECRET, accumulators[0], accumulators[1])
    return hashlib.sha256(accumulators.tobytes() + said.encode()).digest()


_SECRET = np.frombuffer(
    hashlib.shake_256(b"modality-toolkit content").digest(8 * _BLOCK), dtype="<u8"
).astype(np.uint64)
