"""Decisions and probabilities: confusion, speakers and groups, calibration, thresholds."""

from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np

from toolkit.report.document import (
    MINUS,
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
    count_words,
    format_number,
    format_p,
    isolate,
    join_names,
)
from toolkit.report.facts import StudyFacts
from toolkit.systems import MAJORITY, NO_INFORMATION, System
from toolkit.validation import METRICS, Comparison, Predictions, Score
from toolkit.validation.metrics import confusion_matrices
from toolkit.validation.people import choose_answers, make_sets, risk_curve, score_risk

_TARGET: Final = {"f1": "f1_micro", "uar": "uar"}
_GROUPS_NOTE: Final = (
    "Numbers of more than five values are cut at quantiles of the people. Compare the "
    "baseline: a group may be harder because its classes are. p: share of random groups of the "
    "same people and sizes with a largest gap as large; adjusted over the columns (Holm). It "
    "tests whether people are exchangeable between groups, not whether scores are equal: a "
    "smaller group that varies more gives a small p too, and so do partners in a dialogue of "
    "one group. A group of one person is in no gap."
)
_ABSTAIN_NOTE: Final = (
    "Answered: the confidence reaches the lowest level at which the error of all other people "
    "is within the chosen one. The error found has no guarantee. The sets of each person use "
    "the quantile over all other people, who weigh the same. If people are exchangeable, a "
    "random utterance of a random person of the study is missed with at most the chosen "
    "probability. The mean coverage has its level by construction: read the lowest coverage of "
    "a person and the size of the sets. The final model on new people may differ."
)


def detail_sections(facts: StudyFacts) -> list[Section | None]:
    """Show confusion, speakers, groups, calibration, offsets and abstention, where they are."""
    return [
        _confusion_section(facts),
        _speakers_section(facts),
        _people_section(facts),
        _calibration_section(facts),
        _offsets_section(facts),
        _abstention_section(facts),
    ]


def _confusion_section(facts: StudyFacts) -> Section | None:
    """Show one confusion matrix, and a choice of the other systems'."""
    if not facts.confused:
        return None
    matrices = tuple(_matrix(facts.predictions[name]) for name in facts.confused)
    return Section("confusion", "Confusion", (Choice("confusion", "System", matrices),))


def _matrix(predictions: Predictions) -> Matrix:
    names = [isolate(name) for name in predictions.classes]
    counts = confusion_matrices(predictions.labels, predictions.y_pred, len(names))[0]
    words = []
    for code, (name, row) in enumerate(zip(names, counts, strict=True)):
        if not row.sum():
            words.append(f"{name}: none")
            continue
        text = f"{name}: {row[code]:,} of {row.sum():,} right"
        mistaken = row.copy()
        mistaken[code] = -1  # the right class is no mistake, not even where all are right
        rival = int(mistaken.argmax())
        if mistaken[rival] > 0:
            text += f", most often taken for {names[rival]} ({mistaken[rival]:,})"
        words.append(text)
    return Matrix(
        name=f"confusion-{predictions.system}",
        option=predictions.system,
        caption=f"{predictions.system}: true classes in rows, predicted classes in columns.",
        classes=predictions.classes,
        counts=counts,
        summary="; ".join(words) + ".",
    )


