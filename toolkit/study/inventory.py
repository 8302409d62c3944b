"""The inventory of a study's folder: files that the program wrote, and may replace or remove.

It marks the folder as a study's. A folder of an earlier version has none until its derived
files are written again: there, ``scores.csv`` and the checksums of the models name them.
"""

import csv
import glob
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Inventory:
    """The files that the program wrote into the folder of a study."""

    path: Path

    def claim(self) -> None:
        """Make a folder for a study and mark it; refuse one that holds files but no study."""
        if self._is_claimed():
            return
        # Hidden files come from the desktop, or from a run that was killed at once.
        entries = self.path.iterdir() if self.path.is_dir() else ()
        names = {entry.name for entry in entries if not entry.name.startswith(".")}
        # Another process may be marking it, or have marked it since.
        names -= {PurePosixPath(_INVENTORY).parts[0]}
        if names and not self._is_claimed():
            raise FolderError(
                f"{self.path} holds files but no study ({_join(sorted(names))}). A study is "
                "written into a folder of its own: name a new or empty one with --out."
            )
        self._save(())

    def _is_claimed(self) -> bool:
        """Check that a folder holds a study of this or an earlier version."""
        marks = (_INVENTORY, "provenance.json", "data.json")
        return any((self.path / name).exists() for name in marks) or any(
            self.path.glob("units/*/*/unit.json")
        )

    def write(self, contents: Mapping[str, bytes | Path], *, whole: bool) -> None:
        """Write derived files into a study's folder; refuse to replace files of others.

        - contents: Path inside the folder to the content, or to a file that is copied.
        - whole: Whether they are all derived files, so that earlier ones are removed.
        """
        before = self._read()
        known = self._list_earlier() | contents.keys() if before is None else before
        for name in contents:
            refuse_links(self.path, self.path / name)
        foreign = sorted(n for n in contents.keys() - known if os.path.lexists(self.path / n))
        if foreign:
            raise FolderError(
                f"{self.path} holds files that the study did not write and would replace: "
                f"{_join(foreign)}. Move them elsewhere and run the same command again."
            )
        # Before the files: those of a killed run are known by their names.
        self._save(known | contents.keys())
        for name, content in contents.items():
            if isinstance(content, Path):
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(content, self.path / name)
            else:
                write_bytes(self.path / name, content)
        if not whole:
            return
        for name in sorted(known - contents.keys()):
            refuse_links(self.path, self.path / name)
            if (self.path / name).is_file():
                (self.path / name).unlink()
        self._save(contents.keys())

    def remove_leftovers(self) -> None:
        """Remove temporary files of killed runs; no other process may be writing here."""
        written = (*_SET_UP, _INVENTORY, *(self._read() or self._list_earlier()))
        found = [
            temporary for name in written for temporary in _glob_temporary(self.path / name)
        ]
        # Units and explanations are written by workers, each as a whole.
        found += [*self.path.glob("units/*/.*.tmp"), *self.path.glob("explain/*/.*.tmp")]
        for temporary in found:
            parts = _TEMPORARY.fullmatch(temporary.name)
            way = [temporary, *temporary.parents]
            if parts is None or any(p.is_symlink() for p in way[: way.index(self.path)]):
                continue
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)

    def _save(self, names: Iterable[str]) -> None:
        refuse_links(self.path, self.path / _INVENTORY)
        write_text(self.path / _INVENTORY, format_json({"format": 1, "files": sorted(names)}))

    def _read(self) -> set[str] | None:
        """Read the names of the derived files; None in a folder of an earlier version."""
        file = self.path / _INVENTORY
        if not file.exists():
            return None
        content = read_json(file)
        names = content.get("files") if isinstance(content, dict) else None
        # A crafted inventory could name files outside of it.
        if not isinstance(names, list) or not all(map(_is_inside, names)):
            raise FolderError(
                f"{file} is no list of files of this folder. Remove it and run the same "
                "command again: then the files of the results are found by their names."
            )
        return set(names)

    def _list_earlier(self) -> set[str]:
        """List the derived files that results of an earlier version name."""
        names = {"audit.json", "MODEL_CARD.md", "models/final.json"}
        try:
            with (self.path / "scores.csv").open(encoding="utf-8", newline="") as file:
                systems = {row["system"] for row in csv.DictReader(file, restval="")}
        except (OSError, ValueError, KeyError, csv.Error):
            systems = set()
        names |= {f"predictions/{system}.csv" for system in systems}
        for sums in self.path.glob(f"models/*/{CHECKSUMS}"):
            stem = f"models/{sums.parent.name}"
            with suppress(ValueError):
                names |= {
                    f"{stem}/{name}" for name in (CHECKSUMS, *read_checksums(sums.parent))
                }
        return {name for name in names if _is_inside(name)}


def _glob_temporary(path: Path) -> Iterable[Path]:
    return path.parent.glob(f".{glob.escape(path.name)}.*.tmp")


def _join(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _is_inside(name: object) -> bool:
    if not isinstance(name, str) or not name or {"\\", ":", "\0"} & {*name}:
        return False
    parts = PurePosixPath(name).parts
    return bool(parts) and ".." not in parts and parts[0] != "/" and name not in _SET_UP
