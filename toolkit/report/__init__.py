"""The report: tables, figures and pages, made from predictions and scores alone.

Nothing is fitted or searched in this room; numbers are computed in :mod:`toolkit.validation`.
There are three steps: :func:`summarise_study` turns the numbers of a study into plain parts
(sections of sentences, tables and matrices), :func:`draw_figures` draws their figures, and
:func:`format_page` and :func:`format_markdown` write the same parts in two ways.
"""

from toolkit.report.contents import draw_figures, summarise_study
from toolkit.report.document import Report, Section, format_markdown, format_page
from toolkit.report.facts import StudyFacts
from toolkit.report.figures import render_figure

__all__ = [
    "Report",
    "Section",
    "StudyFacts",
    "draw_figures",
    "format_markdown",
    "format_page",
    "render_figure",
    "summarise_study",
]
