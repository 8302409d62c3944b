"""Which differences were shown: every pair of systems, with the speaker as the unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from toolkit.report.facts import MAJORITY
from toolkit.report.parts import Cell, Figure, Paragraph, Section, make_table
from toolkit.report.words import NONE, count_words, format_interval, format_p, p_cell

if TYPE_CHECKING:
    from toolkit.report.facts import StudyFacts
    from toolkit.report.parts import Part
    from toolkit.validation import Comparison


_MOST_SAID: Final = 5


def comparisons_section(facts: StudyFacts) -> Section:
    """Show every comparison."""
    if not facts.comparisons:
        text = "There is one system only, and nothing to compare it with."
        return Section("comparisons", "Comparisons", (Paragraph(text),))
    shown = [pair for pair in facts.comparisons if pair.shows_difference]
    first = facts.comparisons[0]
    sentence = (
        f"Of {count_words(len(facts.comparisons), 'pair')} of systems, {len(shown)} show a "
        f"difference. Test: {first.method}. The smallest p that it can give is "
        f"{format_p(first.smallest_p)}."
    )
    drawn = compared_systems(facts)
    parts: list[Part] = [Paragraph(sentence)]
    if len(drawn) > 1:
        parts.append(
            Figure(
                "comparisons",
                f"Difference in {facts.metric.title}, row less column. A bold cell with a "
                "frame is a difference with adjusted p of at most .05; the others were not "
                "shown to differ.",
                _alt(facts, drawn),
            )
        )
    parts.append(
        make_table(
            "comparisons",
            "All pairs of systems.",
            [
                "a",
                "b",
                f"{facts.metric.title}, a less b",
                "95 %, speakers",
                "p",
                "adjusted p",
                "difference shown",
                "smallest p",
                "Nadeau-Bengio p (conservative)",
            ],
            [_row(pair) for pair in facts.comparisons],
            note=(
                "p by exchanging both systems' predictions of whole speakers; adjusted over "
                "all pairs by step-down max-T, whose statistic is another one, so it may lie "
                "on either side of p. Nadeau-Bengio is the corrected resampled t test over "
                "folds: conservative, and decides nothing."
            ),
        )
    )
    return Section("comparisons", "Comparisons", tuple(parts))


def compared_systems(facts: StudyFacts) -> list[str]:
    """Name the systems of the figure of comparisons."""
    return [MAJORITY, *facts.systems]


def _row(pair: Comparison) -> list[Cell]:
    return [
        Cell(pair.a),
        Cell(pair.b),
        Cell(f"{pair.difference:+.3f}", pair.difference),
        Cell(format_interval(pair.low, pair.high, sign=True) or NONE, pair.low),
        p_cell(pair.p),
        p_cell(pair.p_adjusted),
        Cell("yes" if pair.shows_difference else "no", float(pair.shows_difference)),
        p_cell(pair.smallest_p),
        p_cell(pair.p_nadeau_bengio),
    ]


def _alt(facts: StudyFacts, drawn: list[str]) -> str:
    pairs = [pair for pair in facts.comparisons if pair.a in drawn and pair.b in drawn]
    shown = sorted(
        (pair for pair in pairs if pair.shows_difference),
        key=lambda pair: -abs(pair.difference),
    )
    words = [
        f"{pair.a} less {pair.b} {pair.difference:+.3f} (adjusted p "
        f"{format_p(pair.p_adjusted)})"
        for pair in shown[:_MOST_SAID]
    ]
    found = "; ".join(words) if words else "none"
    return (
        f"{len(shown)} of {len(pairs)} pairs of {len(drawn)} systems show a difference. The "
        f"largest: {found}. All are in the table that follows."
    )
