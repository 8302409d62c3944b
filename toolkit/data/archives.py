"""Arrays in ``.npz`` archives, read without trusting what the archive says of itself."""

import zlib
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from toolkit.data.containers import Member, Remembered, check_array, choose, sign
from toolkit.data.headers import LONGEST_HEADER, SequenceError, SequenceHeader, parse_start

_LOCAL_HEADER = 30
_last = Remembered()


def read_npz(
    member: Member, path: Path | str, *, numbers: bool
) -> tuple[SequenceHeader, NDArray[Any] | None]:
    """Read one array of an ``.npz`` archive."""
    entries = _list_entries(member.file)
    entry = entries[choose(tuple(entries), path)]
    packed = _read_packed(entry, member.file, path)
    start = _unpack(entry, packed, LONGEST_HEADER + 20, path)
    header = parse_start(start, entry.file_size, path, more=lambda _: b"")
    check_array(header.shape, header.dtype, len(packed), path)
    if not numbers:
        return header, None
    content = _unpack(entry, packed, entry.file_size + 1, path)
    if len(content) != entry.file_size or zlib.crc32(content) != entry.CRC:
        raise SequenceError(
            f"{path} is damaged: its checksum does not hold. Copy or write the file again."
        )
    flat = np.frombuffer(content, header.dtype, offset=header.offset)
    if header.fortran_order:
        return header, flat.reshape(header.shape[::-1]).T
    return header, flat.reshape(header.shape)


def _list_entries(file: Path) -> dict[str, ZipInfo]:
    signature = sign(file)
    if _last.signature != signature:
        try:
            with ZipFile(file) as archive:
                entries = archive.infolist()
        # zipfile calls an archive of a later version than it knows "not implemented".
        except (BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise SequenceError(
                f"{file} cannot be read as an .npz archive: {error}. Write the file again with "
                "np.savez."
            ) from error
        _last.content = {
            entry.filename.removesuffix(".npy"): entry
            for entry in entries
            if entry.filename.endswith(".npy")
        }
        _last.signature = signature
    content: dict[str, ZipInfo] = _last.content
    return content


def _read_packed(entry: ZipInfo, file: Path, path: Path | str) -> bytes:
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
    """Expand at most so many bytes."""
    if entry.compress_type == ZIP_STORED:
        return packed[:most]
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, most)
    except zlib.error as error:
        raise SequenceError(
            f"{path} is damaged ({error}); copy or write the file again."
        ) from error
