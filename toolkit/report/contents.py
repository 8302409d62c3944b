"""The contents of the report: its sections in reading order, and their figures."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from matplotlib.axes import Axes

from toolkit.report.answer import answer_section, caveats_section
from toolkit.report.calibration import calibration_section, fusion_section, offsets_section
from toolkit.report.document import Report, Section
from toolkit.report.drivers import drivers_section
from toolkit.report.facts import StudyFacts
from toolkit.report.figures import draw_performance
from toolkit.report.performance import (
    comparisons_section,
    confusion_section,
    groups_section,
    scores_section,
)
from toolkit.report.protocol import (
    audit_section,
    data_section,
    describe_study,
    protocol_section,
)
from toolkit.report.searches import search_section
from toolkit.report.shap_figures import draw_drivers

_TITLE: Final = "How well is the label of a person never seen predicted?"

#: Every section in reading order; one without content returns None.
_SECTIONS: Final[tuple[Callable[[StudyFacts], Section | None], ...]] = (
    answer_section,
    caveats_section,
    scores_section,
    comparisons_section,
    fusion_section,
    drivers_section,
    confusion_section,
    groups_section,
    calibration_section,
    offsets_section,
    search_section,
    data_section,
    protocol_section,
    audit_section,
)


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
    made = [section for make in _SECTIONS if (section := make(facts)) is not None]
    return Report(
        title=_TITLE,
        study=describe_study(facts.data, len(facts.speakers), sum(map(sum, facts.counts))),
        generated=bool(facts.data["generated"]),
        # The last three sections are never left out.
        sections=(*made[:-3], *further, *made[-3:]),
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
