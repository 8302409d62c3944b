"""A CSV file as text, without guesses of types or shifted cells; and its problems."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

_MOST_SHOWN = 20
# A fault of more rows than this is one problem, with their number and some of them.
_MOST_ALONE = 3
_MOST_ROWS = 5
# What differs from row to row in one fault: quoted words, paths and numbers.
_VARYING = re.compile(r"'[^']*'|\"[^\"]*\"|/\S+|[-+]?\d[\d,.]*")


class ManifestError(ValueError):
    """A data set that cannot be used as it is, with every problem found.

    Parameters
    ----------
    problems : sequence of str
        One sentence per problem: its row and column, the fault, and the remedy.
    source : str, default=""
        Name of the file with the problems.

    Attributes
    ----------
    problems : tuple of str
        All of them; the message shows the first 20 and counts the rest.

    Examples
    --------
    >>> error = ManifestError(["row 2: no label", "row 5: no label"], source="dataset.csv")
    >>> print(error)
    dataset.csv has 2 problems:
    - row 2: no label
    - row 5: no label
    """

    def __init__(self, problems: Sequence[str], *, source: str = "") -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        self.source = source
        # The problems are the only argument, so that the error survives being pickled on its
        # way out of a worker process.
        super().__init__(self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        name = self.source or "The data set"
        lines = [f"{name} has {count:,} problem{'' if count == 1 else 's'}:"]
        lines += [f"- {problem}" for problem in self.problems[:_MOST_SHOWN]]
        if count > _MOST_SHOWN:
            lines.append(f"... and {count - _MOST_SHOWN:,} more.")
        return "\n".join(lines)


class Problems:
    """The problems of one file, and warnings for the reader of the results."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.warnings: list[str] = []
        self._found: list[tuple[int, str, str]] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, text: str, *, row: int | None = None, column: str | None = None) -> None:
        """Add one problem."""
        where = "" if row is None else f"row {row:,}"
        if column is not None:
            where += f"{', ' if where else ''}column {column!r}"
        # Problems of the whole table come first: they often explain those of the rows.
        kind = f"{column}: {self.kind_of(text)}"
        self._found.append((row or 0, kind, f"{where}: {text}" if where else text))

    @staticmethod
    def kind_of(text: str) -> str:
        """Leave out of a sentence what differs from row to row in one fault."""
        return _VARYING.sub("", text)

    def raise_any(self) -> None:
        """Raise all problems in row order, if there are any, and one of many rows once."""
        alike: dict[str, list[tuple[int, str]]] = {}
        for row, kind, text in sorted(self._found, key=lambda found: found[0]):
            alike.setdefault(kind if row else text, []).append((row, text))
        found: list[tuple[int, str]] = []
        for group in alike.values():
            if len(group) <= _MOST_ALONE:
                found += group
                continue
            (row, text), *others = group
            rows = ", ".join(f"{number:,}" for number, _ in others[:_MOST_ROWS])
            more = ", ..." if len(others) > _MOST_ROWS else ""
            found.append(
                (row, f"{text} {len(group):,} rows have this fault: also {rows}{more}")
            )
        if found:
            ordered = sorted(found, key=lambda problem: problem[0])
            raise ManifestError([text for _, text in ordered], source=self.source)

    def refuse(self, text: str) -> NoReturn:
        """Raise at once, for a problem that prevents all further checks."""
        raise ManifestError([text], source=self.source)


CONTROL = re.compile(r"[\x00-\x1f\x7f]")
"""Characters that no id, label or path may contain, though a quoted cell can."""

# A line that tells spreadsheets the delimiter.
_SEPARATOR = re.compile(r"sep=.?\r?\n", re.IGNORECASE)
_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
# First bytes of files given by mistake. UTF-32 is not listed: its mark begins like that of
# UTF-16, and the advice is the same.
_OTHER_FORMATS = {
    b"\xff\xfe": "is encoded as UTF-16",
    b"\xfe\xff": "is encoded as UTF-16",
    b"PK\x03\x04": "is a ZIP archive, such as an Excel workbook",
    b"\x93NUMPY": "is a numpy array",
}


