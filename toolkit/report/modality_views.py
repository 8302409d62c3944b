"""The contributions of each modality: gains, Shapley values, interactions, shares, permutation.

Numbers of games are shown as gains: above 0 is better, for scores and for losses.
"""

from collections.abc import Sequence
from typing import Final

from toolkit.explain.shapley import GameRecord, PermutationRecord
from toolkit.explain.shares import Attribution
from toolkit.report.document import (
    NONE,
    Cell,
    Figure,
    Fold,
    Paragraph,
    Part,
    Row,
    Table,
    count_words,
    format_number,
    join_names,
)
from toolkit.report.facts import (
    StudyFacts,
    find_game,
    find_shares,
    format_points,
    rank_shares,
    tabulate_shares,
    to_gain,
)

_FUSIONS: Final = {
    "late-soft": "late fusion (mean of probabilities)",
    "late-vote": "late fusion (majority vote)",
    "refit": "early fusion, fitted again for every set of modalities",
}
_NOISE: Final = (
    "SD over seeds: standard deviation of the Shapley value over the seeds of the searches. "
    "Intervals do not include it."
)
_Ends = tuple[float, float | None, float | None]
#: Most pairs of modalities, or modalities, that a sentence names.
_MOST_NAMED: Final = 3


def _opening_sentences(facts: StudyFacts, attribution: Attribution) -> list[Paragraph]:
    """Answer in sentences: the gains of the modalities, then their pairs."""
    ranked = _rank_values(attribution)
    if not ranked:
        shares = rank_shares(attribution, "modality")
        named = [f"{r.modality} {format_number(r.share)}" for r in shares]
        text = f"No Shapley values were computed. SHAP shares in {attribution.system}: "
        return [Paragraph(f"{text}{join_names(named)}.", "lead")]
    lead = [_describe_first(facts, attribution, ranked[0])]
    if to_gain(ranked[0])[1] is None:
        lead.append("Fewer than five speakers give no intervals, so no modality is preferred.")
    else:
        lead.append(_compare_values(facts, attribution, ranked[0].players, ranked[1].players))
        idle = [
            f"{name} ({_write_gain(facts, record)})"
            for name in attribution.compared
            if (record := find_game(attribution, "last", name))
            and _lacks_gain(attribution, name)
        ]
        if idle:
            lead.append(f"No gain beside the others is shown for {join_names(idle)}.")
    return [Paragraph(" ".join(lead), "lead"), Paragraph(_describe_pairs(facts, attribution))]


def _rank_values(attribution: Attribution) -> list[GameRecord]:
    """Pick the Shapley values of the first game, the largest gain first."""
    found = (find_game(attribution, "value", name) for name in attribution.compared)
    return sorted((r for r in found if r is not None), key=lambda r: -to_gain(r)[0])


def _describe_first(facts: StudyFacts, attribution: Attribution, value: GameRecord) -> str:
    ends = [find_game(attribution, kind, value.players) for kind in ("alone", "last")]
    alone, last = (_write_gain(facts, r) if r else NONE for r in ends)
    return (
        f"{value.players} has the largest Shapley value in "
        f"{_FUSIONS[value.game].partition(',')[0]}: {_write_gain(facts, value)} of "
        f"{facts.metric.title}. Alone it gains {alone} over the {facts.baseline} baseline, and "
        f"{last} when it is added last."
    )


def _write_gain(facts: StudyFacts, record: GameRecord, *, turn: bool = False) -> str:
    """Write a number of a game as a gain with unit and interval."""
    return _write_points(to_gain(record, turn=turn), record.metric, _unit(facts, " points"))


def _write_points(ends: _Ends, metric: str, unit: str = "") -> str:
    value, low, high = (None if end is None else format_points(end, metric) for end in ends)
    return f"{value}{unit}" + ("" if low is None else f" [{low}, {high}]")


def _unit(facts: StudyFacts, points: str) -> str:
    """Give the words for points; losses have no unit."""
    return "" if facts.metric.direction == "minimize" else points


