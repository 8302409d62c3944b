"""From finished units to the files a reader opens; nothing here fits anything.

All is read from the study's folder, whether a study has just run or its report is made again
elsewhere: there is one way from finished units to files.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, astuple, dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from toolkit.fusion import FusionRecord
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
from toolkit.report.parts import Table
from toolkit.study.archive import MODEL_STEM, read_unit, unit_folder
from toolkit.study.audit import audit_study
from toolkit.study.config import StudyConfig, load_config
from toolkit.study.files import (
    FolderError,
    format_csv,
    format_json,
    hash_file,
    lock_folder,
    write_bytes,
    write_text,
)
from toolkit.study.fusions import describe_fusions, fuse_systems
from toolkit.study.saved import read_data
from toolkit.validation import (
    Comparison,
    LeakageError,
    Predictions,
    Score,
    UnitResult,
    compare_systems,
    format_predictions,
    gather_predictions,
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

_LOGISTIC: Final = "-logistic"
#: Tables of the report that ``table.tex`` holds.
_TEX_TABLES: Final = ("scores", "baselines", "classes")


@dataclass(frozen=True, slots=True)
class StudyResult:
    """All that came out of a study.

    Parameters
    ----------
    folder : Path
        Where its files are.
    predictions : mapping of str to Predictions
        System to its out-of-fold predictions, in the order of the tables.
    scores : tuple of Score
        Of every system.
    comparisons : tuple of Comparison
        Of every pair of systems; variants with class offsets are scored but not compared.
    unfinished : tuple of str
        Systems that lack folds and are therefore in no table.
    """

    folder: Path
    predictions: Mapping[str, Predictions]
    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    unfinished: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """A study derived again from what its folder keeps, before anything is written.

    Parameters
    ----------
    facts : StudyFacts
        The numbers.
    report : Report
        What its readers see.
    units : mapping of str to sequence of UnitResult
        Finished systems to their units.
    tables : mapping of str to str
        Path inside the folder to the text of every file of numbers and words; the page and
        the figures are not among them.
    """

    facts: StudyFacts
    report: Report
    units: Mapping[str, Sequence[UnitResult]]
    tables: Mapping[str, str]


def collect_study(folder: Path) -> StudyResult:
    """Write predictions, scores, comparisons, the audit, models, figures and the report.

    Parameters
    ----------
    folder : Path
        A study's folder with finished units, locked by the caller.

    Returns
    -------
    StudyResult
        What was written.

    Raises
    ------
    LeakageError
        If the audit of the finished units finds a held-out utterance in a fit.
    FolderError
        If the folder holds no study, or a finished unit is damaged.
    """
    collected = derive_study(folder)
    facts = collected.facts
    for name, text in collected.tables.items():
        write_text(folder / name, text)
    _keep_only(folder / "predictions", [f"{system}.csv" for system in facts.predictions])
    _copy_models(folder, collected.units)
    drawn = {}
    for stem, ax in draw_figures(facts):
        svg = render_figure(ax, "svg")
        drawn[stem] = svg.decode("utf-8")
        write_bytes(folder / "figures" / f"{stem}.svg", svg)
        write_bytes(folder / "figures" / f"{stem}.png", render_figure(ax, "png"))
    _keep_only(
        folder / "figures", [f"{stem}.{end}" for stem in drawn for end in ("svg", "png")]
    )
    write_text(folder / "report.html", format_page(collected.report, drawn))
    return StudyResult(
        folder,
        facts.predictions,
        tuple(facts.scores),
        tuple(facts.comparisons),
        facts.unfinished,
    )


def rebuild_report(folder: Path) -> StudyResult:
    """Make every derived file of a study again: the command ``toolkit report``.

    Parameters
    ----------
    folder : Path
        A study's folder; its data set is not needed.

    Returns
    -------
    StudyResult
        What was written.

    Raises
    ------
    FolderError
        If the folder holds no study, another run works in it, or a finished unit is damaged.
    """
    if not folder.is_dir():
        raise FolderError(f"There is no folder {folder}.")
    read_data(folder)
    with lock_folder(folder):
        return collect_study(folder)


def derive_study(folder: Path) -> Collected:
    """Derive a study's numbers and words from what its folder keeps; write the audit alone.

    Late fusions are derived here, again at every call: they cost seconds.

    Parameters
    ----------
    folder : Path
        A study's folder.

    Returns
    -------
    Collected
        Everything but figures and page.

    Raises
    ------
    LeakageError
        If the audit finds a held-out utterance in a fit; the audit is written first.
    FolderError
        If the folder holds no study, or a finished unit is damaged.
    """
    manifest, data = read_data(folder)
    config = load_config(folder / "study.toml", {})
    folds = make_folds(manifest, config.outer, seed=config.seed)
    units, unfinished = _read_units(folder, manifest, folds)
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
    audit = audit_study(manifest, folds, ledgers, unit=outer_unit(config.outer))
    if audit["problems"]:
        write_text(folder / "audit.json", format_json(audit))
        raise LeakageError("The audit failed: " + " ".join(audit["problems"]))

    boosted = {name: fitted[name] for name in fitted if not name.endswith(_LOGISTIC)}
    main = {"majority": majority_predictions(manifest, folds)} | boosted
    main |= dict(fused.predictions if fused else {})
    main |= {name: table for name, table in fitted.items() if name not in main}
    predictions = main | dict(fused.offsets if fused else {})
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
    )
    report = summarise_study(facts)
    tables = format_tables(facts, report)
    tables["folds.csv"] = _format_folds(manifest, folds, config)
    return Collected(facts, report, units, tables)


def format_tables(facts: StudyFacts, report: Report) -> dict[str, str]:
    """Write a study's numbers and words as the texts of its files.

    Parameters
    ----------
    facts : StudyFacts
        The numbers.
    report : Report
        The words.

    Returns
    -------
    dict of str to str
        Path inside the study's folder to content.
    """
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
    """Give the report what it says of the protocol, as plain data.

    Parameters
    ----------
    config : StudyConfig
        The study.

    Returns
    -------
    dict
        Option to value, ``--quick`` resolved.
    """
    return config.identity() | {"trials": config.n_trials, "rounds": config.n_inner_rounds}


def format_records(
    kind: type[Score | Comparison | FusionRecord],
    records: Iterable[Score | Comparison | FusionRecord],
) -> str:
    """Write records as CSV, a column a field.

    Parameters
    ----------
    kind : type
        Their class.
    records : iterable of Score, Comparison or FusionRecord
        The rows.

    Returns
    -------
    str
        The file's text.
    """
    return format_csv([field.name for field in fields(kind)], map(astuple, records))


def _count_people(manifest: Manifest) -> tuple[tuple[str, ...], list[list[int]]]:
    speakers, who = np.unique(manifest.speakers, return_inverse=True)
    counts = np.zeros((len(speakers), len(manifest.classes)), dtype=np.int64)
    np.add.at(counts, (who, manifest.labels), 1)
    return tuple(speakers.tolist()), counts.tolist()


def _read_units(
    folder: Path, manifest: Manifest, folds: Sequence[Fold]
) -> tuple[dict[str, list[UnitResult]], tuple[str, ...]]:
    """Read every system whose folds are all finished, in the manifest's order."""
    names = [*manifest.available, "early"]
    boosted = [name for name in names if (folder / "units" / name).exists()]
    systems = [*boosted, *(name + _LOGISTIC for name in boosted)]
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


