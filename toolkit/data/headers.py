"""Headers of feature files: parsed, checked, and refused with a reason."""

import ast
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

LEAVE_EMPTY = "Leave its cell in the table empty if the modality is missing there."
_MAGIC = b"\x93NUMPY"

# The form that numpy writes takes this fast path: np.load costs 87 us per small file.
_USUAL_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[a-zA-Z]\d{1,3})', 'fortran_order': (True|False), "
    rb"'shape': \((\d{1,15}), ?(\d{1,15})?\), \}\s*"
)
_TYPE = re.compile(r"[<>|=]?([a-zA-Z?])\d*(\[\w+\])?")
# No mark means the byte order of the machine that wrote the file, mostly little-endian.
_NUMBERS = {
    mark + code: np.dtype((">" if mark == ">" else "<") + code)
    for mark in ("<", ">", "|", "=", "")
    for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
}
_SAVE_NUMBERS = "save numbers with np.save(path, array.astype(np.float32))"
_REFUSED_TYPES = {
    "O": "Python objects, which only unpickling could read and that can run any code; "
    "save a plain array, one file per utterance",
    **dict.fromkeys("SaU", f"text; {_SAVE_NUMBERS}"),
    "c": "complex numbers; save real parts and imaginary parts, or magnitudes, as "
    "separate dimensions",
    **dict.fromkeys(
        "b?", "true/false values; if they are features, save array.astype(np.float32)"
    ),
    "V": "raw bytes (bfloat16 is saved so too); save array.astype(np.float32)",
    "M": "dates; save a number of seconds instead",
    "m": "time spans; save a number of seconds instead",
}
_OTHER_BEGINNINGS = {
    b"PK\x03\x04": "an .npz archive or another zip file; save the array with np.save",
    b"PK\x05\x06": "an .npz archive without any array; save the array with np.save",
    b"\x89HDF": "an HDF5 file; save the array with np.save",
    b"\x80": "a Python pickle, which can run any code; save the array with np.save",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file with git lfs pull",
    b"<": "a web page, perhaps a failed download; fetch the file again",
}


class SequenceError(ValueError):
    """A feature file is no sequence of numbers; the message names file, fault and remedy.

    - shape: Shape of an array that is no sequence; empty for every other fault.
    """

    shape: tuple[int, ...] = ()


def _describe_other(start: bytes) -> str:
    """Describe a file that does not begin like a ``.npy`` file."""
    if not start:
        return (
            "is empty (0 bytes). Write the file again, or leave its cell in the table empty "
            "if the modality is missing there"
        )
    if _MAGIC.startswith(start):
        return "is cut short inside its first bytes; copy or write the file again"
    for beginning, name in _OTHER_BEGINNINGS.items():
        if start.startswith(beginning):
            return f"is no .npy file but {name}"
    return (
        f"is no .npy file: it begins with {start[:6]!r}, expected {_MAGIC!r}. "
        "Save the array with np.save"
    )


def _parse_header(
    text: bytes, path: Path | str, *, version: tuple[int, ...] = (1, 0)
) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Parse the text of a header into shape, type and whether the order is Fortran's."""
    if usual := _USUAL_HEADER.fullmatch(text):
        descr, fortran_order, first, second = usual.groups()
        shape = (int(first),) if second is None else (int(first), int(second))
        return shape, _parse_type(descr.decode("ascii"), path), fortran_order == b"True"
    try:
        # Python 2 wrote its long integers with an L.
        source = re.sub(
            r"(\d)L\b", r"\1", text.decode("utf-8" if version >= (3, 0) else "latin-1")
        )
        fields = ast.literal_eval(source)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise SequenceError(
            f"{path} has an unreadable header {text[:60]!r}; {_SAVE_NUMBERS}."
        ) from error
    if (
        not isinstance(fields, dict)
        or fields.keys() != {"descr", "fortran_order", "shape"}
        or not isinstance(fields["fortran_order"], bool)
        or not isinstance(fields["shape"], tuple)
        or not all(type(size) is int and 0 <= size < 2**63 for size in fields["shape"])
    ):
        raise SequenceError(
            f"{path} has a header that describes no array, {text[:60]!r}; expected descr, "
            f"fortran_order and a shape of numbers from 0. To repair it, {_SAVE_NUMBERS}."
        )
    return fields["shape"], _parse_type(fields["descr"], path), fields["fortran_order"]


def _parse_type(descr: object, path: Path | str) -> np.dtype[Any]:
    if not isinstance(descr, str):
        raise SequenceError(
            f"{path} holds records of several fields (a structured array); expected numbers. "
            "Save the fields as the columns of one array of floats."
        )
    if dtype := _NUMBERS.get(descr):
        return dtype
    parts = _TYPE.fullmatch(descr)
    if parts is None:
        raise SequenceError(f"{path} has the unknown type {descr!r}; {_SAVE_NUMBERS}.")
    kind = parts[1]
    if kind in _REFUSED_TYPES:
        raise SequenceError(f"{path} is of type {descr} and holds {_REFUSED_TYPES[kind]}.")
    raise SequenceError(
        f"{path} is of type {descr}; expected integers or floats of at most 64 bits: "
        f"{_SAVE_NUMBERS}."
    )


# A header of plain numbers takes under 130 bytes; 10,000 is numpy's own bound on what is
# safe to hand to ast.literal_eval. Four length bytes could announce 4 GB.
LONGEST_HEADER = 10_000
FIRST_READ = LONGEST_HEADER + 12  # with the bytes before the header

