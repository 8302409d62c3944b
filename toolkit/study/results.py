"""From finished units to the files a reader opens; nothing here fits anything."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, astuple, dataclass, fields
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from toolkit.files import (
    FolderError,
    format_csv,
    format_json,
    hash_file,
    lock_folder,
    write_bytes,
    write_text,
)
from toolkit.fusion import FusionRecord, describe_fusions, fuse_systems
from toolkit.report import (
    StudyFacts,
    draw_figures,
    format_markdown,
    format_page,
    format_table_csv,
    format_tables_tex,
    render_figure,
    summarise_study,
)
from toolkit.report.document import Table
from toolkit.study.attribution import derive_evidence
from toolkit.study.config import StudyConfig
from toolkit.study.final_models import (
    FINAL_FILES,
    format_finals,
    learn_finals,
    model_stem,
    read_finals,
)
from toolkit.study.folder import ARTIFACTS, MODEL_STEM, read_data, read_unit, unit_folder
from toolkit.study.options import load_config
from toolkit.systems import EARLY, System, early_name, logistic_name, proper_subsets
from toolkit.validation import (
    Comparison,
    LeakageError,
    Score,
    UnitResult,
    audit_entries,
    compare_systems,
    count_roles,
    final_fold,
    format_predictions,
    gather_predictions,
    majority_ledgers,
    majority_predictions,
    make_folds,
    outer_grouping,
    score_predictions,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from toolkit.data import Manifest
    from toolkit.report import Report
    from toolkit.validation import Fold, Predictions
    from toolkit.validation.folds import Grouping


def audit_study(
    manifest: Manifest,
    folds: Sequence[Fold],
    ledgers: Mapping[str, Mapping[int, Sequence[dict[str, Any]]]],
    *,
    unit: Grouping,
    finals: Mapping[str, Sequence[dict[str, Any]]] = MappingProxyType({}),
    predictions: Mapping[str, Predictions] = MappingProxyType({}),
) -> dict[str, Any]:
    """Derive the verdict from folds and recorded entries."""
    groups = manifest.groups(unit)
    problems = [
        f"Fold {fold.name} trains on {', '.join(sorted(shared))}, who are held out in it."
        for fold in folds
        if (shared := set(groups[fold.train].tolist()) & set(groups[fold.test].tolist()))
    ]
    tested = np.bincount(np.concatenate([fold.test for fold in folds]), minlength=len(manifest))
    if tested.max() > 1:
        problems.append(f"{int((tested > 1).sum())} utterances are tested more than once.")
    # A split of the data's own tests one part; all other folds take turns with everybody.
    if len(folds) > 1 and not tested.all():
        problems.append(f"{int((tested == 0).sum())} utterances are tested in no fold.")
    for system, table in predictions.items():
        problems += _check_rows(system, table, manifest, folds)
    for system, entries in ledgers.items():
        for fold in folds:
            if fold.number not in entries:
                problems.append(f"{system}/{fold.name}: nothing was recorded.")
                continue
            problems += audit_entries(system, fold, entries[fold.number], groups)
    everybody = final_fold(manifest)
    for system, of_final in finals.items():
        problems += audit_entries(system, everybody, of_final, groups)
    return {
        "verdict": "leakage found" if problems else "no leakage found",
        "problems": problems,
        "held_out_unit": unit,
        "n_folds": len(folds),
        "n_tested": int((tested > 0).sum()),
        "n_utterances": len(manifest),
        "systems": {
            system: {"folds": len(by_fold)} | _count(chain.from_iterable(by_fold.values()))
            for system, by_fold in ledgers.items()
        },
        "final_models": {system: _count(of_final) for system, of_final in finals.items()},
    }


def _count(entries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    by_role = count_roles(entries)
    return {"fits_and_choices": sum(by_role.values()), "by_role": by_role}


def _check_rows(
    system: str, table: Predictions, manifest: Manifest, folds: Sequence[Fold]
) -> list[str]:
    """Say where a system is scored on other rows, folds, people or labels than it should be."""
    rows = np.sort(np.concatenate([fold.test for fold in folds]))
    if table.utterances.tolist() != manifest.utterances[rows].tolist():
        return [f"{system} is scored on other utterances than the outer folds test."]
    numbers = np.full(len(manifest), -1)
    for fold in folds:
        numbers[fold.test] = fold.number
    truth = np.array(manifest.classes)[manifest.labels[rows]]
    expected = {
        "folds": (table.folds, numbers[rows]),
        "speakers": (table.speakers, manifest.speakers[rows]),
        "labels": (np.array(table.classes)[table.labels], truth),
    }
    return [
        f"{system} is scored with other {name} than the data's, first in {utterance}."
        for name, (found, right) in expected.items()
        for utterance in table.utterances[found != right][:1].tolist()
    ]


logger = logging.getLogger(__name__)

#: Tables of the report that ``table.tex`` holds.
_TEX_TABLES: Final = ("scores", "baselines", "classes")
#: Figures that the dashboard shows.
_PICTURES: Final = ("confusion-", "modalities", "shap-bar", "shap-beeswarm-")


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """A study derived again from what its folder keeps, before anything is written.

    - facts: The numbers.
    - report: What its readers see.
    - units: Finished systems to their units.
    - finals: Those of them that were fitted on everybody too.
    - tables: Path inside the folder to the text of every file of numbers and words; the page
      and the figures are not among them.
    """

    facts: StudyFacts
    report: Report
    units: Mapping[str, Sequence[UnitResult]]
    finals: Mapping[str, UnitResult]
    tables: Mapping[str, str]


def derive_study(folder: Path, *, write_audit: bool = True) -> Collected:
    """Derive a study's numbers and words from what its folder keeps.

    Late fusions are derived here, again at every call: they cost seconds.
    """
    manifest, data = read_data(folder)
    config = load_config(folder / "study.toml", {})
    folds = make_folds(manifest, config.outer, seed=config.seed)
    units, unfinished = read_units(folder, manifest, folds)
    fitted = {
        system: gather_predictions(
            manifest, folds, system, [u.proba for u in found], [u.present for u in found]
        )
        for system, found in units.items()
    }
    fused = fuse_systems(
        manifest,
        folds,
        units,
        fitted,
        methods=config.fusion,
        metric=config.metric,
        outer=config.outer,
    )
    ledgers = {
        system: {unit.fold: unit.ledger for unit in found} for system, found in units.items()
    } | dict(fused.ledgers if fused else {})
    tested = {"majority": majority_predictions(manifest, folds)} | fitted
    evidence, refits, explained = derive_evidence(
        folder, manifest, folds, tested, metric=config.metric, games=config.shapley != "none"
    )
    unit = outer_grouping(config.outer)
    ledgers = {"majority": majority_ledgers(manifest, folds, unit)} | ledgers | refits
    finals = read_finals(folder, units)
    learnt, of_finals = learn_finals(manifest, finals, config) if finals else (None, {})
    audit = audit_study(
        manifest,
        folds,
        ledgers,
        unit=unit,
        finals=of_finals,
        predictions=tested | (dict(fused.predictions) | dict(fused.offsets) if fused else {}),
    )
    if audit["problems"]:
        if write_audit:
            write_text(folder / "audit.json", format_json(audit))
        raise LeakageError("The audit failed: " + " ".join(audit["problems"]))

    boosted = {name: fitted[name] for name in fitted if not System.parse(name).is_logistic}
    subsets = {
        name: boosted.pop(name) for name in list(boosted) if System.parse(name).is_subset
    }
    main = {"majority": tested["majority"]} | boosted
    main |= dict(fused.predictions if fused else {})
    main |= {name: table for name, table in fitted.items() if System.parse(name).is_logistic}
    # Sets of modalities are played with, and scored; compared they would cost all other
    # comparisons power.
    predictions = main | dict(fused.offsets if fused else {}) | subsets
    scores = [score for table in predictions.values() for score in score_predictions(table)]
    # With no finished system there is nothing but the majority, and nothing to compare.
    comparisons = (
        compare_systems(list(main.values()), metric=config.metric, seed=config.seed)
        if units
        else []
    )
    speakers, counts = _count_people(manifest)
    facts = StudyFacts(
        data=data,
        speakers=speakers,
        counts=counts,
        predictions=predictions,
        scores=scores,
        comparisons=comparisons,
        fusion=fused.records if fused else (),
        params=_collect_params(units) | (describe_fusions(fused) if fused else {}),
        searches=_collect_searches(units),
        audit=audit,
        options=describe_options(config),
        unfinished=unfinished,
        attribution=evidence,
    )
    report = summarise_study(facts)
    tables = format_tables(facts, report)
    tables |= explained
    tables["folds.csv"] = format_folds(manifest, folds, config)
    if learnt is not None:
        tables |= format_finals(
            folder, manifest, finals, learnt=learnt, facts=facts, config=config
        )
    return Collected(facts, report, units, finals, tables)


def format_tables(facts: StudyFacts, report: Report) -> dict[str, str]:
    """Write a study's numbers and words as the texts of its files."""
    shown = {
        part.name: part
        for section in report.sections
        for part in section.parts
        if isinstance(part, Table)
    }
    return {
        f"predictions/{system}.csv": format_predictions(table)
        for system, table in facts.predictions.items()
    } | {
        "scores.csv": format_records(Score, facts.scores),
        "scores.json": format_json([asdict(score) for score in facts.scores]),
        "comparisons.csv": format_records(Comparison, facts.comparisons),
        "fusion.csv": format_records(FusionRecord, facts.fusion),
        "params.json": format_json(facts.params),
        "audit.json": format_json(facts.audit),
        "report.md": format_markdown(report),
        "table.csv": format_table_csv(shown["scores"]),
        "table.tex": format_tables_tex([shown[name] for name in _TEX_TABLES]),
    }


