"""From finished units to the files a reader opens; nothing here fits anything."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, astuple, dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from toolkit.fusion import FusionRecord
from toolkit.report import format_report, plot_confusion, save_figure
from toolkit.study.archive import MODEL_STEM, read_unit, unit_folder
from toolkit.study.audit import audit_study
from toolkit.study.files import format_csv, format_json, hash_file, write_text
from toolkit.study.fusions import describe_fusions, fuse_systems
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
    outer_unit,
    score_predictions,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from toolkit.data import Manifest
    from toolkit.study.config import StudyConfig
    from toolkit.validation import Fold

logger = logging.getLogger(__name__)

_LOGISTIC: Final = "-logistic"


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


def collect_study(
    folder: Path, manifest: Manifest, folds: Sequence[Fold], config: StudyConfig
) -> StudyResult:
    """Write predictions, scores, comparisons, the audit, models, figures and the report.

    Late fusions are derived here, again at every call: they cost seconds.

    Parameters
    ----------
    folder : Path
        A study's folder with finished units.
    manifest : Manifest
        The utterances.
    folds : sequence of Fold
        The outer folds.
    config : StudyConfig
        The study.

    Returns
    -------
    StudyResult
        What was written.

    Raises
    ------
    LeakageError
        If the audit of the finished units finds a held-out utterance in a fit.
    """
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
    write_text(folder / "audit.json", format_json(audit))
    if audit["problems"]:
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
    params = _collect_params(units) | (describe_fusions(fused) if fused else {})
    _write_tables(folder, predictions, scores, comparisons)
    write_text(folder / "folds.csv", _format_folds(manifest, folds, config))
    records = fused.records if fused else ()
    write_text(folder / "fusion.csv", _format_records(FusionRecord, records))
    write_text(folder / "params.json", format_json(params))
    _copy_models(folder, units)
    shown = [name for name in main if not name.endswith(_LOGISTIC)]
    _draw(folder, [predictions[name] for name in shown])
    write_text(
        folder / "report.md",
        format_report(
            manifest=manifest,
            predictions=predictions,
            scores=scores,
            comparisons=comparisons,
            fusion=records,
            params={name: params[name] for name in boosted},
            audit=audit,
            options=describe_options(config),
            drawn=shown,
        ),
    )
    return StudyResult(folder, predictions, tuple(scores), tuple(comparisons), unfinished)


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


def _write_tables(
    folder: Path,
    predictions: Mapping[str, Predictions],
    scores: Sequence[Score],
    comparisons: Sequence[Comparison],
) -> None:
    for system, table in predictions.items():
        write_text(folder / "predictions" / f"{system}.csv", format_predictions(table))
    _keep_only(folder / "predictions", [f"{system}.csv" for system in predictions])
    write_text(folder / "scores.csv", _format_records(Score, scores))
    write_text(folder / "scores.json", format_json([asdict(score) for score in scores]))
    write_text(folder / "comparisons.csv", _format_records(Comparison, comparisons))


def _format_records(
    kind: type[Score | Comparison | FusionRecord],
    records: Iterable[Score | Comparison | FusionRecord],
) -> str:
    return format_csv([field.name for field in fields(kind)], map(astuple, records))


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


def _draw(folder: Path, tables: Sequence[Predictions]) -> None:
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    for table in tables:
        save_figure(plot_confusion(table), figures / f"confusion-{table.system}")
    stems = [f"confusion-{table.system}" for table in tables]
    _keep_only(figures, [stem + end for stem in stems for end in (".svg", ".png")])


def _keep_only(folder: Path, names: Iterable[str]) -> None:
    """Remove derived files of systems that the study no longer has."""
    for path in set(folder.iterdir()) - {folder / name for name in names}:
        path.unlink()