def _compare_values(
    facts: StudyFacts, attribution: Attribution, first: str, second: str
) -> str:
    """Compare two Shapley values by the interval of their paired difference over speakers."""
    pair = find_game(attribution, "difference", f"{first}+{second}")
    record = pair or find_game(attribution, "difference", f"{second}+{first}")
    if record is None or record.low is None:
        return f"The values of {first} and {second} were not compared."
    low = to_gain(record, turn=pair is None)[1]
    assert low is not None
    found = _write_gain(facts, record, turn=pair is None)
    if low > 0:
        return f"The difference from {second} is {found}."
    return f"No difference from {second} is shown: the interval of {found} includes 0."


def _lacks_gain(attribution: Attribution, modality: str, kind: str = "last") -> bool:
    """Check whether the gain of a modality has an interval that is not above 0."""
    record = find_game(attribution, kind, modality)
    low = to_gain(record)[1] if record else None
    return low is not None and low <= 0


def _describe_pairs(facts: StudyFacts, attribution: Attribution) -> str:
    """Name the pairs whose interaction has an interval without 0."""
    found = [
        record
        for record in attribution.games
        if (record.kind, record.group) == ("interaction", "")
        and record == find_game(attribution, "interaction", record.players)
    ]
    if any(record.low is None for record in found):
        return "Fewer than five speakers give no intervals of interactions between modalities."
    found.sort(key=lambda record: -abs(record.value))
    texts = []
    for record in found:
        _, low, high = to_gain(record)
        assert low is not None
        assert high is not None
        if low <= 0 <= high:
            continue
        does = "more together than separately"
        if low <= 0:
            noise = any(_lacks_gain(attribution, m, "alone") for m in record.players.split("+"))
            why = "one may dilute the other" if noise else "overlap, or one dilutes the other"
            does = f"less together than separately ({why})"
        pair, gain = record.players.replace("+", " and "), _write_gain(facts, record)
        texts.append(f"{pair} gain {does}: their interaction is {gain}.")
    if not texts:
        return (
            "No two modalities are shown to gain more or less together than separately: in "
            f"{_FUSIONS[found[0].game]}, every interval of an interaction includes 0."
        )
    more = len(texts) - _MOST_NAMED
    if more > 0:
        texts[_MOST_NAMED:] = [f"{more} more pairs: see below."]
    if len(found) > 1:
        texts.append(f"The intervals are not adjusted for the number of pairs, {len(found)}.")
    return " ".join(texts)


def modality_parts(
    facts: StudyFacts, attribution: Attribution, families: Sequence[Part]
) -> list[Part]:
    """Show the gains of the modalities, in all and by class, and fold the other views.

    - families: Sentences on families of statistics, before the first figure.
    """
    parts: list[Part] = [*_opening_sentences(facts, attribution), *families]
    if values := _rank_values(attribution):
        parts.append(_gains_figure(facts, attribution, values[0].game))
        parts += _classes_figure(facts, attribution)
        parts.append(
            Fold("Gains and interactions in numbers", _game_tables(facts, attribution))
        )
    if len(attribution.modalities) < 2:  # games of late fusions, without early fusion
        return parts
    others = [_shares_table(facts, attribution)]
    if attribution.importance:
        others.append(_permutation_table(facts, attribution))
    if any(r.kind == "value" for r in attribution.players):
        others.append(_players_table(attribution))
    titles = ["SHAP shares", "permutation importance", "modalities as players in the models"]
    return [*parts, Fold(join_names(titles[: len(others)]), tuple(others))]


def _gains_figure(facts: StudyFacts, attribution: Attribution, game: str) -> Figure:
    words = []
    for name in attribution.compared:
        kinds = {"alone": "alone", "value": "Shapley value", "last": "added last"}
        found = {title: find_game(attribution, kind, name) for kind, title in kinds.items()}
        gains = [f"{title} {_write_gain(facts, r)}" for title, r in found.items() if r]
        words.append(f"{name}: {', '.join(gains)}")
    return Figure(
        "modalities",
        f"Gain in {facts.metric.title} by each modality: alone over {facts.baseline}, added "
        "last to all others, and the Shapley value, the mean gain over all orders. "
        f"Systems: {_FUSIONS[game]}. Gains come {facts.intervals}.",
        "; ".join(words) + ".",
    )


