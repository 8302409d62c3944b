"""The sections on data, protocol and leakage audit."""

from collections import Counter
from typing import Final

import numpy as np

from toolkit.fusion.late import FIXED_RULES
from toolkit.models.spaces import list_candidates
from toolkit.pooling.statistics import UNTIMED
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
    render_template,
)
from toolkit.report.facts import StudyFacts
from toolkit.systems import EARLY
from toolkit.validation import MOST_COLUMNS, ROLES, outer_grouping
from toolkit.validation.fits import COARSE_ROWS

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
        shares = Cell.of_share(sum(counts), n), Cell.of_share(n_with, len(counts))
        rows.append([name, *shares, *spread])
    header = ["class", "utterances", "speakers with it", "fewest per speaker", "median", "most"]
    return Table.of("balance", "Class balance.", header, rows)


def _speakers_table(facts: StudyFacts) -> Table:
    rows: list[Row] = [
        [speaker, *counts, sum(counts)]
        for speaker, counts in zip(facts.speakers, facts.counts, strict=True)
    ]
    totals = [sum(column) for column in zip(*facts.counts, strict=True)]
    n = sum(totals)
    rows.append(["all", *(Cell.of_share(each, n) for each in (*totals, n))])
    return Table.of(
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
        present, frames = each["n_present"], each["frames"]
        lengths: Row = [None] * 4
        if frames is not None:
            middle = Cell(f"{frames['median']:,g}", frames["median"])
            lengths = [frames["min"], middle, frames["max"], frames["total"]]
        repairs = [
            f"{key.replace('_', ' ')}: {value:,}"
            for key, value in each["counts"].items()
            if value and key != "files_absent"
        ]
        sizes = (each["n_dims"], each["n_features"], present, Cell.of_share(n - present, n))
        rows.append([name, *sizes, *lengths, "; ".join(repairs) or "nothing"])
    header = ["modality", "dimensions", "features", "present", "missing", "fewest frames"]
    header += ["median", "most", "all frames", "repaired or left out"]
    return Table.of(
        "modalities",
        "Modalities, and the pooled frames per utterance.",
        header,
        rows,
        note="A dash: the features have no time axis.",
    )


def _protocol_section(facts: StudyFacts) -> Section:
    """Describe the protocol in sentences for a paper, and cite the software."""
    options, fused = facts.options, facts.fused
    unit, content, _ = outer_grouping(str(options["outer"])).partition("+")
    records = [
        record["record"]
        for system in facts.searches
        for record in facts.params[system].values()
    ]
    text = render_template(
        "protocol.txt",
        facts=facts,
        options=options,
        audit=facts.audit,
        history=facts.data["primary"],
        outer=str(options["outer"]).removesuffix("+content"),
        unit=unit,
        content=content,
        pooled=[
            f"{name} ({each['n_dims']:,} dimensions, "
            f"{count_words(len(each['statistics']), 'statistic')})"
            for name, each in facts.data["modalities"].items()
            if each["frames"] is not None
        ],
        untimed={
            kind: [n for n, m in facts.data["modalities"].items() if kind in m["statistics"]]
            for kind in UNTIMED
        },
        inner=sorted({r["inner_folds"] for r in records if "inner_folds" in r})
        or [options["inner"]],
        firsts={s: next(iter(facts.params[s].values()))["record"] for s in facts.searches},
        most_columns=MOST_COLUMNS,
        coarse_rows=COARSE_ROWS,
        candidates=list_candidates(
            *(options[n] for n in ("screening", "imbalance", "sampler"))
        ),
        sampled=[search for s in facts.searches.values() for search in s if search.n_sampled],
        fused=fused,
        fixed=[name for name in fused if name in FIXED_RULES],
        learnt=[name for name in fused if name != EARLY and name not in FIXED_RULES],
        linear=any("linear" in record for record in records),
        count_words=count_words,
        join_names=join_names,
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
    # A whole number as the value: the page would write a float with its point.
    rows: list[Row] = [
        [role, _MEANING[role], *(Cell(f"{n[role]:,}", n[role]) for n in (tested, final))]
        for role in ROLES
        if tested[role] or final[role]
    ]
    table = Table.of(
        "ledger",
        "Entries of the audit log.",
        ["role", "use of the utterances", "tested systems", "final models"],
        rows,
        note="The final models are fitted on every speaker; this report does not score them.",
    )
    if outside := audit.get("outside"):
        text += (
            f" Not covered, since they were brought from outside or rest on it: "
            f"{join_names(outside)}. Of these the audit checked utterances, folds and labels."
        )
    fold = Fold("Entries by role", (table,))
    return Section("audit", "Leakage audit", (Paragraph(text), fold))
