"""The header of a ``.npy`` file, read without trusting it.

The format is described in :mod:`numpy.lib.format`: its header is a Python dictionary as text.
numpy's own readers take it from an open file, any type in it, and cost as much as reading a
small file; here bytes go in, and only plain numbers come out.
"""

import ast
import re
from types import MappingProxyType
from typing import Any

import numpy as np

MAGIC = b"\x93NUMPY"
"""How every ``.npy`` file begins."""

# What numpy and the other usual writers put there; anything else takes the slow way round.
_USUAL_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[a-zA-Z]\d{1,3})', 'fortran_order': (True|False), "
    rb"'shape': \((\d{1,15}), ?(\d{1,15})?\), \}\s*"
)
_TYPE = re.compile(r"[<>|=]?([a-zA-Z?])\d*(\[\w+\])?")
# No mark means the byte order of the machine that wrote the file, most likely little-endian.
_NUMBERS = MappingProxyType(
    {
        mark + code: np.dtype((">" if mark == ">" else "<") + code)
        for mark in ("<", ">", "|", "=", "")
        for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
    }
)
_SAVE_NUMBERS = "save numbers with np.save(path, array.astype(np.float32))"
_REFUSED_TYPES = MappingProxyType(
    {
        "O": "Python objects, which only unpickling could read and that can run any code; "
        "save a plain array, one file an utterance",
        "S": f"text; {_SAVE_NUMBERS}",
        "a": f"text; {_SAVE_NUMBERS}",
        "U": f"text; {_SAVE_NUMBERS}",
        "c": "complex numbers; save real parts and imaginary parts, or magnitudes, as "
        "separate dimensions",
        "b": "true/false values; if they are features, save array.astype(np.float32)",
        "?": "true/false values; if they are features, save array.astype(np.float32)",
        "V": "raw bytes (bfloat16 is saved so too); save array.astype(np.float32)",
        "M": "dates; save a number of seconds instead",
        "m": "time spans; save a number of seconds instead",
    }
)
_OTHER_BEGINNINGS = MappingProxyType(
    {
        b"PK\x03\x04": "an .npz archive or another zip file; save the array with np.save",
        b"PK\x05\x06": "an .npz archive without any array; save the array with np.save",
        b"\x89HDF": "an HDF5 file; save the array with np.save",
        b"\x80": "a Python pickle, which can run any code; save the array with np.save",
        b"version https://git-lfs": "a Git LFS pointer; fetch the file with git lfs pull",
        b"<": "a web page, perhaps a failed download; fetch the file again",
    }
)


class HeaderError(ValueError):
    """A header describes no array of numbers; the message lacks the name of the file."""


def describe_other(start: bytes) -> str:
    r"""Say what a file is that does not begin as a ``.npy`` file.

    Examples
    --------
    >>> describe_other(b"\x89HDF\r\n")
    'is no .npy file but an HDF5 file; save the array with np.save'
    """
    if not start:
        return (
            "is empty (0 bytes). Write the file again, or leave its cell in the table empty "
            "if the modality is missing there"
        )
    if MAGIC.startswith(start):
        return "is cut short inside its first bytes; copy or write the file again"
    for beginning, name in _OTHER_BEGINNINGS.items():
        if start.startswith(beginning):
            return f"is no .npy file but {name}"
    return (
        f"is no .npy file: it begins with {start[:6]!r}, expected {MAGIC!r}. "
        "Save the array with np.save"
    )


def parse_header(
    text: bytes, version: tuple[int, ...] = (1, 0)
) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    r"""Read what a header says.

    Returns
    -------
    shape : tuple of int
        Any number of sizes from 0.

    Examples
    --------
    >>> parse_header(b"{'descr': '>f8', 'fortran_order': False, 'shape': (90, 25), }\n")
    ((90, 25), dtype('>f8'), False)
    """
    if usual := _USUAL_HEADER.fullmatch(text):
        descr, fortran_order, first, second = usual.groups()
        shape = (int(first),) if second is None else (int(first), int(second))
        return shape, _parse_type(descr.decode("ascii")), fortran_order == b"True"
    try:
        # Python 2 wrote its long integers with an L.
        source = re.sub(
            r"(\d)L\b", r"\1", text.decode("utf-8" if version >= (3, 0) else "latin-1")
        )
        fields = ast.literal_eval(source)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise HeaderError(
            f"has an unreadable header {text[:60]!r}; {_SAVE_NUMBERS}."
        ) from error
    if (
        not isinstance(fields, dict)
        or fields.keys() != {"descr", "fortran_order", "shape"}
        or not isinstance(fields["fortran_order"], bool)
        or not isinstance(fields["shape"], tuple)
        or not all(type(size) is int and 0 <= size < 2**63 for size in fields["shape"])
    ):
        raise HeaderError(
            f"has a header that describes no array, {text[:60]!r}; expected descr, "
            f"fortran_order and a shape of numbers from 0. To mend it, {_SAVE_NUMBERS}."
        )
    return fields["shape"], _parse_type(fields["descr"]), fields["fortran_order"]


def _parse_type(descr: object) -> np.dtype[Any]:
    if not isinstance(descr, str):
        raise HeaderError(
            "holds records of several fields (a structured array); expected numbers. "
            "Save the fields as the columns of one array of floats."
        )
    if dtype := _NUMBERS.get(descr):
        return dtype
    parts = _TYPE.fullmatch(descr)
    if parts is None:
        raise HeaderError(f"has the unknown type {descr!r}; {_SAVE_NUMBERS}.")
    kind = parts.group(1)
    if kind in _REFUSED_TYPES:
        raise HeaderError(f"is of type {descr} and holds {_REFUSED_TYPES[kind]}.")
    raise HeaderError(
        f"is of type {descr}; expected integers or floats of at most 64 bits: {_SAVE_NUMBERS}."
    )
