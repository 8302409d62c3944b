"""Tables of utterances that are written: scanned from files, generated, or from memory."""

import csv
import hashlib
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from toolkit.data import make_corpus
from toolkit.data.audio import is_recording
from toolkit.data.csv_table import Rows
from toolkit.data.feature_files import lists_files
from toolkit.data.feature_folder import READERS
from toolkit.data.roles import ROLES, Columns
from toolkit.data.sequences import SEQUENCE_EXTENSIONS, as_array
from toolkit.files import (
    FolderError,
    cache_folder,
    format_array,
    format_csv,
    write_bytes,
    write_text,
)
from toolkit.study.config import ConfigError
from toolkit.study.options import Request
from toolkit.study.terminal import is_quiet, list_some, print_json

logger = logging.getLogger(__name__)

_ENDINGS: Final = {*SEQUENCE_EXTENSIONS, *(f".{end}" for ends in READERS for end in ends)}
_COLUMNS: Final = (
    *("utterance", "speaker", "label", "label_name", "sentence", "sex", "session", "dialogue"),
)
#: Headers that would not name a modality.
_TAKEN: Final = {*_COLUMNS, *(header for headers in ROLES.values() for header in headers)}

_SEXES: Final = {"M": "male", "F": "female"}
_DEMOGRAPHICS: Final = "VideoDemographics.csv"
# Burkhardt et al. (2005), A database of German emotional speech, Interspeech.
_EMO_DB_MEN: Final = {"03", "10", "11", "12", "15"}
# Livingstone and Russo (2018), RAVDESS, PLOS ONE 13(5): the first number of a name.
_RAVDESS_FORMS: Final = {"01": "audiovisual", "02": "video", "03": "audio"}

# A line of dialog/EmoEvaluation: [start - end], id, label, [valence, activation, dominance].
_EVALUATION: Final = re.compile(r"\[[^\]]*\]\s+(\S+)\s+(\S+)\s+\[[^\]]*\]\s*")

_Row = dict[str, str]


class _Layout(NamedTuple):
    """The names of one corpus.

    - stem: pattern of the name of a file, without ending.
    - labels: name of each label code.
    - folder: pattern of folder names, or their ends, that differ by speaker or dialogue.
    - describe: columns of an utterance from its match.
    """

    stem: str
    example: str
    labels: Mapping[str, str]
    folder: str
    describe: Callable[[re.Match[str]], _Row]


def _describe_ravdess(name: re.Match[str]) -> _Row:
    # Without the first number: picture and sound of one performance are one utterance.
    sex = "male" if int(name["speaker"]) % 2 else "female"
    return {"utterance": name[0].partition("-")[2], "sex": sex}


def _describe_emo_db(name: re.Match[str]) -> _Row:
    return {"sex": "male" if name["speaker"] in _EMO_DB_MEN else "female"}


def _describe_iemocap(name: re.Match[str]) -> _Row:
    # The last letter is the speaker's: the one after the session is that of the markers.
    return {"speaker": name["sex"] + name["number"], "sex": _SEXES[name["sex"]]}


_LAYOUTS: Final = {
    "ravdess": _Layout(
        r"(?P<form>0[1-3])-0[12]-(?P<label>0[1-8])-0[12]-(?P<sentence>0[12])-0[12]"
        r"-(?P<speaker>0[1-9]|1[0-9]|2[0-4])",
        "03-01-06-01-02-01-12",
        {"01": "neutral", "02": "calm", "03": "happy", "04": "sad"}
        | {"05": "angry", "06": "fearful", "07": "disgust", "08": "surprised"},
        r"_?Actors?_\d\d(-\d\d)?",
        _describe_ravdess,
    ),
    "crema-d": _Layout(
        r"(?P<speaker>10[0-9]{2})_(?P<sentence>[A-Z]{3})_(?P<label>[A-Z]{3})_(LO|MD|HI|XX?)",
        "1001_DFA_ANG_XX",
        {"ANG": "anger", "DIS": "disgust", "FEA": "fear"}
        | {"HAP": "happiness", "NEU": "neutral", "SAD": "sadness"},
        r"10\d\d",
        lambda _: {},
    ),
    "emo-db": _Layout(
        r"(?P<speaker>03|08|09|1[0-6])(?P<sentence>[ab][0-9]{2})(?P<label>[A-Z])[a-z]",
        "03a01Fa",
        {"W": "anger", "L": "boredom", "E": "disgust", "A": "fear"}
        | {"F": "happiness", "T": "sadness", "N": "neutral"},
        r"\d\d",
        _describe_emo_db,
    ),
    "iemocap": _Layout(
        r"(?P<dialogue>(?P<session>Ses(?P<number>0[1-5]))[FM]_[a-z]+[0-9]{2}[0-9a-z_]*)"
        r"_(?P<sex>[FM])[0-9A-Z]+",
        "Ses01F_impro01_F000",
        {"ang": "angry", "hap": "happy", "exc": "excited", "sad": "sad", "neu": "neutral"}
        | {"fru": "frustrated", "fea": "fearful", "sur": "surprised", "dis": "disgusted"}
        | {"oth": "other", "xxx": "undecided"},
        r"Session\d|sentences|Ses0\d[FM]_\w+",
        _describe_iemocap,
    ),
}


