"""Pooled tables on disk: keyed by content, seen only when finished, checked on the way in.

A table's folder holds ``values.npy``, ``rows.npz`` and ``table.json`` with the checksums of the
two. It is made as a draft beside its final place and renamed, so what can be seen is complete;
one that was torn or changed afterwards is made again.
"""

import hashlib
import inspect
import json
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.pooling.names import feature_names
from toolkit.pooling.statistics import BUILT_IN, STATISTICS
from toolkit.pooling.table import FeatureTable

_RECORD = "table.json"
#: Part of every table's key. Raise it with every change of the numbers that pooling gives;
#: a test holds the numbers of each version.
POOLING_VERSION = "1"


def table_key(modality: str, statistics: Sequence[str], *decided: str) -> str:
    """Name a table by all that decides its bytes."""
    own = [_describe_own(name) for name in statistics if name not in BUILT_IN]
    said = json.dumps([POOLING_VERSION, modality, list(statistics), own, list(decided)])
    return f"{modality}-{hashlib.sha256(said.encode()).hexdigest()[:24]}"


def _describe_own(name: str) -> str:
    """Describe the code of a statistic, and what it holds: two may differ in that alone."""
    function = STATISTICS[name]
    closure = getattr(function, "__closure__", None) or ()
    held = [repr(cell.cell_contents) for cell in closure]
    held.append(repr(getattr(function, "__defaults__", None)))
    held.append(repr(getattr(function, "__kwdefaults__", None)))
    try:
        code = inspect.getsource(function)
    except (OSError, TypeError):  # typed into a console, or not a function
        known = getattr(function, "__code__", None)
        code = f"{known.co_code!r} {known.co_consts!r}" if known else repr(function)
    return "\n".join([code, *held])


def save_table(
    draft: Path,
    folder: Path,
    *,
    modality: str,
    statistics: Sequence[str],
    present: NDArray[np.bool_],
    n_frames: NDArray[np.int64],
    digest: str,
    counts: Mapping[str, int],
) -> FeatureTable:
    """Finish a draft that holds ``values.npy``, put it in its place, and open it."""
    np.savez(draft / "rows.npz", present=present, n_frames=n_frames)
    record = {
        "modality": modality,
        "statistics": list(statistics),
        "digest": digest,
        "counts": dict(counts),
        "checksums": {name: _check_file(draft / name) for name in ("values.npy", "rows.npz")},
    }
    said = json.dumps(record, indent=1, sort_keys=True)
    (draft / _RECORD).write_text(f"{said}\n{zlib.crc32(said.encode())}\n", encoding="utf-8")
    for path in draft.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    table = load_table(folder)
    if table is not None:
        shutil.rmtree(draft)
        return table
    shutil.rmtree(folder, ignore_errors=True)
    try:
        draft.rename(folder)
    except OSError as error:
        shutil.rmtree(draft)
        table = load_table(folder)  # another process may have been quicker, with the same bytes
        if table is None:
            raise OSError(
                f"The pooled table in {folder} cannot be kept there: is the disk full?"
            ) from error
        return table
    return _open_table(folder, record)  # the checksums were taken a moment ago


def load_table(folder: Path) -> FeatureTable | None:
    """Open a table that was pooled before.

    Parameters
    ----------
    folder : Path
        The table's folder.

    Returns
    -------
    FeatureTable or None
        Memory-mapped; None if there is none, or not one byte for byte as it was written.
    """
    try:
        said, checksum = (folder / _RECORD).read_text(encoding="utf-8").rsplit("\n", 2)[:2]
        if zlib.crc32(said.encode()) != int(checksum):
            return None
        record = json.loads(said)
        for name, expected in record["checksums"].items():
            if _check_file(folder / name) != expected:
                return None
        return _open_table(folder, record)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _open_table(folder: Path, record: Mapping[str, Any]) -> FeatureTable:
    values = np.load(folder / "values.npy", mmap_mode="r", allow_pickle=False)
    with np.load(folder / "rows.npz", allow_pickle=False) as rows:
        present, n_frames = rows["present"], rows["n_frames"]
    present.flags.writeable = n_frames.flags.writeable = False
    statistics = tuple(record["statistics"])
    return FeatureTable(
        modality=record["modality"],
        statistics=statistics,
        names=feature_names(record["modality"], statistics, values.shape[1] // len(statistics)),
        values=values,
        present=present,
        n_frames=n_frames,
        digest=record["digest"],
        counts=MappingProxyType(record["counts"]),
    )


def _check_file(path: Path) -> int:
    """CRC-32, which sees every flipped bit and torn end and reads at the speed of the disk."""
    checksum = 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            checksum = zlib.crc32(chunk, checksum)
    return checksum
