"""What each modality is worth, its share and what is lost without it, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from toolkit.report.document import (
    NONE,
    Cell,
    Figure,
    Items,
    Paragraph,
    Section,
    format_number,
    format_share,
    join_names,
    make_table,
    number_cell,
)
from toolkit.report.facts import find_game, find_shares, format_points, part_cell, points_cell
from toolkit.report.shap_figures import (
    N_WATERFALLS,
    drawn_classes,
    people_parts,
    surprising_rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toolkit.explain import GameRecord, ShareRecord
    from toolkit.explain.shares import Attribution
    from toolkit.report.document import Part, Table
    from toolkit.report.facts import StudyFacts


def describe_disagreements(facts: StudyFacts, evidence: Attribution) -> list[Part]:
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


def _rank(facts: StudyFacts, evidence: Attribution) -> dict[str, list[str]]:
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


def _compare_with_permuted(evidence: Attribution, shares: list[ShareRecord]) -> Iterator[str]:
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


def _explain_share(facts: StudyFacts, evidence: Attribution, share: ShareRecord) -> str:
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


def _explain_worth(facts: StudyFacts, evidence: Attribution, share: ShareRecord) -> str:
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


def _ends(evidence: Attribution, name: str) -> tuple[float, float] | None:
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


def modality_parts(facts: StudyFacts, evidence: Attribution) -> list[Part]:
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


def _lead(facts: StudyFacts, evidence: Attribution) -> str:
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


def _figure(evidence: Attribution) -> Figure:
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


def _views_table(facts: StudyFacts, evidence: Attribution) -> Table:
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


def _noisy_games(evidence: Attribution) -> list[str]:
    """Name the games that were played under other seeds."""
    games = [r.game for r in evidence.games if r.seed_sd is not None]
    return list(dict.fromkeys(games))


def _noise_cells(evidence: Attribution, modality: str) -> list[Cell]:
    cells = []
    for game in _noisy_games(evidence):
        record = find_game(evidence, "value", modality, game=game)
        if record is None or record.seed_sd is None:
            cells.append(Cell(NONE))
        else:
            text = format_points(record.seed_sd, record.metric).removeprefix("+")
            cells.append(Cell(text, record.seed_sd))
    return cells


def _classes(facts: StudyFacts, evidence: Attribution) -> list[Part]:
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


def _interactions(evidence: Attribution) -> list[Part]:
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


_N_SURPRISES: Final = 6


def gallery_parts(facts: StudyFacts, evidence: Attribution) -> list[Part]:
    """Show what contributes most: over all, to each class, in each person, in surprises."""
    return [
        *_plots(facts, evidence),
        *_people(facts, evidence),
        *_surprises(facts, evidence),
    ]


def _plots(facts: StudyFacts, evidence: Attribution) -> list[Part]:
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


def _people(facts: StudyFacts, evidence: Attribution) -> list[Part]:
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


def _surprises(facts: StudyFacts, evidence: Attribution) -> list[Part]:
    predictions = facts.predictions[evidence.system]
    totals = evidence.totals[evidence.system]
    modalities = [part[0] for part in totals.parts]
    rows: list[list[Cell | str]] = []
    for row in surprising_rows(predictions, totals, _N_SURPRISES):
        label, y_pred = int(predictions.labels[row]), int(predictions.y_pred[row])
        pull = totals.signed[row, y_pred] - totals.signed[row, label]
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
                predictions.classes[y_pred],
                number_cell(float(predictions.proba[row, label])),
                f"{most} ({by_modality[most]:+.2f})",
            ]
        )
    n_wrong = int((predictions.labels != predictions.y_pred).sum())
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
            f"Contributions to {predictions.classes[int(predictions.y_pred[row])]} in "
            f"{predictions.utterances[row]}.",
        )
        for k, row in enumerate(surprising_rows(predictions, totals, N_WATERFALLS))
    ]
    return [table, *figures]


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


def _family_lead(evidence: Attribution) -> Paragraph:
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


def _families_table(evidence: Attribution) -> Table:
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