@dataclass(frozen=True, slots=True)
class Rows:
    """The cells of a table, as text without white space around them.

    - header: Name of each column, empty where it has none.
    - numbers: Row number of each row of cells in the file; a header in the first line is row 1.
    - blank: Row numbers of rows of bare delimiters.
    - n_broken: Number of rows left out because they have more or fewer fields than the header.
    - problems: Problems and warnings found so far; every check adds its own.
    - folder: Folder of the file, where the paths in it begin.
    - padded: Cells that had white space around them, as they were, by position in `cells`.
    """

    header: tuple[str, ...]
    numbers: tuple[int, ...]
    cells: tuple[tuple[str, ...], ...]
    blank: tuple[int, ...]
    n_broken: int
    problems: Problems
    folder: Path = Path()
    padded: Mapping[tuple[int, int], str] = field(default_factory=dict)

    @classmethod
    def read(cls, source: Any) -> "Rows":
        """Read a comma-separated UTF-8 file, or a DataFrame, as text."""
        # Not by its type: the commands need no pandas to read a table.
        is_frame = hasattr(source, "to_csv")
        path = Path("DataFrame" if is_frame else source)
        problems = Problems(path.name)
        if is_frame:
            text: str = source.to_csv(index=False, lineterminator="\n")
        else:
            text = _read_text(path, problems)
            _check_delimiter(text, problems)
        header: tuple[str, ...] = ()
        numbers: list[int] = []
        cells: list[tuple[str, ...]] = []
        blank: list[int] = []
        padded: dict[tuple[int, int], str] = {}
        n_broken = 0
        for number, record in _records(text, problems, spaced=not is_frame):
            row = tuple(field.strip() for field in record)
            if number == 1 and _SEPARATOR.match(text):
                continue
            is_first = not cells and not n_broken
            if not any(row):
                # A blank line is no row; spreadsheets append rows of bare delimiters.
                if row and header:
                    blank.append(number)
            elif not header:
                header = row
            elif is_first and sum(map(bool, header)) == 1 and sum(map(bool, row)) > 2:
                title = next(filter(None, header))
                problems.refuse(
                    f"Row {number - 1:,} holds {title!r} alone, as a title does, and row "
                    f"{number:,} seems to name the columns. Delete the rows above it."
                )
            elif len(row) != len(header):
                n_broken += 1
                problems.add(
                    f"{len(row)} fields where the header has {len(header)}; put quotes "
                    "around a cell that holds a comma, and leave an empty cell where there is "
                    "no value.",
                    row=number,
                )
            else:
                changed = [k for k, cell in enumerate(record) if cell != row[k]]
                padded |= {(len(cells), k): record[k] for k in changed}
                numbers.append(number)
                cells.append(row)
        if not header:
            problems.refuse("The file is empty; its first row must name the columns.")
        if not cells and not n_broken:
            problems.refuse(
                "There is a header but no row below it; expected one row per utterance."
            )
        found = tuple(numbers), tuple(cells), tuple(blank)
        return cls(header, *found, n_broken, problems, path.parent, padded)

    def column(self, position: int) -> list[str]:
        """Return the cells of one column, one per row."""
        return [row[position] for row in self.cells]


def _read_text(path: Path, problems: Problems) -> str:
    if path.is_dir():
        problems.refuse(f"{path} is a folder; name the table in it, such as dataset.csv.")
    if not path.exists():
        raise FileNotFoundError(
            f"There is no file {path}; expected a table, one row per utterance."
        )
    if not path.is_file():
        problems.refuse(
            f"{path} is a pipe or a device. Save the table as a file: the paths in it begin at "
            "its folder."
        )
    data = path.read_bytes()
    for first_bytes, format_name in _OTHER_FORMATS.items():
        if data.startswith(first_bytes):
            problems.refuse(
                f"The file {format_name}; expected comma-separated text encoded as UTF-8, "
                "so save or export it as that."
            )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        problems.refuse(
            f"Byte 0x{data[error.start]:02X} at offset {error.start:,} "
            f"(line {_line(data, error.start):,}) is not UTF-8; the file may be Latin-1 or "
            "Windows-1252: save it as UTF-8."
        )
    # csv lets NUL through, and numpy drops it from the end of a string: two ids become one.
    if (offset := data.find(b"\0")) >= 0:
        problems.refuse(
            f"NUL byte at offset {offset:,} (line {_line(data, offset):,}); the file is "
            "damaged or encoded as UTF-16: save it as UTF-8."
        )
    return text.removeprefix("\ufeff")


def _line(data: bytes, offset: int) -> int:
    return data.count(b"\n", 0, offset) + 1


def _check_delimiter(text: str, problems: Problems) -> None:
    # Quoted names may contain any delimiter.
    text = _SEPARATOR.sub("", text, count=1) if _SEPARATOR.match(text) else text
    header = re.sub(r'"[^"]*"', "", text.lstrip().partition("\n")[0])
    for delimiter, name in _OTHER_DELIMITERS.items():
        if header.count(delimiter) > header.count(","):
            problems.refuse(
                f"The columns are separated by {name} ({delimiter!r}); expected commas: save "
                "the table as comma-separated values."
            )


def _records(text: str, problems: Problems, *, spaced: bool) -> Iterator[tuple[int, list[str]]]:
    """Split a text into cells; white space behind a comma may be part of the separator."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=spaced)
    number = 0
    try:
        for number, record in enumerate(reader, start=1):
            yield number, record
    except csv.Error as error:
        problems.refuse(
            f"Row {number + 1:,} cannot be split into cells ({error}); check the quotes there "
            "and above."
        )
