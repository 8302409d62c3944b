"""Finished units in the output folder: written whole, read back only if nothing changed."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from toolkit.files import FolderError, format_json, hash_file, write_text
from toolkit.validation import SearchResult, UnitResult, fold_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: A unit's model is ``model.txt`` or ``model.json``, in its booster's own format.
MODEL_STEM: Final = "model"

#: Beside the files it is about: their names and SHA-256.
CHECKSUMS: Final = "checksums.json"


def unit_folder(study: Path, system: str, fold: int) -> Path:
    """Name the folder of a finished unit."""
    return study / "units" / system / fold_name(fold)


def write_unit(folder: Path, unit: UnitResult, modalities: Sequence[str]) -> None:
    """Write a finished unit, whole or not at all."""

    def write(temporary: Path) -> None:
        np.save(temporary / "test.npy", unit.proba, allow_pickle=False)
        np.save(temporary / "present.npy", unit.present, allow_pickle=False)
        np.save(temporary / "inner_rows.npy", unit.inner_rows, allow_pickle=False)
        np.save(temporary / "inner.npy", unit.inner_proba, allow_pickle=False)
        np.save(temporary / "inner_present.npy", unit.inner_present, allow_pickle=False)
        summary = {
            "system": unit.system,
            "fold": unit.fold,
            "modalities": list(modalities),
            "record": dict(unit.record),
            "ledger": unit.ledger,
            "search": None if unit.search is None else asdict(unit.search),
        }
        if unit.booster is not None:
            unit.booster.save(temporary / MODEL_STEM)
        write_text(temporary / "unit.json", format_json(summary))

    write_whole(folder, write)


def write_whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder of files, whole or not at all.

    They are written into a folder beside the final one and renamed into place with their
    checksums, so a folder that can be seen is complete.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write(temporary)
    sums = {path.name: hash_file(path) for path in sorted(temporary.iterdir())}
    write_text(temporary / CHECKSUMS, format_json(sums))
    for path in temporary.iterdir():
        _sync(path)
    _sync(temporary)
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)
    _sync(folder.parent)


def read_unit(folder: Path) -> UnitResult | None:
    """Read a finished unit back, without its model."""
    if not folder.exists():
        return None
    check_sums(folder)
    summary = json.loads((folder / "unit.json").read_text(encoding="utf-8"))
    search = summary["search"]
    return UnitResult(
        system=summary["system"],
        fold=summary["fold"],
        proba=np.load(folder / "test.npy", allow_pickle=False),
        present=np.load(folder / "present.npy", allow_pickle=False),
        inner_rows=np.load(folder / "inner_rows.npy", allow_pickle=False),
        inner_proba=np.load(folder / "inner.npy", allow_pickle=False),
        inner_present=np.load(folder / "inner_present.npy", allow_pickle=False),
        search=search and SearchResult(**(search | {"trials": tuple(search["trials"])})),
        booster=None,
        record=summary["record"],
        ledger=summary["ledger"],
    )


def read_modalities(folder: Path) -> list[str] | None:
    """Read which modalities a finished unit saw."""
    if not folder.exists():
        return None
    check_sums(folder)
    summary = json.loads((folder / "unit.json").read_text(encoding="utf-8"))
    return [str(name) for name in summary["modalities"]]


def check_sums(folder: Path) -> None:
    """Check a finished unit's files against the checksums written with them."""
    try:
        sums = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        found = {p.name: hash_file(p) for p in folder.iterdir() if p.name != CHECKSUMS}
    except (OSError, ValueError) as error:
        raise FolderError(_damaged(folder, str(error))) from None
    if found != sums:
        names = sorted(
            name for name in found.keys() | sums.keys() if found.get(name) != sums.get(name)
        )
        raise FolderError(_damaged(folder, f"{', '.join(names)} changed since it was written"))


def _damaged(folder: Path, why: str) -> str:
    return (
        f"The finished unit in {folder} is damaged: {why}. Delete that folder and run the same "
        "command again: the unit is made anew, everything else is kept."
    )


def _sync(path: Path) -> None:
    """Have the operating system write a file, or a folder's entries, to the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders, and needs not
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
