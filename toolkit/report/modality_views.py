"""Three views of each modality side by side: Shapley value, share, loss when shuffled."""

from typing import Final

from toolkit.explain import GameRecord, PermutationRecord, ShareRecord
from toolkit.explain.shares import Attribution
from toolkit.report.document import (
    NONE,
    Cell,
    Figure,
    Items,
    Paragraph,
    Part,
    Row,
    Table,
    change_cell,
    format_number,
    join_names,
    make_table,
    score_cell,
)
from toolkit.report.facts import (
    StudyFacts,
    find_game,
    find_shares,
    format_gain,
    format_points,
    rank_shares,
)

_VIEWS: Final = (
    "A Shapley value says what a modality is worth to the score, whichever others are there: "
    "modalities that carry the same information split its value between them. A share says "
    "how much of what the model of all modalities says comes from it, right or wrong. "
    "Permutation says what that one model loses without it, and is blind to what is constant "
    "within a speaker. So they need not agree: what is redundant has a share and loses little, "
    "what misleads has a share and no worth."
)
_TITLES: Final = {
    "late-soft": "value, soft",
    "late-vote": "value, vote",
    "refit": "value, refit",
}


def modality_parts(facts: StudyFacts, attribution: Attribution) -> list[Part]:
    """Show the three views, and compare them."""
    return [
        Paragraph(_lead(facts, attribution), "lead"),
        _views_figure(facts, attribution),
        _views_table(facts, attribution),
        Paragraph(_VIEWS),
        _compare_views(facts, attribution),
        *_classes_table(facts, attribution),
        *_interactions_table(attribution),
    ]


def _lead(facts: StudyFacts, attribution: Attribution) -> str:
    found = [
        (name, value)
        for name in attribution.modalities
        if (value := find_game(attribution, "value", name)) is not None
    ]
    if not found:
        shares = rank_shares(attribution, "modality")
        named = [f"{r.modality} {format_number(r.share)}" for r in shares]
        return (
            f"Shares of what {attribution.system} says: {join_names(named)}. No game over "
            "modalities was played."
        )
    found.sort(key=lambda pair: -facts.sign * pair[1].value)
    unit = "" if facts.metric.direction == "minimize" else " points"
    how = (
        "early fusion of every set of modalities"
        if found[0][1].game == "refit"
        else "the mean of probabilities of every set of modalities"
    )
    named = [f"{name} {_points_cell(value).text}{unit}" for name, value in found]
    lead = (
        f"Of the {facts.metric.title} above {facts.baseline}, played over {how}, "
        f"Shapley's rule gives {join_names(named)}"
    )
    first, second = found[0], found[1]
    if first[1].low is None or second[1].low is None:
        return f"{lead}. There are too few speakers for intervals."
    lead += f" (95 % intervals over {first[1].n_speakers} speakers)."
    order = _compare_values(facts, attribution, first[0], second[0])
    nothing = [
        name
        for name, r in found
        if r.low is not None and r.high is not None and r.low <= 0 <= r.high
    ]
    empty = (
        f" Nothing was shown for {join_names(nothing)}: the interval holds 0."
        if nothing
        else ""
    )
    return f"{lead} {order}{empty}{_noise(found)}"


def _points_cell(record: GameRecord | PermutationRecord | None) -> Cell:
    """Make a cell of a number of a game, or a loss, with its interval."""
    if record is None:
        return Cell(NONE)
    text = format_points(record.value, record.metric)
    if record.low is not None and record.high is not None:
        low, high = (format_points(end, record.metric) for end in (record.low, record.high))
        text += f" [{low}, {high}]"
    return Cell(text, record.value)


def _noise(found: list[tuple[str, GameRecord]]) -> str:
    """Give the deviation of the values over seeds; empty where no other seed was tried."""
    named = [
        f"{name} {format_points(value.seed_sd, value.metric, sign=False)}"
        for name, value in found
        if value.seed_sd is not None
    ]
    if not named:
        return ""
    return (
        " Chance in the searches moves the values too: standard deviation over three seeds, "
        f"at the budget of --quick, {join_names(named)}."
    )


def _compare_values(
    facts: StudyFacts, attribution: Attribution, first: str, second: str
) -> str:
    """Compare the two largest values by the interval of their difference over speakers."""
    pair = find_game(attribution, "difference", f"{first}+{second}")
    turn = 1 if pair is not None else -1
    pair = pair or find_game(attribution, "difference", f"{second}+{first}")
    if pair is None or pair.low is None or pair.high is None:
        return f"The values of {first} and {second} were not compared."
    low, high = sorted((turn * pair.low, turn * pair.high))
    size, *ends = (
        format_points(number, facts.metric.name) for number in (turn * pair.value, low, high)
    )
    unit = "" if facts.metric.direction == "minimize" else " points"
    found = f"{size}{unit} [{', '.join(ends)}]"
    # Of losses the better value is the lower one.
    if (low if facts.sign > 0 else -high) > 0:
        better = "above" if facts.sign > 0 else "below"
        return f"The value of {first} is {better} that of {second}: difference {found}."
    return (
        f"A difference between the values of {first} and {second} was not shown: its "
        f"interval holds 0, {found}."
    )


