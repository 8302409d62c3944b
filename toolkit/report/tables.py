"""The table of scores for a paper (LaTeX) and for a spreadsheet (CSV)."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolkit.report.parts import Table

_TEX: Final = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
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
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def escape_tex(text: str) -> str:
    r"""Keep text from being read as LaTeX.

    Examples
    --------
    >>> escape_tex("50%_a")
    '50\\%\\_a'
    """
    plain = " ".join(text.split())
    escaped = "".join(_TEX.get(mark, mark) for mark in plain)
    # Hyphens in a row become dashes; a bracket after a line's end is taken for its option.
    if "--" in plain:
        escaped = escaped.replace("-", "{-}")
    return f"{{[}}{escaped[1:]}" if escaped.startswith("[") else escaped


def escape_cell(text: str) -> str:
    """Keep a spreadsheet from taking text for a formula.

    Examples
    --------
    >>> escape_cell("=1+1"), escape_cell("text")
    ("'=1+1", 'text')
    """
    return "'" + text if text.startswith(_FORMULA) else text


def format_table_csv(table: Table) -> str:
    """Write a table for a spreadsheet, with the numbers that are read elsewhere.

    Parameters
    ----------
    table : Table
        Any table; scores with intervals take three columns.

    Returns
    -------
    str
        UTF-8 text with LF line ends. Texts that a spreadsheet would compute get an
        apostrophe; the files that programs read (``scores.csv``, ``predictions/``) hold names
        as they are.

    Examples
    --------
    >>> from toolkit.report.parts import Cell, make_table
    >>> table = make_table("t", "", ["system", "UAR"], [["text", Cell("0.5 [0.4, 0.6]", 0.5)]])
    >>> print(format_table_csv(table), end="")
    system,UAR,UAR low,UAR high
    text,0.5,0.4,0.6
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    wide = [
        any(_split_interval(row[column].text)[1] for row in table.rows)
        for column in range(len(table.header))
    ]
    header: list[str] = []
    for name, has_interval in zip(table.header, wide, strict=True):
        header += [name, f"{name} low", f"{name} high"] if has_interval else [name]
    writer.writerow(map(escape_cell, header))
    for row in table.rows:
        cells: list[str] = []
        for cell, has_interval in zip(row, wide, strict=True):
            if cell.value is None:
                cells += [escape_cell(cell.text), *[""] * (2 * has_interval)]
                continue
            value, low, high = _split_interval(cell.text.replace(",", ""), keep=cell.text)
            cells += [value, low, high] if has_interval else [value]
        writer.writerow(cells)
    return text.getvalue()


def format_tables_tex(tables: Sequence[Table]) -> str:
    r"""Write tables for a paper, with the rules of ``booktabs``.

    Parameters
    ----------
    tables : sequence of Table
        Any tables.

    Returns
    -------
    str
        One ``table`` environment a table, labelled ``tab:<name>``.
    """
    lines = [r"% Needs \usepackage{booktabs,textcomp} and, for wide tables, {graphicx}."]
    for table in tables:
        columns = "".join("r" if table.is_number(i) else "l" for i in range(len(table.header)))
        lines += [
            "",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_tex(table.caption)}}}",
            rf"\label{{tab:{table.name}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            _tex_row(table.header),
            r"\midrule",
        ]
        body = [_tex_row([cell.text for cell in row]) for row in table.rows]
        if table.n_footers:
            body.insert(-table.n_footers, r"\midrule")
        lines += [*body, r"\bottomrule", r"\end{tabular}}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _tex_row(texts: Sequence[str]) -> str:
    return " & ".join(map(escape_tex, texts)) + r" \\"


def _split_interval(text: str, keep: str = "") -> tuple[str, str, str]:
    """Part ``0.5 [0.4, 0.6]`` into its three numbers; of another text the ends are empty."""
    value, bracket, ends = (keep or text).partition(" [")
    if not bracket or not ends.endswith("]"):
        return text, "", ""
    low, _, high = ends[:-1].partition(", ")
    return value, low, high
