"""What each modality is worth, its share and what is lost without it, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from toolkit.report.disagreeing import describe_disagreements
from toolkit.report.evidence import (
    find_game,
    find_shares,
    format_points,
    part_cell,
    points_cell,
)
from toolkit.report.parts import Cell, Figure, Paragraph, make_table
from toolkit.report.words import NONE, format_number, join_names, number_cell

if TYPE_CHECKING:
    from toolkit.explain import GameRecord
    from toolkit.explain.shares import Evidence
    from toolkit.report.facts import StudyFacts
    from toolkit.report.parts import Part, Table

VIEWS: Final = (
    "A Shapley value says what a modality is worth to the score, whichever others are there: "
    "two modalities that tell the same share its worth. A share says how much of what the "
    "model of all modalities says comes from it, right or wrong. Permutation says what that "
    "one model loses without it, and is blind to what is constant within a speaker. So they "
    "need not agree: what is redundant has a share and loses little, what misleads has a share "
    "and no worth."
)

_TITLES: Final = {
    "late-soft": "value, soft",
    "late-vote": "value, vote",
    "refit": "value, refit",
}


def modality_parts(facts: StudyFacts, evidence: Evidence) -> list[Part]:
    """Set the three views of each modality side by side."""
    return [
        Paragraph(_lead(facts, evidence), "lead"),
        _figure(evidence),
        _views_table(facts, evidence),
        Paragraph(VIEWS),
        *describe_disagreements(facts, evidence),
        *_classes(facts, evidence),
        *_interactions(evidence),
    ]


def _lead(facts: StudyFacts, evidence: Evidence) -> str:
    found = [
        (name, value)
        for name in evidence.modalities
        if (value := find_game(evidence, "value", name)) is not None
    ]
    unit = "" if facts.metric.direction == "minimize" else " points"
    if not found:
        shares = sorted(find_shares(evidence, "modality"), key=lambda r: -r.share)
        named = [f"{r.modality} {format_number(r.share)}" for r in shares]
        return (
            f"Shares of what {evidence.system} says: {join_names(named)}. No game over "
            "modalities was played."
        )
    sign = 1 if facts.metric.direction == "maximize" else -1
    found.sort(key=lambda pair: -sign * pair[1].value)
    how = (
        "early fusion of every set of modalities"
        if found[0][1].game == "refit"
        else "the mean of probabilities of every set of modalities"
    )
    named = [f"{name} {points_cell(value).text}{unit}" for name, value in found]
    lead = (
        f"Of the {facts.metric.title} above the majority baseline, played over {how}, "
        f"Shapley's rule gives {join_names(named)}"
    )
    first, second = found[0], found[1]
    if first[1].low is None or second[1].low is None:
        return f"{lead}. There are too few speakers for intervals."
    lead += f" (95 % intervals over {first[1].n_speakers} speakers)."
    order = (
        f"{first[0]} is worth most, its interval above that of {second[0]}."
        if _apart(first[1], second[1], sign)
        else f"That {first[0]} is worth more than {second[0]} was not shown: their intervals "
        "overlap."
    )
    noise = _noise(found)
    nothing = [name for name, value in found if _holds_zero(value)]
    empty = (
        f" Nothing was shown for {join_names(nothing)}: the interval holds 0."
        if nothing
        else ""
    )
    return f"{lead} {order}{empty}{noise}"


def _noise(found: list[tuple[str, GameRecord]]) -> str:
    """Say how far the seed moves the values, where that was tried."""
    named = [
        f"{name} {format_points(value.seed_sd, value.metric).removeprefix('+')}"
        for name, value in found
        if value.seed_sd is not None
    ]
    if not named:
        return ""
    return (
        " Chance in the searches moves the values too: standard deviation over three seeds, "
        f"at the budget of --quick, {join_names(named)}."
    )


def _apart(first: GameRecord, second: GameRecord, sign: int) -> bool:
    if None in {first.low, first.high, second.low, second.high}:
        return False
    ends = (first.low, second.high) if sign > 0 else (second.low, first.high)
    return bool(ends[0] > ends[1])  # type: ignore[operator]


def _holds_zero(record: GameRecord) -> bool:
    return record.low is not None and record.high is not None and record.low <= 0 <= record.high


def _figure(evidence: Evidence) -> Figure:
    words = []
    for r in find_shares(evidence, "modality"):
        value = points_cell(find_game(evidence, "value", r.modality)).text
        permuted = (
            "" if r.permuted is None else f" (labels permuted {format_number(r.permuted)})"
        )
        words.append(f"{r.modality}: value {value}, share {format_number(r.share)}{permuted}")
    return Figure(
        "modalities",
        "Three views of each modality: what it is worth to the score (Shapley value), its "
        f"share of what {evidence.system} says (diamond: labels permuted within speaker), and "
        f"what {evidence.system} loses when it is shuffled. Lines are 95 % intervals over "
        "speakers.",
        "; ".join(words) + ".",
    )


def _views_table(facts: StudyFacts, evidence: Evidence) -> Table:
    lost = {r.modality: r for r in evidence.importance if not r.class_name}
    inside = {r.players: r for r in evidence.players if r.kind == "value"}
    games = list(dict.fromkeys(r.game for r in evidence.games))
    rows: list[list[Cell | str]] = []
    for share in find_shares(evidence, "modality"):
        name = share.modality
        loss = lost.get(name)
        rows.append(
            [
                name,
                *(points_cell(find_game(evidence, "value", name, game=game)) for game in games),
                *_noise_cells(evidence, name),
                part_cell(share),
                number_cell(share.permuted),
                points_cell(loss),
                number_cell(inside[name].share if name in inside else None),
                number_cell(share.grows_with_width),
                number_cell(share.grows_with_width_permuted),
                Cell(f"{share.toward_truth:+.3f}", share.toward_truth),
            ]
        )
    unit = facts.metric.title + ("" if facts.metric.direction == "minimize" else ", in points")
    return make_table(
        "modalities",
        f"What each modality does. Values and loss: {unit}.",
        [
            "modality",
            *(_TITLES[game] for game in games),
            *(f"{_TITLES[game]}: SD over seeds" for game in _noisy_games(evidence)),
            "share",
            "permuted labels",
            "loss when shuffled",
            "share as player",
            "grows with width",
            "the same, permuted",
            "toward truth",
        ],
        rows,
        note=(
            f"Shares are of joint contributions in {evidence.system}, beside their mean under "
            "labels permuted within speaker (same parameters, 5 repeats). 'Grows with width' "
            "sums single magnitudes: noise of many dimensions gets much of it. 'Share as "
            "player' knows a modality as a whole or not at all; its difference to the share is "
            "only that of two ways of sharing credit. 'Toward truth' is the mean contribution "
            "to the true class's margin."
        ),
    )


def _noisy_games(evidence: Evidence) -> list[str]:
    """Name the games that were played under other seeds."""
    games = [r.game for r in evidence.games if r.seed_sd is not None]
    return list(dict.fromkeys(games))


def _noise_cells(evidence: Evidence, modality: str) -> list[Cell]:
    cells = []
    for game in _noisy_games(evidence):
        record = find_game(evidence, "value", modality, game=game)
        if record is None or record.seed_sd is None:
            cells.append(Cell(NONE))
        else:
            text = format_points(record.seed_sd, record.metric).removeprefix("+")
            cells.append(Cell(text, record.seed_sd))
    return cells


def _classes(facts: StudyFacts, evidence: Evidence) -> list[Part]:
    """Say of every class what each modality is worth to it, and its share."""
    rows: list[list[Cell | str]] = []
    played = False
    for name in facts.classes:
        shares = {r.modality: r for r in find_shares(evidence, "modality", class_name=name)}
        cells: list[Cell | str] = [name]
        for modality in evidence.modalities:
            value = find_game(evidence, "value", modality, group=name)
            played = played or value is not None
            share = shares.get(modality)
            cells += [
                points_cell(value),
                number_cell(None if share is None else share.share),
            ]
        rows.append(cells)
    if not played:
        return []
    header = [f"{m}, {what}" for m in evidence.modalities for what in ("value", "share")]
    return [
        make_table(
            "driving-classes",
            "What each modality is worth to a class's own F1, in points, and its share of "
            "what is said of that class.",
            ["class", *header],
            rows,
            note="Shares of a class add up to 1 over the modalities.",
        )
    ]


def _interactions(evidence: Evidence) -> list[Part]:
    games = list(dict.fromkeys(r.game for r in evidence.games))
    pairs = list(dict.fromkeys(r.players for r in evidence.games if r.kind == "interaction"))
    if not pairs:
        return []
    inside = {r.players: r.share for r in evidence.players if r.kind == "interaction"}
    found = {
        (r.game, r.players): r
        for r in evidence.games
        if r.kind == "interaction" and not r.group
    }
    rows: list[list[Cell | str]] = [
        [
            pair.replace("+", " + "),
            *(points_cell(found.get((game, pair))) for game in games),
            number_cell(inside.get(pair)),
        ]
        for pair in pairs
    ]
    return [
        make_table(
            "interactions",
            "What two modalities are worth together beyond each alone.",
            ["pair", *games, "inside the trees"],
            rows,
            note=(
                "Below 0 the two tell the same; above 0 they tell something only together. "
                "Inside the trees: magnitude of the interaction as part of all magnitudes."
            ),
        )
    ]
