"""The final models of a study, fitted on every speaker, for new recordings.

``models/final.json`` holds, as plain data, everything between a new recording and the
probabilities of every system: its pooling, the model files with their checksums, and the
parameters that the late fusions learnt from out-of-fold predictions of all speakers.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from toolkit.files import FolderError, format_json, hash_file, read_json
from toolkit.fusion import LATE_METHODS
from toolkit.fusion.inputs import InnerPredictions, NewPredictions
from toolkit.fusion.learned import LearnedFusion
from toolkit.models import FittedBooster
from toolkit.pooling.statistics import UNTIMED, resolve_statistics
from toolkit.report import Report, Section, StudyFacts, format_markdown
from toolkit.report.answer import caveats_section
from toolkit.report.document import Items, Paragraph, Table, count_words, escape_markdown
from toolkit.report.performance import scores_table
from toolkit.report.protocol import closing_sections
from toolkit.study.folder import Study, StudyFolder
from toolkit.systems import BEST_SINGLE, EARLY, LOG_POOL
from toolkit.validation import FINAL, UnitResult
from toolkit.validation.folds import final_fold
from toolkit.validation.ledger import Ledger

FINAL_FILE: Final = "models/final.json"
#: Beginning of the names of a final model's files in ``models/<system>/``.
FINAL_STEM: Final = "final"
_CARD: Final = "MODEL_CARD.md"
_UNSTATED: Final = (
    "Not stated yet. Write the intended users and uses into intended_use.md beside this file; "
    "toolkit report then copies them here."
)
_LIMITS: Final = (
    (
        "The scores are those of the procedure, on held-out people. The final models were "
        "fitted on all people by the same procedure, and were not scored."
    ),
    (
        "The performance in other languages, cultures, recording conditions or feature "
        "extractors is unknown."
    ),
    "A label is what annotators or actors gave, not what a person feels.",
    (
        "A prediction for a speaker who was in training is no prediction for a person never "
        "seen; toolkit predict marks those rows."
    ),
    (
        "Load models only from sources that you trust: the boosters' own formats are read by "
        "native code. toolkit predict checks their checksums first."
    ),
)


def learn_finals(
    study: Study, units: Mapping[str, UnitResult]
) -> tuple[LearnedFusion, dict[str, list[dict[str, Any]]]]:
    """Learn the late fusions of the final models; give them and the ledgers' entries."""
    manifest, groups = study.manifest, study.groups
    n_single = sum(name in units for name in manifest.available)
    base = {
        name: InnerPredictions.of_unit(unit, manifest.labels, groups)
        for name, unit in units.items()
    }
    methods = [
        name
        for name in LATE_METHODS
        if name in study.config.fusion and (name != LOG_POOL or EARLY in units)
    ]
    ledgers: dict[str, Ledger] = {}

    def open_ledger(system: str) -> Ledger:
        ledger = Ledger(system, final_fold(manifest), manifest.utterances, groups)
        return ledgers.setdefault(system, ledger)

    learnt = LearnedFusion.learn(
        base,
        methods=methods if n_single > 1 else (),
        metric=study.config.metric,
        open_ledger=open_ledger,
    )
    entries = {name: unit.ledger for name, unit in units.items()}
    return learnt, entries | {name: ledger.entries() for name, ledger in ledgers.items()}


def format_finals(
    study: Study, units: Mapping[str, UnitResult], *, learnt: LearnedFusion, facts: StudyFacts
) -> dict[str, str]:
    """Write what belongs to the final models as the texts of its files."""
    described = _describe_finals(study, units, learnt)
    path = study.folder.path / "intended_use.md"
    use = path.read_text(encoding="utf-8") if path.exists() else None
    return {FINAL_FILE: format_json(described), _CARD: _format_card(facts, described, use)}


def _describe_finals(
    study: Study, units: Mapping[str, UnitResult], learnt: LearnedFusion
) -> dict[str, Any]:
    """Give all that using the final models needs as plain data."""
    systems, seen = {}, set[str]()
    for name, unit in units.items():
        modalities = study.folder.read_modalities(name, FINAL) or []
        seen.update(modalities)
        systems[name] = unit.describe_search() | {
            "modalities": modalities,
            "files": {
                FINAL_STEM + end: hashlib.sha256(content).hexdigest()
                for end, content in study.folder.read_models(name, FINAL).items()
            },
        }
    config, pooled = study.config, study.data["modalities"]
    return {
        "classes": list(study.manifest.classes),
        "pooling": {
            "missing": config.missing,
            "frames": config.frames,
            "normalise": config.normalise,
        },
        "modalities": {
            name: {
                "n_dims": pooled[name]["n_dims"],
                "time_axis": UNTIMED.isdisjoint(pooled[name]["statistics"]),
                "statistics": list(pooled[name]["statistics"]),
            }
            for name in study.manifest.available
            if name in seen
        },
        "systems": systems,
        "fusion": learnt.describe(),
    }