def scan_command(request: Request) -> int:
    """Write the table of a corpus from its file names, and name each file that has no row."""
    folder, out = request.arguments["folder"], request.arguments["out"]
    layout = request.arguments["layout"]
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}; expected that of the corpus.")
    if os.path.lexists(out):
        raise FolderError(
            f"--out {out} exists already, and nothing is overwritten. Name a new file, or move "
            "that one."
        )
    scan = _Scan(layout)
    scan.read(folder)
    place = Path(os.path.relpath(folder.resolve(), out.parent.resolve()))
    if ".." in place.parts:
        note = f"outside of the folder of {out.name}, so that later commands need --root"
        scan.left_out[note] = [str(folder.resolve())]
    header, rows = scan.list_rows(place)
    write_text(out, format_csv(header, rows))
    labels = Counter(row[header.index("label_name")] for row in rows)
    n_speakers = len({row[header.index("speaker")] for row in rows})
    n_cells = {
        name: sum(bool(row[i]) for row in rows)
        for i, name in enumerate(header)
        if name not in _COLUMNS
    }
    if request.as_json:
        counts = {"utterances": len(rows), "speakers": n_speakers, "labels": labels}
        print_json({"data": str(out), **counts, "files": n_cells, "notes": scan.left_out})
    elif not is_quiet():
        named = ", ".join(f"{name} {n:,}" for name, n in sorted(labels.items()))
        print(f"{out}: {len(rows):,} utterances of {n_speakers:,} speakers ({named})")  # noqa: T201
        for name, n in n_cells.items():
            print(f"Column {name}: {n:,} files")  # noqa: T201
        for note, names in scan.left_out.items():
            print(f"Note: {note}: {len(names):,} ({list_some(names)})")  # noqa: T201
    return 0


def demo_command(request: Request) -> int:
    """Write the generated corpus."""
    source = make_corpus(request.arguments["folder"], full=request.arguments["full"])
    if request.as_json:
        print_json({"data": str(source)})
    elif not is_quiet():
        print(f"Generated data, with a planted signal: {source}")  # noqa: T201
    return 0


