"""What the section on modalities picks out of the evidence, and how its numbers are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.report.parts import Cell
from toolkit.report.words import NONE, format_number
from toolkit.validation import METRICS

if TYPE_CHECKING:
    from toolkit.explain import GameRecord, PermutationRecord, ShareRecord
    from toolkit.explain.shares import Evidence


def find_game(
    evidence: Evidence, kind: str, players: str, *, game: str = "", group: str = ""
) -> GameRecord | None:
    """Pick one number of a game."""
    wanted = (game,) if game else ("refit", "late-soft")
    for name in wanted:
        for record in evidence.games:
            found = (record.game, record.kind, record.group, record.players)
            if found == (name, kind, group, players):
                return record
    return None


def find_shares(
    evidence: Evidence,
    level: str,
    *,
    outcome: str = "all",
    class_name: str = "",
    speaker: str = "",
) -> list[ShareRecord]:
    """Pick the shares of the system of all modalities."""
    return [
        r
        for r in evidence.shares
        if (r.system, r.level, r.outcome, r.speaker, r.class_name)
        == (evidence.system, level, outcome, speaker, class_name)
    ]


def format_points(value: float, metric: str) -> str:
    """Write a difference of scores."""
    loss = metric in METRICS and METRICS[metric].direction == "minimize"
    return f"{value:+.3f}" if loss else f"{100 * value:+.1f}"


def points_cell(record: GameRecord | PermutationRecord | None) -> Cell:
    """Write a number of a game, or a loss, with its interval."""
    if record is None:
        return Cell(NONE)
    text = format_points(record.value, record.metric)
    if record.low is not None and record.high is not None:
        low, high = (format_points(end, record.metric) for end in (record.low, record.high))
        text += f" [{low}, {high}]"
    return Cell(text, record.value)


def part_cell(share: ShareRecord) -> Cell:
    """Write a share with its interval."""
    text = format_number(share.share)
    if share.low is not None and share.high is not None:
        text += f" [{format_number(share.low)}, {format_number(share.high)}]"
    return Cell(text, share.share)
