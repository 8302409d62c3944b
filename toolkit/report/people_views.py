"""Groups of people, and decisions that may be left open: sections, tables and figures."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from toolkit.report.document import (
    Cell,
    Figure,
    Fold,
    Paragraph,
    Part,
    Row,
    Section,
    format_p,
    isolate,
    make_table,
    p_cell,
    score_cell,
)
from toolkit.report.facts import StudyFacts
from toolkit.report.figures import (
    BLUE,
    GREY,
    PAGE_WIDTH,
    VERMILION,
    draw_grid,
    figure_style,
    name_rows,
    shorten,
)
from toolkit.validation.people import choose_answers, make_sets, risk_curve, score_risk

_ABSTAIN_NOTE: Final = (
    "In hindsight: largest share with at most the chosen error. Answered: the threshold of "
    "each person comes from the other people; the error found has its interval, and no "
    "guarantee. Sets are calibrated for each person by all others, of equal weight. If people "
    "are exchangeable, a random utterance of a random person is missed with at most the "
    "chosen probability. The mean coverage over the people of one study keeps to it by "
    "arithmetic and proves nothing: the lowest person and the size of the sets are the "
    "result. p needed: by a class, to be in the set of a new person. That is approximate, "
    "since the final model learnt from all these people."
)


def groups_section(facts: StudyFacts) -> Section | None:
    """Show the scores of groups of people and the largest gap of each column."""
    if not facts.groups:
        return None
    title, words = facts.metric.title, []
    rows: list[Row] = []
    for each in facts.groups:
        name = f"{each.column}: {each.group or 'largest gap'}"
        row: Row = [name, score_cell(each.value, each.low, each.high), each.baseline]
        row += [each.n_people, each.n, p_cell(each.p), p_cell(each.p_adjusted)]
        rows.append([*row, p_cell(each.smallest_p)])
        if not each.group:
            words.append(
                f"{'A' if each.shows_gap else 'No'} gap by {isolate(each.column)} was shown: "
                f"{isolate(each.highest)} is {each.value:.3f} above {isolate(each.lowest)} "
                f"(adjusted p {format_p(each.p_adjusted)})."
            )
    grouped: Counter[str] = Counter()
    for each in facts.groups:
        grouped[each.column] += each.n_people if each.group else 0
    words += [
        f"No {isolate(column)} is known of {facts.n_speakers - n} of {facts.n_speakers} people."
        for column, n in grouped.items()
        if n < facts.n_speakers
    ]
    (low, worst), (high, best) = _extremes(facts)
    words.append(
        f"{title} of one person is from {low:.3f} ({isolate(worst)}) to {high:.3f} "
        f"({isolate(best)}). The extremes of {facts.n_speakers} people differ by chance too."
    )
    header = ["group", title, f"of {facts.baseline}", "people", "n", "p", "adjusted p"]
    table = make_table(
        "groups",
        f"{facts.primary}: {title} of groups of people, all utterances of a group pooled.",
        [*header, "smallest p"],
        rows,
        note=(
            "95 % jackknife intervals over the people of a group, none below five. Numbers of "
            "more than five values are cut at quantiles of the people. p: share of all ways of "
            "giving the same people these groups with a gap as large; adjusted over the "
            "columns (Holm). It tests whether people are exchangeable between groups: p is too "
            "small where a smaller group varies more, or partners in a dialogue share a group. "
            "A group may be harder because its classes are: compare the baseline. A group of "
            "one person is in no gap."
        ),
    )
    caption = (
        f"{facts.primary}: {title} of groups (bars: 95 % intervals over people), and from the "
        "lowest to the highest person of each (grey)."
    )
    text = " ".join(words)
    parts = (Paragraph(text), Figure("groups", caption, text), table)
    return Section("groups", "Groups of people", parts)


def _extremes(facts: StudyFacts) -> tuple[tuple[float, str], tuple[float, str]]:
    """Find the lowest and the highest score of one person."""
    scores = [
        (facts.score(facts.primary, scope="speaker", group=name).value, name)
        for name in facts.tested_speakers
    ]
    return min(scores), max(scores)


def abstention_section(facts: StudyFacts) -> Section | None:
    """Show error by share of confident answers, and prediction sets at the chosen errors."""
    if not facts.errors or facts.primary not in facts.systems:
        return None
    table, n = facts.predictions[facts.primary], facts.n_speakers
    rows: list[Row] = []
    by_person: list[Row] = [[name] for name in facts.tested_speakers]
    names = ["person"]
    for chosen in facts.errors:
        hindsight, share, error = choose_answers(table, chosen)
        row: Row = [f"{chosen:g}", _percent(hindsight), _percent(share)]
        row.append(None if error is None else score_cell(*error))
        sets = make_sets(table, chosen)
        if sets is None:
            rows.append([*row, *[None] * 5])
            continue
        rates, sizes = np.array(list(sets.coverage.values())), sets.inside.sum(axis=1)
        row += [float(rates.mean()), float(rates.min()), float(sizes.mean())]
        rows.append([*row, _percent(float((sizes == 1).mean())), sets.needed])
        names += [f"coverage at {chosen:g}", "mean size"]
        for line, name in zip(by_person, facts.tested_speakers, strict=True):
            line += [sets.coverage[name], float(sizes[table.speakers == name].mean())]
    area, low, high, least = score_risk(table)
    text = (
        f"Area under the risk-coverage curve of {facts.primary}: "
        f"{score_cell(area, low, high).text}; {least:.3f} with all right utterances first, "
        f"{risk_curve(table)[-1]:.3f} in random order. Prediction sets: with {n} people no "
        f"error below {1 / n:.3f} can be kept to, for a new person none below "
        f"{1 / (n + 1):.3f}."
    )
    header = ["chosen error", "answered in hindsight", "answered", "error found"]
    header += ["sets: mean coverage", "lowest person", "mean size", "one class", "p needed"]
    caption = (
        "Left: error among the most confident utterances, by their share; dashed: the chosen "
        "errors. Right: share of each person's utterances whose set holds the true class "
        "(dots), and the level of the sets (bars)."
    )
    parts: list[Part] = [
        Figure("abstention", caption, text),
        make_table(
            "abstention",
            f"{facts.primary}: answers and sets.",
            header,
            rows,
            note=_ABSTAIN_NOTE,
        ),
    ]
    if len(names) > 1:
        parts.append(make_table("sets", "Prediction sets of every person.", names, by_person))
    fold = Fold("Answers at chosen errors, and prediction sets", tuple(parts))
    return Section("abstention", "When to abstain", (Paragraph(text), fold))


def _percent(share: float) -> Cell:
    return Cell(f"{100 * share:.0f} %", share)


def draw_people(facts: StudyFacts) -> Iterator[tuple[str, Axes]]:
    """Draw the figures of groups and of abstention, where a study has them."""
    if facts.groups:
        yield "groups", _plot_groups(facts)
    if facts.errors and facts.primary in facts.systems:
        yield "abstention", _plot_abstention(facts)


def _plot_groups(facts: StudyFacts) -> Axes:
    """Draw every group's score and interval over the range of its people."""
    system, people = facts.primary, facts.tested_speakers
    scores = {s: facts.score(system, scope="speaker", group=s).value for s in people}
    (low, worst), (high, best) = _extremes(facts)
    every = facts.score(system)
    names, rows = ["everyone"], [(every.value, every.low, every.high, low, high, len(people))]
    for each in facts.groups:
        if each.group:
            names.append(f"{each.column}: {each.group}")
            ends = (scores[each.lowest], scores[each.highest])
            rows.append((each.value, each.low, each.high, *ends, each.n_people))
    with figure_style():
        figure = Drawing(
            figsize=(PAGE_WIDTH * 0.75, 0.28 * len(rows) + 1), layout="constrained"
        )
        ax: Axes = figure.subplots()
        for row, (value, start, end, least, most, n) in enumerate(rows):
            ax.plot([least, most], [row, row], "|-", color=GREY, lw=0.8, ms=6, alpha=0.7)
            if start is not None and end is not None:
                ax.plot([start, end], [row, row], color=BLUE, lw=3, alpha=0.45)
            ax.plot(value, row, "o", color=BLUE if row else VERMILION, ms=4.5)
            ax.annotate(
                f"{value:.3f}  ({n})",
                (1.01, row),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=7,
            )
        for at, name, side in ((low, worst, "left"), (high, best, "right")):
            ax.text(at, -0.3, shorten(name, 12), fontsize=6.5, ha=side, parse_math=False)
        name_rows(ax, names)
        ax.set_ylim(len(rows) - 0.5, -0.9)
        ax.axvline(every.value, color=GREY, lw=0.7, ls=":", zorder=0)
        ax.set_xlabel(f"{facts.metric.title} (in brackets: people)")
        draw_grid(ax, "x")
    return ax