def _speakers_section(facts: StudyFacts) -> Section | None:
    """Show the scores of every speaker, and of every fold where folds are other groups."""
    if not facts.systems:
        return None
    title, systems, words = facts.metric.title, facts.systems, {}
    for system in systems:
        scores = [
            facts.score(system, scope="speaker", group=speaker)
            for speaker in facts.tested_speakers
        ]
        values = [score.value for score in scores]
        lowest, highest = (_name_extreme(scores, pick(values)) for pick in (min, max))
        words[system] = f"{system}: from {lowest} to {highest}"
    shown = facts.primary
    if shown not in words:
        shown = max(systems, key=lambda name: facts.sign * facts.score(name).value)
    table = facts.predictions[shown]
    # With one speaker held out in turn both tables hold the same numbers.
    one_each = len(set(zip(table.folds.tolist(), table.speakers.tolist(), strict=True)))
    same = one_each == len(facts.folds) == facts.n_speakers
    scopes = ("speaker",) if same else ("speaker", "fold")
    tables = tuple(_groups_table(facts, scope) for scope in scopes)
    caption = f"{title} of each speaker (dots) and the mean over speakers (bars)."
    figure = Figure("speakers", caption, f"{title} by speaker. {'; '.join(words.values())}.")
    curve, drawn = _curve_parts(facts)
    folded = Fold(" and ".join(f"{scope}s" for scope in scopes).capitalize(), tables)
    lead = Paragraph(f"{title} of {words[shown]}.")
    return Section("speakers", "Speakers", (lead, *curve, figure, *drawn, folded))


def _name_extreme(scores: Sequence[Score], value: float) -> str:
    """Give a value, and the speaker that has it; of several, their number."""
    having = [score.group for score in scores if score.value == value]
    who = isolate(having[0]) if len(having) == 1 else count_words(len(having), "speaker")
    return f"{format_number(value)} ({who})"


def _curve_parts(facts: StudyFacts) -> tuple[list[Paragraph], list[Figure]]:
    """Describe and show the learning curve; nothing where it was not fitted."""
    texts = {n: Cell.of(score).text for n, score in facts.curve.items()}
    if not texts:
        return [], []
    first, last = min(texts), max(texts)
    title = facts.metric.title
    text = (
        f"Learning curve: {title} {texts[first]} with {first} training speakers, "
        f"{texts[last]} with {last}. One fixed configuration on the features of all "
        "modalities, without a search, was trained on speakers drawn from each training fold."
    )
    caption = (
        f"{title} by the number of training speakers, on the same test utterances, "
        f"{facts.intervals}. Dashed: {facts.baseline}."
    )
    alt = "; ".join(f"{n} speakers {text}" for n, text in texts.items()) + "."
    return [Paragraph(text)], [Figure("learning-curve", caption, alt)]


def _groups_table(facts: StudyFacts, scope: str) -> Table:
    names = facts.tested_speakers if scope == "speaker" else facts.folds
    shown = [*facts.systems, MAJORITY, NO_INFORMATION]
    rows: list[Row] = []
    for name in names:
        scores = [facts.score(system, scope=scope, group=name) for system in shown]
        # The rows are the same for every system.
        rows.append([name, scores[0].n, *(score.value for score in scores)])
    kind = "speaker mean t" if scope == "speaker" else "mean over folds"
    means = [facts.score(system, scope=scope, kind=kind).value for system in shown]
    rows.append(["mean", len(facts.predictions[MAJORITY]), *means])
    caption = f"{facts.metric.title} of each of {count_words(len(names), scope)}."
    note = "UAR and F1-macro of a speaker or fold average the classes that occur there."
    note = note if facts.metric.name in {"uar", "f1_macro"} else ""
    header = [scope, "n", *shown]
    return Table.of(f"by-{scope}", caption, header, rows, note=note, n_footers=1)


def _people_section(facts: StudyFacts) -> Section | None:
    """Show the scores of groups of people and the largest gap of each column."""
    if not facts.group_scores:
        return None
    rows: list[Row] = []
    words = [_describe_gap(gap) for gap in facts.gaps]
    for column, groups in facts.groups.items():
        for group, people in groups.items():
            own, base = (
                facts.score(system, scope=f"by {column}", group=group)
                for system in (facts.primary, facts.baseline)
            )
            rows.append([f"{column}: {group}", own, base.value, len(people), own.n])
        if unknown := facts.n_speakers - sum(map(len, groups.values())):
            words.append(f"No {isolate(column)} is known of {count_words(unknown, 'speaker')}.")
    name = f"{facts.primary}: {facts.metric.title} of groups of people"
    caption = (
        f"{name} (dots), with 95 % intervals over people from five on; bars: each person. The "
        "lowest and the highest person are named."
    )
    header = ["group", facts.metric.title, f"of {facts.baseline}", "speakers", "n"]
    table = Table.of("groups", f"{name}, pooled.", header, rows, note=_GROUPS_NOTE)
    text = " ".join(words) or "No two groups of two people or more can be compared."
    parts = (Paragraph(text), Figure("groups", caption, text), table)
    return Section("groups", "Groups of people", parts)


