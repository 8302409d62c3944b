"""Which modality drives it: three views side by side, and where they do not agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from toolkit.report.evidence import find_shares, part_cell
from toolkit.report.gallery import gallery_parts
from toolkit.report.modalities import modality_parts
from toolkit.report.parts import Cell, Paragraph, Section, make_table
from toolkit.report.words import format_number, join_names, number_cell

if TYPE_CHECKING:
    from toolkit.explain.shares import Evidence
    from toolkit.report.facts import StudyFacts
    from toolkit.report.parts import Part, Table

_N_FAMILIES: Final = 12


def explaining_section(facts: StudyFacts) -> Section | None:
    """Say which modality drives the predictions."""
    evidence = facts.evidence
    if evidence is None:
        return None
    parts: list[Part] = []
    if len(evidence.modalities) > 1:
        parts += modality_parts(facts, evidence)
    parts += [_family_lead(evidence), _families_table(evidence)]
    parts += gallery_parts(facts, evidence)
    return Section("driving", "Which modality drives it", tuple(parts))


def _family_lead(evidence: Evidence) -> Paragraph:
    families = sorted(find_shares(evidence, "family"), key=lambda r: -r.share)
    above = [r for r in families if r.permuted_high is not None and r.share > r.permuted_high]
    text = f"Of what {evidence.system} says, most comes from " + join_names(
        [f"{r.modality} {r.part} ({format_number(r.share)})" for r in families[:3]]
    )
    if any(r.permuted is not None for r in families):
        gains = sorted(above, key=lambda r: -(r.share - (r.permuted or 0)))[:3]
        named = [f"{r.modality} {r.part}" for r in gains]
        text += (
            f"; furthest above what permuted labels give: {join_names(named)}"
            if named
            else "; none is above all that permuted labels give"
        )
    return Paragraph(text + ".")


def _families_table(evidence: Evidence) -> Table:
    by_outcome = {
        outcome: {
            (r.modality, r.part): r for r in find_shares(evidence, "family", outcome=outcome)
        }
        for outcome in ("right", "wrong")
    }
    families = sorted(find_shares(evidence, "family"), key=lambda r: -r.share)
    rows: list[list[Cell | str]] = []
    for share in families[:_N_FAMILIES]:
        key = (share.modality, share.part)
        right, wrong = (by_outcome[name].get(key) for name in ("right", "wrong"))
        rows.append(
            [
                f"{share.modality} {share.part}",
                part_cell(share),
                number_cell(share.permuted),
                number_cell(right.share if right else None),
                number_cell(wrong.share if wrong else None),
                Cell(f"{share.toward_truth:+.3f}", share.toward_truth),
            ]
        )
    return make_table(
        "families",
        f"Families of statistics in {evidence.system}, the largest first.",
        ["family", "share", "permuted labels", "when right", "when wrong", "toward truth"],
        rows,
        note="Every class, speaker and statistic: explain/shares.csv.",
    )