class _Scan:
    """The utterances of a corpus, their files, and the files without one.

    - left_out: names by the reason why they have no row or cell, and other notes.
    """

    def __init__(self, name: str) -> None:
        self.name, self.layout = name, _LAYOUTS[name]
        self.rows: dict[str, _Row] = {}
        self.left_out: dict[str, list[str]] = defaultdict(list)
        # By header without ending, ending and form, since one header needs one kind of file.
        self._files: dict[tuple[str, str, str], dict[str, Path]] = defaultdict(dict)

    def read(self, folder: Path) -> None:
        """Read labels and file names of a corpus."""
        if self.name == "iemocap":
            self._read_evaluations(folder)
        for path in _walk(folder):
            inside = path.relative_to(folder)
            if path.is_dir():
                self.left_out["links to folders, which are not followed"].append(str(inside))
            # Files of IEMOCAP's folder dialog hold whole dialogues and the labels.
            elif not (self.name == "iemocap" and "dialog" in inside.parts):
                self._add_file(inside)
        if not self.rows:
            names = [name for names in self.left_out.values() for name in names]
            seen = f"{len(names):,} ({list_some(names)})" if names else "no files"
            raise ValueError(
                f"{folder} holds no utterance of the layout {self.name}; expected names such "
                f"as {self.layout.example}"
                + (", with labels in dialog/EmoEvaluation" * (self.name == "iemocap"))
                + f". Found: {seen}."
            )
        if self.name == "crema-d":
            self._read_demographics(folder / _DEMOGRAPHICS)
        found = {utterance for files in self._files.values() for utterance in files}
        if lacking := sorted(self.rows.keys() - found):
            self.left_out["utterances without a file"] = lacking

    def list_rows(self, place: Path) -> tuple[list[str], list[list[str]]]:
        """List header and rows, sorted by utterance; paths begin with that of the corpus."""
        columns = [c for c in _COLUMNS if any(c in row for row in self.rows.values())]
        n_forms = Counter((name, ending) for name, ending, _ in self._files)
        n_endings = Counter(name for name, _ in n_forms)
        files: dict[str, dict[str, Path]] = {}
        for (name, ending, form), paths in sorted(self._files.items()):
            parts = [name, *[ending] * (n_endings[name] > 1)]
            header = "_".join([*parts, *[form] * (n_forms[name, ending] > 1)])
            files[f"{header}_features" if header in _TAKEN else header] = paths
        rows = [
            [
                *(row.get(column, "") for column in columns),
                *((place / p[key]).as_posix() if key in p else "" for p in files.values()),
            ]
            for key, row in sorted(self.rows.items())
        ]
        return [*columns, *files], rows

    def _read_evaluations(self, folder: Path) -> None:
        for path in _walk(folder):
            if path.parent.name != "EmoEvaluation" or path.suffix != ".txt":
                continue
            text = path.read_text(encoding="utf-8", errors="replace")
            for number, line in enumerate(text.splitlines(), start=1):
                if not line.startswith("["):
                    continue
                place = f"{path.relative_to(folder).as_posix()}, line {number}"
                match = _EVALUATION.fullmatch(line)
                name = re.fullmatch(self.layout.stem, match[1]) if match else None
                if not match or not name or match[2] not in self.layout.labels:
                    self.left_out["lines without an utterance and a known label"].append(place)
                elif match[1] in self.rows:
                    raise ValueError(f"{place}: {match[1]} has a label already; remove one.")
                else:
                    self._add_row(name, label=match[2])

    def _add_row(self, name: re.Match[str], label: str) -> str:
        own = {key: value for key, value in name.groupdict().items() if key in _COLUMNS}
        row = {"utterance": name[0], **own, "label": label} | self.layout.describe(name)
        row["label_name"] = self.layout.labels[label]
        self.rows[row["utterance"]] = row
        return row["utterance"]

    def _add_file(self, path: Path) -> None:
        ending, stem = path.suffix.casefold(), path.name[: -len(path.suffix) or None]
        place = path.as_posix()
        name = re.fullmatch(self.layout.stem, stem)
        if ending not in _ENDINGS:
            self.left_out[f"files with another ending ({ending or 'none'})"].append(place)
        elif place == _DEMOGRAPHICS and self.name == "crema-d":
            return
        elif name is None or not self._is_known(name):
            self.left_out[f"names unlike {self.layout.example}"].append(place)
        elif self.name == "iemocap" and name[0] not in self.rows:
            self.left_out["files without a label in dialog/EmoEvaluation"].append(place)
        else:
            utterance = (
                name[0] if self.name == "iemocap" else self._add_row(name, name["label"])
            )
            form = _RAVDESS_FORMS.get(name.groupdict().get("form", ""), "")
            column = _name_column(path.parent.parts, self.layout.folder, ending)
            files = self._files[column, ending[1:], form]
            if utterance in files:
                raise ValueError(
                    f"{files[utterance]} and {path} are both the {column} of {utterance}; move "
                    "one out of the folder, or into a folder whose name differs."
                )
            files[utterance] = path

    def _is_known(self, name: re.Match[str]) -> bool:
        """Check the label of a name, and the numbers of speakers that patterns leave open."""
        known = self.name == "iemocap" or name["label"] in self.layout.labels
        return known and not (self.name == "crema-d" and not 1 <= int(name[0][2:4]) <= 91)

    def _read_demographics(self, path: Path) -> None:
        """Add the sexes of CREMA-D, if the table of its speakers is there."""
        if not path.is_file():
            return
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            if not {"ActorID", "Sex"} <= {*(table.fieldnames or ())}:
                raise ValueError(f"{path} has no columns ActorID and Sex.")
            sexes = {row["ActorID"]: (row["Sex"] or "").casefold() for row in table}
        for row in self.rows.values():
            row["sex"] = sexes.get(row["speaker"], "")
        if unknown := sorted({r["speaker"] for r in self.rows.values() if not r["sex"]}):
            self.left_out[f"speakers without a sex in {path.name}"] = unknown


