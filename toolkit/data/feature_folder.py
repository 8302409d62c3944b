"""Places of features: files below a folder, rows of a table, and files that are no features."""

import os
import re
import shlex
import stat
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from toolkit.data.containers import file_signature, is_table, missing_dependency
from toolkit.data.headers import SequenceError
from toolkit.data.roles import Columns
from toolkit.data.tables import NumberTable, list_names

_DRIVE = re.compile(r"[A-Za-z]:")
_CONVERT = "Save the numbers of each as .npy: np.save(path + '.npy', "
#: What to do with files of other endings, which are no features or features in other formats.
READERS: Mapping[tuple[str, ...], str] = MappingProxyType(
    {
        ("txt",): f"{_CONVERT}np.genfromtxt(path)), or name each .csv, if its first line names "
        "the columns.",
        ("wav", "flac", "ogg"): "They are recordings: --extract audio=egemaps (or mfcc) "
        "computes features of them, or name files of features of a speech model.",
        ("mp3", "m4a", "aac"): "They are recordings: convert them to .wav for --extract "
        "audio=egemaps, or extract features first, for example with a speech model.",
        ("mp4", "avi", "mov", "mkv", "webm", "jpg", "jpeg", "png"): "They are recordings: "
        "extract features first, for example with OpenFace or a vision model.",
        ("pt", "pth"): f"{_CONVERT}torch.load(path, weights_only=True).numpy()).",
        ("safetensors",): f"{_CONVERT}safetensors.numpy.load_file(path)['NAME']).",
        ("mat",): f"{_CONVERT}scipy.io.loadmat(path)['NAME']).",
        ("pkl", "pickle", "p", "joblib"): "A pickle can run any code. Where you trust it, load "
        "it yourself, and save each array with np.save, as the recipe for MOSI and MOSEI does.",
        ("json",): f"{_CONVERT}np.array(json.load(open(path)), 'f4')).",
        ("jsonl",): "Write a table with a column per feature: pandas.read_json(path, "
        "lines=True).to_csv(path + '.csv', index=False).",
        ("feather",): f"{_CONVERT}pandas.read_feather(path).to_numpy('f4')).",
    }
)
#: A path that ends in the letters of an ending.
OTHER_FILE = re.compile(r"[^\n]*[\w)]\.([A-Za-z][A-Za-z0-9]{0,10})")
_MOST_SHOWN = 80


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
            if not text.startswith("/") or not os.path.lexists(text):
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
            if name not in {"", "."} and folder.exists:
                passed += f"/{name}"
                if passed not in self._folders:
                    self._folders[passed] = self._step(folder, name)
                folder = self._folders[passed]
        return folder

    def _step(self, folder: _Folder, name: str) -> _Folder:
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


def locate_rows(
    data: Columns, kept: Sequence[int], modality: str, file: Path, *, allow_missing: bool
) -> tuple[Path | None, ...]:
    """Find the kept utterances of a data set in a table of features, and name the others."""
    option, problems = f"--table {modality}={file}", data.rows.problems
    try:
        table = _open_rows(file)
        # All utterances: rows of those that are left out have an utterance too.
        utterances = data.cells().get("utterance", [])
        names = _match_rows(table, utterances)
    except SequenceError as error:
        problems.add(f"{option}: {error}")
        return (None,) * len(kept)
    if table.timed:
        problems.warnings.append(
            f"Modality {modality!r}: {len(table.numbers):,} rows of {len(table.rows):,} ids in "
            f"{file.name} are frames, since ids have several rows and times."
        )
    used = {*names}
    if unused := [name for name in table.rows if name not in used]:
        problems.warnings.append(
            f"Modality {modality!r}: {len(unused):,} of {len(table.rows):,} ids in {file.name} "
            f"are those of no utterance ({list_names(unused)}) and were not used."
        )
    if without := [utterances[i] for i in kept if names[i] is None]:
        sentence = (
            f"{len(without):,} utterances have no row in {file.name} ({list_names(without)})"
        )
        if allow_missing:
            problems.warnings.append(f"Modality {modality!r}: {sentence}; it is missing there.")
        else:
            problems.add(f"{option}: {sentence}; add them, or choose --missing allow.")
    return tuple(None if names[i] is None else Path(f"{file}#{names[i]}") for i in kept)


def _open_rows(file: Path) -> NumberTable:
    """Read a table whose rows are found by an id."""
    fault = missing_dependency(file)
    if not fault and not is_table(file):
        file_signature(file)  # a file that does not exist is named before its kind
        fault = f"{file} is no table; expected CSV, ARFF or Parquet with a column per feature."
        fault += _describe_file(file)
    if fault or (fault := (table := NumberTable.load(file)).fault):
        raise SequenceError(fault)
    return table


def _match_rows(table: NumberTable, utterances: Sequence[str]) -> list[str | None]:
    """Find the id of each utterance in a table.

    If no id fits as it is, file names without folders and endings are compared.
    """
    found = [name if name in table.rows else None for name in utterances]
    if not any(found):
        stems: dict[str, list[str]] = {}
        for name in table.rows:
            stems.setdefault(_stem(name), []).append(name)
        fits = [stems.get(_stem(name), []) for name in utterances]
        if twice := next((names for names in fits if len(names) > 1), None):
            names = f"{twice[0]!r} and {twice[1]!r} in {table.file.name}"
            raise SequenceError(f"{names} have one file name; write the ids of utterances.")
        found = [names[0] if names else None for names in fits]
    taken = Counter(name for name in found if name is not None)
    if not taken:
        raise SequenceError(
            f"no row has the id of an utterance; its ids are {list_names(table.rows)}, those "
            f"of the utterances {list_names(utterances) or 'in no column'}."
        )
    name, count = taken.most_common(1)[0]
    if count > 1:
        where = f"row {name!r} of {table.file.name}"
        raise SequenceError(f"{where} fits {count} utterances; write their ids.")
    return found


def _stem(name: str) -> str:
    last = name.replace("\\", "/").rpartition("/")[2]
    stem, dot, ending = last.rpartition(".")
    return stem if dot and stem and ending.isalnum() and not ending.isdigit() else last


def advise(ending: str) -> str:
    """Say what to do with files of an ending, which is without its point."""
    known = (advice for endings, advice in READERS.items() if ending.casefold() in endings)
    return next(known, f"{_CONVERT}array).")


def _describe_file(file: Path) -> str:
    """Describe a file that is not read by its first bytes; empty for an empty file."""
    try:
        with file.open("rb") as content:
            start = content.read(4 * _MOST_SHOWN)
    except OSError:
        return ""
    text = start[8:] if start[8:9] == b"{" else start  # the header of safetensors is JSON
    first = text.decode("utf-8", "replace").strip().split("\n", 1)[0].strip()[:_MOST_SHOWN]
    kinds = {b"\x80": "a pickle", b"PK\x03\x04": "a ZIP archive", b"\x89HDF": "HDF5"}
    seen = next((kind for sign, kind in kinds.items() if start.startswith(sign)), repr(first))
    return f" It begins as {seen}. {advise(file.suffix.removeprefix('.'))}" if start else ""
