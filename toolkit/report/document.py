"""The parts of a page as plain text, numbers and tables, before they are formatted.

A section is a title and parts; :mod:`toolkit.report.page` writes every part in four formats.
A new section is one function that returns a :class:`Section`, and a line in
:mod:`toolkit.report.contents`. Texts hold no markup; names of the data are escaped for each
format where they are written.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from unicodedata import bidirectional

import numpy as np
from numpy.typing import NDArray

from toolkit.validation import Score


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table; the column is sorted by `value`, or by the text where it is None.

    - best: Whether it is the best of its column, in bold.
    """

    text: str
    value: float | None = None
    best: bool = False


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Sentences; a lead sums up its section, a warning stands out, code keeps its lines."""

    text: str
    kind: Literal["text", "lead", "warning", "code"] = "text"


@dataclass(frozen=True, slots=True)
class Items:
    """A list of at least one remark."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column names its rows.

    - name: Letters, digits and hyphens; unique on the page.
    - n_footers: Rows at the end that sum up the others and stay there when it is sorted.
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
        """Check whether a column holds numbers, which are aligned right."""
        return any(row[column].value is not None for row in self.rows)


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """Counts of true against predicted classes.

    - option: The system, in the list of a choice.
    - counts: Utterances, shape (n_classes, n_classes); true classes in rows.
    - summary: The matrix in words, for screen readers and as a note.
    """

    name: str
    option: str
    caption: str
    classes: tuple[str, ...]
    counts: NDArray[np.int64]
    summary: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing in the folder ``figures``; `alt` is the drawing in words and numbers."""

    stem: str  # file name without its extension
    caption: str
    alt: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Matrices of which the reader picks one; the first is shown first."""

    name: str
    label: str
    parts: tuple[Matrix, ...]


@dataclass(frozen=True, slots=True)
class Fold:
    """Parts that are shown once their title is clicked; it begins with a capital letter."""

    title: str
    parts: tuple["Part", ...]


Part = Paragraph | Items | Table | Matrix | Figure | Choice | Fold


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
        The names of study and data set.
    study : str
        The size of the data set, in a line.
    generated : bool
        Whether the recordings were made by this software.
    sections : tuple of Section
        In reading order; the first holds the summary.
    """

    title: str
    study: str
    generated: bool
    sections: tuple[Section, ...]

    def parts(self) -> Iterator[Part]:
        """List the parts of all sections in reading order, with those of folds and choices.

        Yields
        ------
        Part
            A paragraph, list, table, matrix or figure.
        """
        for section in self.sections:
            yield from _flatten(section.parts)


def _flatten(parts: Sequence[Part]) -> Iterator[Part]:
    for part in parts:
        if isinstance(part, Choice | Fold):
            yield from _flatten(part.parts)
        else:
            yield part


_Value = Cell | Score | str | float | None
#: A row of a table that is being made: cells, and values that become cells by their type.
Row = list[_Value]


def make_table(
    name: str,
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[_Value]],
    *,
    note: str = "",
    n_footers: int = 0,
) -> Table:
    """Make a table from rows of cells, scores, texts, counts and numbers."""
    cells = tuple(tuple(map(_make_cell, row)) for row in rows)
    return Table(name, caption, tuple(header), cells, note, n_footers)


def _make_cell(value: _Value) -> Cell:
    """Make a cell of a value by its type; None becomes a dash, a bool yes or no."""
    match value:
        case Cell():
            return value
        case None:
            return Cell(NONE)
        case str():
            return Cell(value)
        case Score():
            return score_cell(value.value, value.low, value.high)
        case bool() | np.bool_():
            text = "yes" if value else "no"
        case int() | np.integer():
            text = f"{value:,}"
        case _:
            text = format_number(value)
    return Cell(text, float(value))


#: Text of a cell that has no number.
NONE: Final = "\N{EN DASH}"
MINUS: Final = "\N{MINUS SIGN}"
#: Unicode's bidirectional classes that change the direction of the text around them.
_TURNING: Final = frozenset(
    ["R", "AL", "AN", "RLE", "RLO", "RLI", "LRE", "LRO", "LRI", "FSI", "PDF", "PDI"]
)


def format_number(value: float) -> str:
    """Format a score or a loss."""
    return f"{value:.3f}"


def format_interval(low: float | None, high: float | None, *, sign: bool = False) -> str:
    """Format an interval; empty where it has no ends."""
    if low is None or high is None:
        return ""
    return f"[{low:+.3f}, {high:+.3f}]" if sign else f"[{low:.3f}, {high:.3f}]"


def format_p(p: float | None) -> str:
    """Format a p value."""
    if p is None:
        return NONE
    if p < 0.00005:
        return "< .0001"
    return f"{p:.4f}".lstrip("0") if round(p, 4) < 1 else "1"


def format_share(part: int, whole: int) -> str:
    """Format a count and its percentage of a whole."""
    return f"{part:,} ({part / whole:.0%})".replace("%", " %") if whole else f"{part:,}"


def isolate(name: str) -> str:
    """Keep a name written from right to left from reversing the sentence around it."""
    turned = any(bidirectional(mark) in _TURNING for mark in name)
    return f"\N{FIRST STRONG ISOLATE}{name}\N{POP DIRECTIONAL ISOLATE}" if turned else name


def join_names(names: Sequence[str]) -> str:
    """Join names as a sentence does."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def count_words(n: int, noun: str) -> str:
    """Write a count with its noun, whose plural takes an s."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def change_cell(change: float) -> Cell:
    """Make a cell of a signed difference."""
    return Cell(f"{change:+.3f}", change)


def score_cell(
    value: float, low: float | None, high: float | None, *, best: bool = False
) -> Cell:
    """Make a cell of a number and its interval, if it has one."""
    return Cell(f"{format_number(value)} {format_interval(low, high)}".strip(), value, best)


def share_cell(part: int, whole: int) -> Cell:
    """Make a cell of a count and its share."""
    return Cell(format_share(part, whole), float(part))


def p_cell(p: float | None) -> Cell:
    """Make a cell of a p value."""
    return Cell(format_p(p), p)