def describe_options(config: StudyConfig) -> dict[str, Any]:
    """Give the report what it says of the protocol, as plain data."""
    resolved = {"trials": config.n_trials, "rounds": config.n_inner_rounds}
    return config.identity() | resolved | {"space": config.space, "grid": config.grid}


def format_records(
    kind: type[Score | Comparison | FusionRecord],
    records: Iterable[Score | Comparison | FusionRecord],
) -> str:
    """Write records as CSV, a column a field."""
    return format_csv([field.name for field in fields(kind)], map(astuple, records))


def _count_people(manifest: Manifest) -> tuple[tuple[str, ...], list[list[int]]]:
    speakers, who = np.unique(manifest.speakers, return_inverse=True)
    counts = np.zeros((len(speakers), len(manifest.classes)), dtype=np.int64)
    np.add.at(counts, (who, manifest.labels), 1)
    return tuple(speakers.tolist()), counts.tolist()


def read_units(
    folder: Path, manifest: Manifest, folds: Sequence[Fold]
) -> tuple[dict[str, list[UnitResult]], tuple[str, ...]]:
    """Read every system whose folds are all finished."""
    sets = [early_name(some, manifest.available) for some in proper_subsets(manifest.available)]
    names = [*manifest.available, EARLY, *sets]
    boosted = [name for name in names if (folder / "units" / name).exists()]
    systems = [*boosted, *(logistic_name(n) for n in boosted if not System.parse(n).is_subset)]
    units, unfinished = {}, []
    for system in systems:
        found = [read_unit(unit_folder(folder, system, fold.number)) for fold in folds]
        complete = [unit for unit in found if unit is not None]
        if len(complete) == len(folds):
            units[system] = complete
        else:
            unfinished.append(system)
            logger.warning(
                "%s has %d of its %d folds and is in no table yet.",
                system,
                len(complete),
                len(folds),
            )
    return units, tuple(unfinished)


