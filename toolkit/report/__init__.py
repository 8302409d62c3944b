"""The report: tables, figures and pages, made from predictions and scores alone.

Nothing is fitted or searched in this room; numbers are computed in :mod:`toolkit.validation`.
There are three steps: :func:`summarise_study` turns the numbers of a study into plain parts
(sections of sentences, tables and matrices), :func:`draw_figures` draws their figures, and
:func:`format_page`, :func:`format_markdown` and :func:`format_table_tex` write the same
parts in three ways.
"""

from toolkit.report.contents import draw_figures, summarise_study
from toolkit.report.document import (
    Report,
    Section,
    format_markdown,
    format_page,
    format_table_tex,
)
from toolkit.report.facts import StudyFacts
from toolkit.report.figures import render_figure
from toolkit.report.leakage_page import (
    describe_premiums,
    format_premium,
    plot_premium,
)

__all__ = [
    "Report",
    "Section",
    "StudyFacts",
    "describe_premiums",
    "draw_figures",
    "format_markdown",
    "format_page",
    "format_premium",
    "format_table_tex",
    "plot_premium",
    "render_figure",
    "summarise_study",
]
