"""For whom each system works: who is taken for whom, and scores by speaker and fold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.report.facts import MAJORITY
from toolkit.report.parts import Figure, Items, Matrix, Section, make_table
from toolkit.report.words import count_cell, count_words, format_number, isolate, number_cell
from toolkit.validation import confusion_matrices

if TYPE_CHECKING:
    from toolkit.report.facts import StudyFacts
    from toolkit.report.parts import Cell, Table
    from toolkit.validation import Predictions


def confusion_section(facts: StudyFacts) -> Section:
    """Show who was taken for whom."""
    parts = tuple(_matrix(facts.predictions[name]) for name in confusion_systems(facts))
    return Section("confusion", "Confusion matrices", parts)


def confusion_systems(facts: StudyFacts) -> list[str]:
    """Name the systems whose confusion matrix is shown and drawn."""
    return [*facts.systems, MAJORITY]


def _matrix(predictions: Predictions) -> Matrix:
    counts = confusion_matrices(
        predictions.labels, predictions.decided, len(predictions.classes)
    )[0]
    words = []
    for code, name in enumerate(predictions.classes):
        n = int(counts[code].sum())
        if not n:
            words.append(f"{isolate(name)}: none")
            continue
        others = counts[code].copy()
        others[code] = -1
        rival = int(others.argmax())
        words.append(
            f"{isolate(name)}: {int(counts[code, code]):,} of {n:,} right"
            + (
                f", most often taken for {isolate(predictions.classes[rival])} "
                f"({int(others[rival]):,})"
                if others[rival] > 0
                else ""
            )
        )
    return Matrix(
        name=f"confusion-{predictions.system}",
        caption=f"{predictions.system}: true classes in rows, predicted ones in columns.",
        classes=predictions.classes,
        counts=counts,
        summary="; ".join(words) + ".",
    )


def groups_section(facts: StudyFacts) -> Section | None:
    """Show for whom each system works: scores by speaker and by fold."""
    if not facts.systems:
        return None
    extremes = []
    tables = {}
    for scope in ("speaker", "fold"):
        tables[scope] = _groups_table(facts, scope)
    for system in facts.systems:
        values = {
            speaker: facts.score(system, scope="speaker", group=speaker).value
            for speaker in _tested(facts)
        }
        least, most = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
        extremes.append(
            f"{system}: from {format_number(values[least])} ({isolate(least)}) to "
            f"{format_number(values[most])} ({isolate(most)})"
        )
    figure = Figure(
        "speakers",
        f"{facts.metric.title} of every speaker; a dot is a speaker, the bar their mean.",
        f"{facts.metric.title} by speaker. {'; '.join(extremes)}.",
    )
    parts = (figure, Items(tuple(extremes)), tables["speaker"], tables["fold"])
    return Section("groups", "Speakers and folds", parts)


def _tested(facts: StudyFacts) -> list[str]:
    table = next(iter(facts.predictions.values()))
    return sorted(set(table.speakers.tolist()))


def _groups_table(facts: StudyFacts, scope: str) -> Table:
    table = facts.predictions[MAJORITY]
    names = _tested(facts) if scope == "speaker" else sorted(set(table.fold_names().tolist()))
    shown = [*facts.systems, MAJORITY]
    rows: list[list[Cell | str]] = [
        [
            name,
            count_cell(facts.score(MAJORITY, scope=scope, group=name).n),
            *(number_cell(facts.score(s, scope=scope, group=name).value) for s in shown),
        ]
        for name in names
    ]
    kind = "speaker mean t" if scope == "speaker" else "mean over folds"
    means = [facts.score(system, scope=scope, kind=kind).value for system in shown]
    rows.append(["mean", count_cell(len(table)), *map(number_cell, means)])
    return make_table(
        f"by-{scope}",
        f"{facts.metric.title} of each of {count_words(len(names), scope)}.",
        [scope, "n", *shown],
        rows,
        note=(
            "UAR and macro-F1 of a speaker or fold are over the classes that occur there."
            if facts.metric.name in {"uar", "f1_macro"}
            else ""
        ),
        n_footers=1,
    )
