"""Scores, comparisons, confusion and speakers: the sections on performance."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from toolkit.report.calibration import fusion_parts, ranking_parts
from toolkit.report.document import (
    NONE,
    Cell,
    Choice,
    Figure,
    Fold,
    Matrix,
    Paragraph,
    Part,
    Row,
    Section,
    Table,
    change_cell,
    count_words,
    format_interval,
    format_number,
    format_p,
    isolate,
    make_table,
    p_cell,
    score_cell,
)
from toolkit.report.facts import StudyFacts, describe_data
from toolkit.report.people_views import people_section
from toolkit.report.protocol import present_table, published_table
from toolkit.report.searches import curve_parts, seed_sections
from toolkit.systems import BEST_SINGLE, MAJORITY, NO_INFORMATION, logistic_name
from toolkit.validation import METRICS, Comparison, Predictions
from toolkit.validation.metrics import confusion_matrices

#: Metrics of the tables of scores; ``scores.csv`` holds others besides.
_METRICS: Final = ("f1_micro", "f1_macro", "uar", "f1_weighted", "mcc", "log_loss", "brier")


def score_sections(facts: StudyFacts) -> list[Section]:
    """Show the scores, those over seeds and their comparisons."""
    return [_scores_section(facts), *seed_sections(facts), _comparisons_section(facts)]


def _scores_section(facts: StudyFacts) -> Section:
    """Show the pooled scores of every system and both baselines."""
    parts: list[Part] = [scores_table(facts)]
    if facts.published:
        parts.append(published_table(facts))
    if len(facts.classes) == 2 and facts.systems:
        parts += ranking_parts(facts)
    if (shown := facts.primary) in facts.systems:
        parts.append(_classes_table(facts, [shown], "classes", f"{shown}: scores by class."))
    further = (_further_table(facts), _spread_table(facts), present_table(facts))
    classes = _classes_table(facts, facts.systems, "all-classes", "Every system: by class.")
    title = "Other metrics, spread over folds, classes of every system"
    kept = tuple(part for part in (*further, classes) if part is not None)
    parts.append(Fold(title, kept))
    return Section("scores", "Scores", tuple(parts))


def scores_table(facts: StudyFacts) -> Table:
    """Tabulate the chosen metrics, one row per system and baseline: also ``table.tex``."""
    metrics = list(dict.fromkeys([facts.metric.name, *facts.options["table_metrics"]]))
    table = _metrics_table(
        facts,
        "scores",
        f"Scores on {describe_data(facts)}. All held-out utterances are pooled, "
        "with 95 % intervals over speakers in brackets. Bold: best of each column, selected "
        "without a test.",
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


def _further_table(facts: StudyFacts) -> Table | None:
    """Tabulate the metrics that the main table leaves out; None where it has all."""
    chosen = {facts.metric.name, *facts.options["table_metrics"]}
    metrics = [name for name in _METRICS if name not in chosen]
    caption = "Other metrics over all held-out utterances pooled."
    return _metrics_table(facts, "further", caption, metrics) if metrics else None


def _metrics_table(facts: StudyFacts, name: str, caption: str, metrics: Sequence[str]) -> Table:
    systems = [*facts.systems, *facts.baselines]
    # Without probabilities there are the scores of decisions alone.
    scores = {
        (system, metric): facts.score(system, metric)
        for system in systems
        for metric in metrics
        if facts.predictions[system].has_proba or not METRICS[metric].needs_proba
    }
    best = {}
    for metric in metrics:
        pick = max if METRICS[metric].direction == "maximize" else min
        best[metric] = pick(s.value for (_, of), s in scores.items() if of == metric)
    rows: list[Row] = []
    for system in systems:
        cells = [
            score_cell(s.value, s.low, s.high, best=s.value == best[metric])
            if (s := scores.get((system, metric)))
            else None
            for metric in metrics
        ]
        rows.append([system, *cells, len(facts.predictions[system])])
    header = ["system", *(METRICS[metric].title for metric in metrics), "n"]
    return make_table(name, caption, header, rows)


def _spread_table(facts: StudyFacts) -> Table:
    title = facts.metric.title
    header = ["system", title, "95 %, speakers"]
    if facts.n_sessions:
        header.append("95 %, sessions")
    header += ["mean over folds", "SD over folds", "mean over speakers"]
    rows: list[Row] = []
    for system in facts.systems:
        score = facts.score(system)
        row: Row = [system, score.value, _interval_cell(score.low, score.high)]
        if facts.n_sessions:
            session = facts.score(system, kind="session jackknife t")
            row.append(_interval_cell(session.low, session.high))
        row += [
            facts.score(system, scope="fold", kind="mean over folds").value,
            # A single fold has no deviation.
            facts.score(system, scope="fold", kind="sd over folds").value
            if len(facts.folds) > 1
            else None,
            facts.score(system, scope="speaker", kind="speaker mean t"),
        ]
        rows.append(row)
    note = (
        "Partners in a dialogue are alike. Where both are in the data, use the interval over "
        "sessions."
        if facts.n_sessions
        else ""
    )
    caption = f"{title} of every system, and its spread over folds and speakers."
    return make_table("spread", caption, header, rows, note=note)


def _interval_cell(low: float | None, high: float | None, *, sign: bool = False) -> Cell:
    """Make a cell of an interval, sorted by its lower end; a dash where there is none."""
    return Cell(format_interval(low, high, sign=sign) or NONE, low)


def _classes_table(facts: StudyFacts, systems: Sequence[str], name: str, caption: str) -> Table:
    table = next(iter(facts.predictions.values()))
    n_true = [int((table.labels == code).sum()) for code in range(len(table.classes))]
    return make_table(
        name,
        caption,
        ["system", "class", "recall", "precision", "F1", "n"],
        [
            [
                system,
                label,
                *(
                    facts.score(system, metric, scope="class", group=label)
                    for metric in ("recall", "precision", "f1")
                ),
                n,
            ]
            for system in systems
            for label, n in zip(table.classes, n_true, strict=True)
        ],
    )


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
    planned = facts.confirmatory
    if not planned:
        return []
    shown = sum(pair.shows_difference for pair in planned)
    text = (
        f"{shown} of {count_words(len(planned), 'planned comparison')} show a difference: of "
        "each modality and fusion from the better baseline and from its logistic regression"
        f"{', and of each fusion from best-single' if facts.fused else ''}. The p values are "
        "adjusted over these comparisons alone."
    )
    chosen = {frozenset((pair.a, pair.b)) for pair in planned}
    header = ["system"]
    columns: list[Sequence[Any]] = [facts.systems]
    for title, others in (
        (facts.baseline, [facts.baseline] * len(facts.systems)),
        ("its logistic regression", [logistic_name(system) for system in facts.systems]),
        (BEST_SINGLE, [BEST_SINGLE] * len(facts.systems)),
    ):
        pairs = list(zip(facts.systems, others, strict=True))
        if any(frozenset(pair) in chosen for pair in pairs):
            header += [f"{facts.metric.title}, minus {title}", "adjusted p"]
            cells = [
                _difference_cells(facts, *pair) if frozenset(pair) in chosen else [None, None]
                for pair in pairs
            ]
            columns += zip(*cells, strict=True)
    table = make_table(
        "planned",
        "Planned comparisons: differences with 95 % intervals over speakers.",
        header,
        [
            row
            for row in zip(*columns, strict=True)
            if any(cell is not None for cell in row[1:])
        ],
        note="Bold: a difference was shown (adjusted p at most .05). A dash: not planned.",
    )
    return [Paragraph(text), table]


def _difference_cells(facts: StudyFacts, system: str, other: str) -> Row:
    """Make cells of the difference in the metric, with its interval, and of its p."""
    pair = facts.compare(system, other)
    if pair is None:
        return [None, None]
    turn = 1 if pair.a == system else -1
    value, text = turn * pair.difference, f"{turn * pair.difference:+.3f}"
    if pair.low is not None and pair.high is not None:
        low, high = sorted((turn * pair.low, turn * pair.high))
        text += f" {format_interval(low, high, sign=True)}"
    return [Cell(text, value, best=pair.shows_difference), p_cell(pair.p_adjusted)]


def _pairs_fold(facts: StudyFacts) -> Fold:
    every = [pair for pair in facts.comparisons if pair.family == "all pairs"]
    shown = sum(pair.shows_difference for pair in every)
    first = every[0]
    drawn = [MAJORITY, NO_INFORMATION, *facts.systems]
    sentence = (
        f"{shown} of {count_words(len(every), 'pair')} show a difference. Test: "
        f"{first.method}. The smallest possible p is {format_p(first.smallest_p)}."
    )
    parts: list[Part] = [Paragraph(sentence)]
    if len(drawn) > 1:
        parts.append(
            Figure(
                "comparisons",
                f"Difference in {facts.metric.title}, row minus column. Bold and framed: a "
                "difference was shown (adjusted p at most .05).",
                _comparisons_alt(facts, drawn),
            )
        )
    note = (
        "p: permutation test that exchanges the predictions of both systems for whole "
        "speakers; adjusted by step-down max-T over the pairs. Nadeau-Bengio: corrected "
        "resampled t test over folds, conservative, for reference only."
    )
    parts.append(_pairs_table(facts, "comparisons", "All pairs of systems.", every, note))
    return Fold("All pairs of systems", tuple(parts))


def _pairs_table(
    facts: StudyFacts, name: str, caption: str, pairs: Sequence[Comparison], note: str = ""
) -> Table:
    return make_table(
        name,
        caption,
        [
            "a",
            "b",
            f"{facts.metric.title}, a minus b",
            "95 %, speakers",
            "p",
            "adjusted p",
            "difference shown",
            "Nadeau-Bengio p",
        ],
        [
            [
                pair.a,
                pair.b,
                change_cell(pair.difference),
                _interval_cell(pair.low, pair.high, sign=True),
                p_cell(pair.p),
                p_cell(pair.p_adjusted),
                pair.shows_difference,
                p_cell(pair.p_nadeau_bengio),
            ]
            for pair in pairs
        ],
        note=note,
    )


def _comparisons_alt(facts: StudyFacts, drawn: list[str]) -> str:
    pairs = [
        pair
        for pair in facts.comparisons
        if pair.family == "all pairs" and pair.a in drawn and pair.b in drawn
    ]
    shown = sorted(
        (pair for pair in pairs if pair.shows_difference),
        key=lambda pair: -abs(pair.difference),
    )
    words = [
        f"{pair.a} minus {pair.b} {pair.difference:+.3f} (adjusted p "
        f"{format_p(pair.p_adjusted)})"
        for pair in shown[:5]
    ]
    return (
        f"{len(shown)} of {len(pairs)} pairs of {len(drawn)} systems show a difference. The "
        f"largest: {'; '.join(words) or 'none'}. All are in the table that follows."
    )


def detail_sections(facts: StudyFacts) -> list[Section]:
    """Show confusion matrices, speakers and folds, and groups of people."""
    made = (_confusion_section(facts), _groups_section(facts), people_section(facts))
    return [section for section in made if section is not None]


def _confusion_section(facts: StudyFacts) -> Section | None:
    """Show one confusion matrix, and a choice of the other systems'."""
    if not facts.confused:
        return None
    matrices = tuple(_matrix(facts.predictions[name]) for name in facts.confused)
    parts = (Choice("confusion", "System", matrices),)
    return Section("confusion", "Confusion", parts)


