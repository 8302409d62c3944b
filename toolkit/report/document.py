"""What a page is made of: plain text, numbers and tables, before anyone formats them.

A section is a title and parts; every part is written by :mod:`toolkit.report.page` and by
:mod:`toolkit.report.page`. A new section is therefore one function that returns a
:class:`Section` and a line in :mod:`toolkit.report.contents`: nothing else knows of it.
Texts hold no markup; names of the data stay what they are until they are escaped for a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from unicodedata import bidirectional

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from toolkit.validation import Score


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


#: What an empty cell shows: there is no such number.
NONE: Final = "\N{EN DASH}"
_TURNING: Final = {
    "R",
    "AL",
    "AN",
    "RLE",
    "RLO",
    "RLI",
    "LRE",
    "LRO",
    "LRI",
    "FSI",
    "PDF",
    "PDI",
}
MINUS: Final = "\N{MINUS SIGN}"


def format_number(value: float) -> str:
    """Format a score or a loss.

    Examples
    --------
    >>> format_number(0.71249)
    '0.712'
    """
    return f"{value:.3f}"


def format_interval(low: float | None, high: float | None, *, sign: bool = False) -> str:
    """Format an interval.

    Examples
    --------
    >>> format_interval(0.65, 0.771)
    '[0.650, 0.771]'
    """
    if low is None or high is None:
        return ""
    return f"[{low:+.3f}, {high:+.3f}]" if sign else f"[{low:.3f}, {high:.3f}]"


def format_p(p: float | None) -> str:
    """Format a probability of a test.

    Examples
    --------
    >>> format_p(0.00391), format_p(1.0), format_p(0.00001)
    ('.0039', '1', '< .0001')
    """
    if p is None:
        return NONE
    if p < 0.00005:
        return "< .0001"
    return f"{p:.4f}".lstrip("0") if round(p, 4) < 1 else "1"


def format_share(part: int, whole: int) -> str:
    """Format a count among others.

    Examples
    --------
    >>> format_share(3, 12), format_share(0, 0)
    ('3 (25 %)', '0')
    """
    return f"{part:,} ({part / whole:.0%})".replace("%", " %") if whole else f"{part:,}"


def isolate(name: str) -> str:
    r"""Keep a name written from right to left from turning the sentence around it.

    Examples
    --------
    >>> isolate("anger"), isolate("\u05d0")
    ('anger', '\u2068א\u2069')
    """
    turned = any(bidirectional(mark) in _TURNING for mark in name)
    return f"\N{FIRST STRONG ISOLATE}{name}\N{POP DIRECTIONAL ISOLATE}" if turned else name


def join_names(names: Sequence[str]) -> str:
    """Join names as a sentence does.

    Examples
    --------
    >>> join_names(["text", "audio", "visual"])
    'text, audio and visual'
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def count_words(n: int, noun: str) -> str:
    """Write a count with its noun.

    Parameters
    ----------
    n : int
        The count.
    noun : str
        In the singular; its plural takes an s.

    Returns
    -------
    str
        For example "3 folds".

    Examples
    --------
    >>> count_words(1, "fold"), count_words(1336, "utterance")
    ('1 fold', '1,336 utterances')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def count_cell(n: int) -> Cell:
    """Make a cell of a count.

    Parameters
    ----------
    n : int
        The count.

    Returns
    -------
    Cell
        Sorted by it.
    """
    return Cell(f"{n:,}", float(n))


def number_cell(value: float | None) -> Cell:
    """Make a cell of a score.

    Parameters
    ----------
    value : float or None
        The number.

    Returns
    -------
    Cell
        Sorted by it; a dash where there is none.
    """
    return Cell(NONE) if value is None else Cell(format_number(value), value)


def score_cell(score: Score) -> Cell:
    """Make a cell of a score and its interval."""
    text = f"{format_number(score.value)} {format_interval(score.low, score.high)}"
    return Cell(text.strip(), score.value)


def share_cell(part: int, whole: int) -> Cell:
    """Make a cell of a count and its share."""
    return Cell(format_share(part, whole), float(part))


def p_cell(p: float | None) -> Cell:
    """Make a cell of a probability of a test."""
    return Cell(format_p(p), p)