def _plot_abstention(facts: StudyFacts) -> Axes:
    """Draw the risk-coverage curve, and the coverage of every person's sets."""
    table = facts.predictions[facts.primary]
    risks = risk_curve(table)
    with figure_style():
        figure = Drawing(figsize=(PAGE_WIDTH * 0.9, 2.4), layout="constrained")
        axes: list[Axes] = figure.subplots(1, 2).tolist()
        left, right = axes
        left.plot(np.arange(1, len(risks) + 1) / len(risks), risks, color=BLUE, lw=1.2)
        for chosen in facts.errors:
            left.axhline(chosen, color=GREY, lw=0.7, ls="--", zorder=0)
        left.set(xlim=(0, 1), ylim=(0, None), xlabel="share answered", ylabel="error")
        draw_grid(left)
        for row, chosen in enumerate(facts.errors):
            right.plot([1 - chosen] * 2, [row - 0.35, row + 0.35], color=VERMILION, lw=1.6)
            if (sets := make_sets(table, chosen)) is None:
                right.text(
                    1 - chosen, row, "not attainable ", fontsize=6.5, ha="right", va="center"
                )
                continue
            heights = row + np.linspace(-0.2, 0.2, len(sets.coverage))
            right.plot(list(sets.coverage.values()), heights, "o", color=BLUE, ms=3, mew=0)
        name_rows(right, [f"{chosen:g}" for chosen in facts.errors])
        right.set(xlabel="coverage of each person's sets", ylabel="chosen error")
        right.set_xlim(right=1.01)
        draw_grid(right, "x")
    return left