def _describe_gap(gap: Comparison) -> str:
    column = isolate(gap.family.removeprefix("by "))
    return (
        f"{'A' if gap.shows_difference else 'No'} larger gap by {column} than between random "
        f"groups of the same people was shown: {isolate(gap.a)} is {gap.difference:.3f} above "
        f"{isolate(gap.b)} (p {format_p(gap.p)}, adjusted {format_p(gap.p_adjusted)}, smallest "
        f"possible {format_p(gap.smallest_p)})."
    )


def _calibration_section(facts: StudyFacts) -> Section | None:
    """Show the calibration error of every system beside that of a perfect one."""
    if not facts.systems:
        return None
    off = facts.miscalibrated
    sentence = (
        f"The calibration error of {join_names(off)} is larger than chance explains among "
        "independent utterances (p at most .05 for each system alone)."
        if off
        else "No calibration error was shown to be larger than chance explains among "
        "independent utterances (p above .05 for each system alone)."
    )
    first, others = facts.ranked[:2], facts.ranked[2:]
    caption = (
        "Share of right decisions against their probability, in bins of equally many "
        "utterances. Calibrated systems lie on the diagonal. Grey: distribution of the "
        "probabilities."
    )
    parts: list[Part] = [Paragraph(sentence), _reliability_figure(facts, "", first, caption)]
    folded: list[Part] = [_errors_table(facts)]
    if others:
        folded.insert(0, _reliability_figure(facts, "-others", others, caption))
    parts.append(Fold("Calibration of the other systems, calibration errors", tuple(folded)))
    return Section("calibration", "Calibration", tuple(parts))


def _reliability_figure(
    facts: StudyFacts, end: str, systems: Sequence[str], caption: str
) -> Figure:
    words = []
    for system in systems:
        error, perfect = facts.score(system, "ece"), facts.score(system, "ece_perfect")
        words.append(f"{system} {format_number(error.value)} ({format_number(perfect.value)})")
    alt = f"Calibration error (in brackets: that of a calibrated system): {'; '.join(words)}."
    return Figure(f"calibration{end}", caption, alt)


def _errors_table(facts: StudyFacts) -> Table:
    rows: list[Row] = []
    for system in (*facts.systems, *facts.baselines):
        if facts.predictions[system].has_proba:
            score = partial(facts.score, system)
            excess = Cell.of_change(score("ece_excess").value)
            errors = (score("ece").value, score("ece_perfect"), excess)
            losses = (score("brier").value, score("log_loss").value)
            rows.append([system, *errors, Cell.of_p(score("ece_p").value), *losses])
    header = ["system", "calibration error", "of a calibrated system", "excess", "p"]
    return Table.of(
        "calibration",
        "Expected calibration error (ECE) beside that of a calibrated system with the same "
        "probabilities.",
        [*header, "Brier score", "log-loss"],
        rows,
        note=(
            "15 bins of equal width over the most probable class. The error of a calibrated "
            "system is above 0 because each bin holds few utterances: mean and 95 % range of "
            "200 draws. p: share of draws with an error at least as large. The error has no "
            "interval, because none holds its level near perfect calibration."
        ),
    )