def _classes_figure(facts: StudyFacts, attribution: Attribution) -> list[Figure]:
    if not any(r.group for r in attribution.games):
        return []
    words = []
    for group in facts.classes:
        found = [find_game(attribution, "value", m, group=group) for m in attribution.compared]
        gains = [f"{r.players} {format_points(r.value, r.metric)}" for r in found if r]
        words.append(f"{group}: {', '.join(gains)}")
    caption = "The same gains for each class, in points of the class's own F1."
    return [Figure("class-gains", caption, f"Shapley values by class. {'; '.join(words)}.")]


def _points_cell(record: GameRecord | PermutationRecord | None) -> Cell | None:
    """Make a cell of a gain, or of a loss when permuted, with its interval."""
    if record is None:
        return None
    ends = (record.value, record.low, record.high)
    if isinstance(record, GameRecord):
        ends = to_gain(record)
    return Cell(_write_points(ends, record.metric), ends[0])


def _game_tables(facts: StudyFacts, attribution: Attribution) -> tuple[Table, ...]:
    """Tabulate gains, interactions and gains by class, of every game."""
    unit = facts.metric.title + _unit(facts, ", in points")
    games = list(dict.fromkeys(r.game for r in attribution.games))
    # Only games that were repeated under other seeds have a deviation.
    noisy = any(r.seed_sd is not None for r in attribution.games)
    kinds = {"alone": "alone", "value": "Shapley value", "last": "added last"}
    rows: list[Row] = []
    for name in attribution.compared:
        for game in games:
            found = [find_game(attribution, kind, name, game=game) for kind in kinds]
            sd = found[1].seed_sd if found[1] else None
            noise = [_size_cell(sd, facts.metric.name)] if noisy else []
            rows.append([name, _FUSIONS[game], *map(_points_cell, found), *noise])
    gains = Table.of(
        "modalities",
        f"Gain by each modality: {unit}.",
        ["modality", "systems", *kinds.values(), *["SD over seeds"] * noisy],
        rows,
        note=_NOISE if noisy else "",
    )
    pairs = dict.fromkeys(r.players for r in attribution.games if r.kind == "interaction")
    inside = {r.players: r.share for r in attribution.players if r.kind == "interaction"}
    rows = []
    for pair in pairs:
        found = [find_game(attribution, "interaction", pair, game=game) for game in games]
        rows.append([pair.replace("+", " + "), *map(_points_cell, found), inside.get(pair)])
    interactions = Table.of(
        "interactions",
        f"Interactions of modalities: {unit}.",
        ["pair", *(_FUSIONS[game].partition(",")[0] for game in games), "inside the models"],
        rows,
        note="Interaction: gain of both together minus the gains of each, averaged over the "
        "sets of other modalities. Below 0 they overlap, or one dilutes the other. Inside the "
        "models: magnitude of the interaction, of the trees alone, as a share of all.",
    )
    return (gains, interactions, *_classes_table(facts, attribution))


def _size_cell(size: float | None, metric: str) -> Cell | None:
    """Make a cell of a standard deviation."""
    return None if size is None else Cell(format_points(size, metric, sign=False), size)


def _classes_table(facts: StudyFacts, attribution: Attribution) -> list[Table]:
    """Tabulate Shapley value and share of each modality by class."""
    if not any(r.group for r in attribution.games):
        return []
    rows: list[Row] = []
    for name in facts.classes:
        several = len(attribution.modalities) > 1  # else the only share is 1
        shares = find_shares(attribution, "modality", class_name=name) if several else {}
        row: Row = [name]
        for modality in attribution.compared:
            share = shares.get((modality, ""))
            value = find_game(attribution, "value", modality, group=name)
            row += [_points_cell(value), share.share if share else None]
        rows.append(row)
    views = ("Shapley value", "SHAP share")
    header = [f"{m}, {view}" for m in attribution.compared for view in views]
    caption = (
        "Shapley value of each modality for a class's own F1, in points, and its share of "
        "the contributions to the class."
    )
    return [Table.of("class-gains", caption, ["class", *header], rows)]