def _matrix(predictions: Predictions) -> Matrix:
    counts = confusion_matrices(
        predictions.labels, predictions.y_pred, len(predictions.classes)
    )[0]
    words = []
    for code, name in enumerate(predictions.classes):
        n = int(counts[code].sum())
        if not n:
            words.append(f"{isolate(name)}: none")
            continue
        mistaken = counts[code].copy()
        mistaken[code] = -1  # the right class is no mistake, not even where all are right
        rival = int(mistaken.argmax())
        words.append(
            f"{isolate(name)}: {int(counts[code, code]):,} of {n:,} right"
            + (
                f", most often taken for {isolate(predictions.classes[rival])} "
                f"({int(mistaken[rival]):,})"
                if mistaken[rival] > 0
                else ""
            )
        )
    return Matrix(
        name=f"confusion-{predictions.system}",
        option=predictions.system,
        caption=f"{predictions.system}: true classes in rows, predicted classes in columns.",
        classes=predictions.classes,
        counts=counts,
        summary="; ".join(words) + ".",
    )


def _groups_section(facts: StudyFacts) -> Section | None:
    """Show the scores of every speaker, and of every fold where folds are other groups."""
    if not facts.systems:
        return None
    extremes = {}
    for system in facts.systems:
        scores = [
            facts.score(system, scope="speaker", group=speaker)
            for speaker in facts.tested_speakers
        ]
        lowest, highest = (pick(scores, key=lambda score: score.value) for pick in (min, max))
        extremes[system] = (
            f"{system}: from {format_number(lowest.value)} ({isolate(lowest.group)}) to "
            f"{format_number(highest.value)} ({isolate(highest.group)})"
        )
    shown = facts.primary if facts.primary in extremes else facts.best(facts.systems)
    figure = Figure(
        "speakers",
        f"{facts.metric.title} of each speaker (dots) and the mean over speakers (bars).",
        f"{facts.metric.title} by speaker. {'; '.join(extremes.values())}.",
    )
    table = facts.predictions[shown]
    # With one speaker held out in turn both tables hold the same numbers.
    one_each = len(set(zip(table.folds.tolist(), table.speakers.tolist(), strict=True)))
    same = one_each == len(facts.folds) == facts.n_speakers
    curve = curve_parts(facts)
    scopes = ("speaker",) if same else ("speaker", "fold")
    tables = tuple(_groups_table(facts, scope) for scope in scopes)
    return Section(
        "speakers",
        "Speakers",
        (
            Paragraph(f"{facts.metric.title} of {extremes[shown]}."),
            *curve[:1],
            figure,
            *curve[1:],
            Fold(" and ".join(f"{scope}s" for scope in scopes).capitalize(), tables),
        ),
    )


def _groups_table(facts: StudyFacts, scope: str) -> Table:
    names = facts.tested_speakers if scope == "speaker" else facts.folds
    shown = [*facts.systems, MAJORITY, NO_INFORMATION]
    rows: list[Row] = [
        [
            name,
            facts.score(MAJORITY, scope=scope, group=name).n,
            *(facts.score(s, scope=scope, group=name).value for s in shown),
        ]
        for name in names
    ]
    kind = "speaker mean t" if scope == "speaker" else "mean over folds"
    means = [facts.score(system, scope=scope, kind=kind).value for system in shown]
    rows.append(["mean", len(facts.predictions[MAJORITY]), *means])
    return make_table(
        f"by-{scope}",
        f"{facts.metric.title} of each of {count_words(len(names), scope)}.",
        [scope, "n", *shown],
        rows,
        note=(
            "UAR and F1-macro of a speaker or fold average the classes that occur there."
            if facts.metric.name in {"uar", "f1_macro"}
            else ""
        ),
        n_footers=1,
    )
