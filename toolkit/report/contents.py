"""The contents of the report: its sections in reading order, and their figures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes

from toolkit.report.answer import opening_sections
from toolkit.report.calibration import probability_sections
from toolkit.report.document import Report, Section
from toolkit.report.drivers import drivers_section
from toolkit.report.facts import StudyFacts, name_data
from toolkit.report.figures import draw_performance
from toolkit.report.performance import detail_sections, score_sections
from toolkit.report.protocol import closing_sections, describe_study
from toolkit.report.searches import search_section
from toolkit.report.shap_figures import draw_drivers

#: The sections in reading order, in groups; a group leaves out what has no content.
_SECTIONS: Final[tuple[Callable[[StudyFacts], list[Section]], ...]] = (
    opening_sections,
    score_sections,
    lambda facts: _list_one(drivers_section(facts)),
    detail_sections,
    probability_sections,
    lambda facts: _list_one(search_section(facts)),
)


def _list_one(section: Section | None) -> list[Section]:
    return [] if section is None else [section]


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
    made = [section for make in _SECTIONS for section in make(facts)]
    return Report(
        title=_name_study(facts.data),
        study=describe_study(facts.data, len(facts.speakers), sum(map(sum, facts.counts))),
        generated=bool(facts.data["generated"]),
        sections=(*made, *further, *closing_sections(facts)),
    )


def _name_study(data: Mapping[str, Any]) -> str:
    """Name the study and its data set."""
    return f"{data['name']}: {name_data(data)}"


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