def _walk(folder: Path) -> Iterator[Path]:
    """Yield files, and links to folders, below a folder, sorted; hidden ones are left out."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        else:
            yield path


def _name_column(folders: tuple[str, ...], varying: str, ending: str) -> str:
    """Name the column of files by their folders, without those of one speaker or dialogue."""
    kept = [re.sub(rf"({varying})$", "", name) for name in folders]
    words = re.findall(r"[a-z0-9]+", "_".join(kept).casefold())
    name = "_".join(words).lstrip("0123456789_")
    return name or ("features" if ending in SEQUENCE_EXTENSIONS else ending[1:])


def write_data(
    data: Any,
    columns: Mapping[str, str],
    features: Mapping[str, Any],
    *,
    recordings: bool = False,
) -> tuple[Path, Path]:
    """Write a table and its features below a folder named by their content.

    Gives the written table, and the folder of the files that ``data`` lists itself: a
    DataFrame, a Dataset of Hugging Face or the path of a CSV file.

    - recordings: Whether columns of recordings list files as well, which are extracted.
    """
    if isinstance(data, Mapping):
        raise ConfigError(f"Data are a mapping of {', '.join(data)}; pass one of them.")
    in_memory = hasattr(data, "to_csv")
    frame = _to_frame(data) if in_memory else _read_frame(data)
    base = Path.cwd() if in_memory else Path(data).resolve().parent
    features = _take_arrays(frame, features)
    for header in frame.columns:
        cells = ["" if pd.isna(cell) else str(cell).strip() for cell in frame[header].tolist()]
        if lists_files(cells) or (recordings and all(map(is_recording, filter(None, cells)))):
            frame[header] = [cell and _resolve_path(cell, base) for cell in cells]
    width = len(str(len(frame)))
    rows = Rows.read(frame)
    found = Columns.find(rows, columns=columns, label=None, lists_files=lists_files)
    if "utterance" not in found.roles:
        ids = frame.index
        if isinstance(ids, pd.RangeIndex):
            ids = pd.Index([f"{row:0{width}d}" for row in range(len(frame))])
        frame.insert(0, "utterance", ids)
    arrays: dict[str, NDArray[Any]] = {}
    for modality, values in features.items():
        # Beside a column of transcripts that is called as the modality is.
        header = f"{modality}_features"
        if not modality.isidentifier():  # it is a part of paths
            raise ConfigError(f"features: {modality!r} is no name of a modality.")
        if header in frame.columns:
            raise ConfigError(f"The table has a column {header!r}, and features[{modality!r}].")
        names = [f"features/{modality}/{row:0{width}d}.npy" for row in range(len(frame))]
        given = zip(names, _list_arrays(modality, values, frame.index), strict=True)
        arrays |= {name: array for name, array in given if array is not None}
        frame[header] = [name if name in arrays else "" for name in names]
    text = frame.to_csv(index=False, lineterminator="\n").encode("utf-8")
    digest = hashlib.sha256(text)
    for array in arrays.values():
        digest.update(format_array(array))
    folder = cache_folder() / "memory" / digest.hexdigest()[:24]
    files = ((folder / name, format_array(array)) for name, array in arrays.items())
    for path, content in chain(files, [(folder / "dataset.csv", text)]):
        # A file of this content is left alone: its pooled features are cached.
        if not path.is_file() or path.read_bytes() != content:
            write_bytes(path, content)
    return folder / "dataset.csv", base


def _read_frame(path: Any) -> pd.DataFrame:
    """Read a CSV file as the commands do; pandas would fill and shift rows."""
    rows = Rows.read(path)
    rows.problems.raise_any()
    if rows.blank:
        logger.info("Note: %d rows hold nothing but commas and were skipped.", len(rows.blank))
    header = [name or f"(column {n})" for n, name in enumerate(rows.header, start=1)]
    frame = pd.DataFrame(rows.cells, columns=header, dtype=str)
    for place, cell in rows.padded.items():  # noted when the written table is read
        frame.iat[place] = cell
    return frame


def _to_frame(data: Any) -> pd.DataFrame:
    """Copy a table, or convert a Dataset of Hugging Face, whose library its owner imports."""
    if isinstance(data, pd.DataFrame):
        return data.copy()
    frame: pd.DataFrame = data.to_pandas()
    for header, feature in data.features.items():
        if names := getattr(feature, "names", None):  # a ClassLabel; no label is -1 or null
            known = dict(enumerate(names))
            frame[header] = [known.get(code, "") for code in frame[header].tolist()]
        elif any(isinstance(cell, dict) for cell in frame[header].tolist()):
            raise ConfigError(
                f"Column {header!r} holds {type(feature).__name__}, no numbers or text. "
                "Extract features from it, and leave it out with remove_columns."
            )
    return frame


def _take_arrays(frame: pd.DataFrame, features: Mapping[str, Any]) -> dict[str, Any]:
    """Take columns of arrays and sequences out of a table; a modality each, with features."""
    if twice := frame.columns[frame.columns.duplicated()].tolist():
        raise ConfigError(f"The table has two columns {twice[0]!r}; rename or remove one.")
    arrays = dict(features)
    for header in frame.columns:
        cells = frame[header].tolist()
        are = [*map(_is_array, cells)]
        if not any(are):
            continue
        for row in (k for k, cell in enumerate(cells) if not (are[k] or pd.isna(cell))):
            fault = f"Column {header!r}, row {row}: {cells[row]!r:.40} beside arrays"
            raise ConfigError(f"{fault}; expected an array, or None where it is missing.")
        name = str(header).removesuffix("_features")
        if name in arrays:
            raise ConfigError(f"Modality {name!r} is given twice, once as {header!r}.")
        arrays[name] = [c if k else None for k, c in zip(are, cells, strict=True)]
        del frame[header]
    return arrays


def _is_array(cell: Any) -> bool:
    is_sequence = isinstance(cell, Sequence) or hasattr(cell, "__array__")
    return is_sequence and not isinstance(cell, str | bytes | np.generic)


def _stack(cell: Any) -> NDArray[Any]:
    """Stack frames that are arrays of their own, as Arrow gives them."""
    array = as_array(cell)
    if array.dtype == object and array.size and array.ndim:
        with suppress(ValueError):  # frames of several lengths are refused with their row
            return np.stack([*map(as_array, array)])
    return array


def _resolve_path(cell: str, base: Path) -> str:
    """Make a path absolute, as the reader of a table in ``base`` would find it."""
    below = base / cell.lstrip("/")
    exists = Path(str(below).partition("#")[0]).exists()
    return str(below) if exists or not Path(cell).is_absolute() else cell


def _align(modality: str, values: Any, index: Any) -> Any:
    """Bring the rows of pandas into the order of the table's index; refuse other labels."""
    if not isinstance(values, pd.DataFrame | pd.Series) or values.index.equals(index):
        return values
    own = values.index
    if lacking := index[~index.isin(own)].tolist():
        fault = f"it has no {lacking[0]!r}"
    elif twice := [*own[own.duplicated()].tolist(), *index[index.duplicated()].tolist()]:
        fault = f"{twice[0]!r} is there twice"
    else:
        name = f"features[{modality!r}]"
        logger.info("Note: %s: rows were put in the order of the table, by its index.", name)
        return values.loc[index]
    raise ConfigError(
        f"features[{modality!r}]: its index is not that of the table ({fault}), so rows may "
        "belong to other utterances. Give both one index of unique labels, or pass "
        ".to_numpy() where the rows are in the order of the table."
    )


def _list_arrays(modality: str, values: Any, index: Any) -> list[NDArray[Any] | None]:
    """List the array of each row of a table with this index; None where it is missing."""
    if len(values) != len(index):
        raise ConfigError(
            f"features[{modality!r}] has {len(values)} rows, and the table has {len(index)}."
        )
    values = _align(modality, values, index)
    values = values.to_numpy() if hasattr(values, "to_numpy") else values
    rows: list[NDArray[Any] | None] = []
    for number, value in enumerate(values):
        place = f"features[{modality!r}], row {number}"
        try:
            array = _stack(value)
        except (ValueError, TypeError, RuntimeError) as error:  # the last two of torch
            raise ConfigError(f"{place}: {error}") from None
        # No frames, and frames of NaN alone, are refused as in files: they are not missing.
        is_vector = array.ndim < 2 and array.size > 0 and array.dtype.kind == "f"
        is_missing = value is None or (is_vector and np.isnan(array).all())
        if not is_missing and array.dtype.kind not in "fiu":
            raise ConfigError(
                f"{place}: {array.dtype} of shape {array.shape}; expected an array of integers "
                "or floats, or None where it is missing."
            )
        rows.append(None if is_missing else array)
    return rows
