"""Calibration, class offsets and fusion: the sections on probabilities and decisions."""

from collections import Counter

from toolkit.fusion import FusionRecord
from toolkit.report.document import (
    MINUS,
    NONE,
    Cell,
    Figure,
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
    share_cell,
)
from toolkit.report.facts import StudyFacts
from toolkit.systems import BEST_SINGLE, LOG_POOL, System
from toolkit.validation import METRICS

_TARGET = {"f1": "f1_micro", "uar": "uar"}


def probability_sections(facts: StudyFacts) -> list[Section]:
    """Show calibration and class offsets, where there are any."""
    made = (_calibration_section(facts), _offsets_section(facts))
    return [section for section in made if section is not None]


def _calibration_section(facts: StudyFacts) -> Section | None:
    """Show the calibration error of every system beside that of a perfect one."""
    if not facts.systems:
        return None
    words = []
    for system in facts.systems:
        error, perfect = facts.score(system, "ece"), facts.score(system, "ece_perfect")
        words.append(f"{system} {format_number(error.value)} ({format_number(perfect.value)})")
    off = facts.miscalibrated
    sentence = (
        f"The calibration error of {join_names(off)} is larger than a perfectly calibrated "
        "system would show by chance (p at most .05 for each system alone)."
        if off
        else "No calibration error was shown to be larger than that of a perfectly calibrated "
        "system (p above .05 for each system alone)."
    )
    return Section(
        "calibration",
        "Calibration",
        (
            Paragraph(sentence),
            Figure(
                "calibration",
                "Share of right decisions against the probability given to them, in 15 bins; "
                "on the diagonal a probability means what it says. Dots grow with the number "
                "of utterances; the grey bars are the shares of utterances.",
                f"Expected calibration error (in brackets that of a perfect system): "
                f"{'; '.join(words)}.",
            ),
            make_table(
                "calibration",
                "Expected calibration error beside that of a perfectly calibrated system with "
                "the same probabilities.",
                [
                    "system",
                    "calibration error",
                    "of a perfect system",
                    "excess",
                    "p",
                    "Brier score",
                    "log-loss",
                ],
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
                ],
                note=(
                    "15 bins of equal width over the most probable class. A perfect system's "
                    "error is above 0 because the bins hold few utterances: mean and 95 % "
                    "range of 200 draws. p is the share of draws with an error as large; an "
                    "interval is not given, since near calibration none holds the truth."
                ),
            ),
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
    return Section(
        "offsets",
        "Class offsets",
        (
            make_table(
                "offsets",
                "Decisions moved by offsets of the classes' log-probabilities.",
                ["system", "tuned for", "without", "with", "change", "folds kept", "offsets"],
                rows,
                note=(
                    "Offsets were fitted on inner predictions of the training speakers and "
                    "kept only where the gain there exceeds a standard error; probabilities "
                    f"stay as they are. The last column is their mean over folds, of {classes}."
                ),
            ),
        ),
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
    return " ".join(f"{mean:+.2f}" for mean in means)


def fusion_section(facts: StudyFacts) -> Section | None:
    """Show the fusion ledger."""
    if not facts.fusion:
        return None
    found = {(r.quantity, r.system, r.reference, r.scope, r.group): r for r in facts.fusion}
    fusions = [r.system for r in facts.fusion if r.quantity == "fixed" and r.scope == "all"]
    parts: list[Part] = [Paragraph(_fusion_lead(facts, found))]
    if fusions:
        parts += [
            _changes(found, fusions),
            *(_changes_by(facts, found, fusions, scope) for scope in ("class", "speaker")),
        ]
    parts += [_pairs(facts), *_learnt(facts)]
    return Section("fusion", "Fusion", tuple(parts))


#: Records by quantity, system, reference, scope and group.
_Records = dict[tuple[str, str, str, str, str], "FusionRecord"]


def _fusion_lead(facts: StudyFacts, found: _Records) -> str:
    oracle = found["right", "oracle", "", "all", ""]
    taken = Counter(choice["modality"] for choice in facts.params.get(BEST_SINGLE, {}).values())
    chosen = join_names(
        [f"{name} in {count_words(n, 'fold')}" for name, n in taken.most_common()]
    )
    words = (
        f"Fusions are held against best-single, which takes in every fold the modality with "
        f"the best inner score ({chosen}). Some modality was right for "
        f"{format_share(oracle.value, oracle.n)} of {count_words(oracle.n, 'utterance')}: no "
        "choice among them can do better."
    )
    ties = found.get(("ties", "vote", "", "all", ""))
    if ties is not None:
        right = found["ties_right", "vote", "", "all", ""]
        words += (
            f" The vote was tied for {format_share(ties.value, ties.n)}; a tie goes to the "
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
        "Utterances that each fusion fixes (right where best-single is wrong) and breaks.",
        ["system", "fixed", "broken", "net", "nothing to see"],
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
        f"Utterances fixed (+) and broken ({MINUS}) by {which}, and the oracle.",
        [which, "n", "some modality right", *fusions],
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
        "How alike two modalities decide, where both are there.",
        ["modality", "other modality", "both decide alike", "both wrong", "n"],
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
        note="Modalities that are seldom wrong together leave most for a fusion to gain.",
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
    header += ["best-single takes"] if chosen else []
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
            "What was learnt from the training speakers, fold by fold.",
            header,
            rows,
        )
    ]
