"""Pooled tables on disk: keyed by content, written whole, checked before they are trusted.

A table's folder holds ``values.npy``, ``rows.npz`` and ``table.json`` with the checksums of the
two. It is written beside its final place and renamed, so what can be seen is complete; one
that was torn or changed afterwards is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from toolkit.pooling.names import feature_names
from toolkit.pooling.table import FeatureTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

#: Raised whenever a definition changes: tables of other versions are not found again.
VERSION: Final = "1"

_RECORD: Final = "table.json"


def hash_content(utterances: Sequence[str], paths: Sequence[Path | None]) -> str:
    """Hash what a modality holds: the bytes of each utterance's file, whatever the statistics.

    Parameters
    ----------
    utterances : sequence of str
        Ids, in the order of the table's rows.
    paths : sequence of Path or None
        Each utterance's file; None where the modality is missing.

    Returns
    -------
    str
        SHA-256 in hexadecimal; neither the files' places nor their names are part of it.
    """
    content = hashlib.sha256()
    for utterance, path in zip(utterances, paths, strict=True):
        found = "missing"
        if path is not None:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        content.update(f"{json.dumps(utterance)} {found}\n".encode())
    return content.hexdigest()


def table_key(modality: str, statistics: Sequence[str], *policies: str, digest: str) -> str:
    """Name a table by all that decides its bytes.

    Parameters
    ----------
    modality : str
        Name of the modality.
    statistics : sequence of str
        In column order.
    *policies : str
        How missing files and frames are treated.
    digest : str
        From :func:`hash_content`.

    Returns
    -------
    str
        Name of the table's folder.
    """
    said = json.dumps([VERSION, modality, list(statistics), list(policies), digest])
    return f"{modality}-{hashlib.sha256(said.encode()).hexdigest()[:24]}"


def save_table(
    folder: Path,
    *,
    modality: str,
    statistics: Sequence[str],
    values: NDArray[np.float32],
    present: NDArray[np.bool_],
    n_frames: NDArray[np.int64],
    digest: str,
    counts: Mapping[str, int],
) -> FeatureTable:
    """Write a table and open it.

    Parameters
    ----------
    folder : Path
        The table's own folder; a damaged one that stands there is replaced.
    modality, statistics, values, present, n_frames, digest, counts : object
        The table's fields, see :class:`FeatureTable`.

    Returns
    -------
    FeatureTable
        Memory-mapped.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    np.save(draft / "values.npy", np.ascontiguousarray(values), allow_pickle=False)
    np.savez(draft / "rows.npz", present=present, n_frames=n_frames)
    record = {
        "modality": modality,
        "statistics": list(statistics),
        "digest": digest,
        "counts": dict(counts),
        "checksums": {name: _hash_file(draft / name) for name in ("values.npy", "rows.npz")},
    }
    (draft / _RECORD).write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
    for path in draft.iterdir():
        descriptor = os.open(path, os.O_RDWR)
        os.fsync(descriptor)
        os.close(descriptor)
    table = load_table(folder)
    if table is None:
        shutil.rmtree(folder, ignore_errors=True)
        try:
            draft.rename(folder)
        except OSError:  # another process was quicker, with the same bytes
            shutil.rmtree(draft)
        table = load_table(folder)
    else:
        shutil.rmtree(draft)
    if table is None:
        raise OSError(f"The pooled table in {folder} cannot be kept there: is the disk full?")
    return table


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
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        for name, checksum in record["checksums"].items():
            if _hash_file(folder / name) != checksum:
                return None
        values = np.load(folder / "values.npy", mmap_mode="r", allow_pickle=False)
        with np.load(folder / "rows.npz", allow_pickle=False) as rows:
            present, n_frames = rows["present"], rows["n_frames"]
        statistics = tuple(record["statistics"])
        present.flags.writeable = n_frames.flags.writeable = False
        return FeatureTable(
            modality=record["modality"],
            statistics=statistics,
            names=feature_names(
                record["modality"], statistics, values.shape[1] // len(statistics)
            ),
            values=values,
            present=present,
            n_frames=n_frames,
            digest=record["digest"],
            counts=MappingProxyType(record["counts"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
