"""Late systems of a study, derived from its finished units; nothing here fits a booster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.fusion import (
    LATE_METHODS,
    BasePredictions,
    FusionResult,
    fuse_all,
    make_base_predictions,
)
from toolkit.validation import outer_grouping

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from toolkit.data import Manifest
    from toolkit.study.config import StudyConfig
    from toolkit.validation import Fold, Predictions, UnitResult


def fuse_systems(
    manifest: Manifest,
    folds: Sequence[Fold],
    units: Mapping[str, Sequence[UnitResult]],
    predictions: Mapping[str, Predictions],
    config: StudyConfig,
) -> FusionResult | None:
    """Derive the late fusions and the class-offset variants of a study."""
    groups = manifest.groups(outer_grouping(config.outer))
    voters = make_voters(manifest, folds, units, predictions, config)
    singles = [voters[name] for name in manifest.available if name in voters]
    if not singles:
        return None
    early = voters.get("early") if len(singles) > 1 else None
    methods = [
        name
        for name in LATE_METHODS
        if name in config.fusion and len(singles) > 1 and (name != "hybrid" or early)
    ]
    return fuse_all(
        singles,
        early,
        folds=folds,
        utterances=manifest.utterances,
        groups=groups,
        methods=methods,
        metric=config.metric,
    )


def make_voters(
    manifest: Manifest,
    folds: Sequence[Fold],
    units: Mapping[str, Sequence[UnitResult]],
    predictions: Mapping[str, Predictions],
    config: StudyConfig,
) -> dict[str, BasePredictions]:
    """Put the reported and the inner predictions of each voting system side by side."""
    groups = manifest.groups(outer_grouping(config.outer))
    voters = {}
    for system in (*manifest.available, "early"):
        if system not in units:
            continue
        present = np.zeros(len(manifest), dtype=bool)
        for fold, unit in zip(folds, units[system], strict=True):
            present[fold.test] = unit.present
            present[unit.inner_rows] = unit.inner_present
        voters[system] = make_base_predictions(
            predictions[system],
            units[system],
            labels=manifest.labels,
            groups=groups,
            present=present,
        )
    return voters


def describe_fusions(fused: FusionResult) -> dict[str, Any]:
    """Give what the fusions learnt as plain data, by system and fold."""
    learnt: dict[str, Any] = {}
    if fused.chosen:
        learnt["best-single"] = {
            f"{fold:02d}": {"modality": name} for fold, name in fused.chosen.items()
        }
    if fused.weights:
        learnt["weighted"] = {
            f"{fold:02d}": {"weights": dict(weights)} for fold, weights in fused.weights.items()
        }
    if fused.penalties:
        learnt["stacked"] = {f"{fold:02d}": {"C": c} for fold, c in fused.penalties.items()}
    for system, by_fold in fused.class_offsets.items():
        learnt[system] = {
            f"{fold:02d}": {
                "offsets": list(found.values),
                "gain": found.gain,
                "standard_error": found.standard_error,
                "kept": found.kept,
            }
            for fold, found in by_fold.items()
        }
    return learnt