def _views_figure(facts: StudyFacts, attribution: Attribution) -> Figure:
    words = []
    for r in find_shares(attribution, "modality").values():
        value = _points_cell(find_game(attribution, "value", r.modality)).text
        permuted = (
            "" if r.permuted is None else f" (labels permuted {format_number(r.permuted)})"
        )
        words.append(f"{r.modality}: value {value}, share {format_number(r.share)}{permuted}")
    return Figure(
        "modalities",
        "Three views of each modality: what it is worth to the score (Shapley value), its "
        f"share of what {attribution.system} says (diamond: {_describe_permutation(facts)}), "
        f"and what {attribution.system} loses when it is shuffled. Lines are 95 % intervals "
        "over speakers.",
        "; ".join(words) + ".",
    )


def _describe_permutation(facts: StudyFacts) -> str:
    """Name the labels that the reference of the shares was fitted to."""
    exchanged = facts.has_one_label_each
    return f"labels {'exchanged between' if exchanged else 'permuted within'} speakers"


def _views_table(facts: StudyFacts, attribution: Attribution) -> Table:
    lost = {r.modality: r for r in attribution.importance if not r.class_name}
    inside = {r.players: r for r in attribution.players if r.kind == "value"}
    games = list(dict.fromkeys(r.game for r in attribution.games))
    rows: list[Row] = []
    # Only games that were repeated under other seeds have a deviation.
    noisy = list(dict.fromkeys(r.game for r in attribution.games if r.seed_sd is not None))
    for (name, _), share in find_shares(attribution, "modality").items():
        rows.append(
            [
                name,
                *(
                    _points_cell(find_game(attribution, "value", name, game=game))
                    for game in games
                ),
                *(
                    _noise_cell(find_game(attribution, "value", name, game=game))
                    for game in noisy
                ),
                score_cell(share.share, share.low, share.high),
                share.permuted,
                _points_cell(lost.get(name)),
                inside[name].share if name in inside else None,
                share.grows_with_width,
                share.grows_with_width_permuted,
                change_cell(share.toward_truth),
            ]
        )
    unit = facts.metric.title + ("" if facts.metric.direction == "minimize" else ", in points")
    return make_table(
        "modalities",
        f"What each modality does. Values and loss: {unit}.",
        [
            "modality",
            *(_TITLES[game] for game in games),
            *(f"{_TITLES[game]}: SD over seeds" for game in noisy),
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
            f"Shares are of joint contributions in {attribution.system}, beside their mean "
            f"under {_describe_permutation(facts)} (same parameters, 5 repeats). 'Grows with "
            "width' sums single magnitudes: noise of many dimensions gets much of it. 'Share "
            "as player' knows a modality as a whole or not at all; its difference to the share "
            "is only that of two ways of sharing credit. 'Toward truth' is the mean "
            "contribution to the true class's margin."
        ),
    )


def _noise_cell(record: GameRecord | None) -> Cell:
    if record is None or record.seed_sd is None:
        return Cell(NONE)
    return Cell(format_points(record.seed_sd, record.metric, sign=False), record.seed_sd)


def _compare_views(facts: StudyFacts, attribution: Attribution) -> Part:
    """Compare the ranks of the modalities by value, share and loss; explain differences."""
    orders = _rank(facts, attribution)
    shares = list(find_shares(attribution, "modality").values())
    below = [
        f"{r.modality} ({format_number(r.share)} against {format_number(r.permuted)})"
        for r in shares
        if r.permuted is not None and r.permuted_low is not None and r.share < r.permuted_low
    ]
    alike = len({tuple(order) for order in orders.values()}) <= 1
    if alike:
        named = join_names(next(iter(orders.values())))
        remarks = [f"All views rank the modalities alike: {named}."]
    else:
        ranked = [f"by {view} {', '.join(order)}" for view, order in orders.items()]
        remarks = [f"The views rank the modalities differently: {'; '.join(ranked)}."]
    if below:
        remarks.append(
            f"Labels that mean nothing would give a larger share to {join_names(below)}: "
            f"shares add up to 1, and true labels taught {attribution.system} more of the "
            "others."
        )
    if not alike and "value" in orders:
        for share in shares:
            name = share.modality
            gap = orders["value"].index(name) - orders["share"].index(name)
            if gap > 0:
                remarks.append(_explain_share(facts, attribution, share))
            elif gap < 0:
                remarks.append(_explain_worth(facts, attribution, share))
    return Paragraph(remarks[0]) if len(remarks) == 1 else Items(tuple(remarks))


