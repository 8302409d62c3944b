"""The report as Markdown: the same parts as the page, to be read in any editor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from toolkit.report.parts import Figure, Items, Matrix, Paragraph, Table
from toolkit.report.words import format_share

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from toolkit.report.parts import Part, Report

GENERATED: Final = (
    "Generated data. These recordings were made by this software with a planted signal. The "
    "numbers say nothing about people."
)


def format_markdown(report: Report) -> str:
    """Write a report as Markdown.

    Parameters
    ----------
    report : Report
        The report.

    Returns
    -------
    str
        The same text for the same report; figures are linked, not held.
    """
    parts = [f"# {report.title}", escape_markdown(report.study)]
    if report.generated:
        parts.append(f"> **{GENERATED}**")
    for section in report.sections:
        parts.append(f"## {escape_markdown(section.title)}")
        parts += [text for part in section.parts for text in _format_part(part)]
    return "\n\n".join(parts) + "\n"


def escape_markdown(text: str) -> str:
    r"""Keep text from being read as markup.

    Parameters
    ----------
    text : str
        For example a name of the data.

    Returns
    -------
    str
        In one line, every mark escaped.

    Examples
    --------
    >>> escape_markdown("a|b<i>")
    'a\\|b\\<i\\>'
    """
    for mark in "\\`*_[]<>|#$~!&":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())


def _format_part(part: Part) -> Iterator[str]:
    if isinstance(part, Paragraph):
        text = escape_markdown(part.text)
        yield f"**{text}**" if part.kind == "lead" else text
    elif isinstance(part, Items):
        yield "\n".join(f"- {escape_markdown(text)}" for text in part.texts)
    elif isinstance(part, Figure):
        yield f"![{escape_markdown(part.alt)}](figures/{part.stem}.svg)"
        yield f"*{escape_markdown(part.caption)}*"
    elif isinstance(part, Matrix):
        yield f"*{escape_markdown(part.caption)}*"
        yield _format_table(("true", *part.classes), _matrix_rows(part))
        yield f"![{escape_markdown(part.summary)}](figures/{part.name}.svg)"
    else:
        yield from _format_tabular(part)


def _format_tabular(table: Table) -> Iterator[str]:
    yield f"*{escape_markdown(table.caption)}*"
    numbers = [table.is_number(column) for column in range(len(table.header))]
    rows = ([cell.text for cell in row] for row in table.rows)
    yield _format_table(table.header, rows, numbers)
    if table.note:
        yield escape_markdown(table.note)


def _matrix_rows(matrix: Matrix) -> Iterator[list[str]]:
    for name, counts in zip(matrix.classes, matrix.counts.tolist(), strict=True):
        yield [name, *(format_share(count, sum(counts)) for count in counts)]


def _format_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[bool] = ()
) -> str:
    right = numbers or [False, *[True] * (len(header) - 1)]
    lines = [
        "| " + " | ".join(map(escape_markdown, header)) + " |",
        "|" + "".join(" ---: |" if number else " --- |" for number in right),
    ]
    lines += ["| " + " | ".join(map(escape_markdown, row)) + " |" for row in rows]
    return "\n".join(lines)
