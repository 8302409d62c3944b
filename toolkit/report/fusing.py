"""What each fusion mends and spoils, and for whom; what was learnt to fuse."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from toolkit.report.facts import BEST_SINGLE
from toolkit.report.parts import Cell, Paragraph, Section, make_table
from toolkit.report.words import (
    MINUS,
    count_cell,
    count_words,
    format_number,
    format_share,
    join_names,
    share_cell,
)

if TYPE_CHECKING:
    from toolkit.fusion import FusionRecord
    from toolkit.report.facts import StudyFacts
    from toolkit.report.parts import Part, Table


def fusion_section(facts: StudyFacts) -> Section | None:
    """Show the fusion ledger."""
    if not facts.fusion:
        return None
    found = {(r.quantity, r.system, r.reference, r.scope, r.group): r for r in facts.fusion}
    fusions = [r.system for r in facts.fusion if r.quantity == "fixed" and r.scope == "all"]
    parts: list[Part] = [Paragraph(_lead(facts, found))]
    if fusions:
        parts += [
            _changes(found, fusions),
            *(_changes_by(facts, found, fusions, scope) for scope in ("class", "speaker")),
        ]
    parts += [_pairs(facts), *_learnt(facts)]
    return Section("fusion", "Fusion", tuple(parts))


Found = dict[tuple[str, str, str, str, str], "FusionRecord"]


def _lead(facts: StudyFacts, found: Found) -> str:
    oracle = found["right", "oracle", "", "all", ""]
    taken = Counter(choice["modality"] for choice in facts.params.get(BEST_SINGLE, {}).values())
    chosen = join_names(
        [f"{name} in {count_words(n, 'fold')}" for name, n in taken.most_common()]
    )
    words = (
        f"Fusions are held against best-single, which takes in every fold the modality with "
        f"the best inner score ({chosen}). Some modality was right for "
        f"{format_share(oracle.value, oracle.n)} of {count_words(oracle.n, 'utterance')}: no "
        "choice among them can do better."
    )
    ties = found.get(("ties", "vote", "", "all", ""))
    if ties is not None:
        right = found["ties_right", "vote", "", "all", ""]
        words += (
            f" The vote was tied for {format_share(ties.value, ties.n)}; a tie goes to the "
            "class with the larger sum of probabilities, which was right for "
            f"{format_share(right.value, right.n)} of them."
        )
    return words


def _changes(found: Found, fusions: list[str]) -> Table:
    rows = []
    for system in fusions:
        fixed = found["fixed", system, BEST_SINGLE, "all", ""]
        broken = found["broken", system, BEST_SINGLE, "all", ""]
        absent = found["absent", system, "", "all", ""]
        net = fixed.value - broken.value
        rows.append(
            [
                Cell(system),
                share_cell(fixed.value, fixed.n),
                share_cell(broken.value, broken.n),
                Cell(f"{net:+,}", float(net)),
                count_cell(absent.value),
            ]
        )
    return make_table(
        "fusion",
        "Utterances that each fusion fixes (right where best-single is wrong) and breaks.",
        ["system", "fixed", "broken", "net", "nothing to see"],
        rows,
    )


def _changes_by(facts: StudyFacts, found: Found, fusions: list[str], scope: str) -> Table:
    oracle = [r for r in facts.fusion if r.quantity == "right" and r.scope == scope]
    rows = []
    for record in oracle:
        row = [Cell(record.group), count_cell(record.n), share_cell(record.value, record.n)]
        for system in fusions:
            fixed = found["fixed", system, BEST_SINGLE, scope, record.group].value
            broken = found["broken", system, BEST_SINGLE, scope, record.group].value
            row.append(Cell(f"+{fixed} {MINUS}{broken}", float(fixed - broken)))
        rows.append(row)
    which = "true class" if scope == "class" else "speaker"
    return make_table(
        f"fusion-by-{scope}",
        f"Utterances fixed (+) and broken ({MINUS}) by {which}, and the oracle.",
        [which, "n", "some modality right", *fusions],
        rows,
        note="A column is sorted by the net change.",
    )


def _pairs(facts: StudyFacts) -> Table:
    agreement = [r for r in facts.fusion if r.quantity == "agreement" and r.scope == "all"]
    fault = {
        (r.system, r.reference): r
        for r in facts.fusion
        if r.quantity == "double_fault" and r.scope == "all"
    }
    return make_table(
        "modality-pairs",
        "How alike two modalities decide, where both are there.",
        ["modality", "other modality", "both decide alike", "both wrong", "n"],
        [
            [
                Cell(r.system),
                Cell(r.reference),
                share_cell(r.value, r.n),
                share_cell(fault[r.system, r.reference].value, r.n),
                count_cell(r.n),
            ]
            for r in agreement
        ],
        note="Modalities that are seldom wrong together leave most for a fusion to gain.",
    )


def _learnt(facts: StudyFacts) -> list[Table]:
    """Tabulate what was learnt to fuse, fold by fold."""
    weights, stacked = facts.params.get("weighted", {}), facts.params.get("stacked", {})
    chosen = facts.params.get(BEST_SINGLE, {})
    folds = sorted({*weights, *stacked, *chosen})
    if not folds:
        return []
    names = sorted({name for record in weights.values() for name in record["weights"]})
    header = ["fold"]
    header += ["best-single takes"] if chosen else []
    header += [f"weight of {name}" for name in names]
    header += ["C of stacked"] if stacked else []
    rows = []
    for fold in folds:
        row = [Cell(fold)]
        row += [Cell(chosen[fold]["modality"])] if chosen else []
        for name in names:
            weight = weights[fold]["weights"][name]
            row.append(Cell(format_number(weight), weight))
        row += [Cell(f"{stacked[fold]['C']:g}", stacked[fold]["C"])] if stacked else []
        rows.append(row)
    return [
        make_table(
            "fusion-learnt",
            "What was learnt from the training speakers, fold by fold.",
            header,
            rows,
        )
    ]
