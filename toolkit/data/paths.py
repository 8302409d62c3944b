"""Path cells become files: below the folder of the table, and there."""

import os
import re
import stat
import unicodedata
from pathlib import Path
from typing import NamedTuple

DRIVE = re.compile(r"[A-Za-z]:")


class MissingFileError(ValueError):
    """A path that leads nowhere, which a study may take for a missing modality.

    - message: What is missing.
    - folder: The folder in the path, where that is missing already.
    """

    def __init__(self, message: str, folder: str | None = None) -> None:
        super().__init__(message)
        self.folder = folder


class _Folder(NamedTuple):
    path: Path  # without links and dots
    exists: bool
    inside: bool


class FeatureFolder:
    """The folder that all feature files of a table must lie in.

    Each folder below it is listed once and no file is looked up on its own: a table names
    thousands of files in a few folders, and a look-up can take a millisecond on a network.

    - root: The folder, resolved.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[str, _Folder] = {}
        self._listed: dict[Path, dict[str, str]] = {}
        self._alike: dict[Path, dict[str, str]] = {}
        self._machine_folders: dict[str, bool] = {}

    def find(self, cell: str) -> Path:
        """Find the file that a cell names."""
        text = cell.replace("\\", "/")
        if DRIVE.match(text):
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
            raise _outside(cell)
        if not folder.exists:
            below = folder.path.relative_to(self.root).as_posix()
            raise MissingFileError(f"folder {below!r} does not exist", folder=below)
        kind = self._kind(folder.path, name)
        if kind == "file":
            return folder.path / name
        if kind == "link":
            return self._check_file(folder.path / name, cell)
        if kind == "other":
            raise _no_file(cell)
        other = self._lookalike(folder.path, name)
        raise MissingFileError(
            f"{cell!r} does not exist" + (f" (the folder has {other!r})" if other else "")
        )

    def _walk(self, parent: str) -> _Folder:
        if parent in self._folders:
            return self._folders[parent]
        folder, passed = _Folder(self.root, exists=True, inside=True), ""
        for name in parent.split("/"):
            if name not in {"", "."}:
                passed += f"/{name}"
                if passed not in self._folders:
                    self._folders[passed] = self._step(folder, name)
                folder = self._folders[passed]
        self._folders[parent] = folder
        return folder

    def _step(self, folder: _Folder, name: str) -> _Folder:
        if not folder.exists:
            return folder
        path = folder.path / name
        kind = "link" if name == ".." or not folder.inside else self._kind(folder.path, name)
        if kind == "link":
            path = Path(os.path.realpath(path))
        # Not a comparison of beginnings: /data/corpus_other begins with /data/corpus.
        inside = path.is_relative_to(self.root)
        return _Folder(path, kind != "" and os.path.isdir(path), inside)  # noqa: PTH112

    def _kind(self, folder: Path, name: str) -> str:
        if folder not in self._listed:
            try:
                with os.scandir(folder) as entries:
                    self._listed[folder] = {entry.name: _kind_of(entry) for entry in entries}
            except OSError as error:
                raise ValueError(f"{folder} cannot be listed ({error.strerror}).") from None
        kind = self._listed[folder].get(name, "")
        if not kind and self._lookalike(folder, name) and os.path.lexists(folder / name):
            # The file system takes another spelling for the same name.
            return "link"
        return kind

    def _lookalike(self, folder: Path, name: str) -> str | None:
        if folder not in self._alike:
            names = sorted(self._listed[folder])
            self._alike[folder] = {_spelling(other): other for other in names}
        return self._alike[folder].get(_spelling(name))

    def _is_on_machine(self, text: str) -> bool:
        folder = text.rpartition("/")[0] or "/"
        if folder not in self._machine_folders:
            self._machine_folders[folder] = os.path.isdir(folder)  # noqa: PTH112 (never raises)
        return self._machine_folders[folder] and os.path.lexists(text)

    def _check_file(self, path: Path, cell: str) -> Path:
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(self.root):
            raise _outside(cell)
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


def _outside(cell: str) -> ValueError:
    return ValueError(
        f"{cell!r} leads out of the folder of the table; feature files must lie below that "
        "folder, so move or copy them there (a link does not do)."
    )


def _no_file(cell: str) -> ValueError:
    return ValueError(f"{cell!r} is not a plain file; expected one feature file.")
