"""The sections on data, protocol and leakage audit."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from toolkit.report.document import (
    Cell,
    Items,
    Paragraph,
    Part,
    Row,
    Section,
    Table,
    count_words,
    isolate,
    join_names,
    make_table,
    share_cell,
)
from toolkit.report.facts import StudyFacts
from toolkit.validation import ROLES, outer_grouping


def closing_sections(facts: StudyFacts) -> list[Section]:
    """Describe data, protocol and leakage audit."""
    return [_data_section(facts), _protocol_section(facts), _audit_section(facts)]


def _data_section(facts: StudyFacts) -> Section:
    """Describe the recordings: speakers by classes, modalities, notes of the reader."""
    data = facts.data
    parts: list[Part] = [_speakers_table(facts), _modalities_table(facts)]
    notes = [
        f"Left out by the choice of classes: {count_words(count, 'utterance')} of "
        f"{isolate(name)}."
        for name, count in data["excluded"].items()
    ]
    notes += [
        f"{isolate(old)} counts as {isolate(new)}." for old, new in data["merged"].items()
    ]
    if data["ignored"]:
        notes.append(f"Columns that play no role: {join_names(data['ignored'])}.")
    notes += data["warnings"]
    if notes:
        parts.append(Items(tuple(notes)))
    return Section("data", "Data", tuple(parts))


def _speakers_table(facts: StudyFacts) -> Table:
    rows: list[Row] = [
        [speaker, *counts, sum(counts)]
        for speaker, counts in zip(facts.speakers, facts.counts, strict=True)
    ]
    totals = [sum(column) for column in zip(*facts.counts, strict=True)]
    n = sum(totals)
    rows.append(["all", *(share_cell(each, n) for each in (*totals, n))])
    return make_table(
        "people",
        f"Utterances of each class by each of {count_words(len(facts.speakers), 'speaker')}.",
        ["speaker", *facts.classes, "all"],
        rows,
        n_footers=1,
    )


def _modalities_table(facts: StudyFacts) -> Table:
    n = sum(map(sum, facts.counts))
    rows: list[Row] = []
    for name, each in facts.data["modalities"].items():
        frames = each["frames"]
        rows.append(
            [
                name,
                each["n_dims"],
                each["n_features"],
                each["n_present"],
                share_cell(n - each["n_present"], n),
                *(
                    [None] * 4
                    if frames is None
                    else [
                        frames["min"],
                        Cell(f"{frames['median']:,g}", frames["median"]),
                        frames["max"],
                        frames["total"],
                    ]
                ),
                _repairs(each["counts"]),
            ]
        )
    header = ["modality", "dimensions", "features", "present", "missing", "fewest frames"]
    header += ["median frames", "most frames", "all frames", "repaired or left out"]
    return make_table(
        "modalities",
        "What each modality holds; frames are those that were pooled.",
        header,
        rows,
        note="The recordings give numbers of frames, not seconds. A dash: no time axis.",
    )


def _repairs(counts: Mapping[str, int]) -> str:
    words = [
        f"{key.replace('_', ' ')}: {value:,}"
        for key, value in counts.items()
        if value and key != "files_absent"
    ]
    return "; ".join(words) or "nothing"


def _protocol_section(facts: StudyFacts) -> Section:
    """Describe the protocol that was run in a paragraph for a paper."""
    options, audit = facts.options, facts.audit
    unit = outer_grouping(str(options["outer"]))
    scheme = {
        "speaker": "one speaker at a time was held out",
        "session": "one session at a time was held out, both partners together",
        "split": "the split that comes with the data was honoured and only its test rows are "
        "scored",
    }.get(
        str(options["outer"]),
        f"the speakers were packed into {options['outer']} groups of similar size and class "
        "shares, and one group at a time was held out",
    )
    text = (
        f"Of {audit['n_utterances']:,} utterances by "
        f"{count_words(len(facts.speakers), 'speaker')} ({len(facts.classes)} classes), "
        f"{audit['n_tested']:,} were tested, each once, in "
        f"{count_words(audit['n_folds'], 'outer fold')}: {scheme}. {_features(facts)} In every "
        f"outer fold the hyperparameters of each boosted system were searched on its training "
        f"{unit}s alone ({_searches(facts)}), then one model was fitted on all of them. "
        f"Screening, resampling and weights were fitted inside the training folds; bin edges, "
        f"which see no label, on the outer training rows. {_fusion(facts)}"
        f"Scores are computed over all held-out utterances pooled; intervals are 95 % "
        f"delete-one-speaker jackknife t intervals, of scores with two ends on the logit; "
        f"systems were compared by exchanging their predictions of whole speakers, adjusted "
        f"by step-down max-T of the pooled difference, planned comparisons apart from all "
        f"pairs. The primary system, {facts.primary}, was recorded at the first run"
        f"{_changed(facts)}. Seed {options['seed']}."
    )
    return Section("protocol", "Protocol", (Paragraph(" ".join(text.split())),))


def _changed(facts: StudyFacts) -> str:
    history = facts.data["primary"]
    if len(history) == 1:
        return ""
    return f" as {history[0]} and changed to {facts.primary} after results existed"


def _features(facts: StudyFacts) -> str:
    pooled = {
        name: each
        for name, each in facts.data["modalities"].items()
        if each["frames"] is not None
    }
    normalised = ""
    if facts.options["normalise"] == "speaker":
        normalised = (
            " They were then standardised within each speaker over all their utterances, the "
            "tested ones included and no label seen: the evaluation is transductive."
        )
    if not pooled:
        return f"Features have no time axis and were taken as they are.{normalised}"
    words = [
        f"{name} ({each['n_dims']:,} dimensions, "
        f"{count_words(len(each['statistics']), 'statistic')})"
        for name, each in pooled.items()
    ]
    return f"Frames were pooled over time into functionals: {join_names(words)}.{normalised}"


def _searches(facts: StudyFacts) -> str:
    options = facts.options
    inner = sorted(
        {
            record["record"]["inner_folds"]
            for system in facts.searches
            for record in facts.params[system].values()
            if "inner_folds" in record["record"]
        }
    )
    booster = "LightGBM or XGBoost" if options["booster"] == "both" else options["booster"]
    folds = " or ".join(map(str, inner or [options["inner"]]))
    return (
        f"{booster}; {count_words(options['trials'], 'trial')} of {options['sampler']} by "
        f"{facts.metric.title}; {folds} inner folds grouped by "
        f"{outer_grouping(str(options['outer']))}; at most {options['rounds']} boosting "
        "rounds, stopped early on the inner folds; candidates: "
        f"statistics {options['statistics']}, screening {options['screening']}, imbalance "
        f"{options['imbalance']}"
    )


def _fusion(facts: StudyFacts) -> str:
    if not facts.fused:
        return ""
    late = [name for name in facts.fused if name != "early"]
    clauses = []
    if "early" in facts.fused:
        clauses.append(
            "early fusion concatenates the feature tables and is searched as any modality"
        )
    if late:
        clauses.append(
            f"late fusions ({join_names(late)}) learn only from out-of-fold probabilities of "
            "the training speakers, from an inner partition of their own"
        )
    sentence = "; ".join(clauses)
    return sentence[0].upper() + sentence[1:] + ". "


def describe_study(data: Mapping[str, Any], n_speakers: int, n_utterances: int) -> str:
    """Describe the data of a study, as in ``data.json``, in one line."""
    return (
        f"{data['source']}: {count_words(n_utterances, 'utterance')} by "
        f"{count_words(n_speakers, 'speaker')}, {len(data['classes'])} classes, "
        f"{join_names(list(data['modalities']))}"
    )


_MEANING: Final = {
    "bin edges": "gave the edges of bins (no label is looked at)",
    "screen": "decided which features are kept",
    "resample parent": "were copied, or had rows made between them",
    "train": "taught a booster, a regression, class shares",
    "validate": "were predicted by an inner fit without them",
    "early stop": "decided when an inner fit stops, and the rounds",
    "choose": "decided between hyperparameters or modalities",
    "calibrate": "moved the class offsets",
    "fuse": "set fusion weights or a stacker",
    "explain background": "are what contributions are measured against",
}


def _audit_section(facts: StudyFacts) -> Section:
    """Give the verdict of the leakage audit, and count the fits and choices behind it."""
    audit = facts.audit
    tested, final = Counter[str](), Counter[str]()
    for counted, systems in ((tested, audit["systems"]), (final, audit["final_models"])):
        for system in systems.values():
            counted.update(system["by_role"])
    text = (
        f"Every fit and every choice wrote down the utterances that it touched before it "
        f"began: {tested.total():,} times in {count_words(len(audit['systems']), 'system')}. "
        f"No utterance of a {audit['held_out_unit']} held out may be among them, none may "
        f"teach an inner fit that it judges, every utterance is tested at most once, and all "
        f"systems are scored on the same utterances in the same folds. Verdict: "
        f"{audit['verdict']}. toolkit audit derives it again from the files of the study."
    )
    table = make_table(
        "ledger",
        "Fits and choices by what utterances were to them",
        ["role", "these utterances", "tested systems", "final models"],
        [
            [
                role,
                _MEANING[role],
                # A whole number as the value: the page would write a float with its point.
                Cell(f"{tested[role]:,}", tested[role]),
                Cell(f"{final[role]:,}", final[role]),
            ]
            for role in ROLES
            if tested[role] or final[role]
        ],
        note="The final models learn from every speaker and are tested on none here.",
    )
    return Section("audit", "Leakage audit", (Paragraph(text), table))