def format_folds(manifest: Manifest, folds: Sequence[Fold], config: StudyConfig) -> str:
    """Write who is tested and who is learnt from in every outer fold."""
    groups = manifest.groups(outer_grouping(config.outer)).tolist()
    rows: list[tuple[object, ...]] = []
    for fold in folds:
        for role, members in (("test", fold.test), ("train", fold.train)):
            names = [groups[row] for row in members]
            rows += [(fold.name, name, role, names.count(name)) for name in sorted(set(names))]
    return format_csv(["fold", "group", "role", "n"], rows)


def _collect_params(units: Mapping[str, Sequence[UnitResult]]) -> dict[str, Any]:
    return {
        system: {
            f"{unit.fold:02d}": {
                "params": dict(unit.search.params),
                "n_rounds": unit.search.n_rounds,
                "inner_score": unit.search.score,
                "trials_done": len(unit.search.trials),
                "trials_failed": sum(t["state"] == "fail" for t in unit.search.trials),
                "stopped_by": unit.search.stopped_by,
                "record": dict(unit.record),
            }
            for unit in found
            if unit.search is not None
        }
        for system, found in units.items()
        if not System.parse(system).is_logistic
    }


def _collect_searches(units: Mapping[str, Sequence[UnitResult]]) -> dict[str, Any]:
    return {
        system: [unit.search for unit in found if unit.search is not None]
        for system, found in units.items()
        if not System.parse(system).is_logistic
    }


