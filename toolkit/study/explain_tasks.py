"""What there is to explain in a study's finished systems, and what has been explained already.

Two kinds of work, each a picklable task that writes a folder whole: the contributions of one
system (``explain/contributions/<system>``), and, for the system of all modalities, the refits
on permuted labels and the shuffled modalities of one outer fold
(``units/<system>-permuted/<fold>``). Each notes the checksums of the models that it explains,
so work on models that have changed since is done again, and no other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from toolkit.files import hash_file
from toolkit.study.archive import MODEL_STEM, check_sums, unit_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from toolkit.data import Manifest
    from toolkit.pooling import FeatureTable
    from toolkit.validation import Fold, Protocol, SearchOptions

PERMUTED: Final = "-permuted"
SUMMARY: Final = "summary.json"


@dataclass(frozen=True, slots=True, eq=False)
class ExplainTask:
    """One piece of explaining, and all that is needed to do it anywhere.

    - system: The system.
    - fold: The outer fold whose labels are permuted; None for the contributions of all folds.
    - folds: All outer folds.
    - manifest: The utterances.
    - tables: What the system sees.
    - study: The study's folder.
    - protocol: How people are split, and the seed.
    - options: What the search could choose.
    - full: Whether all contributions are kept.
    """

    system: str
    fold: Fold | None
    folds: tuple[Fold, ...]
    manifest: Manifest
    tables: tuple[FeatureTable, ...]
    study: Path
    protocol: Protocol
    options: SearchOptions
    full: bool

    @property
    def name(self) -> str:
        """System, and the fold if it is of one."""
        if self.fold is None:
            return f"{self.system}: contributions"
        return f"{self.system}/{self.fold.name}: permuted labels"

    @property
    def folder(self) -> Path:
        """Where it is written."""
        if self.fold is None:
            return contributions_folder(self.study, self.system)
        return unit_folder(self.study, self.system + PERMUTED, self.fold.number)

    def models(self) -> list[str]:
        """Give the checksums of the models that are explained."""
        folds = self.folds if self.fold is None else (self.fold,)
        return model_sums(self.study, self.system, folds)

    def is_done(self) -> bool:
        """Say whether it was written for the models as they are now."""
        if not self.folder.exists():
            return False
        check_sums(self.folder)
        summary = json.loads((self.folder / SUMMARY).read_text(encoding="utf-8"))
        kept = not self.full or self.fold is not None or (self.folder / "full.npy").exists()
        return bool(kept and summary["models"] == self.models())


def contributions_folder(study: Path, system: str) -> Path:
    """Name the folder of a system's contributions."""
    return study / "explain" / "contributions" / system


def model_sums(study: Path, system: str, folds: Sequence[Fold]) -> list[str]:
    """Give the checksums of a system's models."""
    folders = [unit_folder(study, system, fold.number) for fold in folds]
    if not all(folder.exists() for folder in folders):
        return []
    models = [
        [
            path
            for path in folder.glob(f"{MODEL_STEM}.*")
            if not path.name.endswith(".meta.json")
        ]
        for folder in folders
    ]
    return [hash_file(path) for found in models for path in found]


def make_explain_tasks(
    manifest: Manifest,
    folds: tuple[Fold, ...],
    tables: dict[str, FeatureTable],
    study: Path,
    *,
    protocol: Protocol,
    options: SearchOptions,
    contributions: str,
) -> list[ExplainTask]:
    """List what there is to explain in a study."""
    if contributions == "none":
        return []
    seen: dict[str, tuple[FeatureTable, ...]] = {n: (t,) for n, t in tables.items()}
    if len(tables) > 1:
        seen["early"] = tuple(tables.values())
    finished = {name: s for name, s in seen.items() if model_sums(study, name, folds)}
    main = "early" if "early" in finished else next(iter(finished), None)

    def make(system: str, fold: Fold | None) -> ExplainTask:
        return ExplainTask(
            system,
            fold,
            folds,
            manifest,
            finished[system],
            study,
            protocol,
            options,
            contributions == "full",
        )

    tasks = [make(system, None) for system in finished]
    if main == "early" or len(finished) == 1:
        tasks += [make(str(main), fold) for fold in folds]
    return tasks


def tested_rows(folds: Sequence[Fold]) -> NDArray[np.int64]:
    """List the rows that are tested, as predictions are ordered."""
    return np.sort(np.concatenate([fold.test for fold in folds]))
