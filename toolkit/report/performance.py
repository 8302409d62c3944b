"""Scores, seeds and comparisons: the sections on performance."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from toolkit.report.document import (
    NONE,
    Cell,
    Figure,
    Fold,
    Paragraph,
    Part,
    Row,
    Section,
    Table,
    count_words,
    format_interval,
    format_p,
    isolate,
)
from toolkit.report.drivers import fusion_parts
from toolkit.report.facts import StudyFacts
from toolkit.systems import BEST_SINGLE, MAJORITY, NO_INFORMATION, logistic_name, variant_name
from toolkit.validation import METRICS, Comparison, Predictions
from toolkit.validation.scores import jackknife_interval

#: Metrics of the tables of scores; ``scores.csv`` holds others besides.
_METRICS: Final = ("f1_micro", "f1_macro", "uar", "f1_weighted", "mcc", "log_loss", "brier")


def score_sections(facts: StudyFacts) -> list[Section]:
    """Show the scores, those over seeds and their comparisons."""
    seeds = [_seeds_section(facts)] if facts.repeated else []
    return [_scores_section(facts), *seeds, _comparisons_section(facts)]


def _scores_section(facts: StudyFacts) -> Section:
    """Show the pooled scores of every system and both baselines."""
    parts: list[Part] = [scores_table(facts)]
    if facts.published:
        parts.append(_published_table(facts))
    if len(facts.classes) == 2 and facts.systems:
        parts += _ranking_parts(facts)
    if (shown := facts.primary) in facts.systems:
        parts.append(_classes_table(facts, [shown], "classes", f"{shown}: scores by class."))
    chosen = {facts.metric.name, *facts.options["table_metrics"]}
    rest = [name for name in _METRICS if name not in chosen]
    caption = "Other metrics over all held-out utterances pooled."
    further = (
        _metrics_table(facts, "further", caption, rest) if rest else None,
        _spread_table(facts),
        _present_table(facts),
        _classes_table(facts, facts.systems, "all-classes", "Every system: by class."),
    )
    title = "Other metrics, spread over folds, classes of every system"
    parts.append(Fold(title, tuple(part for part in further if part is not None)))
    return Section("scores", "Scores", tuple(parts))


def scores_table(facts: StudyFacts) -> Table:
    """Tabulate the chosen metrics, one row per system and baseline: also ``table.tex``."""
    metrics = list(dict.fromkeys([facts.metric.name, *facts.options["table_metrics"]]))
    table = _metrics_table(
        facts,
        "scores",
        f"Scores on {_describe_data(facts)}. All held-out utterances are pooled, "
        f"{facts.intervals}. Bold: best of each column, selected without a test.",
        metrics,
    )
    note = (
        "Intervals: jackknife over speakers, from five speakers on. They describe new speakers "
        "for these fitted systems. majority predicts the largest class of its training fold, "
        "no-information the largest class of all tested utterances. The logistic systems are "
        "logistic regressions on the same features, with the penalty tuned on inner folds."
    )
    shown = [cell.text.partition(" [")[2].strip("]") for row in table.rows for cell in row]
    if any(ends and len(set(ends.split(", "))) == 1 for ends in shown):
        note += (
            " An interval of zero width: the score is the same without any one of the "
            "speakers, as the UAR of a constant prediction is."
        )
    if facts.outside:
        note += (
            " A plus in a name: brought from outside, or fused with such a system; the audit "
            "cannot vouch for it."
        )
    return replace(table, note=note)


def _describe_data(facts: StudyFacts) -> str:
    """Name the data set of a study with its tested part, and how groups were held out."""
    n = len(next(iter(facts.predictions.values())))
    outer, content, _ = str(facts.options["outer"]).partition("+")
    held_out = {
        "split": "test part of the split that comes with the data",
        "speaker": "one speaker held out at a time",
        "session": "one session held out at a time",
    }.get(outer, f"{outer} groups of speakers, one held out at a time")
    if content:
        held_out += f", and one of {facts.options['content_parts']} parts of the content"
    return (
        f"{facts.data_name} ({count_words(n, 'utterance')}, "
        f"{count_words(facts.n_speakers, 'speaker')}, {len(facts.classes)} classes); {held_out}"
    )


def _metrics_table(facts: StudyFacts, name: str, caption: str, metrics: Sequence[str]) -> Table:
    systems = [*facts.systems, *facts.baselines]
    columns = []
    for metric in metrics:
        # Without probabilities there are the scores of decisions alone.
        found = [
            facts.score(system, metric)
            if facts.predictions[system].has_proba or not METRICS[metric].needs_proba
            else None
            for system in systems
        ]
        pick = max if METRICS[metric].direction == "maximize" else min
        best = pick(score.value for score in found if score)
        columns.append(
            [s and Cell.of_score(s.value, s.low, s.high, best=s.value == best) for s in found]
        )
    sizes = [len(facts.predictions[system]) for system in systems]
    header = ["system", *(METRICS[metric].title for metric in metrics), "n"]
    return Table.of(name, caption, header, [*zip(systems, *columns, sizes, strict=True)])


def _published_table(facts: StudyFacts) -> Table:
    """List scores of the literature with their protocols and sources."""
    rows: list[Row] = [
        [e["system"], METRICS[e["metric"]].title, e["value"], e["protocol"], e["source"]]
        for e in facts.published
    ]
    header = ["system", "metric", "score", "protocol", "source"]
    note = (
        "Never tested here: other utterances, folds and features may be behind these scores. "
        "The weighted accuracy (WA) of emotion research is F1-micro."
    )
    return Table.of("published", "Published scores.", header, rows, note=note)


def _present_table(facts: StudyFacts) -> Table | None:
    """Score systems on the rows they had features for; None where that is all rows."""
    rows: list[Row] = []
    for system in (*facts.systems, *facts.baselines):
        if n_absent := int((~facts.predictions[system].present).sum()):
            present = facts.score(system, scope="present")
            rows.append([system, facts.score(system), present, present.n, n_absent])
    if not rows:  # both scores would be the same
        return None
    title = facts.metric.title
    return Table.of(
        "present",
        "Systems with missing utterances.",
        ["system", f"{title}, all", f"{title}, present", "n present", "n absent"],
        rows,
        note="A missing utterance gets the class priors of the training fold.",
    )


def _ranking_parts(facts: StudyFacts) -> list[Part]:
    """Show ROC and precision-recall curves of two classes, and the areas below them."""
    positive = isolate(facts.classes[1])
    found = {name: _rank(facts.predictions[name]) for name in (*facts.ranked, MAJORITY)}
    words = "; ".join(f"{name} {cells[0].text}" for name, cells in found.items())
    caption = f"ROC and precision-recall curves of {positive}. Dashed: .5 and the class share."
    note = f"Areas of utterances pooled over folds, {facts.intervals}."
    if len(facts.folds) > 1:
        note += (
            " majority has the area of the class shares of the training rows alone. Holding "
            "people out pushes it below .5, since their classes are rarer in training."
        )
    table = Table.of(
        "areas",
        f"Areas below both curves; the positive class is {positive}.",
        ["system", "ROC AUC", "average precision"],
        [[name, *cells] for name, cells in found.items()],
        note=note,
    )
    figure = Figure("roc", caption, f"ROC AUC: {words}.")
    return [figure, table] if facts.has_curves else [table]


def _rank(table: Predictions) -> list[Cell]:
    """Compute ROC AUC and average precision of the second class, with intervals."""
    if len(np.unique(table.labels)) < 2:  # neither area is defined
        return [Cell.of(None)] * 2
    names, sizes = np.unique(table.speakers, return_counts=True)
    cells = []
    for measure in (roc_auc_score, average_precision_score):
        value = float(measure(table.labels, table.proba[:, 1]))
        rest = [table.speakers != name for name in names]
        ends: tuple[float | None, float | None] = None, None
        if all(len(np.unique(table.labels[kept])) == 2 for kept in rest):
            left_out = [measure(table.labels[kept], table.proba[kept, 1]) for kept in rest]
            ends = jackknife_interval(value, left_out, sizes, low=0, high=1)
        cells.append(Cell.of_score(value, *ends))
    return cells


def _spread_table(facts: StudyFacts) -> Table:
    title = facts.metric.title
    header = ["system", title, "95 %, speakers"]
    if facts.n_sessions:
        header.append("95 %, sessions")
    header += ["mean over folds", "SD over folds", "mean over speakers"]
    # A single fold has no deviation.
    kinds = ["mean over folds", *["sd over folds"] * (len(facts.folds) > 1)]
    rows: list[Row] = []
    known = False
    for system in facts.systems:
        score = facts.score(system)
        row: Row = [system, score.value, _interval_cell(score.low, score.high)]
        if facts.n_sessions:
            session = facts.score(system, kind="session jackknife t")
            row.append(_interval_cell(session.low, session.high))
            known |= session.low is not None
        by_fold = [facts.score(system, scope="fold", kind=kind).value for kind in kinds]
        row += [*by_fold, *[None] * (2 - len(kinds))]
        row.append(facts.score(system, scope="speaker", kind="speaker mean t"))
        rows.append(row)
    note = (
        "Partners in a dialogue are alike. Where both are in the data, use the interval over "
        "sessions."
    )
    caption = f"{title} of every system, and its spread over folds and speakers."
    return Table.of("spread", caption, header, rows, note=note if known else "")


def _interval_cell(low: float | None, high: float | None, *, sign: bool = False) -> Cell:
    """Make a cell of an interval, sorted by its lower end; a dash where there is none."""
    return Cell(format_interval(low, high, sign=sign) or NONE, low)


def _classes_table(facts: StudyFacts, systems: Sequence[str], name: str, caption: str) -> Table:
    labels = next(iter(facts.predictions.values())).labels
    metrics = ("recall", "precision", "f1")
    rows: list[Row] = [
        [
            *(system, label),
            *(facts.score(system, metric, scope="class", group=label) for metric in metrics),
            int((labels == code).sum()),
        ]
        for system in systems
        for code, label in enumerate(facts.classes)
    ]
    header = ["system", "class", "recall", "precision", "F1", "n"]
    return Table.of(name, caption, header, rows)


def _seeds_section(facts: StudyFacts) -> Section:
    """Show repeated systems: first seed, mean and deviation over seeds, ensemble."""
    title, n_seeds = facts.metric.title, facts.options["seeds"]
    text = (
        "The interval of a mean describes new speakers for these models, and the SD describes "
        "chance in the searches. Neither includes the other. The ensemble averages the "
        "probabilities over seeds, and is a system of its own. Comparisons of these systems "
        "are of means over seeds. All other numbers are of the first seed."
    )
    rows: list[Row] = [
        [
            system,
            facts.score(system),
            facts.score(system, kind="mean over seeds"),
            facts.score(system, kind="sd over seeds").value,
            facts.score(variant_name(system, "ensemble")),
        ]
        for system in facts.repeated
    ]
    table = Table.of(
        "seeds",
        f"{title} over {n_seeds} seeds of the searches, {facts.intervals}.",
        ["system", "first seed", "mean over seeds", "SD over seeds", "ensemble"],
        rows,
    )
    return Section("seeds", "Seeds", (table, Paragraph(text)))


def _comparisons_section(facts: StudyFacts) -> Section:
    """Show the planned comparisons; all pairs and the fusions follow when opened."""
    parts: list[Part] = []
    if facts.comparisons:
        parts += [*_planned_parts(facts), _pairs_fold(facts)]
    else:
        parts.append(Paragraph("There is one system only, and nothing to compare it with."))
    if facts.fusion:
        title = "Fusion: utterances corrected and broken, agreement of modalities, weights"
        parts.append(Fold(title, tuple(fusion_parts(facts))))
    return Section("comparisons", "Comparisons", tuple(parts))


def _planned_parts(facts: StudyFacts) -> list[Part]:
    """Show the confirmatory family: the comparisons that were chosen before any result."""
    planned = [pair for pair in facts.comparisons if pair.family == "confirmatory"]
    if not planned:
        return []
    shown = sum(pair.shows_difference for pair in planned)
    with_best = any(BEST_SINGLE in (pair.a, pair.b) for pair in planned)
    text = (
        "Planned comparisons: each modality and fusion with the better baseline, each searched "
        "system with its logistic regression"
        f"{', and each fusion with best-single' if with_best else ''}. Differences shown: "
        f"{shown} of {len(planned)}. The p values are adjusted over these comparisons alone."
    )
    chosen = {frozenset((pair.a, pair.b)) for pair in planned}
    header = ["system"]
    columns: list[Sequence[Any]] = [facts.systems]
    for title, other_of in (
        (facts.baseline, lambda _: facts.baseline),
        ("its logistic regression", logistic_name),
        (BEST_SINGLE, lambda _: BEST_SINGLE),
    ):
        pairs = [(system, other_of(system)) for system in facts.systems]
        if any(frozenset(pair) in chosen for pair in pairs):
            header += [f"{facts.metric.title}, minus {title}", "adjusted p"]
            cells = [
                _difference_cells(facts, *pair) if frozenset(pair) in chosen else [None, None]
                for pair in pairs
            ]
            columns += zip(*cells, strict=True)
    table = Table.of(
        "planned",
        f"Planned comparisons: differences {facts.intervals}.",
        header,
        [row for row in zip(*columns, strict=True) if any(row[1:])],
        note="Bold: a difference was shown (adjusted p at most .05). A dash: not planned.",
    )
    return [Paragraph(text), table]


def _difference_cells(facts: StudyFacts, system: str, other: str) -> Row:
    """Make cells of the difference in the metric, with its interval, and of its p."""
    pair = facts.compare(system, other)
    if pair is None:
        return [None, None]
    text = f"{pair.difference:+.3f} {format_interval(pair.low, pair.high, sign=True)}".strip()
    cell = Cell(text, pair.difference, best=pair.shows_difference)
    return [cell, Cell.of_p(pair.p_adjusted)]


def _pairs_fold(facts: StudyFacts) -> Fold:
    every = [pair for pair in facts.comparisons if pair.family == "all pairs"]
    shown = sum(pair.shows_difference for pair in every)
    first = every[0]
    sentence = (
        f"{shown} of {count_words(len(every), 'pair')} show a difference. Test: "
        f"{first.method}. The smallest possible p is {format_p(first.smallest_p)}."
    )
    caption = (
        f"Difference in {facts.metric.title}, row minus column. Bold and framed: a "
        "difference was shown (adjusted p at most .05)."
    )
    # The figure leaves out logistic regressions.
    drawn = {MAJORITY, NO_INFORMATION, *facts.systems}
    pairs = [pair for pair in every if {pair.a, pair.b} <= drawn]
    named = [pair for pair in pairs if pair.shows_difference]
    words = [
        f"{pair.a} minus {pair.b} {pair.difference:+.3f} (adjusted p "
        f"{format_p(pair.p_adjusted)})"
        for pair in sorted(named, key=lambda pair: -abs(pair.difference))[:5]
    ]
    alt = (
        f"{len(named)} of {len(pairs)} pairs of {len(drawn)} systems show a difference. The "
        f"largest: {'; '.join(words) or 'none'}. All are in the table that follows."
    )
    figure = Figure("comparisons", caption, alt)
    parts = (Paragraph(sentence), figure, _pairs_table(facts, every))
    return Fold("All pairs of systems", parts)


def _pairs_table(facts: StudyFacts, pairs: Sequence[Comparison]) -> Table:
    rows: list[Row] = [
        [
            *(pair.a, pair.b, Cell.of_change(pair.difference)),
            _interval_cell(pair.low, pair.high, sign=True),
            *(Cell.of_p(pair.p), Cell.of_p(pair.p_adjusted), pair.shows_difference),
            Cell.of_p(pair.p_nadeau_bengio),
        ]
        for pair in pairs
    ]
    header = ["a", "b", f"{facts.metric.title}, a minus b", "95 %, speakers", "p", "adjusted p"]
    header += ["difference shown", "Nadeau-Bengio p"]
    note = (
        "p: permutation test that exchanges the predictions of both systems for whole "
        "speakers; adjusted by step-down max-T over the pairs. Nadeau-Bengio: corrected "
        "resampled t test over folds, conservative, for reference only."
    )
    return Table.of("comparisons", "All pairs of systems.", header, rows, note=note)
