"""The report as a whole: which sections there are, in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from toolkit.report.answer import answer_section, doubts_section
from toolkit.report.calibration import calibration_section, fusion_section, offsets_section
from toolkit.report.document import Report
from toolkit.report.drivers import explaining_section
from toolkit.report.figures import (
    PAGE_WIDTH,
    figure_style,
    plot_comparisons,
    plot_confusion,
    plot_reliability,
    plot_scores,
    plot_search,
    plot_speakers,
)
from toolkit.report.performance import (
    compared_systems,
    comparisons_section,
    confusion_section,
    confusion_systems,
    groups_section,
    scores_section,
)
from toolkit.report.protocol import (
    audit_section,
    data_section,
    describe_study,
    protocol_section,
)
from toolkit.report.searches import best_so_far, search_section
from toolkit.report.shap_figures import draw_explanation
from toolkit.systems import MAJORITY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from matplotlib.axes import Axes

    from toolkit.report.document import Section
    from toolkit.report.facts import StudyFacts

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


def draw_figures(facts: StudyFacts) -> Iterator[tuple[str, Axes]]:
    """Draw what the sections of the report refer to, one figure at a time.

    Parameters
    ----------
    facts : StudyFacts
        The study.

    Yields
    ------
    tuple of str and Axes
        The figure's stem and an axes of it.
    """
    title = facts.metric.title
    if facts.systems:
        yield (
            "scores",
            plot_scores(
                compute_scores(facts), title=title, reference=facts.score(MAJORITY).value
            ),
        )
        yield "speakers", plot_speakers(compute_speakers(facts), title=title)
        yield "calibration", _draw_calibration(facts)
    drawn = compared_systems(facts)
    if facts.comparisons and len(drawn) > 1:
        yield "comparisons", plot_comparisons(facts.comparisons, drawn)
    if facts.searches:
        yield "search", _draw_search(facts)
    for system in confusion_systems(facts):
        yield f"confusion-{system}", plot_confusion(facts.predictions[system])
    yield from draw_explanation(facts)


def compute_scores(facts: StudyFacts) -> pd.DataFrame:
    """Tabulate the pooled scores and their intervals."""
    rows = {}
    for system in [*facts.systems, *facts.baselines]:
        score = facts.score(system)
        rows[system] = {
            "value": score.value,
            "low": np.nan if score.low is None else score.low,
            "high": np.nan if score.high is None else score.high,
            "baseline": system in facts.baselines,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def compute_speakers(facts: StudyFacts) -> pd.DataFrame:
    """Tabulate the score of every tested speaker."""
    speakers = sorted(set(facts.predictions[MAJORITY].speakers.tolist()))
    return pd.DataFrame(
        {
            system: [
                facts.score(system, scope="speaker", group=speaker).value
                for speaker in speakers
            ]
            for system in [*facts.systems, MAJORITY]
        },
        index=pd.Index(speakers, name="speaker"),
    )


def compute_history(facts: StudyFacts, system: str) -> pd.DataFrame:
    """Tabulate the best inner score so far."""
    curves = {
        fold: pd.Series(best_so_far(facts, search), dtype=float)
        for fold, search in zip(facts.params[system], facts.searches[system], strict=True)
    }
    table = pd.DataFrame(curves)
    table.index = pd.RangeIndex(1, len(table) + 1, name="trial")
    return table


def _draw_calibration(facts: StudyFacts) -> Axes:
    axes = _grid(len(facts.systems), across=4, height=1.95)
    with figure_style():
        for ax, system in zip(axes, facts.systems, strict=True):
            plot_reliability(facts.predictions[system], ax)
    return _label(axes, "probability of the decision", "share of decisions that were right")


def _draw_search(facts: StudyFacts) -> Axes:
    systems = list(facts.searches)
    axes = _grid(len(systems), across=3, height=1.6)
    with figure_style():
        for ax, system in zip(axes, systems, strict=True):
            plot_search(compute_history(facts, system), title=system, ax=ax)
    return _label(axes, "trial", f"best inner {facts.metric.title}")


def _label(axes: list[Axes], across: str, up: str) -> Axes:
    """Label a figure of several axes once; give the first of them."""
    figure = axes[0].get_figure(root=True)
    assert figure is not None
    figure.supxlabel(across, fontsize=8)
    figure.supylabel(up, fontsize=8)
    return axes[0]


def _grid(n: int, *, across: int, height: float) -> list[Axes]:
    """Make axes side by side, as many as needed."""
    with figure_style():
        columns = min(n, across)
        rows = -(-n // across)
        width = PAGE_WIDTH * columns / across
        figure = Figure(figsize=(width, height * rows + 0.2), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
        for ax in axes[n:]:
            ax.remove()
    return axes[:n]
