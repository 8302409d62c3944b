"""Where the views of the modalities rank them differently, and why that can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.report.evidence import find_game, find_shares, format_points
from toolkit.report.parts import Items, Paragraph
from toolkit.report.words import format_number, join_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toolkit.explain import ShareRecord
    from toolkit.explain.shares import Evidence
    from toolkit.report.facts import StudyFacts
    from toolkit.report.parts import Part


def describe_disagreements(facts: StudyFacts, evidence: Evidence) -> list[Part]:
    """Say whether value, share and loss rank the modalities alike, and if not, why."""
    orders = _rank(facts, evidence)
    shares = find_shares(evidence, "modality")
    remarks = [*_compare_with_permuted(evidence, shares)]
    if len({tuple(order) for order in orders.values()}) <= 1:
        named = join_names(next(iter(orders.values())))
        remarks.insert(0, f"All views rank the modalities alike: {named}.")
    else:
        ranked = [f"by {view} {', '.join(order)}" for view, order in orders.items()]
        remarks.insert(0, f"The views rank the modalities differently: {'; '.join(ranked)}.")
        if "value" in orders:
            for share in shares:
                name = share.modality
                gap = orders["value"].index(name) - orders["share"].index(name)
                if gap > 0:
                    remarks.append(_explain_share(facts, evidence, share))
                elif gap < 0:
                    remarks.append(_explain_worth(facts, evidence, share))
    if len(remarks) == 1:
        return [Paragraph(remarks[0])]
    return [Items(tuple(remarks))]


def _rank(facts: StudyFacts, evidence: Evidence) -> dict[str, list[str]]:
    """Order the modalities by each view that knows them all, the largest first."""
    sign = _sign(facts)
    views = {
        "value": {
            name: sign * value.value
            for name in evidence.modalities
            if (value := find_game(evidence, "value", name)) is not None
        },
        "share": {r.modality: r.share for r in find_shares(evidence, "modality")},
        "loss when shuffled": {
            r.modality: r.value for r in evidence.importance if not r.class_name
        },
    }
    return {
        view: sorted(numbers, key=lambda name, n=numbers: -n[name])  # type: ignore[misc]
        for view, numbers in views.items()
        if len(numbers) == len(evidence.modalities)
    }


def _compare_with_permuted(evidence: Evidence, shares: list[ShareRecord]) -> Iterator[str]:
    below = [
        f"{r.modality} ({format_number(r.share)} against {format_number(r.permuted)})"
        for r in shares
        if r.permuted is not None and r.permuted_low is not None and r.share < r.permuted_low
    ]
    if below:
        yield (
            f"Labels that mean nothing would give a larger share to {join_names(below)}: "
            f"shares add up to 1, and true labels taught {evidence.system} more of the others."
        )


def _explain_share(facts: StudyFacts, evidence: Evidence, share: ShareRecord) -> str:
    """Say why a modality can have more share than worth."""
    name = share.modality
    said = f"{name} has more share than worth: "
    right, wrong = (
        next(
            (
                r
                for r in find_shares(evidence, "modality", outcome=outcome)
                if r.modality == name
            ),
            None,
        )
        for outcome in ("right", "wrong")
    )
    if (
        right is not None
        and wrong is not None
        and right.high is not None
        and wrong.low is not None
        and wrong.low > right.high
    ):
        return said + (
            f"{evidence.system} listens to it more where it is wrong "
            f"({format_number(wrong.share)}) than where it is right "
            f"({format_number(right.share)})."
        )
    ends = _ends(evidence, name)
    if ends is None:
        return said + "what it tells, others tell as well, or it is wrong."
    return said + (
        f"{evidence.system} goes by it, and searched again without it all others lose only "
        f"{format_points(abs(ends[1]), facts.metric.name).removeprefix('+')}"
        f"{' points' if facts.metric.direction == 'maximize' else ''}."
        if _sign(facts) * ends[1] > 0
        else f"{evidence.system} goes by it, and searched again without it all others lose "
        "nothing."
    )


def _explain_worth(facts: StudyFacts, evidence: Evidence, share: ShareRecord) -> str:
    """Say why a modality can have more worth than share."""
    said = f"{share.modality} has more worth than share: "
    ends = _ends(evidence, share.modality)
    if ends is not None and 2 * _sign(facts) * ends[1] < _sign(facts) * ends[0]:
        alone, added = (format_points(end, facts.metric.name) for end in ends)
        return said + (
            f"alone it gains {alone} over the majority baseline, beside all others {added}, "
            "and a value is a mean over both ends; what it tells, others tell as well."
        )
    if share.toward_truth > 0:
        return said + "what it tells is told in few words, and is right."
    return said + "its contributions are small."


def _ends(evidence: Evidence, name: str) -> tuple[float, float] | None:
    """Give what a modality adds to nothing and to all others; None without a game."""
    everyone = "+".join(evidence.modalities)
    others = "+".join(other for other in evidence.modalities if other != name)
    found = [find_game(evidence, "worth", players) for players in ("", name, others, everyone)]
    worth = [record.value for record in found if record is not None]
    if len(worth) < len(found):
        return None
    return worth[1] - worth[0], worth[3] - worth[2]


def _sign(facts: StudyFacts) -> int:
    return 1 if facts.metric.direction == "maximize" else -1
