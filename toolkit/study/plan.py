"""A study before it runs: its configuration resolved, its data read, its memory bounded."""

import hashlib
import logging
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

import toolkit
from toolkit.data import Manifest, SequenceError, make_corpus, read_header
from toolkit.data.audio import name_versions
from toolkit.data.corpora import CORPUS_VERSION
from toolkit.data.dimension_names import name_dimensions
from toolkit.explain.shapley import MAX_PLAYERS
from toolkit.files import OUTPUTS, cache_folder, format_json
from toolkit.fusion.inputs import MAX_MODALITIES
from toolkit.models import GRIDS
from toolkit.models.boosters import check_device
from toolkit.models.spaces import grid_size, list_candidates, make_grid, make_space
from toolkit.pooling import PRESETS, FeatureTable
from toolkit.pooling.corpus import count_columns, pool_modality
from toolkit.pooling.statistics import resolve_statistics
from toolkit.pooling.table import normalise_speakers
from toolkit.study.config import ConfigError, StudyConfig
from toolkit.study.folder import StudyFolder
from toolkit.study.options import read_table
from toolkit.study.outside import Outside, read_outside
from toolkit.study.terminal import is_quiet, print_json, print_lines, print_table, show_files
from toolkit.study.units import hash_code, library_versions
from toolkit.study.workers import Unit, widest_fit
from toolkit.systems import (
    EARLY,
    System,
    early_name,
    logistic_name,
    proper_subsets,
    seed_name,
    variant_name,
)
from toolkit.validation import (
    FINAL,
    MOST_COLUMNS,
    WIDE_SCREEN,
    Fold,
    Protocol,
    SearchOptions,
    derive_seed,
    majority_predictions,
    make_folds,
    outer_grouping,
)
from toolkit.validation.fits import find_wide
from toolkit.validation.folds import (
    final_fold,
    fold_name,
    groups_of,
    holds_content,
    inner_folds,
    resolve_outer,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Estimate:
    """The size of a study of which nothing is done yet.

    - units: Names of all units, as ``--only`` takes them.
    - columns: Most columns of a fit of each boosted system, over its candidate presets.
    - memory: Bound in bytes of the largest units side by side, one per worker.
    """

    units: tuple[str, ...]
    columns: Mapping[str, int]
    memory: int


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A study resolved: what every later step needs of its configuration and its data.

    - config: As given, but the trials of a grid are its points, and ``auto`` is resolved.
    - name: Name of the study, before its folder was chosen.
    - primary: System that the study is about, unless its folder has recorded another.
    - systems: Boosted systems to the modalities of each.
    - seeded: Systems under further seeds to the seed and the modalities of each.
    - notes: Sentences about the files of each modality, once they are examined.
    - names: Names of the dimensions of modalities that have some, once they are examined.
    """

    config: StudyConfig
    manifest: Manifest
    folds: tuple[Fold, ...]
    folder: StudyFolder
    name: str
    primary: str
    options: SearchOptions
    systems: Mapping[str, tuple[str, ...]]
    seeded: Mapping[str, tuple[int, tuple[str, ...]]]
    outside: Mapping[str, Outside]
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def protocol(self) -> Protocol:
        """How groups are split, and the seed."""
        config = self.config
        return Protocol(config.outer, config.inner, config.seed, config.content_parts)

    @property
    def storage(self) -> str:
        """URL of the searches; it may hold a password."""
        return self.config.storage or self.folder.storage_url

    @property
    def statistics(self) -> tuple[str, ...]:
        """The statistics that are pooled: all that any candidate preset holds."""
        names = map(resolve_statistics, self.options.statistics)
        return tuple(dict.fromkeys(name for preset in names for name in preset))

    @property
    def system_names(self) -> tuple[str, ...]:
        """Boosted systems, logistic regressions on their features, further seeds."""
        logistic = (logistic_name(s) for s in self.systems if not System.parse(s).is_subset)
        return (*self.systems, *logistic, *self.seeded)

    def list_units(self) -> list[Unit]:
        """List every unit of the study, system by system."""
        units: list[Unit] = []
        for system, modalities in self.systems.items():
            seen = (modalities, self.protocol, self.options)
            units += [Unit(system, fold, *seen) for fold in self.folds]
            if not System.parse(system).is_subset:
                units.append(Unit(system, final_fold(self.manifest), *seen))
                name = logistic_name(system)
                units += [Unit(name, fold, *seen, logistic=True) for fold in self.folds]
        for system, (seed, modalities) in self.seeded.items():
            seen = (modalities, replace(self.protocol, seed=seed), self.options)
            units += [Unit(system, fold, *seen) for fold in self.folds]
        return units

    def check_only(self, only: str) -> str:
        """Check the name of a single unit, as ``--only`` has it."""
        system, _, fold = only.rpartition("/")
        name = f"{system}/{fold if fold == fold_name(FINAL) else fold_name(int(fold))}"
        if name not in {unit.name for unit in self.list_units()}:
            raise ConfigError(
                f"--only {only}: there is no such unit. Systems: "
                f"{', '.join(self.system_names)}; folds 00 to "
                f"{fold_name(len(self.folds) - 1)}, and final of the boosted ones."
            )
        return name

    def read_names(self, alone: str | None = None) -> dict[str, tuple[str, ...]]:
        """Read and check the names of the dimensions of every modality, or of one alone."""
        chosen = (alone,) if alone else self.manifest.modalities
        dims = {name: self._read_dims(name)[0] for name in chosen}
        return name_dimensions(self.manifest, dims, self.config.names)

    def read_headers(self) -> dict[str, tuple[str, ...]]:
        """Read the names that files give the dimensions that ``--names`` gives others."""
        dims = {n: self._read_dims(n)[0] for n in self.config.names if n in self.names}
        return name_dimensions(self.manifest, dims, {})

    def _read_dims(self, modality: str) -> tuple[int, bool]:
        """Read the dimensions of a modality and whether it has a time axis, from one file."""
        if texts := self.manifest.texts.get(modality):
            return count_columns(self.config.extract[modality], texts), False
        for path in filter(None, self.manifest.paths[modality]):
            with suppress(SequenceError):  # refused or counted when the study runs
                header = read_header(path)
                return int(header.n_dims), len(header.shape) > 1
        return 0, True

    def estimate(self) -> _Estimate:
        """Count units and columns, and bound the memory, from the heads of the files."""
        dims = {name: self._read_dims(name) for name in self.manifest.modalities}
        columns: dict[str, int] = {}
        needs: dict[str, int] = {}
        for unit in self.list_units():
            widths = [
                [_count_columns(*dims[n], preset, unit.options) for n in unit.modalities]
                for preset in unit.options.statistics
            ]
            if not unit.logistic:
                columns[unit.system] = widest_fit(widths, unit.options)
            needs[unit.name] = unit.bound_memory(self.manifest, widths)
        largest = sorted(needs.values(), reverse=True)[: self.config.n_workers]
        return _Estimate(tuple(needs), columns, sum(largest))

    def show(self, *, as_json: bool) -> None:
        """Print what a study would run, as a table or as JSON."""
        estimate, n_rows, folder = self.estimate(), len(self.manifest), self.folder.path
        if as_json:
            size = asdict(estimate) | {"units": list(estimate.units)}
            print_json({"folder": str(folder), "utterances": n_rows} | size)
        elif not is_quiet():
            rows = []
            for name, n in Counter(u.rpartition("/")[0] for u in estimate.units).items():
                is_logistic = System.parse(name).is_logistic
                trials = "" if is_logistic else self.options.n_trials
                columns = estimate.columns[variant_name(name, "") if is_logistic else name]
                rows.append((name, n, trials, f"{columns:,}"))
            print_table(("system", "units", "trials per unit", "columns"), rows)
            print_lines(
                f"{n_rows} utterances, {len(self.folds)} outer folds, into {folder}",
                f"{len(estimate.units)} units; {self.config.n_workers} side by side take at "
                f"most {estimate.memory / 2**30:.1f} GB of memory.",
            )

    def make_provenance(self, tables: Iterable[FeatureTable]) -> dict[str, Any]:
        """Collect what a study's numbers depend on."""
        config, manifest, options = self.config, self.manifest, self.options
        tables = tuple(tables)
        wide = find_wide(tables, options.statistics, options.screen_above)
        return {
            "identity": config.identity(),
            "trials": config.n_trials,
            **({"seeds": config.seeds} if config.seeds > 1 else {}),
            "data": {
                "file": manifest.source,
                "path": None if config.data is None else str(config.data.resolve()),
                "tables": {name: str(path.resolve()) for name, path in config.table.items()},
                "generated": manifest.generated,
                "rows": manifest.digest(content=holds_content(config.outer)),
                "modalities": {table.modality: table.digest for table in tables},
                # Of no other study does the option `wide` decide the numbers.
                **({"screened": dict.fromkeys(wide, WIDE_SCREEN)} if wide else {}),
            },
            "code": hash_code(),
            "versions": {
                "modality-toolkit": toolkit.__version__,
                "python": sys.version.split()[0],
            }
            | library_versions()
            | name_versions(config.extract.values()),
            "platform": {"system": platform.system(), "machine": platform.machine()},
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def search_name(self, provenance: Mapping[str, Any], modalities: Iterable[str]) -> str:
        """Name the searches in the storage, by all that decides them where it is shared."""
        if self.config.storage is None:  # the database lies in the study's own folder
            return self.name
        data = provenance["data"]
        decides = {
            "identity": provenance["identity"],
            "rows": data["rows"],
            "features": [data["modalities"][name] for name in modalities],
            **({"screened": data["screened"]} if "screened" in data else {}),
            "versions": provenance["versions"],
            "platform": provenance["platform"],
        }
        digest = hashlib.sha256(format_json(decides).encode("utf-8")).hexdigest()
        return f"{self.name}-{digest[:16]}"

    def pool(self, modality: str, *, cache: Path | None = None) -> FeatureTable:
        """Pool one modality or take it from a cache, by default the shared one."""
        pool_table = partial(
            pool_modality,
            self.manifest,
            modality,
            self.config.extract.get(modality, ""),
            statistics=self.statistics,
            cache=(cache or cache_folder()) / "features",
            missing=self.config.missing,
            frames=self.config.frames,
            n_threads=self.config.n_workers if cache is None else 1,
        )
        if cache is not None or modality in self.manifest.texts:
            return pool_table()
        with show_files(f"pooling {modality}", self.manifest.paths[modality]) as update:
            return pool_table(progress=update)

    def normalise(self, table: FeatureTable) -> FeatureTable:
        """Standardise features within speakers, where a study asks for it."""
        if self.config.normalise == "none":
            return table
        return normalise_speakers(
            table,
            self.manifest.speakers,
            cache=cache_folder() / "features",
            missing=self.config.missing,
            frames=self.config.frames,
        )


def _make_search_options(config: StudyConfig) -> SearchOptions:
    """Resolve what the searches of a study may choose, and how often."""
    screening, imbalance = list_candidates(config.screening, config.imbalance, config.sampler)
    try:
        spaces = dict(SearchOptions().spaces)
        spaces |= {kind: make_space(kind, table) for kind, table in config.space.items()}
        grids = dict(GRIDS)
        grids |= {kind: make_grid(kind, table) for kind, table in config.grid.items()}
    except ValueError as error:
        raise ConfigError(str(error)) from None
    options = SearchOptions(
        boosters=config.searched_boosters,
        statistics=config.searched_statistics,
        screening=screening,
        imbalance=imbalance,
        n_trials=config.n_trials,
        metric=config.metric,
        sampler=config.sampler,
        timeout=config.timeout,
        spaces=spaces,
        grids=grids,
        most_columns=MOST_COLUMNS if config.wide == "reduce" else None,
        screen_above=MOST_COLUMNS if config.wide == "screen" else None,
        linear=config.linear,
    )
    if config.sampler != "grid":
        return options
    # A grid is run to its end, unless fewer trials are asked for.
    choices = (options.statistics, options.screening, options.imbalance)
    points = prod(map(len, choices)) * sum(
        grid_size(options.grids[kind]) for kind in options.boosters
    )
    asked = config.trials if "trials" in config.model_fields_set else points
    most = 5 if config.quick and "trials" not in config.model_fields_set else points
    return replace(options, n_trials=min(asked, points, most))


def limit_fixed(config: StudyConfig) -> int | None:
    """Limit the columns of fits of the fixed configuration: its bins take most of its time."""
    return None if config.wide == "keep" else MOST_COLUMNS


def plan_study(config: StudyConfig, manifest: Manifest | None = None) -> Plan:
    """Read and check the data of a study; write nothing but the generated corpus."""
    # Options that contradict one another are refused before any data is read.
    options = _make_search_options(config)
    if config.shapley == "seeds" and config.seeds == 1:
        raise ConfigError(
            "--shapley seeds repeats the games under every one of --seeds, which is 1: add "
            "--seeds 3, or choose --shapley refit."
        )
    for booster in options.boosters:
        check_device(booster, config.device)
    # From here on a grid is a search like any other, of as many trials as it has points.
    if config.sampler == "grid":
        config = config.model_copy(update={"trials": options.n_trials})
    if config.data is None:
        logger.info("Generated data: no --data was given; this corpus has a planted signal.")
    source = config.data or _generated_corpus()
    manifest = read_table(config, source) if manifest is None else manifest
    config = config.model_copy(update={"outer": resolve_outer(manifest, config.outer)})
    options = replace(options, max_rounds=config.count_rounds(len(manifest)))
    name = config.name or ("generated" if config.data is None else source.resolve().parent.name)
    name += "-quick" if config.quick else ""
    systems = _list_systems(config, manifest.modalities)
    parts = config.content_parts
    folds = make_folds(manifest, config.outer, seed=config.seed, content_parts=parts)
    plan = Plan(
        config=config,
        manifest=manifest,
        folds=folds,
        folder=StudyFolder(config.out or OUTPUTS / name),
        name=name,
        primary=_find_primary(config, manifest),
        options=options,
        systems=systems,
        seeded=_list_seeded(config, systems),
        outside=read_outside(config, majority_predictions(manifest, folds), manifest.available),
    )
    _check_people(plan)
    return plan


def _check_people(plan: Plan) -> None:
    """Refuse folds that leave no one to validate on, and speakers of one utterance each."""
    config, manifest = plan.config, plan.manifest
    split: Any = partial(inner_folds, manifest, **plan.protocol.partition)
    groups = groups_of(manifest.groups(outer_grouping(config.outer)))
    fewest = min(plan.folds, key=lambda f: len(np.unique(groups[f.train])))
    split(fewest, purpose="out-of-fold")
    if holds_content(config.outer):  # any fold may be left with contents of one class
        for fold in (*plan.folds, final_fold(manifest)):
            split(fold, purpose="search")
            split(fold, purpose="out-of-fold")
    if config.normalise == "speaker" and len(np.unique(manifest.speakers)) == len(manifest):
        raise ConfigError(
            "--normalise speaker: every speaker has a single utterance, so that all features "
            "would be 0. Leave it out, or name the speakers with --column speaker=HEADER."
        )


def _find_primary(config: StudyConfig, manifest: Manifest) -> str:
    """Name the system that the study is about; its own run may come later."""
    if config.primary is None:
        fused = len(manifest.modalities) > 1 and EARLY in config.fusion
        return EARLY if fused else manifest.modalities[0]
    several = len(manifest.available) > 1
    known = [*manifest.available, *(n for n in config.fusion if several and n != "none")]
    if config.primary not in known:
        raise ConfigError(
            f"--primary {config.primary}: choose among the systems of this study, "
            f"{', '.join(known)}."
        )
    return config.primary


def _generated_corpus() -> Path:
    folder = cache_folder() / f"demo-{CORPUS_VERSION}"
    source = folder / "dataset.csv"
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Of studies that start at once, one makes it and the others wait.
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not source.exists():
            for draft in folder.parent.glob(f".{folder.name}.{'[0-9a-f]' * 32}"):
                shutil.rmtree(draft, ignore_errors=True)  # of a killed run
            logger.info("Making the generated corpus in %s", folder)
            make_corpus(folder)
    return source


def _list_systems(config: StudyConfig, modalities: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """List the boosted systems of a study and the modalities of each."""
    if len(modalities) > MAX_MODALITIES:
        found = f"There are {len(modalities)} modalities, {', '.join(modalities)}"
        raise ConfigError(f"{found}; choose at most {MAX_MODALITIES} with --modality.")
    systems: dict[str, tuple[str, ...]] = {name: (name,) for name in modalities}
    if len(modalities) < 2 or EARLY not in config.fusion:
        return systems
    systems[EARLY] = tuple(modalities)
    if config.shapley not in ("refit", "seeds"):
        return systems
    if len(modalities) > MAX_PLAYERS:
        raise ConfigError(
            f"--shapley {config.shapley}: {len(modalities)} modalities would be "
            f"{2 ** len(modalities)} sets; at most {MAX_PLAYERS} are played. Choose some "
            "with --modality, or --shapley late."
        )
    # Each with the trials, space and inner folds of every other system: the game compares
    # sets of modalities, not budgets.
    subsets = proper_subsets(list(modalities))
    return systems | {early_name(subset, modalities): subset for subset in subsets}


def _list_seeded(
    config: StudyConfig, systems: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[int, tuple[str, ...]]]:
    # Sets of modalities that leave some out matter to the games alone.
    return {
        seed_name(system, number): (derive_seed(config.seed, "seed noise", number), modalities)
        for number in range(1, config.seeds)
        for system, modalities in systems.items()
        if config.shapley == "seeds" or not System.parse(system).is_subset
    }


def _count_columns(n_dims: int, timed: bool, statistics: str, options: SearchOptions) -> int:
    """Count pooled columns, of a smaller preset where the study takes one."""
    if not timed:
        return n_dims
    width, most = n_dims * len(resolve_statistics(statistics)), options.most_columns
    if most is None or width <= most or statistics not in PRESETS:
        return width
    smaller = [n_dims * len(names) for names in PRESETS.values()]
    return max((n for n in smaller if n <= most), default=min(smaller))
