"""``toolkit scan``: a ``dataset.csv`` from the file names of known corpora."""

import csv
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from toolkit.data.feature_folder import READERS
from toolkit.data.roles import ROLES
from toolkit.data.sequences import SEQUENCE_EXTENSIONS
from toolkit.files import FolderError, format_csv, write_text
from toolkit.study.options import Request, print_json
from toolkit.study.terminal import is_quiet

_ENDINGS: Final = {*SEQUENCE_EXTENSIONS, *(f".{end}" for ends in READERS for end in ends)}
_COLUMNS: Final = (
    *("utterance", "speaker", "label", "label_name", "sentence", "sex", "session", "dialogue"),
)
#: Headers that would not name a modality.
_TAKEN: Final = {*_COLUMNS, *(header for headers in ROLES.values() for header in headers)}
_MOST_NAMED: Final = 5

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
    n_cells = {
        name: sum(bool(row[i]) for row in rows)
        for i, name in enumerate(header)
        if name not in _COLUMNS
    }
    speakers = {row[header.index("speaker")] for row in rows}
    if request.as_json:
        counts = {"utterances": len(rows), "speakers": len(speakers), "labels": labels}
        print_json({"data": str(out), **counts, "files": n_cells, "notes": scan.left_out})
    elif not is_quiet():
        named = ", ".join(f"{name} {n:,}" for name, n in sorted(labels.items()))
        print(  # noqa: T201
            f"{out}: {len(rows):,} utterances of {len(speakers):,} speakers ({named})"
        )
        for name, n in n_cells.items():
            print(f"Column {name}: {n:,} files")  # noqa: T201
        for note, names in scan.left_out.items():
            print(f"Note: {note}: {_list_some(names)}")  # noqa: T201
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
            seen = _list_some([name for names in self.left_out.values() for name in names])
            raise ValueError(
                f"{folder} holds no utterance of the layout {self.name}; expected names such "
                f"as {self.layout.example}"
                + (", with labels in dialog/EmoEvaluation" * (self.name == "iemocap"))
                + f". Found: {seen or 'no files'}."
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


def _list_some(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    some = ", ".join(names[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
    return f"{len(names):,} ({some})" if names else ""
