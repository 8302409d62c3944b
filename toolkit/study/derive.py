"""A study's numbers and words, derived from what its folder keeps; nothing here fits anything.

All is read from the study's folder, whether a study has just run or its report is made again
elsewhere: there is one way from finished units to numbers.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, astuple, dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from toolkit.explain import proper_subsets
from toolkit.files import format_csv, format_json, write_text
from toolkit.fusion import FusionRecord
from toolkit.report import (
    StudyFacts,
    format_markdown,
    format_table_csv,
    format_tables_tex,
    summarise_study,
)
from toolkit.report.document import Table
from toolkit.report.facts import LOGISTIC, is_subset
from toolkit.study.archive import read_unit, unit_folder
from toolkit.study.audit import audit_study
from toolkit.study.config import StudyConfig
from toolkit.study.evidence import derive_evidence
from toolkit.study.finals import format_finals, learn_finals, read_finals
from toolkit.study.fusions import describe_fusions, fuse_systems
from toolkit.study.saved import read_data
from toolkit.study.study_toml import load_config
from toolkit.validation import (
    Comparison,
    LeakageError,
    Score,
    UnitResult,
    compare_systems,
    format_predictions,
    gather_predictions,
    majority_ledgers,
    majority_predictions,
    make_folds,
    outer_unit,
    score_predictions,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from toolkit.data import Manifest
    from toolkit.report import Report
    from toolkit.validation import Fold

logger = logging.getLogger(__name__)

#: Tables of the report that ``table.tex`` holds.
_TEX_TABLES: Final = ("scores", "baselines", "classes")


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
    fused = fuse_systems(manifest, folds, units, fitted, config)
    ledgers = {
        system: {unit.fold: unit.ledger for unit in found} for system, found in units.items()
    } | dict(fused.ledgers if fused else {})
    tested = {"majority": majority_predictions(manifest, folds)} | fitted
    evidence, refits, explained = derive_evidence(
        folder, manifest, folds, tested, metric=config.metric, games=config.shapley != "none"
    )
    unit = outer_unit(config.outer)
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

    boosted = {name: fitted[name] for name in fitted if not name.endswith(LOGISTIC)}
    subsets = {name: boosted.pop(name) for name in list(boosted) if is_subset(name)}
    main = {"majority": tested["majority"]} | boosted
    main |= dict(fused.predictions if fused else {})
    main |= {name: table for name, table in fitted.items() if name.endswith(LOGISTIC)}
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
        evidence=evidence,
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
    sets = [f"early-{'-'.join(some)}" for some in proper_subsets(manifest.available)]
    names = [*manifest.available, "early", *sets]
    boosted = [name for name in names if (folder / "units" / name).exists()]
    systems = [*boosted, *(n + LOGISTIC for n in boosted if not is_subset(n))]
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
    groups = manifest.groups(outer_unit(config.outer)).tolist()
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
        if not system.endswith(LOGISTIC)
    }


def _collect_searches(units: Mapping[str, Sequence[UnitResult]]) -> dict[str, Any]:
    return {
        system: [unit.search for unit in found if unit.search is not None]
        for system, found in units.items()
        if not system.endswith(LOGISTIC)
    }
