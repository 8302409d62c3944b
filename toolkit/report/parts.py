"""What a page is made of: plain text, numbers and tables, before anyone formats them.

A section is a title and parts; every part is written by :mod:`toolkit.report.markdown` and by
:mod:`toolkit.report.page`. A new section is therefore one function that returns a
:class:`Section` and a line in :mod:`toolkit.report.summary`: nothing else knows of it.
Texts hold no markup; names of the data stay what they are until they are escaped for a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table.

    - text: What is read.
    - value: What the column is sorted by; the text itself where it is None.
    """

    text: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Sentences.

    Parameters
    ----------
    text : str
        Plain text.
    kind : {"text", "lead", "warning"}, default="text"
        A lead is the answer; a warning stands out.
    """

    text: str
    kind: Literal["text", "lead", "warning"] = "text"


@dataclass(frozen=True, slots=True)
class Items:
    """A list of remarks.

    Parameters
    ----------
    texts : tuple of str
        Plain text, at least one.
    """

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column names its rows.

    Parameters
    ----------
    name : str
        Letters, digits and hyphens; unique on the page.
    caption : str
        What the table shows.
    header : tuple of str
        Names of the columns.
    rows : tuple of tuple of Cell
        As many cells as columns.
    note : str, default=""
        What must be known to read it.
    n_footers : int, default=0
        Rows at the end that sum up the others and stay there when the table is sorted.
    """

    name: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    n_footers: int = 0

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(
                    f"Table {self.name!r} has a row of {len(row)} cells; expected "
                    f"{len(self.header)}, one a column."
                )

    def is_number(self, column: int) -> bool:
        """Say whether a column holds numbers, which stand right.

        Parameters
        ----------
        column : int
            Its position.

        Returns
        -------
        bool
            Whether any of its cells has a value.
        """
        return any(row[column].value is not None for row in self.rows)


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """Counts of true against predicted classes.

    Parameters
    ----------
    name : str
        Unique on the page.
    caption : str
        What it shows.
    classes : tuple of str
        Names of rows and columns.
    counts : ndarray of int64, shape (n_classes, n_classes)
        Utterances; true classes in rows.
    summary : str
        The matrix in words, for whoever does not see it.
    """

    name: str
    caption: str
    classes: tuple[str, ...]
    counts: NDArray[np.int64]
    summary: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing in the folder ``figures``.

    Parameters
    ----------
    stem : str
        File name without its extension.
    caption : str
        What is drawn.
    alt : str
        The drawing in words, made from its numbers.
    """

    stem: str
    caption: str
    alt: str


Part = Paragraph | Items | Table | Matrix | Figure


@dataclass(frozen=True, slots=True)
class Section:
    """A titled part of the page.

    Parameters
    ----------
    name : str
        Letters and hyphens; unique on the page, and the target of links to it.
    title : str
        Its heading.
    parts : tuple of Part
        In reading order.
    """

    name: str
    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A study as its readers see it.

    Parameters
    ----------
    title : str
        The question.
    study : str
        What was studied, in a line.
    generated : bool
        Whether the recordings were made by this software.
    sections : tuple of Section
        In reading order; the first holds the answer.
    """

    title: str
    study: str
    generated: bool
    sections: tuple[Section, ...]


def make_table(
    name: str,
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[Cell | str]],
    *,
    note: str = "",
    n_footers: int = 0,
) -> Table:
    """Make a table of cells and plain texts.

    Parameters
    ----------
    name, caption : str
        As in :class:`Table`.
    header : sequence of str
        Names of the columns.
    rows : sequence of sequence of (Cell or str)
        The cells.
    note, n_footers
        As in :class:`Table`.

    Returns
    -------
    Table
        With texts made cells.
    """
    made = tuple(
        tuple(Cell(cell) if isinstance(cell, str) else cell for cell in row) for row in rows
    )
    return Table(name, caption, tuple(header), made, note, n_footers)