def _format_folds(manifest: Manifest, folds: Sequence[Fold], config: StudyConfig) -> str:
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
        if not system.endswith(_LOGISTIC)
    }


def _collect_searches(units: Mapping[str, Sequence[UnitResult]]) -> dict[str, Any]:
    return {
        system: [unit.search for unit in found if unit.search is not None]
        for system, found in units.items()
        if not system.endswith(_LOGISTIC)
    }


def _copy_models(folder: Path, units: Mapping[str, Sequence[UnitResult]]) -> None:
    for system, found in units.items():
        models = folder / "models" / system
        sums = {}
        for unit in found:
            source = unit_folder(folder, system, unit.fold)
            for path in sorted(source.glob(f"{MODEL_STEM}.*")):
                models.mkdir(parents=True, exist_ok=True)
                name = f"fold-{unit.fold:02d}" + path.name.removeprefix(MODEL_STEM)
                shutil.copyfile(path, models / name)
                sums[name] = hash_file(path)
        if sums:
            write_text(models / "checksums.json", format_json(sums))
            _keep_only(models, [*sums, "checksums.json"])


def _keep_only(folder: Path, names: Iterable[str]) -> None:
    """Remove derived files of systems that the study no longer has."""
    for path in set(folder.iterdir()) - {folder / name for name in names}:
        path.unlink()