def _format_card(facts: StudyFacts, described: Mapping[str, Any], use: str | None) -> str:
    """Write the model card; use: the author's intended use, None where it is not written."""
    data, protocol, _ = closing_sections(facts)
    doubts = [part for part in caveats_section(facts).parts if isinstance(part, Items)]
    limits = (*_LIMITS, *(text for part in doubts for text in part.texts))
    sections = (
        Section("use", "Intended use", (Paragraph(_UNSTATED),)),
        Section(
            "models", "Models", (_models_table(described), Paragraph(_describe_late(described)))
        ),
        Section("scores", "Scores on people never seen", (scores_table(facts),)),
        Section("limits", "Limits", (Items(limits),)),
        data,
        protocol,
    )
    generated = bool(facts.data["generated"])
    card = format_markdown(Report("Model card", facts.data_size, generated, sections))
    # The author's own words are Markdown already.
    return card.replace(escape_markdown(_UNSTATED), use.strip(), 1) if use else card


def _models_table(described: Mapping[str, Any]) -> Table:
    return Table.of(
        "models",
        "Models fitted on every speaker, with hyperparameters chosen by the same inner search.",
        ["system", "sees", "booster", "rounds", "trials", "inner score", "file"],
        [
            [
                system,
                ", ".join(model["modalities"]),
                model["params"]["booster"],
                model["n_rounds"],
                model["trials_done"],
                model["inner_score"],
                f"models/{system}/{min(model['files'], key=len)}",
            ]
            for system, model in described["systems"].items()
        ],
        note="The inner score is that of coarser fits of the trees alone: quote those below.",
    )


def _describe_late(described: Mapping[str, Any]) -> str:
    fusion = described["fusion"]
    late = ([] if fusion[BEST_SINGLE] is None else [BEST_SINGLE]) + fusion["methods"]
    if not late:
        return "There is one modality: nothing is fused. Class offsets: models/final.json."
    return (
        f"{count_words(len(late), 'late system')} ({', '.join(late)}) and all class offsets "
        "were learnt from out-of-fold predictions of every speaker and stand in "
        "models/final.json."
    )


def load_finals(folder: Path) -> tuple[dict[str, Any], dict[str, FittedBooster]]:
    """Read and check the description of final models; load the model of each system."""
    StudyFolder(folder).refuse_first_layout()
    path = folder / FINAL_FILE
    if not path.exists():
        raise FolderError(
            f"{folder} holds no {FINAL_FILE}: the models fitted on everybody are made at the "
            "end of a study. Name the folder of a finished study, or run its command again."
        )
    try:
        final: dict[str, Any] = read_json(path)
        _check_final(final)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise FolderError(
            f"{path} is damaged ({error}). Make it again with toolkit report {folder}."
        ) from None
    return final, {name: _load_final(folder, name, final) for name in final["systems"]}


def _check_final(final: Mapping[str, Any]) -> None:
    """Check that the names are plain ones, and that the fusions fit the systems."""
    classes, systems, modalities = final["classes"], final["systems"], final["modalities"]
    names = [*classes, *systems, *modalities, *final["pooling"].values()]
    names += [name for system in systems.values() for name in system["files"]]
    if not systems or not all(isinstance(name, str) and name for name in names):
        raise ValueError("names are missing, or are no text")
    # They are joined to paths: a crafted one would lead elsewhere.
    plain = [name for name in names[len(classes) :] if {"/", "\\", ":"}.isdisjoint(name)]
    if len(plain) < len(names) - len(classes) or ".." in plain:
        raise ValueError("names lead to other folders")
    for modality in modalities.values():
        if type(modality["n_dims"]) is not int or modality["n_dims"] < 1:
            raise ValueError("a modality has no dimensions")
        if UNTIMED.isdisjoint(modality["statistics"]):
            resolve_statistics(modality["statistics"])
    for system in systems.values():
        if not set(system["modalities"]) <= modalities.keys():
            raise ValueError("a system sees modalities that are not described")
    _check_fusion(LearnedFusion.restore(final["fusion"]), systems, len(classes))


def _check_fusion(fusion: LearnedFusion, systems: Iterable[str], n_classes: int) -> None:
    """Fuse one row of priors: the result has a finite probability per class."""
    priors = fusion.priors
    if priors.shape != (n_classes,) or not (np.isfinite(priors) & (priors >= 0)).all():
        raise ValueError("the shares of the classes are not those of the classes")
    seen = np.ones(1, dtype=bool)
    shares = priors[None, :]
    parts = {"trees": shares, "linear": shares} if "early (linear)" in fusion.members else {}
    row = NewPredictions(shares, shares.argmax(axis=1), seen, parts)
    for name, fused in fusion.apply(dict.fromkeys(systems, row)).items():
        fits = fused.proba.shape == (1, n_classes) and np.isfinite(fused.proba).all()
        if not fits or not 0 <= int(fused.y_pred[0]) < n_classes:
            raise ValueError(f"{name} gives no probabilities of these classes")


def _load_final(folder: Path, system: str, final: Mapping[str, Any]) -> FittedBooster:
    """Load a model whose files have the bytes that were written, and no other."""
    models = folder / "models" / system
    # The boosters' native code reads these files: it gets the bytes of the study alone.
    for name, expected in final["systems"][system]["files"].items():
        path = models / name
        if not path.exists() or hash_file(path) != expected:
            fault = "is not what was written" if path.exists() else "is missing"
            raise FolderError(
                f"The model file {path} {fault}; it was not loaded. If the study's units are "
                f"whole, toolkit report {folder} copies it again."
            )
    booster = FittedBooster.load(models / "final")
    if booster.n_classes != len(final["classes"]):
        raise FolderError(f"The model in {models} is of {booster.n_classes} classes.")
    return booster
