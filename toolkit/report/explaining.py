"""Which modality drives it: three views side by side, and where they do not agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from toolkit.report.parts import Cell, Figure, Items, Paragraph, Section, make_table
from toolkit.report.shap_plots import N_WATERFALLS, surprising_rows
from toolkit.report.words import NONE, format_number, format_share, join_names, number_cell

if TYPE_CHECKING:
    from toolkit.explain import GameRecord, ShareRecord
    from toolkit.explain.evidence import Evidence
    from toolkit.report.facts import StudyFacts
    from toolkit.report.parts import Part, Table

_N_FAMILIES: Final = 12
_N_SURPRISES: Final = 6

VIEWS: Final = (
    "A Shapley value says what a modality is worth to the score, whichever others are there: "
    "two modalities that tell the same share its worth. A share says how much of what the "
    "model of all modalities says comes from it, right or wrong. Permutation says what that "
    "one model loses without it, and is blind to what is constant within a speaker. So they "
    "need not agree: what is redundant has a share and loses little, what misleads has a share "
    "and no worth."
)


def explaining_section(facts: StudyFacts) -> Section | None:
    """Say which modality drives the predictions.

    Parameters
    ----------
    facts : StudyFacts
        The study.

    Returns
    -------
    Section or None
        None where nothing was explained.
    """
    evidence = facts.evidence
    if evidence is None:
        return None
    parts: list[Part] = []
    if len(evidence.modalities) > 1:
        parts += [
            Paragraph(_lead(facts, evidence), "lead"),
            _figure(facts, evidence),
            _views_table(facts, evidence),
            Paragraph(VIEWS),
            *_disagreements(evidence),
            *_interactions(facts, evidence),
        ]
    parts += [_family_lead(evidence), _families_table(evidence)]
    parts += _gallery(facts, evidence)
    parts += _surprises(facts, evidence)
    return Section("driving", "Which modality drives it", tuple(parts))


def find_value(evidence: Evidence, modality: str, game: str = "") -> GameRecord | None:
    """Pick a modality's Shapley value over all classes.

    Parameters
    ----------
    evidence : Evidence
        What is known.
    modality : str
        The player.
    game : str, default=""
        Which game; by default the one by refit, else the one over soft late fusion.

    Returns
    -------
    GameRecord or None
        None where that game was not played.
    """
    wanted = (game,) if game else ("refit", "late-soft")
    for name in wanted:
        for record in evidence.games:
            if (record.game, record.kind, record.group) == (name, "value", "") and (
                record.players == modality
            ):
                return record
    return None


def find_shares(
    evidence: Evidence, level: str, *, outcome: str = "all", class_name: str = ""
) -> list[ShareRecord]:
    """Pick the shares of the system of all modalities, of all speakers together.

    Parameters
    ----------
    evidence : Evidence
        What is known.
    level : str
        Modality, family or statistic.
    outcome : str, default="all"
        Which predictions.
    class_name : str, default=""
        Which class; all by default.

    Returns
    -------
    list of ShareRecord
        In the order of the columns.
    """
    return [
        r
        for r in evidence.shares
        if (r.system, r.level, r.outcome, r.speaker, r.class_name)
        == (evidence.system, level, outcome, "", class_name)
    ]


def _points(facts: StudyFacts, value: float) -> str:
    return f"{value:+.3f}" if facts.metric.direction == "minimize" else f"{100 * value:+.1f}"


def _worth(facts: StudyFacts, record: GameRecord | None) -> Cell:
    if record is None:
        return Cell(NONE)
    text = _points(facts, record.value)
    if record.low is not None and record.high is not None:
        text += f" [{_points(facts, record.low)}, {_points(facts, record.high)}]"
    return Cell(text, record.value)


def _lead(facts: StudyFacts, evidence: Evidence) -> str:
    found = [
        (name, value)
        for name in evidence.modalities
        if (value := find_value(evidence, name)) is not None
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
    named = [f"{name} {_worth(facts, value).text}{unit}" for name, value in found]
    lead = (
        f"Of the {facts.metric.title} above the majority baseline, played over {how}, "
        f"Shapley's rule gives {join_names(named)} (95 % intervals over "
        f"{found[0][1].n_speakers} speakers)."
    )
    first, second = found[0], found[1]
    apart = _apart(first[1], second[1], sign)
    order = (
        f"{first[0]} is worth most, its interval above that of {second[0]}."
        if apart
        else f"That {first[0]} is worth more than {second[0]} was not shown: their intervals "
        "overlap."
    )
    nothing = [name for name, value in found if _holds_zero(value)]
    empty = (
        f" Nothing was shown for {join_names(nothing)}: the interval holds 0."
        if nothing
        else ""
    )
    return f"{lead} {order}{empty}"


def _apart(first: GameRecord, second: GameRecord, sign: int) -> bool:
    if None in {first.low, first.high, second.low, second.high}:
        return False
    ends = (first.low, second.high) if sign > 0 else (second.low, first.high)
    return bool(ends[0] > ends[1])  # type: ignore[operator]


def _holds_zero(record: GameRecord) -> bool:
    return record.low is not None and record.high is not None and record.low <= 0 <= record.high


def _figure(facts: StudyFacts, evidence: Evidence) -> Figure:
    words = [
        f"{r.modality}: value {_worth(facts, find_value(evidence, r.modality)).text}, share "
        f"{format_number(r.share)}"
        + ("" if r.permuted is None else f" (labels permuted {format_number(r.permuted)})")
        for r in find_shares(evidence, "modality")
    ]
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
    titles = {"late-soft": "value, soft", "late-vote": "value, vote", "refit": "value, refit"}
    rows: list[list[Cell | str]] = []
    for share in find_shares(evidence, "modality"):
        name = share.modality
        loss = lost.get(name)
        rows.append(
            [
                name,
                *(_worth(facts, find_value(evidence, name, game)) for game in games),
                _share_cell(share),
                number_cell(share.permuted),
                _loss_cell(facts, loss),
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
            *(titles[game] for game in games),
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


def _share_cell(share: ShareRecord) -> Cell:
    text = format_number(share.share)
    if share.low is not None and share.high is not None:
        text += f" [{format_number(share.low)}, {format_number(share.high)}]"
    return Cell(text, share.share)


def _loss_cell(facts: StudyFacts, record: object) -> Cell:
    if record is None:
        return Cell(NONE)
    value, low, high = (getattr(record, name) for name in ("value", "low", "high"))
    text = _points(facts, value)
    if low is not None and high is not None:
        text += f" [{_points(facts, low)}, {_points(facts, high)}]"
    return Cell(text, value)


def _disagreements(evidence: Evidence) -> list[Part]:
    """Say where the three views rank the modalities differently, and why that can be."""
    shares = {r.modality: r.share for r in find_shares(evidence, "modality")}
    views = {
        "value": {
            name: value.value
            for name in evidence.modalities
            if (value := find_value(evidence, name)) is not None
        },
        "share": shares,
        "loss when shuffled": {
            r.modality: r.value for r in evidence.importance if not r.class_name
        },
    }
    orders = {
        view: sorted(numbers, key=lambda name, n=numbers: -n[name])  # type: ignore[misc]
        for view, numbers in views.items()
        if len(numbers) == len(evidence.modalities)
    }
    if len({tuple(order) for order in orders.values()}) <= 1:
        named = join_names(next(iter(orders.values())))
        return [Paragraph(f"All views rank the modalities alike: {named}.")]
    ranked = [f"by {view} {', '.join(order)}" for view, order in orders.items()]
    remarks = [f"The views rank the modalities differently: {'; '.join(ranked)}."]
    if "value" in orders and "share" in orders:
        for name in evidence.modalities:
            gap = orders["value"].index(name) - orders["share"].index(name)
            if gap > 0:
                remarks.append(
                    f"{name} has more share than worth: the model speaks of it where others "
                    "tell the same, or where it is wrong."
                )
            elif gap < 0:
                remarks.append(
                    f"{name} has more worth than share: what it tells is told in few words, "
                    "and is right."
                )
    return [Items(tuple(remarks))]


def _interactions(facts: StudyFacts, evidence: Evidence) -> list[Part]:
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
            *(_worth(facts, found.get((game, pair))) for game in games),
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
                _share_cell(share),
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


def _gallery(facts: StudyFacts, evidence: Evidence) -> list[Part]:
    """Show shap's own plots of the most important features."""
    sample = evidence.samples[evidence.system]
    names = sample.names[:-1]
    if not names:
        return []
    parts: list[Part] = [
        Figure(
            "shap-bar",
            f"Mean magnitude of the contributions to each class's margin, {evidence.system}.",
            "The features with the largest contributions: " + ", ".join(names[:8]) + ".",
        )
    ]
    for code, name in enumerate(facts.classes):
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
