"""The models for new recordings: what was fitted on everybody, and all that using it needs.

``models/final.json`` holds, as plain data, what stands between a new recording and the
probabilities of every system: how it is pooled, which model files there are with their
checksums, and what the late fusions learnt from out-of-fold predictions of all speakers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from toolkit.files import format_json, hash_file
from toolkit.fusion import LATE_METHODS, InnerPredictions, describe_learned, learn_fusion
from toolkit.pooling.statistics import VALUE
from toolkit.report import Report, Section, format_markdown
from toolkit.report.answer import caveats_section
from toolkit.report.document import (
    Items,
    Paragraph,
    Table,
    count_words,
    make_table,
)
from toolkit.report.page import escape_markdown
from toolkit.report.performance import scores_table
from toolkit.report.protocol import data_section, describe_study, protocol_section
from toolkit.study.folder import MODEL_STEM, read_modalities, read_unit, unit_folder
from toolkit.validation import FINAL, Ledger, final_fold, fold_name, outer_grouping

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from toolkit.data import Manifest
    from toolkit.fusion.learned import LearnedFusion
    from toolkit.report import StudyFacts
    from toolkit.study.config import StudyConfig
    from toolkit.validation import UnitResult

_UNSAID: Final = (
    "Not said yet: who may use these models for what is for their author to say. Write it into "
    "intended_use.md beside this file; toolkit report then puts it here."
)
_LIMITS: Final = (
    (
        "The scores are those of the procedure, measured on people held out of everything; the "
        "final models were fitted on everybody by the same procedure and were scored on nobody."
    ),
    (
        "Nothing is known of other languages, cultures, recording conditions or feature "
        "extractors than those of the data below."
    ),
    "A label is what annotators or actors gave, not what a person feels.",
    (
        "What is said of a speaker who was in training is no prediction for a person never "
        "seen; toolkit predict marks those rows."
    ),
    (
        "Load models only from where you trust them: the boosters' own formats are read by "
        "native code. toolkit predict checks their checksums first."
    ),
)


def format_card(facts: StudyFacts, finals: Mapping[str, Any], use: str | None) -> str:
    """Write the model card."""
    caveats = [part for part in caveats_section(facts).parts if isinstance(part, Items)]
    limits = (*_LIMITS, *(text for part in caveats for text in part.texts))
    sections = (
        Section("use", "Intended use", (Paragraph(_UNSAID),)),
        Section("models", "Models", (_models_table(finals), Paragraph(_describe_late(finals)))),
        Section("scores", "Scores on people never seen", (scores_table(facts),)),
        Section("limits", "Limits", (Items(limits),)),
        data_section(facts),
        protocol_section(facts),
    )
    study = describe_study(facts.data, len(facts.speakers), sum(map(sum, facts.counts)))
    card = format_markdown(Report("Model card", study, bool(facts.data["generated"]), sections))
    # The author's own words are Markdown already.
    return card.replace(escape_markdown(_UNSAID), use.strip(), 1) if use else card


def _models_table(finals: Mapping[str, Any]) -> Table:
    return make_table(
        "models",
        "Models fitted on every speaker, with hyperparameters chosen by the same inner search.",
        ["system", "sees", "booster", "rounds", "trials", "inner score", "file"],
        [
            [
                system,
                ", ".join(said["modalities"]),
                said["params"]["booster"],
                said["n_rounds"],
                said["trials_done"],
                said["inner_score"],
                f"models/{system}/{min(said['files'], key=len)}",
            ]
            for system, said in finals["systems"].items()
        ],
        note="The inner score chose the parameters, so it is optimistic: quote those below.",
    )


def _describe_late(finals: Mapping[str, Any]) -> str:
    fusion = finals["fusion"]
    late = ([] if fusion["best-single"] is None else ["best-single"]) + fusion["methods"]
    if not late:
        return "There is one modality: nothing is fused. Class offsets: models/final.json."
    return (
        f"{count_words(len(late), 'late system')} ({', '.join(late)}) and all class offsets "
        "were learnt from out-of-fold predictions of every speaker and stand in "
        "models/final.json."
    )


FINALS: Final = "models/final.json"
CARD: Final = "MODEL_CARD.md"
FINAL_FILES: Final = (FINALS, CARD)
#: Where the author says what the models are for; the card quotes it.
USE: Final = "intended_use.md"


def model_stem(fold: int) -> str:
    """Name the first part of a model's files in ``models/<system>/``."""
    return fold_name(fold) if fold == FINAL else f"fold-{fold_name(fold)}"


