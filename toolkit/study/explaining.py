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
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from threadpoolctl import threadpool_limits

from toolkit.explain import (
    Explainer,
    Totals,
    check_explainer,
    contribution_blocks,
    explain_modalities,
    explain_permuted,
    join_totals,
    make_explainer,
    permute_modality,
    sum_contributions,
)
from toolkit.explain.contributions import select_columns
from toolkit.explain.shares import OTHERS
from toolkit.files import format_json, hash_file, write_text
from toolkit.models import load_booster
from toolkit.study.folder import MODEL_STEM, check_sums, read_unit, unit_folder, write_whole
from toolkit.validation import Ledger, derive_seed, make_features, outer_grouping

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from toolkit.data import Manifest
    from toolkit.models import Features
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


N_SHOWN: Final = 12
"""Features that are kept for the plots of each class."""

_ARRAYS: Final = ("signed", "absolute", "base", "trained")


def execute_explain_task(task: ExplainTask) -> str:
    """Do one piece of explaining and write it."""
    with threadpool_limits(1):
        features = make_features(
            task.tables, task.options.statistics, most_columns=task.options.most_columns
        )
        if task.fold is None:
            _explain_system(task, features)
        else:
            _permute_fold(task, task.fold, features)
    return task.name


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """One fold's model, its held-out rows, and where they stand among all tested rows."""

    explainer: Explainer
    rows: NDArray[np.int64]
    places: NDArray[np.int64]
    columns: NDArray[np.int64]


def _hold_out(task: ExplainTask, features: Features) -> list[_Held]:
    tested = tested_rows(task.folds)
    held = []
    for fold in task.folds:
        unit = unit_folder(task.study, task.system, fold.number)
        check_sums(unit)  # a changed model is never handed to its library
        explainer = make_explainer(load_booster(unit / MODEL_STEM))
        rows = fold.test[features.present[fold.test]]
        columns = select_columns(features.names, explainer.booster.names)
        check_explainer(explainer, features.take(rows, columns))
        held.append(_Held(explainer, rows, np.searchsorted(tested, rows), columns))
    return held


def _explain_system(task: ExplainTask, features: Features) -> None:
    held = _hold_out(task, features)
    n = len(tested_rows(task.folds))
    totals, games = [], []
    for one in held:
        X = features.take(one.rows, one.columns)
        totals.append(sum_contributions(one.explainer, X))
        games.append(explain_modalities(one.explainer, X) if len(task.tables) > 1 else None)
    joined = join_totals(totals, [one.places for one in held], n)
    modalities = [table.modality for table in task.tables]

    def write(folder: Path) -> None:
        _write_totals(folder, "", joined)
        np.save(folder / "of_feature.npy", np.array(list(joined.of_feature.values())))
        np.save(folder / "of_dimension.npy", np.array(list(joined.of_dimension.values())))
        summary: dict[str, Any] = {
            "models": task.models(),
            "modalities": modalities,
            "parts": joined.parts,
            "features": list(joined.of_feature),
            "dimensions": list(joined.of_dimension),
            "explained_by_the_booster": sorted({h.explainer.reason for h in held} - {""}),
        }
        if len(modalities) > 1 and all(game is not None for game in games):
            shape = (n, joined.base.shape[1], len(modalities))
            values, pairs = np.zeros(shape), np.zeros((*shape, len(modalities)))
            for one, game in zip(held, games, strict=True):
                assert game is not None
                order = [modalities.index(name) for name in game.modalities]
                values[one.places[:, None], :, order] = game.values.transpose(0, 2, 1)
                for a, first in enumerate(order):
                    for b, second in enumerate(order):
                        pairs[one.places, :, first, second] = game.interactions[:, :, a, b]
            np.save(folder / "player_values.npy", values)
            np.save(folder / "player_interactions.npy", pairs)
        summary["shown"] = _write_sample(folder, features, held, joined)
        if task.full:
            _write_full(folder, features, held, (n, joined.base.shape[1]))
            summary["full"] = list(features.names)
        write_text(folder / SUMMARY, format_json(summary))

    write_whole(task.folder, write)


