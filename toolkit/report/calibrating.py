"""Whether probabilities mean what they say, and what moving the decision changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.report.facts import OFFSET
from toolkit.report.parts import Cell, Figure, Paragraph, Section, make_table
from toolkit.report.words import (
    NONE,
    format_number,
    isolate,
    join_names,
    number_cell,
    score_cell,
)
from toolkit.validation import METRICS

if TYPE_CHECKING:
    from toolkit.report.facts import StudyFacts

_TARGET = {"f1": "f1_micro", "uar": "uar"}


def calibration_section(facts: StudyFacts) -> Section | None:
    """Show the calibration of every system beside that of a perfect one."""
    if not facts.systems:
        return None
    rows, words = [], []
    for system in [*facts.systems, *facts.baselines]:
        error, perfect = facts.score(system, "ece"), facts.score(system, "ece_perfect")
        outside = is_miscalibrated(facts, system)
        rows.append(
            [
                Cell(system),
                score_cell(error),
                score_cell(perfect),
                Cell("yes" if outside else "no", float(outside)),
                number_cell(facts.score(system, "brier").value),
                number_cell(facts.score(system, "log_loss").value),
            ]
        )
        if system in facts.systems:
            beside = format_number(perfect.value)
            words.append(f"{system} {format_number(error.value)} ({beside})")
    off = [system for system in facts.systems if is_miscalibrated(facts, system)]
    sentence = (
        f"The calibration error of {join_names(off)} is larger than 97.5 % of those a "
        "perfectly calibrated system would show."
        if off
        else "No system's calibration error is larger than a perfectly calibrated one would "
        "show by chance."
    )
    return Section(
        "calibration",
        "Calibration",
        (
            Paragraph(sentence),
            Figure(
                "calibration",
                "Share of right decisions against the probability given to them, in 15 bins; "
                "on the diagonal a probability means what it says. Dots grow with the number "
                "of utterances; the grey bars are the shares of utterances.",
                f"Expected calibration error (in brackets that of a perfect system): "
                f"{'; '.join(words)}.",
            ),
            make_table(
                "calibration",
                "Expected calibration error beside that of a perfectly calibrated system with "
                "the same probabilities.",
                [
                    "system",
                    "calibration error",
                    "of a perfect system",
                    "beyond chance",
                    "Brier score",
                    "log-loss",
                ],
                rows,
                note=(
                    "15 bins of equal width over the most probable class. A perfect system's "
                    "error is above 0 because the bins hold few utterances: mean and 95 % "
                    "range of 200 draws."
                ),
            ),
        ),
    )


def is_miscalibrated(facts: StudyFacts, system: str) -> bool:
    """Say whether a calibration error is more than chance."""
    high = facts.score(system, "ece_perfect").high
    return high is not None and facts.score(system, "ece").value > high


def offsets_section(facts: StudyFacts) -> Section | None:
    """Show the variants that move the decision by class offsets."""
    if not facts.variants:
        return None
    rows = []
    for variant in facts.variants:
        system, _, end = variant.partition(OFFSET)
        learnt = facts.params.get(variant, {})
        kept = sum(record["kept"] for record in learnt.values())
        before, after = facts.score(system, _TARGET[end]), facts.score(variant, _TARGET[end])
        change = after.value - before.value
        rows.append(
            [
                Cell(system),
                Cell(METRICS[_TARGET[end]].title),
                number_cell(before.value),
                score_cell(after),
                Cell(f"{change:+.3f}", change),
                Cell(f"{kept} of {len(learnt)}", float(kept)),
                Cell(_mean_offsets(facts, variant)),
            ]
        )
    classes = join_names([isolate(name) for name in facts.classes])
    return Section(
        "offsets",
        "Class offsets",
        (
            make_table(
                "offsets",
                "Decisions moved by offsets of the classes' log-probabilities.",
                ["system", "tuned for", "without", "with", "change", "folds kept", "offsets"],
                rows,
                note=(
                    "Offsets were fitted on inner predictions of the training speakers and "
                    "kept only where the gain there exceeds a standard error; probabilities "
                    f"stay as they are. The last column is their mean over folds, of {classes}."
                ),
            ),
        ),
    )


def _mean_offsets(facts: StudyFacts, variant: str) -> str:
    learnt = [
        record["offsets"] if record["kept"] else [0.0] * len(record["offsets"])
        for record in facts.params.get(variant, {}).values()
    ]
    if not learnt:
        return NONE
    means = [sum(column) / len(learnt) for column in zip(*learnt, strict=True)]
    return " ".join(f"{mean:+.2f}" for mean in means)
