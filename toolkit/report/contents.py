"""The contents of the report: its sections in reading order, and their figures."""

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes

from toolkit.report.answer import caveats_section, summary_section
from toolkit.report.decisions import detail_sections
from toolkit.report.document import Report, Section
from toolkit.report.drivers import drivers_section
from toolkit.report.facts import StudyFacts
from toolkit.report.figures import draw_performance
from toolkit.report.performance import score_sections
from toolkit.report.protocol import closing_sections
from toolkit.report.searches import search_section
from toolkit.report.shap_figures import draw_drivers


def summarise_study(facts: StudyFacts, further: Sequence[Section] = ()) -> Report:
    """Turn a study's numbers into the sections of its report; figures are drawn apart.

    Parameters
    ----------
    facts : StudyFacts
        The study.
    further : sequence of Section, default=()
        Other sections, put before those on data, protocol and audit.

    Returns
    -------
    Report
        Equal for equal numbers.
    """
    made = [
        summary_section(facts),
        caveats_section(facts),
        *score_sections(facts),
        drivers_section(facts),
        *detail_sections(facts),
        search_section(facts),
    ]
    shown = [section for section in made if section is not None]
    return Report(
        title=f"{facts.data['name']}: {facts.data_name}",
        study=facts.data_size,
        generated=bool(facts.data["generated"]),
        sections=(*shown, *further, *closing_sections(facts)),
    )


def draw_figures(facts: StudyFacts) -> Iterator[tuple[str, Axes]]:
    """Draw the figures that the sections of the report refer to, one at a time.

    Parameters
    ----------
    facts : StudyFacts
        The study.

    Yields
    ------
    tuple of str and Axes
        The figure's stem and an axes of it.
    """
    yield from draw_performance(facts)
    yield from draw_drivers(facts)
