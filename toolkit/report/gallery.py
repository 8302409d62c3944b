"""The gallery: shap's own plots, the people, and the utterances that surprise most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from toolkit.report.driving_plots import people_parts
from toolkit.report.evidence import find_shares
from toolkit.report.parts import Cell, Figure, make_table
from toolkit.report.shap_plots import N_WATERFALLS, drawn_classes, surprising_rows
from toolkit.report.words import format_number, format_share, number_cell

if TYPE_CHECKING:
    from toolkit.explain.shares import Evidence
    from toolkit.report.facts import StudyFacts
    from toolkit.report.parts import Part

_N_SURPRISES: Final = 6


def gallery_parts(facts: StudyFacts, evidence: Evidence) -> list[Part]:
    """Show what contributes most: over all, to each class, in each person, in surprises."""
    return [
        *_plots(facts, evidence),
        *_people(facts, evidence),
        *_surprises(facts, evidence),
    ]


def _plots(facts: StudyFacts, evidence: Evidence) -> list[Part]:
    """Show shap's own plots of the most important features."""
    sample = evidence.samples[evidence.system]
    names = sample.names[:-1]
    if not names:
        return []
    parts: list[Part] = [
        Figure(
            "shap-bar",
            f"Mean magnitude of the contributions to each class's margin, {evidence.system}. "
            "Here and below margins are less their mean over the classes, as in the shares.",
            "The features with the largest contributions: " + ", ".join(names[:8]) + ".",
        )
    ]
    for code in drawn_classes(facts.classes):
        name = facts.classes[code]
        sizes = np.abs(sample.contributions[:, code, :-1]).mean(axis=0)
        first = names[int(sizes.argmax())]
        parts += [
            Figure(
                f"shap-beeswarm-{code}",
                f"{name}: a dot is what a feature contributes to the margin in one utterance.",
                f"Contributions to the margin of {name}; largest on average {first}.",
            ),
            Figure(
                f"shap-heatmap-{code}",
                f"{name}: utterances side by side, alike ones together.",
                f"Contributions to the margin of {name} by utterance.",
            ),
        ]
    return parts


def _people(facts: StudyFacts, evidence: Evidence) -> list[Part]:
    """Show who is predicted by what."""
    people, parts = people_parts(facts, evidence)
    if not parts:
        return []
    words = []
    for part in parts:
        mine = [
            r
            for name in people
            for r in find_shares(evidence, part.level, speaker=name)
            if (r.modality, r.part) == (part.modality, part.part)
        ]
        least, most = (pick(mine, key=lambda r: r.share) for pick in (min, max))
        misled = [r.speaker for r in mine if r.toward_truth < 0]
        words.append(
            f"{' '.join(filter(None, (part.modality, part.part)))}: share from "
            f"{format_number(least.share)} ({least.speaker}) to {format_number(most.share)} "
            f"({most.speaker}), against the true class in {len(misled)} of {len(mine)}"
        )
    n_all = len(set(facts.predictions[evidence.system].speakers.tolist()))
    some = "" if len(people) == n_all else f" {len(people)} of {n_all} speakers are shown."
    return [
        Figure(
            "driving-people",
            f"What {evidence.system} goes by in each speaker: shares, and the mean "
            f"contribution to the true class's margin, which misleads left of 0.{some}",
            "; ".join(words) + ".",
        )
    ]


def _surprises(facts: StudyFacts, evidence: Evidence) -> list[Part]:
    predictions = facts.predictions[evidence.system]
    totals = evidence.totals[evidence.system]
    modalities = [part[0] for part in totals.parts]
    rows: list[list[Cell | str]] = []
    for row in surprising_rows(predictions, totals, _N_SURPRISES):
        label, decided = int(predictions.labels[row]), int(predictions.decided[row])
        pull = totals.signed[row, decided] - totals.signed[row, label]
        by_modality = {
            name: float(pull[[m == name for m in modalities]].sum())
            for name in dict.fromkeys(modalities)
        }
        most = max(by_modality, key=by_modality.__getitem__)
        rows.append(
            [
                str(predictions.utterances[row]),
                str(predictions.speakers[row]),
                predictions.classes[label],
                predictions.classes[decided],
                number_cell(float(predictions.proba[row, label])),
                f"{most} ({by_modality[most]:+.2f})",
            ]
        )
    n_wrong = int((predictions.labels != predictions.decided).sum())
    table = make_table(
        "surprises",
        f"The most surprising utterances of {evidence.system}: the true class was given least.",
        ["utterance", "speaker", "true", "predicted", "p of true", "pulled most by"],
        rows,
        note=(
            f"{format_share(n_wrong, len(predictions))} were wrong. Pull is the margin of the "
            "predicted class less that of the true one. One utterance over its time: "
            "toolkit explain DIR UTTERANCE."
        ),
    )
    if len(evidence.samples[evidence.system].names) < 2:
        return [table]
    figures = [
        Figure(
            f"shap-waterfall-{k}",
            f"{predictions.utterances[row]}: how the margin of the predicted class came about.",
            f"Contributions to {predictions.classes[int(predictions.decided[row])]} in "
            f"{predictions.utterances[row]}.",
        )
        for k, row in enumerate(surprising_rows(predictions, totals, N_WATERFALLS))
    ]
    return [table, *figures]