def _offsets_section(facts: StudyFacts) -> Section | None:
    """Show the variants that move the decision by class offsets."""
    variants = [s for s in map(System.parse, facts.predictions) if s.is_offset]
    if not variants:
        return None
    rows: list[Row] = []
    for parsed in variants:
        variant = parsed.name
        system, end = parsed.with_variant("").name, parsed.variant.removeprefix("offset-")
        learnt = facts.params.get(variant, {})
        kept = sum(record["kept"] for record in learnt.values())
        before, after = facts.score(system, _TARGET[end]), facts.score(variant, _TARGET[end])
        values = (before.value, after, Cell.of_change(after.value - before.value))
        folds = Cell(f"{kept} of {len(learnt)}", float(kept))
        offsets = _mean_offsets(facts, variant)
        rows.append([system, METRICS[_TARGET[end]].title, *values, folds, offsets])
    classes = join_names([isolate(name) for name in facts.classes])
    table = Table.of(
        "offsets",
        "Decisions with offsets added to the log-probabilities of the classes.",
        ["system", "tuned for", "without", "with", "change", "folds kept", "offsets"],
        rows,
        note=(
            "Offsets were fitted on inner predictions of the training speakers. They were kept "
            "where the gain there exceeds a standard error. Probabilities stay the same. Last "
            f"column: mean over folds, of {classes}."
        ),
    )
    text = "Thresholds other than the largest probability, tuned for F1-micro or UAR."
    parts = (Paragraph(text), Fold("Every system", (table,)))
    return Section("offsets", "Decision thresholds", parts)


def _mean_offsets(facts: StudyFacts, variant: str) -> str:
    # A fold whose offsets were not kept decides without any.
    learnt = [
        record["offsets"] if record["kept"] else [0.0] * len(record["offsets"])
        for record in facts.params.get(variant, {}).values()
    ]
    if not learnt:
        return NONE
    means = [sum(column) / len(learnt) for column in zip(*learnt, strict=True)]
    return " ".join(f"{mean:+.2f}" for mean in means).replace("-", MINUS)


def _abstention_section(facts: StudyFacts) -> Section | None:
    """Show error by share of confident answers, and prediction sets at the chosen errors."""
    if not facts.errors:
        return None
    table, people = facts.predictions[facts.primary], facts.tested_speakers
    who, n = np.searchsorted(people, table.speakers), len(table)
    rows: list[Row] = []
    header, columns = ["speaker"], [people]
    for chosen in facts.errors:
        n_answered, error = choose_answers(table, chosen)
        row: Row = [
            f"{chosen:g}",
            Cell.of_share(n_answered, n),
            error and Cell.of_score(*error),
        ]
        sets = make_sets(table, chosen)
        if sets is None:
            rows.append([*row, None, None, None])
            continue
        sizes = sets.sum(axis=1)
        covered = sets[np.arange(n), table.labels]
        each = [np.bincount(who, part) / np.bincount(who) for part in (covered, sizes)]
        single = Cell.of_share(int((sizes == 1).sum()), n)
        rows.append([*row, each[0].min(), sizes.mean(), single])
        header += [f"coverage at {chosen:g}", "mean size"]
        columns += [part.tolist() for part in each]
    area, low, high, least = score_risk(table)
    text = (
        f"Area under the risk-coverage curve of {facts.primary}: "
        f"{Cell.of_score(area, low, high).text}; {least:.3f} with all right utterances first, "
        f"{risk_curve(table)[-1]:.3f} in random order. With "
        f"{count_words(len(people), 'speaker')} there are no prediction sets for an error "
        f"below {1 / len(people):.3f}."
    )
    caption = "Error among the most confident utterances by their share; dashed: chosen errors."
    titles = ["chosen error", "answered", "error found"]
    titles += ["lowest coverage of a speaker", "mean size", "one class"]
    name = f"{facts.primary}: answers, and prediction sets."
    answers = Table.of("abstention", name, titles, rows, note=_ABSTAIN_NOTE)
    parts: list[Part] = [Paragraph(text), Figure("abstention", caption, text), answers]
    if columns[1:]:
        lines = [list(line) for line in zip(*columns, strict=True)]
        name = "Prediction sets of each speaker"
        parts.append(Fold(name, (Table.of("sets", f"{name}.", header, lines),)))
    return Section("abstention", "When to abstain", tuple(parts))
