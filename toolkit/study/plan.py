"""A study before it runs: its configuration resolved, its data read, its memory bounded."""

from __future__ import annotations

import logging
import os
import platform
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import toolkit
from toolkit.data import (
    CORPUS_VERSION,
    ManifestError,
    SequenceError,
    find_recordings,
    make_corpus,
    read_header,
)
from toolkit.explain import MAX_PLAYERS
from toolkit.models import check_device
from toolkit.pooling import PRESETS, normalise_speakers, pool_manifest, resolve_statistics
from toolkit.study.config import N_SEEDS, ConfigError
from toolkit.study.folder import StudyFolder, hash_code, library_versions
from toolkit.study.options import read_table
from toolkit.study.progress import PoolingProgress
from toolkit.study.searching import make_quick_options, make_search_options
from toolkit.study.workers import map_on_cluster
from toolkit.systems import (
    EARLY,
    System,
    early_name,
    logistic_name,
    proper_subsets,
    variant_name,
)
from toolkit.validation import (
    FINAL,
    Protocol,
    derive_seed,
    estimate_memory,
    fold_name,
    make_folds,
    make_presets,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from toolkit.data import Manifest
    from toolkit.pooling import FeatureTable
    from toolkit.study.config import StudyConfig
    from toolkit.study.workers import UnitTask
    from toolkit.validation import Fold, SearchOptions

logger = logging.getLogger(__name__)

OUTPUTS: Final = Path("outputs")

_MEMINFO: Final = Path("/proc/meminfo")
_CGROUP: Final = Path("/sys/fs/cgroup")
#: Ways to balance classes that copy no rows.
_NOT_RESAMPLED: Final = ("none", "weights")


def cache_folder() -> Path:
    """Name the folder that studies share for pooled features and the generated corpus."""
    return Path(os.environ.get("TOOLKIT_CACHE") or OUTPUTS / ".cache")


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A study resolved: what every later step needs of its configuration and its data.

    - config: As given; a grid's points are its trials.
    - folds: The outer folds.
    - name: Name of the study, before its folder was chosen.
    - options: Candidates of the searches.
    - quick_options: Candidates of the searches under other seeds.
    - systems: Boosted systems to the modalities of each.
    - seeded: Systems under other seeds to the seed and the modalities of each.
    """

    config: StudyConfig
    manifest: Manifest
    folds: tuple[Fold, ...]
    folder: StudyFolder
    name: str
    options: SearchOptions
    quick_options: SearchOptions
    systems: Mapping[str, tuple[str, ...]]
    seeded: Mapping[str, tuple[int, tuple[str, ...]]]

    @property
    def protocol(self) -> Protocol:
        """How groups are split, and the seed."""
        return Protocol(self.config.outer, self.config.inner, self.config.seed)

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
        """Boosted systems, then the logistic regressions on their features."""
        logistic = (logistic_name(s) for s in self.systems if not System.parse(s).is_subset)
        return (*self.systems, *logistic)


def plan_study(config: StudyConfig, manifest: Manifest | None = None) -> Plan:
    """Read and check the data of a study; write nothing but the generated corpus."""
    # Options that contradict one another are refused before any data is read.
    options = make_search_options(config)
    for booster in options.boosters:
        check_device(booster, config.device)
    if config.sampler == "grid":
        config = config.model_copy(update={"trials": options.n_trials})
    if config.data is None:
        logger.info("Generated data: no --data was given; this corpus has a planted signal.")
    source = config.data or _generated_corpus()
    manifest = read_table(config, source) if manifest is None else manifest
    for warning in manifest.warnings:
        logger.info("Note: %s", warning)
    name = config.name or ("generated" if config.data is None else source.resolve().parent.name)
    name += "-quick" if config.quick else ""
    systems = _list_systems(config, manifest.modalities)
    return Plan(
        config=config,
        manifest=manifest,
        folds=make_folds(manifest, config.outer, seed=config.seed),
        folder=StudyFolder(config.out or OUTPUTS / name),
        name=name,
        options=options,
        quick_options=make_quick_options(config),
        systems=systems,
        seeded=_list_seeded(config, systems),
    )


def _generated_corpus() -> Path:
    folder = cache_folder() / f"demo-{CORPUS_VERSION}"
    source = folder / "dataset.csv"
    if not source.exists():
        logger.info("Making the generated corpus in %s", folder)
        make_corpus(folder)
    return source


def _list_systems(config: StudyConfig, modalities: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """List the boosted systems of a study and the modalities of each."""
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
    if config.shapley != "seeds" or len(systems) < 2:
        return {}
    return {
        variant_name(system, f"seed-{number}"): (
            derive_seed(config.seed, "seed noise", number),
            modalities,
        )
        for number in range(1, N_SEEDS + 1)
        for system, modalities in systems.items()
    }


def check_only(plan: Plan, only: str) -> str:
    """Check the name of a single unit, as ``--only`` has it."""
    system, _, fold = only.rpartition("/")
    number = FINAL if fold == fold_name(FINAL) else int(fold)
    numbers = {fold.number for fold in plan.folds}
    if system in plan.systems and not System.parse(system).is_subset:
        numbers.add(FINAL)
    names = [*plan.system_names, *plan.seeded]
    if system not in names or number not in numbers:
        raise ConfigError(
            f"--only {only}: there is no such unit. Systems: "
            f"{', '.join(names)}; folds 00 to {fold_name(len(plan.folds) - 1)}, "
            "and final of the boosted ones."
        )
    return f"{system}/{fold_name(number)}"


def make_provenance(plan: Plan, tables: Iterable[FeatureTable]) -> dict[str, Any]:
    """Collect what a study's numbers depend on."""
    config, manifest = plan.config, plan.manifest
    return {
        "identity": config.identity(),
        "trials": config.n_trials,
        "data": {
            "file": manifest.source,
            "path": None if config.data is None else str(config.data.resolve()),
            "generated": manifest.generated,
            "rows": manifest.digest(),
            "modalities": {table.modality: table.digest for table in tables},
        },
        "code": hash_code(),
        "versions": {"modality-toolkit": toolkit.__version__, "python": sys.version.split()[0]}
        | library_versions(),
        "platform": {"system": platform.system(), "machine": platform.machine()},
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def check_recordings(plan: Plan) -> None:
    """Refuse the same recording under two speakers, unless duplicates are allowed."""
    recordings = find_recordings(plan.manifest)
    if recordings and plan.config.duplicates != "allow":
        raise ManifestError(recordings, source=plan.manifest.source)
    for sentence in recordings:
        logger.warning("%s", sentence)


def pool_all(plan: Plan, modalities: Sequence[str], client: Any) -> dict[str, FeatureTable]:
    """Pool modalities here, or each on a worker of a cluster into the shared cache."""
    if client is not None and len(modalities) > 1:
        cache = cache_folder().absolute()
        map_on_cluster(client, _pool_remotely, [(plan, name, cache) for name in modalities])
    return {name: pool_modality(plan, name) for name in modalities}


def pool_modality(plan: Plan, modality: str) -> FeatureTable:
    """Pool one modality, or take it from the shared cache."""
    with PoolingProgress(modality, plan.manifest.paths[modality]) as progress:
        return _pool(plan, modality, cache_folder(), progress.update)


def _pool_remotely(plan: Plan, modality: str, cache: Path) -> str:
    # The table itself stays on the shared file system; its digest says that it is there.
    return _pool(plan, modality, cache, None).digest


def _pool(
    plan: Plan, modality: str, cache: Path, progress: Callable[[int, int], None] | None
) -> FeatureTable:
    return pool_manifest(
        plan.manifest,
        modality,
        statistics=plan.statistics,
        cache=cache / "features",
        missing=plan.config.missing,
        frames=plan.config.frames,
        progress=progress,
    )


def normalise_modality(plan: Plan, table: FeatureTable) -> FeatureTable:
    """Standardise features within speakers, where a study asks for it."""
    if plan.config.normalise == "none":
        return table
    return normalise_speakers(
        table,
        plan.manifest.speakers,
        cache=cache_folder() / "features",
        missing=plan.config.missing,
        frames=plan.config.frames,
    )


@dataclass(frozen=True, slots=True)
class Estimate:
    """The size of a study of which nothing is done yet.

    - units: Names of all units, as ``--only`` takes them.
    - columns: Most columns of each boosted system, over its candidate presets.
    - memory: Bound in bytes of the largest units side by side, one a worker.
    """

    units: tuple[str, ...]
    columns: Mapping[str, int]
    memory: int


def estimate_study(plan: Plan) -> Estimate:
    """Count the units and columns of a study, and bound its memory, from the files' heads."""
    dims = {name: _read_dims(plan.manifest, name) for name in plan.manifest.modalities}
    folds = [fold.name for fold in plan.folds]
    jobs = [(system, seen, plan.options) for system, seen in plan.systems.items()]
    jobs += [(name, seen, plan.quick_options) for name, (_, seen) in plan.seeded.items()]
    columns: dict[str, int] = {}
    needs: dict[str, int] = {}
    for system, modalities, options in jobs:
        columns[system] = width = max(
            sum(_count_columns(*dims[name], preset, options) for name in modalities)
            for preset in options.statistics
        )
        size = (len(plan.manifest), width, len(modalities))
        need = _bound_memory(*size, options)
        needs |= {f"{system}/{fold}": need for fold in folds}
        if system in plan.systems and not System.parse(system).is_subset:
            needs[f"{system}/{fold_name(FINAL)}"] = need
            linear = _bound_memory(*size, options, logistic=True)
            needs |= {f"{logistic_name(system)}/{fold}": linear for fold in folds}
    largest = sorted(needs.values(), reverse=True)[: plan.config.n_workers]
    return Estimate(tuple(needs), columns, sum(largest))


def _read_dims(manifest: Manifest, modality: str) -> tuple[int, bool]:
    """Read the dimensions of a modality and whether it has a time axis, from one file."""
    for path in manifest.paths[modality]:
        if path is None:
            continue
        try:
            header = read_header(path)
        except SequenceError:
            continue
        return int(header.n_dims), len(header.shape) > 1
    return 0, True


def _count_columns(n_dims: int, timed: bool, statistics: str, options: SearchOptions) -> int:
    """Count pooled columns, of a smaller preset where the study takes one."""
    if not timed:
        return n_dims
    width, most = n_dims * len(resolve_statistics(statistics)), options.most_columns
    if most is None or width <= most or statistics not in PRESETS:
        return width
    smaller = [n_dims * len(names) for names in PRESETS.values()]
    return max((n for n in smaller if n <= most), default=min(smaller))


def check_memory(tasks: Sequence[UnitTask], *, workers: int, available: int | None) -> None:
    """Refuse a study whose workers would not fit into memory side by side."""
    needs = {task.system: _task_memory(task) for task in tasks}
    largest = sorted((needs[task.system] for task in tasks), reverse=True)
    if available is None or sum(largest[:workers]) <= available:
        return
    fitting = max((n for n in range(1, workers) if sum(largest[:n]) <= available), default=0)
    system = max(needs, key=lambda name: needs[name])
    task = next(task for task in tasks if task.system == system)
    hints = [f"--workers {fitting}"] if fitting else []
    hints += _smaller_statistics(tasks, workers, available)
    left = {name for name, need in needs.items() if need <= available}
    if not hints and left:
        hints.append(f"without {', '.join(sorted(set(needs) - left))}")
    raise ConfigError(
        f"{workers} worker(s) side by side may need {_gigabytes(sum(largest[:workers]))} of "
        f"memory, and {_gigabytes(available)} are free. The largest is {system}: "
        f"{len(task.manifest)} utterances, {_task_width(task, task.options.statistics):,} "
        f"columns, {_gigabytes(needs[system])}. What would fit: "
        f"{', or '.join(hints) if hints else 'fewer dimensions a modality, or more memory'}."
    )


def _smaller_statistics(tasks: Sequence[UnitTask], workers: int, available: int) -> list[str]:
    """Name the largest preset with which all would fit, if there is one."""
    for preset in ("basic", "minimal"):
        try:
            needs = sorted((_task_memory(task, (preset,)) for task in tasks), reverse=True)
        except ValueError:  # a table was pooled without it
            continue
        if sum(needs[:workers]) <= available:
            return [f"--statistics {preset}"]
    return []


def _task_memory(task: UnitTask, statistics: Sequence[str] | None = None) -> int:
    width = _task_width(task, statistics or task.options.statistics)
    size = (len(task.manifest), width, len(task.tables))
    return _bound_memory(*size, task.options, logistic=task.logistic)


def _task_width(task: UnitTask, presets: Sequence[str]) -> int:
    """Count the columns of the widest preset, over the unit's tables."""
    taken = [
        make_presets(table, presets, task.options.most_columns)[0] for table in task.tables
    ]
    return max(sum(len(columns[preset]) for columns in taken) for preset in presets)


def _bound_memory(
    n_rows: int, width: int, n_tables: int, options: SearchOptions, *, logistic: bool = False
) -> int:
    """Bound the bytes that one unit takes at a time."""
    return estimate_memory(
        n_rows,
        width,
        side_by_side=width if n_tables > 1 else 0,
        resampled=bool(set(options.imbalance) - set(_NOT_RESAMPLED)),
        logistic=logistic,
    )


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GB"


def available_memory() -> int | None:
    """Measure the memory that this process and its workers may still take; None if unknown."""
    limits = (_group_memory(), _system_memory())
    return min((limit for limit in limits if limit is not None), default=None)


def _system_memory() -> int | None:
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        kilobytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return int(kilobytes) * 1024
    except (OSError, StopIteration, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # neither Linux nor another Unix
        return None


def _group_memory() -> int | None:
    """Read what the control group of a container leaves; pages of files can be dropped."""
    try:
        most = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        taken = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        lines = (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        files = sum(int(n) for name, n in map(str.split, lines) if name == "inactive_file")
        return None if most == "max" else max(int(most) - taken + files, 0)
    except (OSError, ValueError):
        return None