def _rank(facts: StudyFacts, attribution: Attribution) -> dict[str, list[str]]:
    """Order the modalities by each view that has them all, the largest first."""
    views = {
        "value": {
            name: facts.sign * value.value
            for name in attribution.modalities
            if (value := find_game(attribution, "value", name)) is not None
        },
        "share": {r.modality: r.share for r in rank_shares(attribution, "modality")},
        "loss when shuffled": {
            r.modality: r.value for r in attribution.importance if not r.class_name
        },
    }
    return {
        view: sorted(numbers, key=lambda name, n=numbers: -n[name])  # type: ignore[misc]
        for view, numbers in views.items()
        # A view that lacks a modality cannot rank it.
        if len(numbers) == len(attribution.modalities)
    }


def _explain_share(facts: StudyFacts, attribution: Attribution, share: ShareRecord) -> str:
    """Explain in a sentence why a modality has more share than worth."""
    lead = f"{share.modality} has more share than worth: "
    right, wrong = (
        find_shares(attribution, "modality", outcome=outcome).get((share.modality, ""))
        for outcome in ("right", "wrong")
    )
    # Without intervals that lie apart, the two shares are not shown to differ.
    if (
        right is not None
        and wrong is not None
        and right.high is not None
        and wrong.low is not None
        and wrong.low > right.high
    ):
        return (
            f"{lead}{attribution.system} listens to it more where it is wrong "
            f"({format_number(wrong.share)}) than where it is right "
            f"({format_number(right.share)})."
        )
    ends = _ends(attribution, share.modality)
    if ends is None:
        return f"{lead}the others carry the same information, or it is wrong."
    lost = f"only {format_gain(facts, abs(ends[1]))}" if facts.sign * ends[1] > 0 else "nothing"
    return (
        f"{lead}{attribution.system} relies on it, and searched again without it all others "
        f"lose {lost}."
    )


def _explain_worth(facts: StudyFacts, attribution: Attribution, share: ShareRecord) -> str:
    """Explain in a sentence why a modality has more worth than share."""
    lead = f"{share.modality} has more worth than share: "
    ends = _ends(attribution, share.modality)
    # More than half of its gain alone is lost beside the others: they overlap.
    if ends is not None and 2 * facts.sign * ends[1] < facts.sign * ends[0]:
        alone, added = (format_points(end, facts.metric.name) for end in ends)
        return (
            f"{lead}alone it gains {alone} over {facts.baseline}, beside all others "
            f"{added}, and a value is a mean over both ends; the others carry the same "
            "information."
        )
    if share.toward_truth > 0:
        return f"{lead}it contributes rarely, but correctly."
    return f"{lead}its contributions are small."


def _ends(attribution: Attribution, name: str) -> tuple[float, float] | None:
    """Compute the gain by a modality alone, and beside all others; None without a game."""
    full = "+".join(attribution.modalities)
    others = "+".join(other for other in attribution.modalities if other != name)
    found = [find_game(attribution, "worth", players) for players in ("", name, others, full)]
    worth = [record.value for record in found if record is not None]
    if len(worth) < len(found):
        return None
    # v({m}) - v({}), and v(N) - v(N without m).
    return worth[1] - worth[0], worth[3] - worth[2]


def _classes_table(facts: StudyFacts, attribution: Attribution) -> list[Part]:
    """Tabulate value and share of each modality by class; no table without a game."""
    if not any(r.kind == "value" and r.group in facts.classes for r in attribution.games):
        return []
    rows: list[Row] = []
    for name in facts.classes:
        shares = find_shares(attribution, "modality", class_name=name)
        row: Row = [name]
        for modality in attribution.modalities:
            share = shares.get((modality, ""))
            row += [
                _points_cell(find_game(attribution, "value", modality, group=name)),
                None if share is None else share.share,
            ]
        rows.append(row)
    header = [f"{m}, {view}" for m in attribution.modalities for view in ("value", "share")]
    return [
        make_table(
            "driving-classes",
            "What each modality is worth to a class's own F1, in points, and its share of "
            "the contributions to that class.",
            ["class", *header],
            rows,
            note="Shares of a class add up to 1 over the modalities.",
        )
    ]


def _interactions_table(attribution: Attribution) -> list[Part]:
    games = list(dict.fromkeys(r.game for r in attribution.games))
    pairs = list(dict.fromkeys(r.players for r in attribution.games if r.kind == "interaction"))
    if not pairs:
        return []
    inside = {r.players: r.share for r in attribution.players if r.kind == "interaction"}
    rows: list[Row] = [
        [
            pair.replace("+", " + "),
            *(
                _points_cell(find_game(attribution, "interaction", pair, game=game))
                for game in games
            ),
            inside.get(pair),
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
                "Below 0 the two carry the same information; above 0 they add information "
                "only together. Inside the trees: magnitude of the interaction as part of all "
                "magnitudes."
            ),
        )
    ]