def _write_sample(
    folder: Path, features: Features, held: list[_Held], joined: Totals
) -> list[str]:
    """Keep contributions of the most important features of each class, and the rest summed."""
    names = list(joined.of_feature)
    sizes = np.array(list(joined.of_feature.values())).reshape(len(names), -1)
    first = np.argsort(-sizes, axis=0, kind="stable")[:N_SHOWN]
    shown = [names[k] for k in sorted(set(first.ravel().tolist()))]
    n, n_classes = joined.base.shape
    contributions = np.zeros((n, n_classes, len(shown) + 1))
    values = np.full((n, len(shown) + 1), np.nan, dtype=np.float32)
    columns = [features.names.index(name) for name in shown]
    for one in held:
        values[one.places, :-1] = features.take(one.rows, np.array(columns, dtype=np.int64))
        booster = one.explainer.booster
        used = {booster.names[c]: place for place, c in enumerate(one.explainer.columns)}
        pairs = [(used[name], k) for k, name in enumerate(shown) if name in used]
        trained = list(booster.classes)
        for block in contribution_blocks(one.explainer, features.take(one.rows, one.columns)):
            here = one.places[block.rows]
            for place, k in pairs:
                contributions[here[:, None], trained, k] = block.values[:, place, : len(here)].T
    contributions[:, :, -1] = joined.signed.sum(axis=2) - contributions[:, :, :-1].sum(axis=2)
    np.save(folder / "shown_contributions.npy", contributions)
    np.save(folder / "shown_values.npy", values)
    write_text(folder / "shown_names.json", format_json([*shown, OTHERS]))
    return shown


def _write_full(
    folder: Path, features: Features, held: list[_Held], shape: tuple[int, int]
) -> None:
    full = np.lib.format.open_memmap(
        folder / "full.npy", "w+", np.dtype(np.float32), (*shape, len(features.names))
    )
    for one in held:
        trained = np.array(one.explainer.booster.classes)
        used = one.columns[one.explainer.columns]
        for block in contribution_blocks(one.explainer, features.take(one.rows, one.columns)):
            here = one.places[block.rows]
            full[np.ix_(here, trained, used)] = block.values[:, :, : len(here)].transpose(
                2, 0, 1
            )
    full.flush()


def _permute_fold(task: ExplainTask, fold: Fold, features: Features) -> None:
    manifest = task.manifest
    source = unit_folder(task.study, task.system, fold.number)
    unit = read_unit(source)
    assert unit is not None
    assert unit.search is not None
    seed = derive_seed(task.protocol.seed, task.system, fold.number)
    groups = manifest.groups(outer_grouping(task.protocol.outer))
    ledger = Ledger(task.system + PERMUTED, fold, manifest.utterances, groups)
    totals = explain_permuted(
        features,
        manifest.labels,
        manifest.speakers,
        fold,
        unit.search.params,
        n_rounds=unit.search.n_rounds,
        n_classes=len(manifest.classes),
        ledger=ledger,
        seed=seed,
    )
    booster = load_booster(source / MODEL_STEM)
    rows = fold.test[features.present[fold.test]]
    X = features.take(rows, select_columns(features.names, booster.names))
    modalities = [table.modality for table in task.tables]

    def write(folder: Path) -> None:
        for repeat, one in enumerate(totals):
            _write_totals(folder, f"permuted_{repeat}_", one)
        for modality in modalities if len(modalities) > 1 else ():
            shuffled = permute_modality(
                booster, X, manifest.speakers[rows], modality, seed=seed
            )
            np.save(folder / f"shuffled_{modality}.npy", shuffled)
        summary = {
            "models": task.models(),
            "modalities": modalities,
            "parts": [one.parts for one in totals],
            "ledger": ledger.entries(),
        }
        write_text(folder / SUMMARY, format_json(summary))

    write_whole(task.folder, write)


def _write_totals(folder: Path, prefix: str, totals: Totals) -> None:
    for name in _ARRAYS:
        np.save(folder / f"{prefix}{name}.npy", getattr(totals, name), allow_pickle=False)


def read_totals(folder: Path, prefix: str, parts: Sequence[Sequence[str]]) -> Totals:
    """Read sums of contributions back, without those by feature and dimension."""
    arrays = {
        name: np.load(folder / f"{prefix}{name}.npy", allow_pickle=False) for name in _ARRAYS
    }
    return Totals(
        tuple((str(m), str(s)) for m, s in parts), **arrays, of_feature={}, of_dimension={}
    )
