"""Ranking, calibration, decision thresholds and fusion: probabilities and decisions."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from toolkit.fusion.fuse import FusionRecord
from toolkit.report.document import (
    MINUS,
    NONE,
    Cell,
    Figure,
    Fold,
    Paragraph,
    Part,
    Row,
    Section,
    Table,
    change_cell,
    count_words,
    format_number,
    format_share,
    isolate,
    join_names,
    make_table,
    p_cell,
    score_cell,
    share_cell,
)
from toolkit.report.facts import StudyFacts
from toolkit.systems import BEST_SINGLE, LOG_POOL, System
from toolkit.validation import METRICS, Predictions
from toolkit.validation.people import choose_answers, make_sets, risk_curve, score_risk
from toolkit.validation.scores import jackknife_interval

_TARGET = {"f1": "f1_micro", "uar": "uar"}

_ABSTAIN_NOTE = (
    "Answered: the confidence reaches the level down to which all other people keep to the "
    "chosen error. The error found has no guarantee. Sets are calibrated for each person by "
    "all others, of equal weight. If people are exchangeable, a random utterance of a random "
    "person of the study is missed with at most the chosen probability. The mean coverage "
    "keeps to it by arithmetic: the lowest person and the size of the sets are the result. "
    "Nothing is claimed of the final model and new people."
)


def probability_sections(facts: StudyFacts) -> list[Section]:
    """Show calibration, class offsets and abstention, where there are any."""
    made = (_calibration_section(facts), _offsets_section(facts), _abstention_section(facts))
    return [section for section in made if section is not None]


def ranking_parts(facts: StudyFacts) -> list[Part]:
    """Show ROC and precision-recall curves of two classes, and the areas below them."""
    positive = isolate(facts.classes[1])
    found = {name: _rank(facts.predictions[name]) for name in facts.ranked}
    words = "; ".join(f"{name} {cells[0].text}" for name, cells in found.items())
    caption = f"ROC curve and precision-recall curve of {positive}. Dashed: chance."
    table = make_table(
        "areas",
        f"Areas below both curves; the positive class is {positive}.",
        ["system", "ROC AUC", "average precision"],
        [[name, *cells] for name, cells in found.items()],
        note="95 % jackknife intervals over speakers, of utterances pooled over folds.",
    )
    return [Figure("roc", caption, f"ROC AUC: {words}."), table]


def _rank(table: Predictions) -> list[Cell]:
    """Compute ROC AUC and average precision of the second class, with intervals."""
    names, sizes = np.unique(table.speakers, return_counts=True)
    cells = []
    for measure in (roc_auc_score, average_precision_score):
        value = float(measure(table.labels, table.proba[:, 1]))
        rest = [table.speakers != name for name in names]
        # Without both classes neither area is defined.
        if all(len(np.unique(table.labels[kept])) == 2 for kept in rest):
            left_out = [measure(table.labels[kept], table.proba[kept, 1]) for kept in rest]
            ends = jackknife_interval(value, left_out, sizes, low=0, high=1)
        else:
            ends = None, None
        cells.append(score_cell(value, *ends))
    return cells


def _calibration_section(facts: StudyFacts) -> Section | None:
    """Show the calibration error of every system beside that of a perfect one."""
    if not facts.systems:
        return None
    off = facts.miscalibrated
    sentence = (
        f"The calibration error of {join_names(off)} is larger than chance explains (p at "
        "most .05 for each system alone)."
        if off
        else "No calibration error was shown to be larger than chance explains (p above .05 "
        "for each system alone)."
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
    alt = f"Calibration error (in brackets of a calibrated system): {'; '.join(words)}."
    return Figure(f"calibration{end}", caption, alt)


def _errors_table(facts: StudyFacts) -> Table:
    header = ["system", "calibration error", "of a calibrated system", "excess", "p"]
    return make_table(
        "calibration",
        "Expected calibration error (ECE) beside that of a calibrated system with the same "
        "probabilities.",
        [*header, "Brier score", "log-loss"],
        [
            [
                system,
                facts.score(system, "ece").value,
                facts.score(system, "ece_perfect"),
                change_cell(facts.score(system, "ece_excess").value),
                p_cell(facts.score(system, "ece_p").value),
                facts.score(system, "brier").value,
                facts.score(system, "log_loss").value,
            ]
            for system in [*facts.systems, *facts.baselines]
            if facts.predictions[system].has_proba
        ],
        note=(
            "15 bins of equal width over the most probable class. The error of a calibrated "
            "system is above 0 because each bin holds few utterances: mean and 95 % range of "
            "200 draws. p: share of draws with an error at least as large. The error has no "
            "interval, because none holds its level near perfect calibration."
        ),
    )


def _offsets_section(facts: StudyFacts) -> Section | None:
    """Show the variants that move the decision by class offsets."""
    if not facts.variants:
        return None
    rows: list[Row] = []
    for variant in facts.variants:
        parsed = System.parse(variant)
        system, end = parsed.with_variant("").name, parsed.variant.removeprefix("offset-")
        learnt = facts.params.get(variant, {})
        kept = sum(record["kept"] for record in learnt.values())
        before, after = facts.score(system, _TARGET[end]), facts.score(variant, _TARGET[end])
        rows.append(
            [
                system,
                METRICS[_TARGET[end]].title,
                before.value,
                after,
                change_cell(after.value - before.value),
                Cell(f"{kept} of {len(learnt)}", float(kept)),
                _mean_offsets(facts, variant),
            ]
        )
    classes = join_names([isolate(name) for name in facts.classes])
    table = make_table(
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
    return Section(
        "offsets", "Decision thresholds", (Paragraph(text), Fold("Every system", (table,)))
    )


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


def fusion_parts(facts: StudyFacts) -> list[Part]:
    """Show the fusion ledger."""
    found = {(r.quantity, r.system, r.reference, r.scope, r.group): r for r in facts.fusion}
    fusions = [r.system for r in facts.fusion if r.quantity == "fixed" and r.scope == "all"]
    parts: list[Part] = [Paragraph(_fusion_lead(facts, found))]
    if fusions:
        parts += [
            _changes(found, fusions),
            *(_changes_by(facts, found, fusions, scope) for scope in ("class", "speaker")),
        ]
    return [*parts, _pairs(facts), *_learnt(facts)]


#: Records by quantity, system, reference, scope and group.
_Records = dict[tuple[str, str, str, str, str], "FusionRecord"]


def _fusion_lead(facts: StudyFacts, found: _Records) -> str:
    oracle = found["right", "oracle", "", "all", ""]
    taken = Counter(choice["modality"] for choice in facts.params.get(BEST_SINGLE, {}).values())
    chosen = join_names(
        [f"{name} in {count_words(n, 'fold')}" for name, n in taken.most_common()]
    )
    words = (
        f"The reference is best-single: the modality with the best inner score in each fold "
        f"({chosen}). At least one modality was right for "
        f"{format_share(oracle.value, oracle.n)} of {count_words(oracle.n, 'utterance')}: this "
        "is the upper limit of any choice between them."
    )
    ties = found.get(("ties", "vote", "", "all", ""))
    if ties is not None:
        right = found["ties_right", "vote", "", "all", ""]
        words += (
            f" The vote was tied for {format_share(ties.value, ties.n)}. A tie goes to the "
            "class with the larger sum of probabilities, which was right for "
            f"{format_share(right.value, right.n)} of them."
        )
    return words


def _changes(found: _Records, fusions: list[str]) -> Table:
    rows: list[Row] = []
    for system in fusions:
        fixed = found["fixed", system, BEST_SINGLE, "all", ""]
        broken = found["broken", system, BEST_SINGLE, "all", ""]
        absent = found["absent", system, "", "all", ""]
        net = fixed.value - broken.value
        rows.append(
            [
                system,
                share_cell(fixed.value, fixed.n),
                share_cell(broken.value, broken.n),
                Cell(f"{net:+,}", float(net)),
                absent.value,
            ]
        )
    return make_table(
        "fusion",
        "Utterances corrected by each fusion (right where best-single is wrong) and broken.",
        ["system", "corrected", "broken", "net", "missing"],
        rows,
    )


def _changes_by(facts: StudyFacts, found: _Records, fusions: list[str], scope: str) -> Table:
    oracle = [r for r in facts.fusion if r.quantity == "right" and r.scope == scope]
    rows: list[Row] = []
    for record in oracle:
        row: Row = [record.group, record.n, share_cell(record.value, record.n)]
        for system in fusions:
            fixed = found["fixed", system, BEST_SINGLE, scope, record.group].value
            broken = found["broken", system, BEST_SINGLE, scope, record.group].value
            row.append(Cell(f"+{fixed} {MINUS}{broken}", float(fixed - broken)))
        rows.append(row)
    which = "true class" if scope == "class" else "speaker"
    return make_table(
        f"fusion-by-{scope}",
        f"Utterances corrected (+) and broken ({MINUS}) by {which}.",
        [which, "n", "any modality right", *fusions],
        rows,
        note="A column is sorted by the net change.",
    )


def _pairs(facts: StudyFacts) -> Table:
    agreement = [r for r in facts.fusion if r.quantity == "agreement" and r.scope == "all"]
    fault = {
        (r.system, r.reference): r
        for r in facts.fusion
        if r.quantity == "double_fault" and r.scope == "all"
    }
    return make_table(
        "modality-pairs",
        "Agreement of two modalities, where both are present.",
        ["modality", "other modality", "same decision", "both wrong", "n"],
        [
            [
                r.system,
                r.reference,
                share_cell(r.value, r.n),
                share_cell(fault[r.system, r.reference].value, r.n),
                r.n,
            ]
            for r in agreement
        ],
        note="The fewer utterances both get wrong, the more a fusion can gain.",
    )


def _learnt(facts: StudyFacts) -> list[Table]:
    """Tabulate the learnt fusion parameters fold by fold; no table where nothing was learnt."""
    weights, stacked = facts.params.get("weighted", {}), facts.params.get("stacked", {})
    chosen = facts.params.get(BEST_SINGLE, {})
    pooled = facts.params.get(LOG_POOL, {})
    folds = sorted({*weights, *stacked, *chosen, *pooled})
    if not folds:
        return []
    names = sorted({name for record in weights.values() for name in record["weights"]})
    members = sorted({name for record in pooled.values() for name in record["weights"]})
    header = ["fold"]
    header += ["best-single"] if chosen else []
    header += [f"weight of {name}" for name in names]
    header += ["C of stacked"] if stacked else []
    header += [f"log-pool: {name}" for name in members]
    rows: list[Row] = []
    for fold in folds:
        row: Row = [fold]
        row += [chosen[fold]["modality"]] if chosen else []
        row += [weights[fold]["weights"][name] for name in names]
        row += [Cell(f"{stacked[fold]['C']:g}", stacked[fold]["C"])] if stacked else []
        row += [pooled[fold]["weights"][name] for name in members]
        rows.append(row)
    return [
        make_table(
            "fusion-learnt",
            "Parameters learnt from the training speakers, by fold.",
            header,
            rows,
        )
    ]


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
        row: Row = [f"{chosen:g}", share_cell(n_answered, n), error and score_cell(*error)]
        sets = make_sets(table, chosen)
        if sets is None:
            rows.append([*row, None, None, None])
            continue
        sizes = sets.sum(axis=1)
        covered = sets[np.arange(n), table.labels]
        each = [np.bincount(who, part) / np.bincount(who) for part in (covered, sizes)]
        single = share_cell(int((sizes == 1).sum()), n)
        rows.append([*row, each[0].min(), sizes.mean(), single])
        header += [f"coverage at {chosen:g}", "mean size"]
        columns += [part.tolist() for part in each]
    area, low, high, least = score_risk(table)
    text = (
        f"Area under the risk-coverage curve of {facts.primary}: "
        f"{score_cell(area, low, high).text}; {least:.3f} with all right utterances first, "
        f"{risk_curve(table)[-1]:.3f} in random order. With "
        f"{count_words(len(people), 'speaker')} there are no prediction sets for an error "
        f"below {1 / len(people):.3f}."
    )
    caption = "Error among the most confident utterances by their share; dashed: chosen errors."
    titles = ["chosen error", "answered", "error found"]
    titles += ["lowest coverage of a speaker", "mean size", "one class"]
    name = f"{facts.primary}: answers, and prediction sets."
    answers = make_table("abstention", name, titles, rows, note=_ABSTAIN_NOTE)
    parts: list[Part] = [Paragraph(text), Figure("abstention", caption, text), answers]
    if columns[1:]:
        lines = [list(line) for line in zip(*columns, strict=True)]
        name = "Prediction sets of each speaker"
        parts.append(Fold(name, (make_table("sets", f"{name}.", header, lines),)))
    return Section("abstention", "When to abstain", tuple(parts))
