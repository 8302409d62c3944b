"""The inventory of a folder: files that the program wrote, and may replace or remove.

It marks the folder as one of a study, of premiums or of pooled features. A second list holds
files that are added one by one, and that stay when results are made again.
"""

import glob
import os
import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from toolkit.files import (
    INTERNAL,
    FolderError,
    format_json,
    read_json,
    refuse_links,
    write_bytes,
    write_text,
)
from toolkit.study.terminal import list_some

_INVENTORY: Final = f"{INTERNAL}/inventory.json"
#: Files that commands add one by one. Another list, since a study may be running meanwhile.
_KEPT: Final = f"{INTERNAL}/kept.json"
#: Files that a run writes before its first unit, and that no cleaning removes.
_SET_UP: Final = (
    "study.toml",
    *(f"{INTERNAL}/{name}" for name in ("provenance.json", "data.json", "rows.csv")),
)
#: Temporary files and folders carry the number of their process.
_TEMPORARY: Final = re.compile(r"\.(.+)\.\d+\.tmp")
#: Files by which a study is known without its inventory, in this layout and the first one.
_MARKS: Final = (f"{INTERNAL}/data.json", "provenance.json")


@dataclass(frozen=True, slots=True)
class Inventory:
    """The files that the program wrote into a folder."""

    path: Path

    def claim(self, kind: str = "study") -> None:
        """Make a folder for results of a kind and mark it; refuse one of anything else."""
        if self._is_claimed(kind):
            return
        # Hidden files come from the desktop, or from a run that was killed at once.
        entries = self.path.iterdir() if self.path.is_dir() else ()
        names = {entry.name for entry in entries if not entry.name.startswith(".")}
        # Another process may be marking it, or have marked it since.
        names -= {PurePosixPath(_INVENTORY).parts[0]}
        if names and not self._is_claimed(kind):
            raise FolderError(
                f"{self.path} holds files but no {kind} ({list_some(sorted(names))}). What a "
                "command makes is written into a folder of its own: name a new or empty one "
                "with --out."
            )
        self._save(_KEPT, (), kind)
        self._save(_INVENTORY, (), kind)

    def _is_claimed(self, kind: str) -> bool:
        """Check that a folder holds results of a kind."""
        found = self._read(_INVENTORY)[1] or kind
        if found != kind:
            raise FolderError(
                f"{self.path} holds a {found}: name another folder for a {kind} with --out."
            )
        marks = (_INVENTORY, *(_MARKS if kind == "study" else ()))
        return any((self.path / mark).exists() for mark in marks)

    def reserve(self, names: Iterable[str]) -> None:
        """List files before they are written; they stay when results are made again."""
        names = set(names)
        kept, kind = self._read(_KEPT)
        self._refuse_foreign(names, kept)
        self._save(_KEPT, kept | names, kind)

    def write(self, contents: Mapping[str, bytes], *, whole: bool) -> None:
        """Write derived files into a folder; refuse to replace files of others.

        - contents: Path inside the folder to the content.
        - whole: Whether they are all derived files, so that earlier ones are removed.
        """
        # Earlier versions listed the files of a premium or transfer in the second list.
        listed = _INVENTORY if self._read(_INVENTORY)[1] in {"", "study"} else _KEPT
        known, kind = self._read(listed)
        self._refuse_foreign(contents.keys(), known)
        # Before the files: those of a killed run are known by their names.
        self._save(listed, known | contents.keys(), kind)
        for name, content in contents.items():
            write_bytes(self.path / name, content)
        if not whole:
            return
        for name in sorted(known - contents.keys()):
            refuse_links(self.path, self.path / name)
            if (self.path / name).is_file():
                (self.path / name).unlink()
        self._save(listed, contents.keys(), kind)

    def remove_leftovers(self) -> None:
        """Remove temporary files of killed runs; no other process may be writing here."""
        derived, kept = self._read(_INVENTORY)[0], self._read(_KEPT)[0]
        written = (*_SET_UP, _INVENTORY, _KEPT, *derived, *kept)
        found = [
            temporary
            for path in (self.path / name for name in written)
            for temporary in path.parent.glob(f".{glob.escape(path.name)}.*.tmp")
        ]
        # Units and explanations are written by workers, each as a whole.
        patterns = (f"{INTERNAL}/units/*/.*.tmp", f"{INTERNAL}/.learning_curve.*.tmp")
        for pattern in (*patterns, "explain/*/.*.tmp"):
            found += self.path.glob(pattern)
        for temporary in found:
            parts = _TEMPORARY.fullmatch(temporary.name)
            way = [temporary, *temporary.parents]
            if parts is None or any(p.is_symlink() for p in way[: way.index(self.path)]):
                continue
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)

    def _refuse_foreign(self, names: Collection[str], known: Collection[str]) -> None:
        for name in names:
            refuse_links(self.path, self.path / name)
        foreign = [
            name
            for name in sorted(names)
            if name not in known and os.path.lexists(self.path / name)
        ]
        if foreign:
            raise FolderError(
                f"{self.path} holds files that the study did not write and would replace: "
                f"{list_some(foreign)}. Move them elsewhere and run the same command again."
            )

    def _save(self, name: str, files: Iterable[str], kind: str) -> None:
        refuse_links(self.path, self.path / name)
        content = {"format": 1, "kind": kind or "study", "files": sorted(files)}
        write_text(self.path / name, format_json(content))

    def _read(self, name: str) -> tuple[set[str], str]:
        """Read a list of files and the kind; both are empty where there is no list."""
        file = self.path / name
        if not file.exists():
            return set(), ""
        match read_json(file):
            # A crafted inventory could name files outside of it.
            case {"files": [*names], **other} if all(map(_is_inside, names)):
                return set(names), str(other.get("kind", "study"))
        raise FolderError(
            f"{file} is no list of files of this folder. Name a new or empty folder with --out."
        )


def _is_inside(name: object) -> bool:
    if not isinstance(name, str) or not name or {"\\", ":", "\0"} & {*name}:
        return False
    parts = PurePosixPath(name).parts
    return bool(parts) and ".." not in parts and parts[0] != "/" and name not in _SET_UP
