"""Scores, comparisons, confusion, speakers and folds: the sections on performance."""

from collections.abc import Sequence
from typing import Final

from toolkit.report.document import (
    MINUS,
    NONE,
    Cell,
    Figure,
    Items,
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
from toolkit.report.facts import StudyFacts, format_gain
from toolkit.systems import MAJORITY, NO_INFORMATION, logistic_name
from toolkit.validation import METRICS, Comparison, Predictions, confusion_matrices

#: Metrics of the table of scores, in its order; ``scores.csv`` holds all of them.
_SHOWN: Final = ("f1_micro", "f1_macro", "uar", "f1_weighted", "mcc", "log_loss", "brier")


def score_sections(facts: StudyFacts) -> list[Section]:
    """Show the scores and their comparisons."""
    return [_scores_section(facts), _comparisons_section(facts)]


def _scores_section(facts: StudyFacts) -> Section:
    """Show the pooled scores of every system and both baselines."""
    parts = [
        _scores_figure(facts) if facts.systems else None,
        scores_table(facts),
        _baselines_table(facts),
        _present_table(facts),
        _classes_table(facts),
    ]
    return Section("scores", "Scores", tuple(part for part in parts if part is not None))


def scores_table(facts: StudyFacts) -> Table:
    """Tabulate the pooled scores, one row per system and baseline: also ``table.csv``."""
    metrics = list(dict.fromkeys([facts.metric.name, *_SHOWN]))
    return make_table(
        "scores",
        "Scores over all held-out utterances pooled, with 95 % intervals over speakers.",
        ["system", *(METRICS[name].title for name in metrics), "n"],
        [
            [
                system,
                *(facts.score(system, name) for name in metrics),
                facts.score(system).n,
            ]
            for system in [*facts.systems, *facts.baselines]
        ],
        note=(
            "Intervals are 95 %, jackknife over speakers, none below five speakers: they "
            "describe new speakers for these systems, not other training sets or seeds. "
            "majority predicts the largest class of its training fold, no-information the "
            "largest class of all tested rows, chosen in hindsight; -logistic is a logistic "
            "regression on the same features, its penalty tuned on inner folds. All metrics, "
            "folds, speakers and classes are in scores.csv."
        ),
    )


def _baselines_table(facts: StudyFacts) -> Table:
    title = facts.metric.title
    header = ["system", title, "95 %, speakers"]
    if facts.n_sessions:
        header.append("95 %, sessions")
    header += ["mean over folds", "SD over folds", "mean over speakers"]
    header += [f"against {facts.baseline}", "adjusted p", "against its logistic", "adjusted p"]
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
            *_against(facts, system, facts.baseline),
            *_against(facts, system, logistic_name(system)),
        ]
        rows.append(row)
    sessions = (
        " Dialogue partners are alike, so the interval over sessions stands beside the one "
        "over speakers; it is the more careful one where both partners are in the data."
        if facts.n_sessions
        else ""
    )
    return make_table(
        "baselines",
        f"{title} of every system with its spread, and against its baselines.",
        header,
        rows,
        note=(
            f"Against: how much better the system is. {facts.baseline} is the better of both "
            "baselines that read no feature. Where the adjusted p is above .05 no difference "
            f"was shown.{sessions}"
        ),
    )


def _interval_cell(low: float | None, high: float | None, *, sign: bool = False) -> Cell:
    """Make a cell of an interval, sorted by its lower end; a dash where there is none."""
    return Cell(format_interval(low, high, sign=sign) or NONE, low)


def _against(facts: StudyFacts, system: str, other: str) -> Row:
    pair = facts.compare(system, other)
    if pair is None:
        return [None, None]
    gain = facts.gain(system, other)
    sign = "+" if gain > 0 else MINUS if gain < 0 else ""
    tail = "" if pair.shows_difference else " (not shown)"
    return [
        Cell(sign + format_gain(facts, abs(gain)), gain),
        Cell(format_p(pair.p_adjusted) + tail, pair.p_adjusted),
    ]


def _present_table(facts: StudyFacts) -> Table | None:
    """Score systems on the rows they had features for; None where that is all rows."""
    absent = {
        name: int((~facts.predictions[name].present).sum())
        for name in [*facts.systems, *facts.baselines]
    }
    if not any(absent.values()):  # both scores would be the same
        return None
    title = facts.metric.title
    return make_table(
        "present",
        "Systems that had nothing to see for some utterances.",
        ["system", f"{title}, all", f"{title}, present", "n present", "n absent"],
        [
            [
                system,
                facts.score(system),
                facts.score(system, scope="present"),
                facts.score(system, scope="present").n,
                n_absent,
            ]
            for system, n_absent in absent.items()
            if n_absent
        ],
        note="An utterance with nothing to see gets its training fold's class shares.",
    )


def _classes_table(facts: StudyFacts) -> Table:
    table = next(iter(facts.predictions.values()))
    n_true = [int((table.labels == code).sum()) for code in range(len(table.classes))]
    return make_table(
        "classes",
        "Recall, precision and F1 of every class.",
        ["system", "class", "recall", "precision", "F1", "n"],
        [
            [
                system,
                name,
                *(
                    facts.score(system, metric, scope="class", group=name)
                    for metric in ("recall", "precision", "f1")
                ),
                n,
            ]
            for system in facts.systems
            for name, n in zip(table.classes, n_true, strict=True)
        ],
    )


