"""The parts of a page, and their formats: one self-contained HTML file, Markdown, LaTeX tables.

A section is a title and parts. A new section is one function that returns a :class:`Section`,
and a line in :mod:`toolkit.report.contents`. Texts hold no markup; names of the data are
escaped for each format where they are written.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final, Literal
from unicodedata import bidirectional

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
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

    @classmethod
    def of(cls, value: "_Value") -> "Cell":
        """Make a cell of a value by its type; None becomes a dash, a bool yes or no."""
        match value:
            case Cell():
                return value
            case None:
                return cls(NONE)
            case str():
                return cls(value)
            case Score():
                return cls.of_score(value.value, value.low, value.high)
            case bool() | np.bool_():
                text = "yes" if value else "no"
            case int() | np.integer():
                text = f"{value:,}"
            case _:
                text = format_number(value)
        return cls(text, float(value))

    @classmethod
    def of_score(
        cls, value: float, low: float | None, high: float | None, *, best: bool = False
    ) -> "Cell":
        """Make a cell of a number and its interval, if it has one."""
        text = f"{format_number(value)} {format_interval(low, high)}".strip()
        return cls(text, value, best)

    @classmethod
    def of_change(cls, change: float) -> "Cell":
        """Make a cell of a signed difference."""
        return cls(f"{change:+.3f}", change)

    @classmethod
    def of_share(cls, part: int, whole: int) -> "Cell":
        """Make a cell of a count and its share."""
        return cls(format_share(part, whole), float(part))

    @classmethod
    def of_p(cls, p: float | None) -> "Cell":
        """Make a cell of a p value."""
        return cls(format_p(p), p)


_Value = Cell | Score | str | float | None
#: A row of a table that is being made: cells, and values that become cells by their type.
Row = list[_Value]


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

    @classmethod
    def of(
        cls,
        name: str,
        caption: str,
        header: Sequence[str],
        rows: Iterable[Sequence[_Value]],
        *,
        note: str = "",
        n_footers: int = 0,
    ) -> "Table":
        """Make a table from rows of cells, scores, texts, counts and numbers."""
        cells = tuple(tuple(map(Cell.of, row)) for row in rows)
        return cls(name, caption, tuple(header), cells, note, n_footers)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(
                    f"Table {self.name!r} has a row of {len(row)} cells; expected "
                    f"{len(self.header)}, one per column."
                )

    def is_number(self, column: int) -> bool:
        """Check whether a column holds numbers, which are aligned right."""
        return any(row[column].value is not None for row in self.rows)

    def format_tex(self) -> str:
        r"""Write a table of scores for one column of a paper, with the rules of ``booktabs``.

        A column that is the same in every row is left out. Intervals are in a second line of
        each row. Names of up to 14 letters and four scores fit a column of 3.2 inches.
        """
        numbers = [k for k in range(1, len(self.header)) if self.is_number(k)]
        kept = [k for k in numbers if len({row[k].text for row in self.rows}) > 1] or numbers
        lines = [
            r"% Needs \usepackage{booktabs,textcomp}.",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escape_tex(self.caption)}}}",
            rf"\label{{tab:{self.name}}}",
            r"\footnotesize",
            r"\setlength{\tabcolsep}{2pt}",
            rf"\begin{{tabular}}{{@{{}}l{'r' * len(kept)}@{{}}}}",
            r"\toprule",
            _tex_row([_escape_tex(self.header[k]) for k in (0, *kept)]),
            r"\midrule",
        ]
        for row in self.rows:
            split = [row[k].text.partition(" ")[::2] for k in kept]
            values = [_tex_number(value) for value, _ in split]
            bold = [
                rf"\textbf{{{v}}}" if row[k].best else v
                for k, v in zip(kept, values, strict=True)
            ]
            lines.append(_tex_row([_escape_tex(row[0].text), *bold]))
            ends = [
                rf"{{\scriptsize {_tex_number(text)}}}" if text else "" for _, text in split
            ]
            lines += [_tex_row(["", *ends])] if any(ends) else []
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


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


#: Screen pixels per point of a figure, which is shown somewhat larger than on paper.
_PIXELS_PER_POINT: Final = 1.6
#: Shades of a confusion matrix's cells, from none to all of a true class.
_N_SHADES: Final = 10
_TEMPLATES: Final = resources.files("toolkit.report") / "templates"


def format_markdown(report: Report) -> str:
    """Write a report as Markdown.

    Parameters
    ----------
    report : Report
        The report.

    Returns
    -------
    str
        Equal text for equal reports; figures are links to their SVG files.
    """
    return render_template("report.md", report=report, kind_of=_kind_of)


def render_template(name: str, **values: object) -> str:
    """Fill a template of text or Markdown, whose filter `md` escapes names of the data."""
    return _make_environment(autoescape=False).get_template(name).render(values)


def escape_markdown(text: str) -> str:
    """Escape every mark of Markdown in a text, and write it in one line."""
    for mark in "\\`*_[]<>|#$~!&":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())


def format_page(report: Report, figures: Mapping[str, str]) -> str:
    """Write a report as one HTML file.

    Every name of the data is escaped by the template engine. A policy in the page's head
    forbids any request, and any script but the page's own, by its hash.

    Parameters
    ----------
    report : Report
        The report.
    figures : mapping of str to str
        Stem of every figure to its SVG.

    Returns
    -------
    str
        Equal text for equal reports and figures.

    Raises
    ------
    KeyError
        If a figure of the report was not drawn.
    """
    style, script = (
        (_TEMPLATES / name).read_text(encoding="utf-8").strip()
        for name in ("page.css", "page.js")
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    page = _make_environment(autoescape=True).get_template("page.html")
    return page.render(
        report=report,
        # The two files are this package's own; everything else is escaped.
        style=Markup(style),
        script=Markup(script),
        policy=policy,
        kind_of=_kind_of,
        image=lambda stem: (
            "data:image/svg+xml;base64," + _encode(figures[stem].encode("utf-8"))
        ),
        width=lambda stem: _screen_width(figures[stem]),
        shade=lambda count, total: round(_N_SHADES * count / total) if total else 0,
    )


@cache  # which keeps the compiled templates
def _make_environment(*, autoescape: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("toolkit.report"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"share": format_share, "minus": _set_minus, "number": _cell_text}
    environment.filters["md"] = escape_markdown  # the engine escapes HTML only
    return environment


def _set_minus(text: str) -> str:
    """Write the minus of decimal numbers as the mark that is as wide as a plus."""
    return re.sub(r"(?<![\w.])-(?=\d*\.\d)", MINUS, text)


def _cell_text(cell: Cell) -> str:
    # A name may look like a number, and stays as it is.
    return (
        cell.text if cell.value is None else re.sub(r"(?<![\w.])-(?=[\d.])", MINUS, cell.text)
    )


def _hash(text: str) -> str:
    return "sha256-" + _encode(hashlib.sha256(text.encode("utf-8")).digest())


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _kind_of(part: Part) -> str:
    """Name the branch of a template that writes a part."""
    return type(part).__name__.lower()


def _screen_width(svg: str) -> int | None:
    """Compute the width of a figure in pixels; None if its size cannot be read."""
    found = re.search(r'<svg [^>]*?width="([0-9.]+)pt"', svg)
    return found and round(float(found[1]) * _PIXELS_PER_POINT)


_TEX: Final = {mark: f"\\{mark}" for mark in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    '"': r"\textquotedbl{}",
    "|": r"\textbar{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "\N{EN DASH}": "--",
    "\N{MINUS SIGN}": "$-$",
}


def _escape_tex(text: str) -> str:
    """Escape every mark of LaTeX in a text."""
    plain = " ".join(text.split())
    escaped = "".join(_TEX.get(mark, mark) for mark in plain)
    # LaTeX turns hyphens in a row into dashes, and a bracket after \\ into its option.
    if "--" in plain:
        escaped = escaped.replace("-", "{-}")
    return f"{{[}}{escaped[1:]}" if escaped.startswith("[") else escaped


def _tex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tex_number(text: str) -> str:
    """Write numbers without a zero before their point, and a thin space between two."""
    return _escape_tex(_set_minus(re.sub(r"\b0(?=\.\d)", "", text))).replace(", ", r",\,")
