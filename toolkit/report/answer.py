"""The answer in two sentences, made from the numbers and hedged by the tests."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from toolkit.report.facts import BEST_SINGLE, LOGISTIC, MAJORITY
from toolkit.report.parts import Paragraph, Section
from toolkit.report.words import (
    count_words,
    format_interval,
    format_number,
    format_p,
    join_names,
)

if TYPE_CHECKING:
    from toolkit.report.facts import StudyFacts


def answer_section(facts: StudyFacts) -> Section:
    """Answer the question of a study.

    A winner is named only where the adjusted p is at most .05; else the sentence says that
    no difference was shown.
    """
    systems = [name for name in facts.systems if name != BEST_SINGLE]
    if not systems:
        text = "No system has finished all its folds yet: there is no answer."
        return Section("answer", "The answer", (Paragraph(text, "warning"),))
    best = facts.best(systems)
    return Section(
        "answer",
        "The answer",
        (
            Paragraph(f"{_level(facts, best, len(systems))} {_second(facts, best)}", "lead"),
            Paragraph(
                "A winner is named only where p, adjusted for all pairs of systems, is at most "
                ".05; the unit of intervals and tests is the speaker. Before using a number, "
                "read what to distrust."
            ),
        ),
    )


def _level(facts: StudyFacts, best: str, n_systems: int) -> str:
    score = facts.score(best)
    interval = format_interval(score.low, score.high)
    number = f"{facts.metric.title} {format_number(score.value)}" + (
        f" {interval}" if interval else " (too few speakers for an interval)"
    )
    which = "highest score" if facts.metric.direction == "maximize" else "lowest loss"
    lead = f"On people never seen ({count_words(facts.n_speakers, 'speaker')}), {best} " + (
        f"reaches {number}"
        if n_systems == 1
        else f"has the {which} of {n_systems} systems, {number}"
    )
    baseline = f"the majority baseline ({format_number(facts.score(MAJORITY).value)})"
    verdicts = [_verdict(facts, best, MAJORITY, baseline, speakers=False)]
    regressions = [name for name in facts.baselines if name != MAJORITY]
    if n_systems > 1 and regressions:
        rival = facts.best(regressions)
        reference = f"the best logistic regression ({_named(facts, rival)})"
        verdicts.append(_verdict(facts, best, rival, reference, speakers=False))
    return f"{lead}; {'; '.join(verdicts)}."


def _named(facts: StudyFacts, system: str) -> str:
    return f"{system}, {format_number(facts.score(system).value)}"


def _second(facts: StudyFacts, best: str) -> str:
    if facts.fused and BEST_SINGLE in facts.predictions:
        fused = facts.best(facts.fused)
        taken = Counter(
            choice["modality"] for choice in facts.params.get(BEST_SINGLE, {}).values()
        )
        chosen = join_names([name for name, _ in taken.most_common()])
        reference = f"the best single modality, chosen on inner scores ({chosen})"
        lead = (
            f"Of {count_words(len(facts.fused), 'fusion')}, {fused} scores best"
            if len(facts.fused) > 1
            else f"The modalities were fused by {fused}"
        )
        return f"{lead}: {_verdict(facts, fused, BEST_SINGLE, reference)}."
    others = [name for name in facts.modalities if name != best]
    if others:
        second = facts.best(others)
        reference = f"{second}, the next modality"
        verdict = _verdict(facts, best, second, reference)
        return f"Between modalities, {best} scores best: {verdict}."
    logistic = best + LOGISTIC
    if logistic not in facts.predictions:
        return f"No logistic regression stands beside {best} yet."
    reference = (
        "a logistic regression on the same features "
        f"({format_number(facts.score(logistic).value)})"
    )
    return f"As to boosting {best}: {_verdict(facts, best, logistic, reference)}."


def _verdict(
    facts: StudyFacts, system: str, other: str, reference: str, *, speakers: bool = True
) -> str:
    pair = facts.compare(system, other)
    gain = facts.gain(system, other)
    if pair is None:
        return f"it was not compared with {reference}"
    tested = f"adjusted p = {format_p(pair.p_adjusted)}".replace("= <", "<")
    tested += f", {count_words(pair.n_speakers, 'speaker')}" if speakers else ""
    size = format_gain(facts, abs(gain))
    if pair.shows_difference and gain != 0:
        verb = "beats" if gain > 0 else "is worse than"
        return f"it {verb} {reference} by {size}, {tested}"
    found = "they are equal"
    if gain:
        found = f"{size} {'above' if gain > 0 else 'below'}"
    if facts.metric.direction == "minimize" and gain:
        found = f"{'better' if gain > 0 else 'worse'} by {size}"
    if pair.smallest_p > 0.05:
        return (
            f"whether it differs from {reference} is not decidable with so few units, p cannot "
            f"fall below {format_p(pair.smallest_p)} ({found}, {tested})"
        )
    return f"no difference from {reference} was shown ({found}, {tested})"


def format_gain(facts: StudyFacts, size: float) -> str:
    """Write the size of a difference."""
    if facts.metric.direction == "minimize":
        return format_number(size)
    return f"{100 * size:.1f} points"
