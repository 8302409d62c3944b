"""The leakage verdict, derived again from a study's files: the command ``toolkit audit``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.files import FolderError, format_json
from toolkit.study.audit import audit_study
from toolkit.study.derive import format_folds, read_units
from toolkit.study.evidence import derive_evidence
from toolkit.study.finals import learn_finals, read_finals
from toolkit.study.fusions import fuse_systems
from toolkit.study.saved import read_data
from toolkit.study.study_toml import load_config
from toolkit.validation import (
    LeakageError,
    gather_predictions,
    majority_ledgers,
    majority_predictions,
    make_folds,
    outer_unit,
    parse_predictions,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from toolkit.data import Manifest
    from toolkit.study.config import StudyConfig
    from toolkit.validation import Fold, Predictions


def audit_folder(folder: Path) -> dict[str, Any]:
    """Derive the leakage verdict again; nothing is written, and the data are not needed.

    Who is held out is worked out from the rows and options that were kept, who took part in
    which fit from the ledgers of the finished units, and who was scored from the saved
    predictions, not from ``audit.json``, which is only compared in the end.
    """
    if not folder.is_dir():
        raise FolderError(f"There is no folder {folder}.")
    manifest, _ = read_data(folder)
    config = load_config(folder / "study.toml", {})
    folds = make_folds(manifest, config.outer, seed=config.seed)
    units, _ = read_units(folder, manifest, folds)
    fitted = {
        system: gather_predictions(
            manifest, folds, system, [u.proba for u in found], [u.present for u in found]
        )
        for system, found in units.items()
    }
    ledgers: dict[str, Mapping[int, list[dict[str, Any]]]] = {
        system: {unit.fold: unit.ledger for unit in found} for system, found in units.items()
    }
    problems: list[str] = []
    predictions: dict[str, Predictions] = {}
    try:
        fused = fuse_systems(manifest, folds, units, fitted, config)
        ledgers |= dict(fused.ledgers if fused else {})
    except LeakageError as error:
        problems.append(str(error))
    tested = {"majority": majority_predictions(manifest, folds)} | fitted
    games = config.shapley != "none"
    _, refits, _ = derive_evidence(
        folder, manifest, folds, tested, metric=config.metric, games=games
    )
    unit = outer_unit(config.outer)
    ledgers = {"majority": majority_ledgers(manifest, folds, unit)} | ledgers | refits
    finals, of_finals = read_finals(folder, units), {}
    try:
        of_finals = learn_finals(manifest, finals, config)[1] if finals else {}
    except LeakageError as error:
        problems.append(str(error))
    for path in sorted((folder / "predictions").glob("*.csv")):
        try:
            text = path.read_bytes().decode("utf-8")
            predictions[path.stem] = parse_predictions(text, path.stem, path.name)
        except ValueError as error:
            problems.append(f"predictions/{path.name} cannot be read: {error}")
    audit = audit_study(
        manifest, folds, ledgers, unit=unit, finals=of_finals, predictions=predictions
    )
    problems += _compare_folds(folder, manifest, folds, config)
    verdict = folder / "audit.json"
    if not verdict.exists():
        problems.append("audit.json is missing.")
    elif not problems and verdict.read_text(encoding="utf-8") != format_json(audit):
        problems.append("audit.json is not the verdict that the other files give.")
    audit["problems"] += problems
    if audit["problems"]:
        audit["verdict"] = "leakage found"
    return audit


def _compare_folds(
    folder: Path, manifest: Manifest, folds: tuple[Fold, ...], config: StudyConfig
) -> list[str]:
    path = folder / "folds.csv"
    if not path.exists():
        return ["folds.csv is missing."]
    if path.read_bytes().decode("utf-8", "replace") != format_folds(manifest, folds, config):
        return ["folds.csv names other folds than the rows and options give."]
    return []
