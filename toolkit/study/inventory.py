"""The inventory of a study's folder: files that the program wrote, and may replace or remove.

It marks the folder as a study's. A folder of an earlier version has none until its derived
files are written again: there, ``scores.csv`` and the checksums of the models name them.
"""

import csv
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final

from toolkit.files import (
    CHECKSUMS,
    FolderError,
    format_json,
    read_checksums,
    read_json,
    refuse_links,
    write_bytes,
    write_text,
)

_INVENTORY: Final = "internal/inventory.json"
#: Files that a run writes before its first unit, and that no cleaning removes.
_SET_UP: Final = ("study.toml", "provenance.json", "data.json", "rows.csv")
#: Temporary files and folders carry the number of their process.
_TEMPORARY: Final = re.compile(r"\.(.+)\.\d+\.tmp")
_MOST_NAMED: Final = 5


def claim_folder(path: Path) -> None:
    """Make a folder for a study and mark it; refuse one that holds files but no study."""
    if _is_study(path):
        return
    # Hidden files come from the desktop, or from a run that was killed at once.
    entries = path.iterdir() if path.is_dir() else ()
    names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    if names:
        raise FolderError(
            f"{path} holds files but no study ({_join(names)}). A study is written into a "
            "folder of its own: name a new or empty one with --out."
        )
    _write_inventory(path, ())


def _is_study(path: Path) -> bool:
    """Check that a folder holds a study of this or an earlier version."""
    marks = (_INVENTORY, "provenance.json", "data.json")
    return any((path / name).exists() for name in marks) or any(
        path.glob("units/*/*/unit.json")
    )


def write_derived(path: Path, contents: Mapping[str, bytes | Path], *, whole: bool) -> None:
    """Write derived files into a study's folder; refuse to replace files of others.

    - contents: Path inside the folder to the content, or to a file that is copied.
    - whole: Whether they are all derived files, so that earlier ones are removed.
    """
    before = _read_inventory(path)
    known = _list_earlier(path) | contents.keys() if before is None else before
    for name in contents:
        refuse_links(path, path / name)
    foreign = sorted(n for n in contents.keys() - known if os.path.lexists(path / n))
    if foreign:
        raise FolderError(
            f"{path} holds files that the study did not write and would replace: "
            f"{_join(foreign)}. Move them elsewhere and run the same command again."
        )
    # Before the files: those of a killed run are known by their names.
    _write_inventory(path, known | contents.keys())
    for name, content in contents.items():
        if isinstance(content, Path):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(content, path / name)
        else:
            write_bytes(path / name, content)
    if not whole:
        return
    for name in sorted(known - contents.keys()):
        refuse_links(path, path / name)
        if (path / name).is_file():
            (path / name).unlink()
    _write_inventory(path, contents.keys())


def remove_leftovers(path: Path) -> None:
    """Remove temporary files of killed runs; no other process may be writing in the folder."""
    written = (*_SET_UP, _INVENTORY, *(_read_inventory(path) or _list_earlier(path)))
    found = [
        temporary
        for name in written
        for temporary in (path / name).parent.glob(f".{(path / name).name}.*.tmp")
    ]
    # Units and explanations are written by workers, each as a whole.
    found += [*path.glob("units/*/.*.tmp"), *path.glob("explain/*/.*.tmp")]
    for temporary in found:
        parts = _TEMPORARY.fullmatch(temporary.name)
        if parts is None or any(p.is_symlink() for p in (temporary, *temporary.parents)):
            continue
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def _join(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _write_inventory(path: Path, names: Iterable[str]) -> None:
    refuse_links(path, path / _INVENTORY)
    write_text(path / _INVENTORY, format_json({"format": 1, "files": sorted(names)}))


def _read_inventory(path: Path) -> set[str] | None:
    """Read the names of the derived files; None in a folder of an earlier version."""
    file = path / _INVENTORY
    if not file.exists():
        return None
    content = read_json(file)
    names = content.get("files") if isinstance(content, dict) else None
    # A crafted inventory could name files outside of it.
    if not isinstance(names, list) or not all(map(_is_inside, names)):
        raise FolderError(
            f"{file} is no list of files of this folder. Remove it and run the same command "
            "again: then the files of the results are found by their names."
        )
    return set(names)


def _is_inside(name: object) -> bool:
    if not isinstance(name, str) or not name or {"\\", ":", "\0"} & {*name}:
        return False
    parts = PurePosixPath(name).parts
    return bool(parts) and ".." not in parts and parts[0] != "/" and name not in _SET_UP


def _list_earlier(path: Path) -> set[str]:
    """List the derived files that results of an earlier version name."""
    names = {"audit.json", "MODEL_CARD.md", "models/final.json"}
    try:
        with (path / "scores.csv").open(encoding="utf-8", newline="") as file:
            systems = {row["system"] for row in csv.DictReader(file, restval="")}
    except (OSError, ValueError, KeyError, csv.Error):
        systems = set()
    names |= {f"predictions/{system}.csv" for system in systems}
    for sums in path.glob(f"models/*/{CHECKSUMS}"):
        stem = f"models/{sums.parent.name}"
        with suppress(ValueError):
            names |= {f"{stem}/{name}" for name in (CHECKSUMS, *read_checksums(sums.parent))}
    return {name for name in names if _is_inside(name)}
