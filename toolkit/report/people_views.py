"""Groups of people: their scores, and the largest gap of each column."""

from dataclasses import replace
from typing import Final

from toolkit.report.document import (
    Figure,
    Paragraph,
    Row,
    Section,
    count_words,
    format_p,
    isolate,
    make_table,
)
from toolkit.report.facts import StudyFacts
from toolkit.validation import Comparison
from toolkit.validation.people import compare_groups
from toolkit.validation.scores import score_groups

_NOTE: Final = (
    "Numbers of more than five values are cut at quantiles of the people. Compare the "
    "baseline: a group may be harder because its classes are. p: share of random groups of the "
    "same people and sizes with a largest gap as large; adjusted over the columns (Holm). It "
    "tests whether people are exchangeable between groups, not whether scores are equal: a "
    "smaller group that varies more gives a small p too, and so do partners in a dialogue of "
    "one group. A group of one person is in no gap."
)


def add_groups(facts: StudyFacts, seed: int) -> StudyFacts:
    """Score the primary system by groups of people, as ``--by`` asks."""
    if not facts.groups or facts.primary not in facts.predictions:
        return facts
    metric, groups = facts.metric.name, facts.groups
    system, baseline = (facts.predictions[name] for name in (facts.primary, facts.baseline))
    scores = [s for t in (system, baseline) for s in score_groups(t, metric, groups)]
    gaps = compare_groups(system, metric, groups, seed)
    return replace(facts, group_scores=scores, gaps=gaps)


def people_section(facts: StudyFacts) -> Section | None:
    """Show the scores of groups of people and the largest gap of each column."""
    if not facts.group_scores:
        return None
    rows: list[Row] = []
    words = [_describe_gap(gap) for gap in facts.gaps]
    for column, groups in facts.groups.items():
        for group, people in groups.items():
            own, base = (
                facts.score(system, scope=f"by {column}", group=group)
                for system in (facts.primary, facts.baseline)
            )
            rows.append([f"{column}: {group}", own, base.value, len(people), own.n])
        if unknown := facts.n_speakers - sum(map(len, groups.values())):
            words.append(f"No {isolate(column)} is known of {count_words(unknown, 'speaker')}.")
    name = f"{facts.primary}: {facts.metric.title} of groups of people"
    caption = (
        f"{name} (dots), with 95 % intervals over people from five on; bars: each person. The "
        "lowest and the highest person are named."
    )
    header = ["group", facts.metric.title, f"of {facts.baseline}", "speakers", "n"]
    table = make_table("groups", f"{name}, pooled.", header, rows, note=_NOTE)
    text = " ".join(words) or "No two groups of two people or more can be compared."
    parts = (Paragraph(text), Figure("groups", caption, text), table)
    return Section("groups", "Groups of people", parts)


def _describe_gap(gap: Comparison) -> str:
    column = isolate(gap.family.removeprefix("by "))
    return (
        f"{'A' if gap.shows_difference else 'No'} larger gap by {column} than between random "
        f"groups of the same people was shown: {isolate(gap.a)} is {gap.difference:.3f} above "
        f"{isolate(gap.b)} (p {format_p(gap.p)}, adjusted {format_p(gap.p_adjusted)}, smallest "
        f"possible {format_p(gap.smallest_p)})."
    )
