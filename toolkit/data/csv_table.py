"""A CSV file as text: bytes to stripped cells, nothing guessed, nothing shifted."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

SHOWN = 20


class ManifestError(ValueError):
    """A data set that cannot be used as it is, with every reason found.

    Parameters
    ----------
    problems : sequence of str
        One sentence a problem: where it is, what is wrong, what would mend it.
    source : str, default=""
        Name of the file that the problems are in.

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
        lines += [f"- {problem}" for problem in self.problems[:SHOWN]]
        if count > SHOWN:
            lines.append(f"... and {count - SHOWN:,} more.")
        return "\n".join(lines)


class Problems:
    """The problems found so far in one file.

    - source: Name of the file, for the messages.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._found: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, text: str, *, row: int | None = None, column: str | None = None) -> None:
        """Note one problem."""
        where = "" if row is None else f"row {row:,}"
        if column is not None:
            where += f"{', ' if where else ''}column {column!r}"
        # What concerns the whole table comes first: it often explains what the rows say.
        self._found.append((row or 0, f"{where}: {text}" if where else text))

    def raise_any(self) -> None:
        """Raise all problems, in row order, where there are any."""
        if self._found:
            ordered = sorted(self._found, key=lambda found: found[0])
            raise ManifestError([text for _, text in ordered], source=self.source)

    def refuse(self, text: str) -> NoReturn:
        """Raise at once, for what leaves nothing else to look at."""
        raise ManifestError([text], source=self.source)


CONTROL = re.compile(r"[\x00-\x1f\x7f]")
"""What no id, label or path may hold, though a quoted cell can."""

OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
# First bytes of what is taken for a CSV file by mistake. UTF-32 goes unmentioned: its mark
# begins as that of UTF-16, and the advice is the same.
OTHER_FORMATS = {
    b"\xff\xfe": "is encoded as UTF-16",
    b"\xfe\xff": "is encoded as UTF-16",
    b"PK\x03\x04": "is a ZIP archive, such as an Excel workbook",
    b"\x93NUMPY": "is a numpy array",
}


@dataclass(frozen=True, slots=True)
class Rows:
    """The cells of a table, as text without white space around them.

    Parameters
    ----------
    header : tuple of str
        Name of each column, empty where the file gives none.
    numbers : tuple of int
        Row of the file that each row of cells stands in, as a spreadsheet counts them: the
        header of a file that begins with it is row 1.
    cells : tuple of tuple of str
        One tuple a row, each as long as the header.
    blank : tuple of int
        Rows of the file that hold nothing but delimiters.
    n_broken : int
        Rows left out because their number of fields is not the header's.
    """

    header: tuple[str, ...]
    numbers: tuple[int, ...]
    cells: tuple[tuple[str, ...], ...]
    blank: tuple[int, ...]
    n_broken: int

    def column(self, position: int) -> list[str]:
        """Return the cells of one column.

        Parameters
        ----------
        position : int
            Place of the column in the header.

        Returns
        -------
        list of str
            One cell a row.
        """
        return [row[position] for row in self.cells]


def read_rows(path: Path, problems: Problems) -> Rows:
    """Read a comma-separated UTF-8 file as text."""
    text = _read_text(path, problems)
    _check_delimiter(text, problems)
    header: tuple[str, ...] = ()
    numbers: list[int] = []
    cells: list[tuple[str, ...]] = []
    blank: list[int] = []
    n_broken = 0
    for number, record in _records(text, problems):
        row = tuple(field.strip() for field in record)
        if not any(row):
            # A blank line is no row; rows of bare delimiters are what spreadsheets append.
            if row and header:
                blank.append(number)
        elif not header:
            header = row
        elif len(row) != len(header):
            n_broken += 1
            problems.add(
                f"{len(row)} fields where the header has {len(header)}; put quotes around a "
                "cell that holds a comma, and leave an empty cell where there is no value.",
                row=number,
            )
        else:
            numbers.append(number)
            cells.append(row)
    if not header:
        problems.refuse("The file is empty; its first row must name the columns.")
    if not cells and not n_broken:
        problems.refuse("There is a header but no row below it; expected one row an utterance.")
    return Rows(header, tuple(numbers), tuple(cells), tuple(blank), n_broken)


def _read_text(path: Path, problems: Problems) -> str:
    if path.is_dir():
        problems.refuse(f"{path} is a folder; name the table in it, such as dataset.csv.")
    if not path.exists():
        raise FileNotFoundError(
            f"There is no file {path}; expected a table, one row an utterance."
        )
    data = path.read_bytes()
    for first_bytes, format_name in OTHER_FORMATS.items():
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
    header = re.sub(r'"[^"]*"', "", text.lstrip().partition("\n")[0])
    for delimiter, name in OTHER_DELIMITERS.items():
        if header.count(delimiter) > header.count(","):
            problems.refuse(
                f"The columns are separated by {name} ({delimiter!r}); expected commas: save "
                "the table as comma-separated values."
            )


def _records(text: str, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    number = 0
    try:
        for number, record in enumerate(reader, start=1):
            yield number, record
    except csv.Error as error:
        problems.refuse(
            f"Row {number + 1:,} cannot be split into cells ({error}); check the quotes there "
            "and above."
        )
