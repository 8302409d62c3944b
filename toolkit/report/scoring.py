"""How good each system is: pooled, against both baselines, and by class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from toolkit.report.answer import format_gain
from toolkit.report.facts import LOGISTIC, MAJORITY
from toolkit.report.parts import Cell, Figure, Section, make_table
from toolkit.report.words import (
    MINUS,
    NONE,
    count_cell,
    format_interval,
    format_number,
    format_p,
    number_cell,
    score_cell,
)
from toolkit.validation import METRICS

if TYPE_CHECKING:
    from toolkit.report.facts import StudyFacts
    from toolkit.report.parts import Part, Table

#: Metrics of the table of scores, in its order; ``scores.csv`` holds all of them.
SHOWN: Final = ("f1_micro", "f1_macro", "uar", "f1_weighted", "mcc", "log_loss", "brier")


def scores_section(facts: StudyFacts) -> Section:
    """Show the pooled scores of every system and both baselines."""
    figure = Figure(
        "scores",
        f"{facts.metric.title} over all held-out utterances, with 95 % intervals over "
        "speakers; the dashed line is the majority baseline.",
        _scores_alt(facts),
    )
    parts: list[Part] = [figure] if facts.systems else []
    parts += [scores_table(facts), _baselines_table(facts)]
    if (present := _present_table(facts)) is not None:
        parts.append(present)
    parts.append(_classes_table(facts))
    return Section("scores", "Scores", tuple(parts))


def shown_metrics(facts: StudyFacts) -> list[str]:
    """Name the metrics of the table of scores, the study's own first."""
    return list(dict.fromkeys([facts.metric.name, *SHOWN]))


def scores_table(facts: StudyFacts) -> Table:
    """Tabulate the pooled scores.

    Parameters
    ----------
    facts : StudyFacts
        The study.

    Returns
    -------
    Table
        A row a system and baseline; also what ``table.csv`` and ``table.tex`` hold.
    """
    metrics = shown_metrics(facts)
    return make_table(
        "scores",
        "Scores over all held-out utterances pooled, with 95 % intervals over speakers.",
        ["system", *(METRICS[name].title for name in metrics), "n"],
        [
            [
                system,
                *(score_cell(facts.score(system, name)) for name in metrics),
                count_cell(facts.score(system).n),
            ]
            for system in [*facts.systems, *facts.baselines]
        ],
        note=(
            "Intervals are 95 %, jackknife over speakers, none below five speakers: they "
            "describe new speakers for these systems, not other training sets or seeds. "
            "majority predicts its training fold's class shares; -logistic is a logistic "
            "regression on the same features. All metrics, folds, speakers and classes are "
            "in scores.csv."
        ),
    )


def _baselines_table(facts: StudyFacts) -> Table:
    title = facts.metric.title
    header = ["system", title, "95 %, speakers"]
    if facts.n_sessions:
        header.append("95 %, sessions")
    header += ["mean over folds", "SD over folds", "mean over speakers"]
    header += ["against majority", "adjusted p", "against its logistic", "adjusted p"]
    rows = []
    for system in facts.systems:
        score = facts.score(system)
        row = [
            Cell(system),
            number_cell(score.value),
            Cell(format_interval(score.low, score.high) or NONE, score.low),
        ]
        if facts.n_sessions:
            session = facts.score(system, kind="session jackknife t")
            row.append(Cell(format_interval(session.low, session.high) or NONE, session.low))
        row += [
            number_cell(facts.score(system, scope="fold", kind="mean over folds").value),
            _deviation_cell(facts, system),
            score_cell(facts.score(system, scope="speaker", kind="speaker mean t")),
        ]
        for other in (MAJORITY, system + LOGISTIC):
            row += _against(facts, system, other)
        rows.append(row)
    sessions = (
        " Dialogue partners are alike, so the interval over sessions stands beside the one "
        "over speakers; it is the more careful one where both partners are in the data."
        if facts.n_sessions
        else ""
    )
    return make_table(
        "baselines",
        f"{title} of every system with its spread, and against both baselines.",
        header,
        rows,
        note=(
            "Against: how much better the system is. Where the adjusted p is above .05 no "
            f"difference was shown.{sessions}"
        ),
    )


def _deviation_cell(facts: StudyFacts, system: str) -> Cell:
    try:
        return number_cell(facts.score(system, scope="fold", kind="sd over folds").value)
    except KeyError:  # a single fold has no deviation
        return Cell(NONE)


def _against(facts: StudyFacts, system: str, other: str) -> list[Cell]:
    pair = facts.compare(system, other)
    if pair is None:
        return [Cell(NONE), Cell(NONE)]
    gain = facts.gain(system, other)
    sign = "+" if gain > 0 else MINUS if gain < 0 else ""
    verdict = "" if pair.shows_difference else " (not shown)"
    return [
        Cell(sign + format_gain(facts, abs(gain)), gain),
        Cell(format_p(pair.p_adjusted) + verdict, pair.p_adjusted),
    ]


def _present_table(facts: StudyFacts) -> Table | None:
    """Score systems that had nothing to see for some rows on the rows they saw."""
    absent = {
        name: int((~facts.predictions[name].present).sum())
        for name in [*facts.systems, *facts.baselines]
    }
    if not any(absent.values()):
        return None
    rows = []
    for system, n_absent in absent.items():
        if not n_absent:
            continue
        seen = facts.score(system, scope="present")
        rows.append(
            [
                Cell(system),
                score_cell(facts.score(system)),
                score_cell(seen),
                count_cell(seen.n),
                count_cell(n_absent),
            ]
        )
    title = facts.metric.title
    return make_table(
        "present",
        "Systems that had nothing to see for some utterances.",
        ["system", f"{title}, all", f"{title}, present", "n present", "n absent"],
        rows,
        note="An utterance with nothing to see gets its training fold's class shares.",
    )


def _classes_table(facts: StudyFacts) -> Table:
    table = next(iter(facts.predictions.values()))
    n_true = [int((table.labels == code).sum()) for code in range(len(table.classes))]
    rows = [
        [
            Cell(system),
            Cell(name),
            *(
                score_cell(facts.score(system, metric, scope="class", group=name))
                for metric in ("recall", "precision", "f1")
            ),
            count_cell(n),
        ]
        for system in facts.systems
        for name, n in zip(table.classes, n_true, strict=True)
    ]
    return make_table(
        "classes",
        "Recall, precision and F1 of every class.",
        ["system", "class", "recall", "precision", "F1", "n"],
        rows,
    )


def _scores_alt(facts: StudyFacts) -> str:
    words = []
    for system in facts.systems:
        score = facts.score(system)
        interval = format_interval(score.low, score.high)
        words.append(f"{system} {format_number(score.value)} {interval}".strip())
    majority = format_number(facts.score(MAJORITY).value)
    return f"{facts.metric.title}: {'; '.join(words)}; majority baseline {majority}."