# Real features shrink to a half or a tenth; zeros shrink to a thousandth and fill the memory.
_MOST_EXPANDED = 256 << 20
_MOST_TIMES = 200


@dataclass(frozen=True, slots=True)
class SequenceHeader:
    """The header of a feature file, checked against the size of the file.

    - shape: ``(n_frames, n_dims)``, or ``(n_dims,)`` without a time axis; no size is 0.
    - dtype: Type of the numbers, in the byte order of the file.
    - offset: Position of the first number in the file, in bytes.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    offset: int

    @classmethod
    def parse(cls, start: bytes, size: int, path: Path | str) -> Self:
        """Parse and check the header in the first bytes, FIRST_READ, of a file of `size`."""
        if not start.startswith(_MAGIC):
            raise SequenceError(f"{path} {_describe_other(start)}.")
        version = tuple(start[6:8])
        if len(version) == 2 and version not in {(1, 0), (2, 0), (3, 0)}:
            raise SequenceError(
                f"{path} is written in version {version[0]}.{version[1]} of the .npy format; "
                "versions 1.0, 2.0 and 3.0 are known. Save it again with np.save."
            )
        begin = 10 if version == (1, 0) else 12
        length = int.from_bytes(start[8:begin], "little")
        if length > LONGEST_HEADER:
            raise SequenceError(
                f"{path} announces a header of {length:,} bytes; a plain array of numbers "
                "needs about 120. Copy the file again, or save its array alone with np.save."
            )
        end = begin + length
        if len(start) < end or len(start) < begin:
            raise SequenceError(
                f"{path} is cut short inside its header; copy or write the file again."
            )
        header = cls(*_parse_header(start[begin:end], path, version=version), end)
        header.check_shape(path)
        expected = end + header.n_bytes
        if size < expected:
            raise SequenceError(
                f"{path} is cut short: shape {header.shape} of {header.dtype.name} needs "
                f"{expected:,} bytes and the file has {size:,}. Copy or write the file again."
            )
        if size > expected:
            raise SequenceError(
                f"{path} has {size - expected:,} bytes after its array of shape "
                f"{header.shape}. Perhaps two arrays were saved into one file: save each into "
                "its own."
            )
        return header

    @classmethod
    def of_array(
        cls, shape: tuple[int, ...], dtype: DTypeLike, stored: int, path: Path | str
    ) -> Self:
        """Refuse arrays that are no sequence, or expand too much from `stored` bytes."""
        dtype = np.dtype(dtype)
        if dtype.kind not in "fiu" or dtype.itemsize > 8:
            shown = f"{dtype!s:.80}" + "..." * (len(str(dtype)) > 80)
            raise SequenceError(
                f"{path} is of type {shown}; expected integers or floats of at most 64 bits. "
                "Save numbers, for example as float32."
            )
        header = cls(shape, dtype, fortran_order=False, offset=0)
        header.check_shape(path)
        if header.n_bytes > max(_MOST_EXPANDED, _MOST_TIMES * stored):
            raise SequenceError(
                f"{path} takes {stored:,} bytes in its file and would expand to "
                f"{header.n_bytes:,}, more than {_MOST_TIMES} times as many. Features do not "
                "shrink so much: write the file again, uncompressed if these numbers are right."
            )
        return header

    @property
    def n_dims(self) -> int:
        """Number of dimensions of one frame, or of the whole fixed-size feature."""
        return self.shape[-1]

    @property
    def n_bytes(self) -> int:
        """Size of the numbers in the file, without the header."""
        return prod(self.shape) * self.dtype.itemsize

    @contextmanager
    def within_memory(self, path: Path | str) -> Iterator[None]:
        """Refuse numbers that do not fit into the memory, before or while the block reads."""
        fault = (
            f"{path} holds {self.n_bytes:,} bytes of numbers, more than the memory takes. Cut "
            "the recording into utterances, or use a machine with more memory."
        )
        if hasattr(os, "sysconf"):
            # Memory is given out before it is there: filling it would end the process.
            memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            if 0 < memory < self.n_bytes:
                raise SequenceError(fault)
        try:
            yield
        except MemoryError:
            raise SequenceError(fault) from None

    def check_shape(self, path: Path | str) -> None:
        """Refuse arrays that are no sequence."""
        shape = self.shape
        if len(shape) == 0:
            raise SequenceError(
                f"{path} holds a single number without an axis; expected (n_frames, n_dims) or "
                "(n_dims,). Save a feature of one dimension with shape (1,)."
            )
        if len(shape) > 2:
            remedy = "array.reshape(len(array), -1)"
            if len(shape) == 3 and shape[0] == 1:
                remedy = "array[0] if the second axis is time, array[0].T if the third is"
            error = SequenceError(
                f"{path} has {len(shape)} axes, shape {shape}; expected (n_frames, n_dims) or "
                f"(n_dims,). Save {remedy}, or whatever puts one frame in a row."
            )
            error.shape = shape
            raise error
        if shape[-1] == 0:
            raise SequenceError(
                f"{path} has no dimensions, shape {shape}; expected at least one number"
                f"{' a frame' if len(shape) == 2 else ''}. Write the file again."
            )
        if shape[0] == 0:
            raise SequenceError(
                f"{path} has no frames, shape {shape}; expected at least one. {LEAVE_EMPTY}"
            )
