"""A CSV file as text: bytes to stripped cells, nothing guessed, nothing shifted."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toolkit.data.problems import Problems

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
