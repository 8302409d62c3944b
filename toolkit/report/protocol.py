"""The sections on data, protocol and leakage audit."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from toolkit.report.document import (
    Cell,
    Fold,
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
from toolkit.validation import METRICS, MOST_COLUMNS, ROLES, outer_grouping

#: Longer lists of notes are folded.
_MOST_NOTES: Final = 5


def closing_sections(facts: StudyFacts) -> list[Section]:
    """Describe data, protocol and leakage audit."""
    return [_data_section(facts), _protocol_section(facts), _audit_section(facts)]


def _data_section(facts: StudyFacts) -> Section:
    """Describe the recordings: classes, modalities, speakers, notes of the reader."""
    data = facts.data
    parts: list[Part] = [_balance_table(facts), _modalities_table(facts)]
    notes = [
        f"Left out by the choice of classes: {count_words(count, 'utterance')} of "
        f"{isolate(name)}."
        for name, count in data["excluded"].items()
    ]
    notes += [
        f"{isolate(old)} counts as {isolate(new)}." for old, new in data["merged"].items()
    ]
    if data["ignored"]:
        notes.append(f"Ignored columns: {join_names(data['ignored'])}.")
    notes += data["warnings"]
    folded: list[Part] = [_speakers_table(facts)]
    if notes:
        (parts if len(notes) <= _MOST_NOTES else folded).append(Items(tuple(notes)))
    title = "Speakers" if len(notes) <= _MOST_NOTES else f"Speakers and {len(notes)} notes"
    return Section("data", "Data", (*parts, Fold(title, tuple(folded))))


def _balance_table(facts: StudyFacts) -> Table:
    """Tabulate the class balance: utterances, and their spread over speakers."""
    n = sum(map(sum, facts.counts))
    rows: list[Row] = []
    for name, counts in zip(facts.classes, zip(*facts.counts, strict=True), strict=True):
        n_with = sum(count > 0 for count in counts)
        middle = float(np.median(counts))
        spread = min(counts), Cell(f"{middle:,g}", middle), max(counts)
        shares = share_cell(sum(counts), n), share_cell(n_with, len(counts))
        rows.append([name, *shares, *spread])
    header = ["class", "utterances", "speakers with it", "fewest per speaker", "median", "most"]
    return make_table("balance", "Class balance.", header, rows)


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
    header += ["median", "most", "all frames", "repaired or left out"]
    return make_table(
        "modalities",
        "Modalities, and the pooled frames per utterance.",
        header,
        rows,
        note="A dash: the features have no time axis.",
    )


def _repairs(counts: Mapping[str, int]) -> str:
    words = [
        f"{key.replace('_', ' ')}: {value:,}"
        for key, value in counts.items()
        if value and key != "files_absent"
    ]
    return "; ".join(words) or "nothing"


def _protocol_section(facts: StudyFacts) -> Section:
    """Describe the protocol in sentences for a paper, and cite the software."""
    options, audit = facts.options, facts.audit
    unit, content, _ = outer_grouping(str(options["outer"])).partition("+")
    outer = str(options["outer"]).removesuffix("+content")
    scheme = {
        "speaker": "One speaker at a time was held out.",
        "session": "One session at a time was held out, both partners together.",
        "split": "The split that comes with the data was used; only its test rows are scored.",
    }.get(
        outer,
        f"The speakers were divided into {outer} groups of similar size and class "
        "shares, and one group at a time was held out.",
    )
    if content:
        scheme += (
            f" Content was held out as well: {facts.n_contents} scripts, scenes or sentences "
            f"were divided into {options['content_parts']} parts of similar class shares. Each "
            f"fold tests one held-out {unit if outer == unit else 'group'} on one part, and "
            "trains on utterances of neither. Inner folds hold out groups and content by the "
            "same rule."
        )
    text = (
        f"The data hold {audit['n_utterances']:,} utterances by "
        f"{count_words(len(facts.speakers), 'speaker')} in {len(facts.classes)} classes. "
        f"{audit['n_tested']:,} of them were tested, each once, in "
        f"{count_words(audit['n_folds'], 'outer fold')}. {scheme} {_features(facts)} In every "
        f"outer fold the hyperparameters of each boosted system were searched on its training "
        f"{unit}s alone. {_searches(facts)} One model was then fitted on all training {unit}s. "
        "Screening, resampling and weights were fitted inside the training folds. Bin edges, "
        f"which use no label, come from the outer training rows. {_fusion(facts)}"
        "Scores are computed over all held-out utterances pooled. Intervals are 95 % "
        "delete-one-speaker jackknife t intervals, on the logit for bounded scores. Systems "
        "were compared by permutation tests that exchange the predictions of whole speakers, "
        "adjusted by step-down max-T; planned comparisons were adjusted separately. The "
        f"primary system, {facts.primary}, was recorded at the first run{_changed(facts)}. "
        f"Seed {options['seed']}.{_repeats(facts)}"
    )
    cite = Fold("Cite the software", (Paragraph(_BIBTEX.format(options["version"]), "code"),))
    return Section("protocol", "Protocol", (Paragraph(" ".join(text.split())), cite))


_BIBTEX: Final = """@software{{modality_toolkit,
  title = {{modality-toolkit: speaker-independent multimodal classification}},
  author = {{{{The modality-toolkit authors}}}},
  year = {{2026}},
  version = {{{}}},
  license = {{BSD-3-Clause}}
}}"""


def _repeats(facts: StudyFacts) -> str:
    if not facts.repeated:
        return ""
    return (
        f" Every search was repeated under {facts.options['seeds']} seeds, on the same outer "
        "folds, with other inner folds and proposals. Comparisons of these systems test the "
        "mean over seeds: a permutation exchanges a speaker's predictions under all seeds "
        "together."
    )


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
            " They were then standardised within each speaker over all utterances, tested ones "
            "included, without labels: the evaluation is transductive."
        )
    if not pooled:
        return f"Features have no time axis and were used unchanged.{normalised}"
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
        f"Search: {booster}, {count_words(options['trials'], 'trial')} ({options['sampler']}) "
        f"by {facts.metric.title} on {folds} inner folds grouped by "
        f"{outer_grouping(str(options['outer'])).replace('+', ' and ')}, with at most "
        f"{options['rounds']} boosting rounds and early stopping. Candidates: statistics "
        f"{options['statistics']}, screening {options['screening']}, imbalance "
        f"{options['imbalance']}.{_wide(facts)}"
    )


def _wide(facts: StudyFacts) -> str:
    """Describe what the fits took of a very wide modality, for each system that has one."""
    words = []
    for name in facts.searches:
        record = next(iter(facts.params[name].values()))["record"]
        if "screened" in record:
            words.append(
                f" In {name}, with a modality of more than {MOST_COLUMNS:,} columns, "
                f"{record['screened']} replaced the screening none. Each fit, also of the "
                "logistic baseline, chose columns by its own training rows."
            )
        for modality, presets in record.get("reduced", {}).items():
            words += [
                f" {name} took {each['statistics']} statistics of {modality} "
                f"({each['n_columns']:,} columns) in place of {preset}."
                for preset, each in presets.items()
            ]
    return "".join(words)


def _fusion(facts: StudyFacts) -> str:
    if not facts.fused:
        return ""
    late = [name for name in facts.fused if name != "early"]
    clauses = []
    if "early" in facts.fused:
        clauses.append(
            "early fusion concatenates the feature tables and is searched like a modality"
        )
    if late:
        clauses.append(
            f"late fusions ({join_names(late)}) learn from out-of-fold probabilities of the "
            "training speakers alone, in an inner partition of their own"
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
    "bin edges": "edges of bins (without labels)",
    "vocabulary": "vocabulary, weights and components of transcripts",
    "screen": "selection of features",
    "resample parent": "copies, or synthetic rows between them",
    "train": "fit of a booster, a regression or class priors",
    "validate": "validation of an inner fit without them",
    "early stop": "early stopping and number of rounds",
    "choose": "choice of hyperparameters or of a modality",
    "calibrate": "decision thresholds",
    "fuse": "fusion weights or a stacker",
    "explain background": "reference of the contributions",
}


def published_table(facts: StudyFacts) -> Table:
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
    return make_table("published", "Published scores.", header, rows, note=note)


def present_table(facts: StudyFacts) -> Table | None:
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
        "Systems with missing utterances.",
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
        note="A missing utterance gets the class priors of the training fold.",
    )


def outside_caveats(facts: StudyFacts) -> Iterator[str]:
    """Name each system from outside, and the limits of its scores and fusions."""
    for name, n_folds in facts.options.get("outside", {}).items():
        folds = "no folds, so nothing shows that its models never saw the tested speakers"
        if n_folds is not None:
            folds = f"{count_words(n_folds, 'fold')} of whole {facts.audit['held_out_unit']}s"
        yield (
            f"outside+{name} was brought from outside (internal/outside/{name}.csv). The audit "
            f"cannot vouch for it or its fusions: the file names {folds}."
        )
        if (stacked := f"stacked+{name}") in facts.predictions:
            yield (
                f"{stacked} is not fully nested: its weights rest on predictions of {name} for "
                "training speakers, by models that were trained on the tested ones."
            )


def _audit_section(facts: StudyFacts) -> Section:
    """Give the result of the leakage audit, and count its entries."""
    audit = facts.audit
    held_out = audit["held_out_unit"].replace("+", " or ")
    tested, final = Counter[str](), Counter[str]()
    for counted, systems in ((tested, audit["systems"]), (final, audit["final_models"])):
        for system in systems.values():
            counted.update(system["by_role"])
    text = (
        "The audit log lists the utterances used in every fit and every choice: "
        f"{tested.total():,} entries of {count_words(len(audit['systems']), 'system')}. The "
        f"audit fails if an utterance of a held-out {held_out} was used, if an "
        "inner model was validated on its own training utterances, if an utterance was tested "
        "twice, or if systems were scored on different utterances. Result: "
        f"{audit['verdict']}. To repeat the audit from the files: toolkit verify DIR."
    )
    table = make_table(
        "ledger",
        "Entries of the audit log.",
        ["role", "use of the utterances", "tested systems", "final models"],
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
        note="The final models are fitted on every speaker; this report does not score them.",
    )
    if outside := audit.get("outside"):
        text += (
            f" Not covered, since they were brought from outside or rest on it: "
            f"{join_names(outside)}. Of these the audit checked utterances, folds and labels."
        )
    fold = Fold("Entries by role", (table,))
    return Section("audit", "Leakage audit", (Paragraph(text), fold))
