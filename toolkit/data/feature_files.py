"""Columns that list feature files become modalities, their cells paths."""

import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from toolkit.data.containers import missing_dependency, split_member
from toolkit.data.csv_table import CONTROL, Problems, Rows
from toolkit.data.roles import NAMED_MODALITIES, name_modality, resolve_modality
from toolkit.data.sequences import SEQUENCE_EXTENSIONS

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


def find_modalities(rows: Rows, roles: Mapping[str, int], problems: Problems) -> dict[str, int]:
    """Find the columns whose non-empty cells all name feature files, by their modality."""
    endings = " or ".join(SEQUENCE_EXTENSIONS)
    found: dict[str, int] = {}
    for position, header in enumerate(rows.header):
        cells = [cell for cell in rows.column(position) if cell]
        n_files = sum(map(_is_file_name, cells))
        if position in roles.values() or n_files == 0:
            continue
        if n_files < len(cells):
            if header.casefold() in NAMED_MODALITIES:
                for number, cell in zip(rows.numbers, rows.column(position), strict=True):
                    if cell and not _is_file_name(cell):
                        problems.add(
                            f"{cell!r} does not end in {endings}; name a feature file, or "
                            "leave the cell empty where there is none.",
                            row=number,
                            column=header,
                        )
            else:
                problems.warnings.append(
                    f"Column {header!r} is ignored: {n_files:,} of {len(cells):,} cells end in "
                    f"{endings}, and all do in a column that lists features."
                )
                continue
        if not header:
            problems.add(f"Column {position + 1} lists feature files but has no name; name it.")
            continue
        try:
            name = name_modality(header)
        except ValueError as error:
            problems.add(str(error), column=header)
            continue
        if name in found:
            problems.add(
                f"Columns {rows.header[found[name]]!r} and {header!r} are both modality "
                f"{name!r}; rename one."
            )
        found.setdefault(name, position)
    if not found and not rows.n_broken:
        problems.add(
            f"No column lists feature files ending in {endings}; the columns are "
            f"{', '.join(map(repr, rows.header))}. Give each modality a column, with the path "
            "of one file in each row."
        )
    return found


def _is_file_name(cell: str) -> bool:
    return cell.casefold().endswith(SEQUENCE_EXTENSIONS) or split_member(cell) is not None


def choose_modalities(
    asked: Sequence[str], found: Mapping[str, int], problems: Problems
) -> dict[str, int]:
    """Keep the modalities that were asked for."""
    if not asked or not found:
        return dict(found)
    chosen = set()
    for name in asked:
        try:
            chosen.add(resolve_modality(name, tuple(found)))
        except ValueError as error:
            problems.add(str(error))
    return {name: position for name, position in found.items() if name in chosen}


def locate_files(
    rows: Rows,
    kept: Sequence[int],
    columns: Mapping[str, int],
    folder: FeatureFolder,
    problems: Problems,
    *,
    utterance: int | None,
    allow_missing: bool,
) -> tuple[dict[str, tuple[Path | None, ...]], dict[str, int]]:
    """Find the feature file of every kept row, and count absent files, per modality."""
    paths: dict[str, tuple[Path | None, ...]] = {}
    absent: dict[str, int] = {}
    for modality, position in columns.items():
        paths[modality], n_absent = _locate_column(
            rows,
            kept,
            position,
            folder,
            problems,
            utterance=utterance,
            allow_missing=allow_missing,
        )
        _warn_of_files(modality, paths[modality], n_absent, problems.warnings)
        if n_absent:
            absent[modality] = n_absent
    return paths, absent


def _locate_column(
    rows: Rows,
    kept: Sequence[int],
    position: int,
    folder: FeatureFolder,
    problems: Problems,
    *,
    utterance: int | None,
    allow_missing: bool,
) -> tuple[tuple[Path | None, ...], int]:
    header = rows.header[position]
    shared = Counter(rows.column(position))  # of every row, whichever are kept
    lacking = {sentence for cell in shared if (sentence := missing_dependency(cell))}
    for sentence in sorted(lacking):
        problems.add(sentence, column=header)
    paths: list[Path | None] = []
    refused: list[tuple[int, str, str | None]] = []
    for i in kept:
        cell, path = rows.cells[i][position], None
        if CONTROL.search(cell):
            text = f"{cell!r} holds a control character; write the path on one line."
            problems.add(text, row=rows.numbers[i], column=header)
        elif cell and _is_file_name(cell):
            try:
                path = _locate_member(cell, folder)
                if shared[cell] > 1 and utterance is not None:
                    path = _name_array(path, rows.cells[i][utterance])
            except MissingFileError as error:
                refused.append((rows.numbers[i], str(error), error.folder))
            except ValueError as error:
                problems.add(str(error), row=rows.numbers[i], column=header)
        paths.append(path)
    if refused and not (allow_missing and any(paths)):
        _refuse_missing(refused, header, problems, allow_missing=allow_missing)
    return tuple(paths), len(refused)


def _locate_member(cell: str, folder: FeatureFolder) -> Path:
    member = split_member(cell)
    if member is None or member.name is None:
        return folder.find(cell)
    file = cell[: -len(member.name) - 1]
    return Path(f"{folder.find(file)}#{member.name}")


def _name_array(path: Path, utterance: str) -> Path:
    member = split_member(path)
    return path if member is None or member.name else Path(f"{path}#{utterance}")


def _refuse_missing(
    refused: Sequence[tuple[int, str, str | None]],
    header: str,
    problems: Problems,
    *,
    allow_missing: bool,
) -> None:
    if allow_missing:
        number, text, _ = min(refused)
        problems.add(
            f"{text}, nor does any other file of this column; paths are relative to the folder "
            "of the table.",
            row=number,
            column=header,
        )
        return
    mend = "add it, empty the cell, or take it for a missing modality with --missing allow."
    # A folder that is not there is one mistake, whatever the number of rows that run into it.
    in_folder: dict[str, list[int]] = {}
    for number, text, folder in refused:
        if folder is None:
            problems.add(f"{text}; {mend}", row=number, column=header)
        else:
            in_folder.setdefault(folder, []).append(number)
    for folder, numbers in in_folder.items():
        rows = "only row" if len(numbers) == 1 else f"first of {len(numbers):,} rows"
        problems.add(
            f"folder {folder!r} does not exist below the folder of the table ({rows} with "
            f"files there); {mend}",
            row=min(numbers),
            column=header,
        )


def _warn_of_files(
    modality: str, paths: Sequence[Path | None], n_absent: int, warnings: list[str]
) -> None:
    there = [path for path in paths if path is not None]
    if n_absent:
        warnings.append(
            f"Modality {modality!r}: {n_absent:,} files that the table names do not exist and "
            "count as missing."
        )
    if not there:
        warnings.append(f"Modality {modality!r} is missing from every utterance that is used.")
    if n_again := len(there) - len(set(there)):
        warnings.append(
            f"Modality {modality!r}: {n_again:,} rows name a file that another row names too."
        )
