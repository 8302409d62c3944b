"""Explaining jobs of a study: list those of finished systems, and run them.

Two kinds of jobs, each a picklable task that writes its files whole: the contributions of one
system (``explain/contributions/<system>``), and, for the system of all modalities, the refits
on permuted labels and the shuffled modalities of one outer fold
(``units/<system>-permuted/<fold>.zip``). Each records the checksums of the models that it
explains, so a job runs again only if they have changed since.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from toolkit.explain import Explainer, Totals, explain_permuted
from toolkit.explain.contributions import parse_names
from toolkit.explain.shapley import explain_modalities, permute_modality
from toolkit.explain.shares import OTHERS
from toolkit.files import format_json, write_text
from toolkit.models import Features
from toolkit.pooling import FeatureTable
from toolkit.study.attribution import BLENDED, TOTALS, tested_rows
from toolkit.study.folder import SUMMARY
from toolkit.study.plan import Plan
from toolkit.systems import EARLY, variant_name
from toolkit.validation import Fold, derive_seed, make_features, outer_grouping
from toolkit.validation.ledger import Ledger

#: Features of each class that are kept for its plots.
_N_SHOWN: Final = 12


@dataclass(frozen=True, slots=True, eq=False)
class _ExplainTask:
    """One explaining job, and all that is needed to run it in another process.

    - tables: The features of the system's modalities.
    - fold: The outer fold whose labels are permuted; None for the contributions of all folds.
    """

    plan: Plan
    system: str
    tables: tuple[FeatureTable, ...]
    fold: Fold | None

    @property
    def name(self) -> str:
        """System, and the fold if it is of one."""
        if self.fold is None:
            return f"{self.system}: contributions"
        return f"{self.system}/{self.fold.name}: permuted labels"

    @property
    def target(self) -> Path:
        """The folder or archive that the job writes."""
        if self.fold is None:
            return self.plan.folder.contributions(self.system)
        return self.plan.folder.permuted(self.system, self.fold.number)

    @property
    def modalities(self) -> list[str]:
        """Modalities of the system, in the order of its tables."""
        return [table.modality for table in self.tables]

    @property
    def keeps_all(self) -> bool:
        """Whether every contribution is kept, rather than sums alone."""
        return self.plan.config.contributions == "full" and self.fold is None

    @property
    def numbers(self) -> list[int]:
        """Numbers of the folds whose models are explained."""
        return [fold.number for fold in (self.plan.folds if self.fold is None else [self.fold])]

    def is_done(self) -> bool:
        """Check that the job was done for the models as they are now."""
        folder = self.plan.folder
        current = folder.read_explanation(self.target, self.system, self.numbers) is not None
        # A later run may ask for all contributions where an earlier one kept sums.
        return current and (not self.keeps_all or (self.target / "full.npy").exists())

    def write_summary(self, folder: Path, **content: Any) -> None:
        """Write the summary beside the arrays, with the checksums of the explained models."""
        for table in self.tables:
            table.check_unchanged()
        models = self.plan.folder.model_sums(self.system, self.numbers)
        summary = {"models": models, "modalities": self.modalities} | content
        write_text(folder / SUMMARY, format_json(summary))

    def execute(self) -> None:
        """Run one explaining job and write its folder."""
        # One thread per worker: the last bits of sums must not depend on the number of cores.
        with threadpool_limits(1):
            options = self.plan.options
            features = make_features(
                self.tables, options.statistics, most_columns=options.most_columns
            )
            if self.fold is None:
                _explain_system(self, features)
            else:
                _permute_fold(self, self.fold, features)


def make_explain_tasks(plan: Plan, tables: Mapping[str, FeatureTable]) -> list[_ExplainTask]:
    """List the explaining jobs of the systems that are finished."""
    if plan.config.contributions == "none":
        return []
    seen: dict[str, tuple[FeatureTable, ...]] = {n: (t,) for n, t in tables.items()}
    if len(tables) > 1:
        seen[EARLY] = tuple(tables.values())
    numbers = [fold.number for fold in plan.folds]
    finished = [name for name in seen if plan.folder.model_sums(name, numbers)]
    tasks = [_ExplainTask(plan, system, seen[system], None) for system in finished]
    # Labels are permuted for one system alone: that of all modalities, or the only one.
    if EARLY in finished or len(finished) == 1:
        main = EARLY if EARLY in finished else finished[0]
        if _has_shares(seen[main], plan.names):
            tasks += [_ExplainTask(plan, main, seen[main], fold) for fold in plan.folds]
    return tasks


def _has_shares(tables: Sequence[FeatureTable], dimensions: Mapping[str, Any]) -> bool:
    """Whether there may be several shares: a single one is 1, whatever the labels."""
    names = (name for table in tables for name in parse_names(table.names))
    parts = {(name.modality, name.statistic) for name in names}
    # Functionals are grouped by the names of their dimensions.
    return len(parts) > 1 or any(table.modality in dimensions for table in tables)


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """One fold's model, its columns and held-out rows, and their index among tested rows.

    - features: Of all utterances, as the model's fit had them.
    """

    explainer: Explainer
    features: Features
    rows: NDArray[np.int64]
    indices: NDArray[np.int64]
    columns: NDArray[np.int64]


def _hold_out(task: _ExplainTask, features: Features) -> list[_Held]:
    tested = tested_rows(task.plan.folds)
    held = []
    for fold in task.plan.folds:
        booster = task.plan.folder.load_model(task.system, fold.number)
        explainer = Explainer.of(booster, task.plan.names)
        rows = fold.test[features.present[fold.test]]
        columns = features.find(explainer.booster.names)
        seen = features.apply(explainer.booster.texts)
        # Contributions that differ from the booster's own are refused before any is kept.
        explainer.check(seen.take(rows, columns))
        held.append(_Held(explainer, seen, rows, np.searchsorted(tested, rows), columns))
    return held


def _explain_system(task: _ExplainTask, features: Features) -> None:
    held = _hold_out(task, features)
    n, modalities = len(tested_rows(task.plan.folds)), task.modalities
    totals, games = [], []
    for one in held:
        X = one.features.take(one.rows, one.columns)
        totals.append(one.explainer.total(X))
        games.append(explain_modalities(one.explainer, X) if len(modalities) > 1 else None)
    joined = Totals.join(totals, [one.indices for one in held], n)

    def write(folder: Path) -> None:
        _write_totals(folder, "", joined)
        np.save(folder / "of_feature.npy", np.array(list(joined.of_feature.values())))
        np.save(folder / "of_dimension.npy", np.array(list(joined.of_dimension.values())))
        if len(modalities) > 1 and all(game is not None for game in games):
            shape = (n, joined.base.shape[1], len(modalities))
            values, pairs = np.zeros(shape), np.zeros((*shape, len(modalities)))
            for one, game in zip(held, games, strict=True):
                assert game is not None
                order = [modalities.index(name) for name in game.modalities]
                values[one.indices[:, None], :, order] = game.values.transpose(0, 2, 1)
                for a, first in enumerate(order):
                    for b, second in enumerate(order):
                        pairs[one.indices, :, first, second] = game.interactions[:, :, a, b]
            np.save(folder / "player_values.npy", values)
            np.save(folder / "player_interactions.npy", pairs)
        if task.keeps_all:
            _write_full(folder, features, held, (n, joined.base.shape[1]))
        task.write_summary(
            folder,
            parts=joined.parts,
            features=list(joined.of_feature),
            dimensions=list(joined.of_dimension),
            explained_by_the_booster=sorted({h.explainer.reason for h in held} - {""}),
            shown=_write_sample(folder, features, held, joined),
            **({"full": list(features.names)} if task.keeps_all else {}),
        )

    task.plan.folder.write_part(task.target, write)


def _write_sample(
    folder: Path, features: Features, held: list[_Held], joined: Totals
) -> list[str]:
    """Write the contributions of the largest features of each class, and the rest summed."""
    names = list(joined.of_feature)
    n, n_classes = joined.base.shape
    # No feature at all where no tree splits, as on a modality that is constant.
    sizes = np.array(list(joined.of_feature.values())).reshape(len(names), n_classes)
    first = np.argsort(-sizes, axis=0, kind="stable")[:_N_SHOWN]
    shown = [names[k] for k in sorted(set(first.ravel().tolist()))]
    contributions = np.zeros((n, n_classes, len(shown) + 1))
    values = np.full((n, len(shown) + 1), np.nan, dtype=np.float32)
    columns = [features.names.index(name) for name in shown]
    for one in held:
        chosen = np.array(columns, dtype=np.int64)
        values[one.indices, :-1] = one.features.take(one.rows, chosen)
        booster = one.explainer.booster
        used = {booster.names[c]: at for at, c in enumerate(one.explainer.columns)}
        pairs = [(used[name], k) for k, name in enumerate(shown) if name in used]
        trained = list(booster.classes)
        for block in one.explainer.blocks(one.features.take(one.rows, one.columns)):
            rows = one.indices[block.rows]
            for at, k in pairs:
                contributions[rows[:, None], trained, k] = block.values[:, at, : len(rows)].T
    contributions[:, :, -1] = joined.signed.sum(axis=2) - contributions[:, :, :-1].sum(axis=2)
    np.save(folder / "shown_contributions.npy", contributions)
    np.save(folder / "shown_values.npy", values)
    write_text(folder / "shown_names.json", format_json([*shown, OTHERS]))
    return shown


def _write_full(
    folder: Path, features: Features, held: list[_Held], shape: tuple[int, int]
) -> None:
    # Mapped, not held: every feature of every row and class can exceed the memory.
    full = np.lib.format.open_memmap(
        folder / "full.npy", "w+", np.dtype(np.float32), (*shape, len(features.names))
    )
    for one in held:
        trained = np.array(one.explainer.booster.classes)
        used = one.columns[one.explainer.columns]
        for block in one.explainer.blocks(one.features.take(one.rows, one.columns)):
            rows = one.indices[block.rows]
            shares = block.values[:, :, : len(rows)]
            full[np.ix_(rows, trained, used)] = shares.transpose(2, 0, 1)
    full.flush()


def _count_permutations(n: int) -> int:
    """Count the permutations of the labels of `n` utterances: shares of many vary little."""
    return min(5, max(2, 20_000 // n))


def _permute_fold(task: _ExplainTask, fold: Fold, features: Features) -> None:
    manifest, folder, config = task.plan.manifest, task.plan.folder, task.plan.config
    unit = folder.read_unit(task.system, fold.number)
    assert unit is not None
    assert unit.search is not None
    seed = derive_seed(config.seed, task.system, fold.number)
    groups = manifest.groups(outer_grouping(config.outer))
    ledger = Ledger(variant_name(task.system, "permuted"), fold, manifest.utterances, groups)
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
        linear=unit.record.get("linear"),
        n_repeats=_count_permutations(len(manifest)),
        dimensions=task.plan.names,
    )
    shuffled = {}
    if len(task.tables) > 1:
        booster = folder.load_model(task.system, fold.number)
        rows = fold.test[features.present[fold.test]]
        X = features.apply(booster.texts).take(rows, features.find(booster.names))
        shuffled = {
            modality: permute_modality(booster, X, manifest.speakers[rows], modality, seed=seed)
            for modality in task.modalities
        }

    def write(folder: Path) -> None:
        for repeat, one in enumerate(totals):
            _write_totals(folder, f"permuted_{repeat}_", one)
        for modality, proba in shuffled.items():
            np.save(folder / f"shuffled_{modality}.npy", proba)
        parts = [one.parts for one in totals]
        task.write_summary(folder, parts=parts, ledger=ledger.entries())

    task.plan.folder.write_part(task.target, write)


def _write_totals(folder: Path, prefix: str, totals: Totals) -> None:
    for name in TOTALS if totals.weights is None else (*TOTALS, *BLENDED):
        np.save(folder / f"{prefix}{name}.npy", getattr(totals, name), allow_pickle=False)