def _shares_table(facts: StudyFacts, attribution: Attribution) -> Table:
    linear = {r.modality: r for r in attribution.linear if r.system == attribution.system}
    shares = find_shares(attribution, "modality")
    rows: list[Row] = []
    cells = tabulate_shares(attribution, "modality")
    for (name, _), (share, permuted, outcomes) in cells.items():
        part = linear.get(name)
        own = Cell.of_score(part.share, part.low, part.high) if part else None
        rows.append([name, share, permuted, own, *outcomes])
    below = [
        r.modality
        for r in shares.values()
        if r.high is not None and r.permuted_low is not None and r.high < r.permuted_low
    ]
    idle = [
        r.modality
        for r in shares.values()
        if r.share >= 1 / len(shares) and _lacks_gain(attribution, r.modality)
    ]
    moved = "exchanged between" if facts.has_one_label_each else "permuted within"
    definition = (
        f"Share: magnitude of a modality's SHAP values in {attribution.system}, as a part of "
        f"all. Permuted labels: the same for models fitted to labels {moved} speakers, mean of "
        f"{count_words(attribution.n_permuted, 'run')}."
    )
    if linear:
        definition += " Linear part: its share of the modality's contributions, trees the rest."
    notes = [
        definition,
        _compare_order(
            attribution,
            [r.modality for r in rank_shares(attribution, "modality")],
            "A share measures the influence of a modality, whether it helps or misleads.",
        ),
    ]
    if below:
        notes.append(
            f"The share of {join_names(below)} is below that under permuted labels: shares add "
            "up to 1, and true labels give the other modalities more."
        )
    if idle:
        notes.append(
            "A share above the mean, but no gain beside the others that is shown: "
            f"{join_names(idle)}. Such a modality overlaps with the others, or misleads."
        )
    return Table.of(
        "shares",
        f"SHAP shares in {attribution.system}.",
        ["modality", "share", "permuted labels", "linear part", "when right", "when wrong"],
        rows,
        note=" ".join(filter(None, notes)),
    )


def _permutation_table(facts: StudyFacts, attribution: Attribution) -> Table:
    found = [r for r in attribution.importance if not r.class_name]
    unit = facts.metric.title + _unit(facts, ", in points")
    order = [r.modality for r in sorted(found, key=lambda r: -r.value)]
    note = (
        f"Loss: {attribution.system} predicts again with the modality permuted among the "
        "utterances of each speaker. Information that is constant within a speaker is kept."
    )
    other = _compare_order(
        attribution,
        order,
        "Permutation leaves the model as it is; for a Shapley value the others are fitted "
        "without the modality, and can replace it.",
    )
    return Table.of(
        "permutation",
        f"Permutation importance in {attribution.system}: {unit}.",
        ["modality", "loss", "SD over permutations"],
        [[r.modality, _points_cell(r), _size_cell(r.deviation, r.metric)] for r in found],
        note=f"{note} {other}".strip(),
    )


def _players_table(attribution: Attribution) -> Table:
    found = [r for r in attribution.players if r.kind == "value"]
    order = [r.players for r in sorted(found, key=lambda r: -r.share)]
    other = _compare_order(
        attribution, order, "Both divide the same decisions, not the score of the system."
    )
    return Table.of(
        "players",
        f"Modalities as players in the models of {attribution.system}.",
        ["modality", "share as one player", "share of its features"],
        [[r.players, r.share, r.summed] for r in found],
        note="Share as one player: Shapley values of the margin in which a modality is present "
        "as a whole or absent. It differs from the sum over its features only in the credit "
        f"for interactions. {other}".strip(),
    )


def _compare_order(attribution: Attribution, order: list[str], reason: str) -> str:
    """Compare an order of the modalities with that of their Shapley values."""
    values = _rank_values(attribution)
    ranked = [record.players for record in values]
    # An order that lacks a modality cannot be compared.
    if not ranked or set(ranked) != set(order):
        return ""
    first, then = order[0], ", then ".join(order[1:])
    if ranked == order:
        return f"The order is that of the Shapley values: {first} first, then {then}."
    late = f" The Shapley values are of late fusion, this order of {attribution.system}."
    return (
        f"The order, {first} first, then {then}, differs from that of the Shapley values "
        f"({', '.join(ranked)}). {reason}{late if values[0].game != 'refit' else ''}"
    )
