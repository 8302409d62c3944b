"""The report as a whole: which sections there are, in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from toolkit.report.answer import answer_section
from toolkit.report.auditing import audit_section
from toolkit.report.calibrating import calibration_section, offsets_section
from toolkit.report.comparing import comparisons_section
from toolkit.report.doubts import doubts_section
from toolkit.report.explaining import explaining_section
from toolkit.report.fusing import fusion_section
from toolkit.report.groups import confusion_section, groups_section
from toolkit.report.parts import Report
from toolkit.report.people import data_section, describe_study, protocol_section
from toolkit.report.scoring import scores_section
from toolkit.report.searching import search_section

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from toolkit.report.facts import StudyFacts
    from toolkit.report.parts import Section

TITLE: Final = "How well is the label of a person never seen predicted?"

#: Every section of the report, in reading order. One that has nothing to say returns None.
SECTIONS: Final[tuple[Callable[[StudyFacts], Section | None], ...]] = (
    answer_section,
    doubts_section,
    scores_section,
    comparisons_section,
    fusion_section,
    explaining_section,
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
    """Turn a study's numbers into what its readers see, before anything is drawn.

    Parameters
    ----------
    facts : StudyFacts
        The study.
    further : sequence of Section, default=()
        Sections made elsewhere, put before those on data, protocol and audit.

    Returns
    -------
    Report
        The same for the same numbers.
    """
    made = [section for make in SECTIONS if (section := make(facts)) is not None]
    return Report(
        title=TITLE,
        study=describe_study(facts.data, len(facts.speakers), sum(map(sum, facts.counts))),
        generated=bool(facts.data["generated"]),
        sections=(*made[:-3], *further, *made[-3:]),
    )
