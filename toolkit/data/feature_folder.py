"""The folder of a table, below which its feature files must lie."""

import os
import re
import shlex
import stat
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_DRIVE = re.compile(r"[A-Za-z]:")


class MissingFileError(ValueError):
    """A file or a folder above it does not exist; a study may count the modality as missing."""

    def __init__(self, message: str, folder: str | None = None) -> None:
        super().__init__(message)
        self.folder = folder


class _Folder(NamedTuple):
    path: Path  # without links and dots
    exists: bool
    inside: bool


class FeatureFolder:
    """The folder of a table, below which its feature files must lie, or below an allowed one.

    Each folder is listed once: a look-up per file can take a millisecond on a network disk.
    """

    def __init__(self, root: Path, allowed: Sequence[Path] = ()) -> None:
        self.root = root
        self._allowed = (root, *(Path(os.path.realpath(folder)) for folder in allowed))
        self._folders: dict[str, _Folder] = {}
        self._kinds: dict[Path, dict[str, str]] = {}
        self._spellings: dict[Path, dict[str, str]] = {}
        self._machine_folders: dict[str, bool] = {}

    def find(self, cell: str) -> Path:
        """Find the file of a cell: a path below the folder, or an absolute path to it."""
        text = cell.replace("\\", "/")
        if _DRIVE.match(text):
            raise ValueError(
                f"{cell!r} begins with a drive; expected a path relative to the folder of "
                "the table."
            )
        try:
            return self._find_below(text.lstrip("/"), cell)
        except MissingFileError:
            if not text.startswith("/") or not self._is_on_machine(text):
                raise
        return self._check_file(Path(text), cell)

    def _find_below(self, text: str, cell: str) -> Path:
        parent, _, name = text.rpartition("/")
        folder = self._walk(parent)
        if not folder.inside:
            raise _outside(cell, folder.path)
        if not folder.exists:
            below = Path(os.path.relpath(folder.path, self.root)).as_posix()
            raise MissingFileError(f"folder {below!r} does not exist", folder=below)
        kind = self._kind(folder.path, name)
        if kind == "file":
            return folder.path / name
        if kind == "link":
            return self._check_file(folder.path / name, cell)
        if kind == "other":
            raise _no_file(cell)
        other = self._spellings[folder.path].get(_spelling(name))
        raise MissingFileError(
            f"{cell!r} does not exist" + (f" (the folder has {other!r})" if other else "")
        )

    def _walk(self, parent: str) -> _Folder:
        folder, passed = _Folder(self.root, exists=True, inside=True), ""
        for name in parent.split("/"):
            if name not in {"", "."}:
                passed += f"/{name}"
                if passed not in self._folders:
                    self._folders[passed] = self._step(folder, name)
                folder = self._folders[passed]
        return folder

    def _step(self, folder: _Folder, name: str) -> _Folder:
        if not folder.exists:
            return folder
        path = folder.path / name
        kind = "link" if name == ".." or not folder.inside else self._kind(folder.path, name)
        if kind == "link":
            path = Path(os.path.realpath(path))
        inside = self._is_allowed(path)
        return _Folder(path, kind != "" and os.path.isdir(path), inside)  # noqa: PTH112

    def _kind(self, folder: Path, name: str) -> str:
        if folder not in self._kinds:
            try:
                with os.scandir(folder) as entries:
                    self._kinds[folder] = {entry.name: _kind_of(entry) for entry in entries}
            except OSError as error:
                raise ValueError(f"{folder} cannot be listed ({error.strerror}).") from None
            names = sorted(self._kinds[folder])
            self._spellings[folder] = {_spelling(other): other for other in names}
        kind = self._kinds[folder].get(name, "")
        if not kind and _spelling(name) in self._spellings[folder]:
            # Some file systems ignore the difference in spelling.
            return "link" if os.path.lexists(folder / name) else ""
        return kind

    def _is_allowed(self, path: Path) -> bool:
        # Not a comparison of beginnings: /data/corpus_other begins with /data/corpus.
        return any(path.is_relative_to(folder) for folder in self._allowed)

    def _is_on_machine(self, text: str) -> bool:
        folder = text.rpartition("/")[0] or "/"
        if folder not in self._machine_folders:
            self._machine_folders[folder] = os.path.isdir(folder)  # noqa: PTH112 (never raises)
        return self._machine_folders[folder] and os.path.lexists(text)

    def _check_file(self, path: Path, cell: str) -> Path:
        target = Path(os.path.realpath(path))
        if not self._is_allowed(target):
            raise _outside(cell, target.parent)
        try:
            if not stat.S_ISREG(target.stat().st_mode):
                raise _no_file(cell)
        except FileNotFoundError:
            raise MissingFileError(
                f"{cell!r} is a link to a file that does not exist"
            ) from None
        except OSError as error:
            raise ValueError(f"{cell!r} cannot be reached ({error.strerror}).") from None
        return path


def _kind_of(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "link"
    return "file" if entry.is_file(follow_symlinks=False) else "other"


def _spelling(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _outside(cell: str, folder: Path) -> ValueError:
    return ValueError(
        f"{cell!r} leads out of the folder of the table; feature files must lie below that "
        "folder, so move or copy them there (a link does not do), or allow the other folder: "
        f"--root {shlex.quote(str(folder))}."
    )


def _no_file(cell: str) -> ValueError:
    return ValueError(f"{cell!r} is not a plain file; expected one feature file.")