@dataclass(frozen=True, slots=True)
class StudyResult:
    """All that came out of a study.

    - folder: Where its files are.
    - predictions: System to its out-of-fold predictions, in the order of the tables.
    - scores: Of every system.
    - comparisons: Of every pair of systems; variants with class offsets are scored but not
      compared.
    - unfinished: Systems that lack folds and are therefore in no table.
    """

    folder: Path
    predictions: Mapping[str, Predictions]
    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    unfinished: tuple[str, ...]


def collect_study(folder: Path) -> StudyResult:
    """Write predictions, scores, comparisons, the audit, models, figures and the report."""
    collected = derive_study(folder)
    facts = collected.facts
    for name, text in collected.tables.items():
        write_text(folder / name, text)
    _keep_only(folder / "predictions", [f"{system}.csv" for system in facts.predictions])
    _copy_models(folder, collected.units, collected.finals)
    for name in FINAL_FILES:
        if name not in collected.tables:
            (folder / name).unlink(missing_ok=True)
    drawn = _write_figures(folder, facts, load_config(folder / "study.toml", {}).figures)
    write_text(folder / "report.html", format_page(collected.report, drawn))
    return StudyResult(
        folder,
        facts.predictions,
        tuple(facts.scores),
        tuple(facts.comparisons),
        facts.unfinished,
    )


def _write_figures(folder: Path, facts: StudyFacts, formats: Sequence[str]) -> dict[str, str]:
    """Draw every figure into files of these formats; return the SVG of each by its stem."""
    drawn, names, pictures = {}, [], []
    for stem, ax in draw_figures(facts):
        for end in formats:
            content = render_figure(ax, end)
            write_bytes(folder / "figures" / f"{stem}.{end}", content)
            names.append(f"{stem}.{end}")
            if end == "svg":
                drawn[stem] = content.decode("utf-8")
        # Optuna's dashboard shows pictures that are its own artifacts.
        if stem.startswith(_PICTURES):
            pictures.append(folder / ARTIFACTS / f"{stem}.png")
            write_bytes(pictures[-1], render_figure(ax, "png"))
    _keep_only(folder / "figures", names)
    for path in set((folder / ARTIFACTS).glob("*.png")) - set(pictures):
        path.unlink()
    return drawn


def rebuild_report(folder: Path) -> StudyResult:
    """Make every derived file of a study again: the command ``toolkit report``."""
    if not folder.is_dir():
        raise FolderError(f"There is no folder {folder}.")
    read_data(folder)
    with lock_folder(folder):
        return collect_study(folder)


def _copy_models(
    folder: Path, units: Mapping[str, Sequence[UnitResult]], finals: Mapping[str, UnitResult]
) -> None:
    for system, found in units.items():
        models = folder / "models" / system
        sums = {}
        for unit in [*found, *([finals[system]] if system in finals else [])]:
            source = unit_folder(folder, system, unit.fold)
            for path in sorted(source.glob(f"{MODEL_STEM}.*")):
                models.mkdir(parents=True, exist_ok=True)
                name = model_stem(unit.fold) + path.name.removeprefix(MODEL_STEM)
                shutil.copyfile(path, models / name)
                sums[name] = hash_file(path)
        if sums:
            write_text(models / "checksums.json", format_json(sums))
            _keep_only(models, [*sums, "checksums.json"])


def _keep_only(folder: Path, names: Iterable[str]) -> None:
    """Remove derived files of systems that the study no longer has."""
    for path in set(folder.iterdir()) - {folder / name for name in names}:
        path.unlink()