def _scores_figure(facts: StudyFacts) -> Figure:
    words = []
    for system in facts.systems:
        score = facts.score(system)
        words.append(f"{system} {score_cell(score.value, score.low, score.high).text}")
    baseline = f"{facts.baseline} {format_number(facts.score(facts.baseline).value)}"
    return Figure(
        "scores",
        f"{facts.metric.title} over all held-out utterances, with 95 % intervals over "
        f"speakers; the dashed line is {facts.baseline}, the better baseline.",
        f"{facts.metric.title}: {'; '.join(words)}; {baseline}.",
    )


_MOST_NAMED: Final = 5


def _comparisons_section(facts: StudyFacts) -> Section:
    """Show every comparison of two systems."""
    if not facts.comparisons:
        text = "There is one system only, and nothing to compare it with."
        return Section("comparisons", "Comparisons", (Paragraph(text),))
    every = [pair for pair in facts.comparisons if pair.family == "all pairs"]
    shown = [pair for pair in every if pair.shows_difference]
    first = every[0]
    sentence = (
        f"Of {count_words(len(every), 'pair')} of systems, {len(shown)} show a "
        f"difference. Test: {first.method}. The smallest p that it can give is "
        f"{format_p(first.smallest_p)}."
    )
    drawn = [MAJORITY, NO_INFORMATION, *facts.systems]
    parts: list[Part] = [*_planned_parts(facts), Paragraph(sentence)]
    if len(drawn) > 1:
        parts.append(
            Figure(
                "comparisons",
                f"Difference in {facts.metric.title}, row less column. A bold cell with a "
                "frame is a difference with adjusted p of at most .05; the others were not "
                "shown to differ.",
                _comparisons_alt(facts, drawn),
            )
        )
    parts.append(
        _pairs_table(
            facts,
            "comparisons",
            "All pairs of systems, adjusted for one another.",
            every,
            note=(
                "p by exchanging both systems' predictions of whole speakers; adjusted over "
                "all pairs by step-down max-T of the same difference. Nadeau-Bengio is the "
                "corrected resampled t test over folds: conservative, and decides nothing."
            ),
        )
    )
    return Section("comparisons", "Comparisons", tuple(parts))


def _planned_parts(facts: StudyFacts) -> list[Part]:
    """Show the confirmatory family: the comparisons that were chosen before any result."""
    planned = facts.confirmatory
    if not planned:
        return []
    shown = sum(pair.shows_difference for pair in planned)
    text = (
        f"{count_words(len(planned), 'comparison')} of systems were planned, and {shown} of "
        "them show a difference. They are adjusted for one another alone."
    )
    table = _pairs_table(
        facts,
        "confirmatory",
        "Planned comparisons: each modality and fusion with the better baseline and with its "
        "logistic regression, each fusion with best-single.",
        planned,
    )
    return [Paragraph(text), table]


def _pairs_table(
    facts: StudyFacts, name: str, caption: str, pairs: Sequence[Comparison], note: str = ""
) -> Table:
    return make_table(
        name,
        caption,
        [
            "a",
            "b",
            f"{facts.metric.title}, a less b",
            "95 %, speakers",
            "p",
            "adjusted p",
            "difference shown",
            "smallest p",
            "Nadeau-Bengio p (conservative)",
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
                p_cell(pair.smallest_p),
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
        f"{pair.a} less {pair.b} {pair.difference:+.3f} (adjusted p "
        f"{format_p(pair.p_adjusted)})"
        for pair in shown[:_MOST_NAMED]
    ]
    return (
        f"{len(shown)} of {len(pairs)} pairs of {len(drawn)} systems show a difference. The "
        f"largest: {'; '.join(words) or 'none'}. All are in the table that follows."
    )


def detail_sections(facts: StudyFacts) -> list[Section]:
    """Show confusion matrices, speakers and folds."""
    made = (_confusion_section(facts), _groups_section(facts))
    return [section for section in made if section is not None]


def _confusion_section(facts: StudyFacts) -> Section:
    """Show the confusion matrix of every system and of the majority baseline."""
    systems = [*facts.systems, MAJORITY]
    parts = tuple(_matrix(facts.predictions[name]) for name in systems)
    return Section("confusion", "Confusion matrices", parts)


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
        caption=f"{predictions.system}: true classes in rows, predicted ones in columns.",
        classes=predictions.classes,
        counts=counts,
        summary="; ".join(words) + ".",
    )


def _groups_section(facts: StudyFacts) -> Section | None:
    """Show the scores of every speaker and of every fold."""
    if not facts.systems:
        return None
    extremes = []
    for system in facts.systems:
        scores = [
            facts.score(system, scope="speaker", group=speaker)
            for speaker in facts.tested_speakers
        ]
        least, most = (pick(scores, key=lambda score: score.value) for pick in (min, max))
        extremes.append(
            f"{system}: from {format_number(least.value)} ({isolate(least.group)}) to "
            f"{format_number(most.value)} ({isolate(most.group)})"
        )
    figure = Figure(
        "speakers",
        f"{facts.metric.title} of every speaker; a dot is a speaker, the bar their mean.",
        f"{facts.metric.title} by speaker. {'; '.join(extremes)}.",
    )
    tables = (_groups_table(facts, scope) for scope in ("speaker", "fold"))
    return Section("groups", "Speakers and folds", (figure, Items(tuple(extremes)), *tables))


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
            "UAR and macro-F1 of a speaker or fold are over the classes that occur there."
            if facts.metric.name in {"uar", "f1_macro"}
            else ""
        ),
        n_footers=1,
    )