def read_finals(folder: Path, systems: Iterable[str]) -> dict[str, UnitResult]:
    """Read the units that were fitted on everybody."""
    found = {name: read_unit(unit_folder(folder, name, FINAL)) for name in systems}
    return {name: unit for name, unit in found.items() if unit is not None}


def format_finals(
    folder: Path,
    manifest: Manifest,
    finals: Mapping[str, UnitResult],
    *,
    learnt: LearnedFusion,
    facts: StudyFacts,
    config: StudyConfig,
) -> dict[str, str]:
    """Write what belongs to the final models as the texts of its files."""
    described = describe_finals(
        folder, manifest, finals, learnt=learnt, data=facts.data, config=config
    )
    use = folder / USE
    said = use.read_text(encoding="utf-8") if use.exists() else None
    return {FINALS: format_json(described), CARD: format_card(facts, described, said)}


def learn_finals(
    manifest: Manifest, finals: Mapping[str, UnitResult], config: StudyConfig
) -> tuple[LearnedFusion, dict[str, list[dict[str, Any]]]]:
    """Learn what the late fusions of the final models need."""
    groups = manifest.groups(outer_grouping(config.outer))
    everybody = final_fold(manifest)
    singles = [name for name in manifest.available if name in finals]
    voters = {
        name: InnerPredictions(
            rows=unit.inner_rows,
            labels=manifest.labels[unit.inner_rows],
            groups=groups[unit.inner_rows],
            present=unit.inner_present,
            proba=unit.inner_proba,
        )
        for name, unit in finals.items()
    }
    methods = [
        name
        for name in LATE_METHODS
        if name in config.fusion and (name != "hybrid" or "early" in finals)
    ]
    ledgers: dict[str, Ledger] = {}

    def open_ledger(system: str) -> Ledger:
        ledger = Ledger(system, everybody, manifest.utterances, groups)
        return ledgers.setdefault(system, ledger)

    learnt = learn_fusion(
        voters,
        scores={n: unit.search.score for n, unit in finals.items() if unit.search},
        methods=methods if len(singles) > 1 else (),
        metric=config.metric,
        open_ledger=open_ledger,
    )
    entries = {name: unit.ledger for name, unit in finals.items()}
    return learnt, entries | {name: ledger.entries() for name, ledger in ledgers.items()}


def describe_finals(
    folder: Path,
    manifest: Manifest,
    finals: Mapping[str, UnitResult],
    *,
    learnt: LearnedFusion,
    data: Mapping[str, Any],
    config: StudyConfig,
) -> dict[str, Any]:
    """Give all that using the final models needs as plain data."""
    systems, seen = {}, dict[str, None]()
    for name, unit in finals.items():
        source = unit_folder(folder, name, FINAL)
        modalities = read_modalities(source) or []
        seen |= dict.fromkeys(modalities)
        search = unit.search
        assert search is not None  # only boosted systems have a final unit
        systems[name] = {
            "modalities": modalities,
            "files": {
                model_stem(FINAL) + path.name.removeprefix(MODEL_STEM): hash_file(path)
                for path in sorted(source.glob(f"{MODEL_STEM}.*"))
            },
            "params": dict(search.params),
            "n_rounds": search.n_rounds,
            "inner_score": search.score,
            "trials_done": len(search.trials),
            "stopped_by": search.stopped_by,
            "record": dict(unit.record),
        }
    known = data["modalities"]
    return {
        "classes": list(manifest.classes),
        "pooling": {
            "missing": config.missing,
            "frames": config.frames,
            "normalise": config.normalise,
        },
        "modalities": {
            name: {
                "n_dims": known[name]["n_dims"],
                "time_axis": known[name]["statistics"] != [VALUE],
                "statistics": list(known[name]["statistics"]),
            }
            for name in manifest.available
            if name in seen
        },
        "systems": systems,
        "fusion": describe_learned(learnt),
    }
