"""What a study consists of, read and checked before anything is run."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from toolkit.data import (
    CORPUS_VERSION,
    ManifestError,
    SequenceError,
    find_recordings,
    make_corpus,
    read_header,
)
from toolkit.data.containers import split_member
from toolkit.models import RESAMPLING, check_device
from toolkit.pooling import PRESETS, normalise_speakers, pool_manifest, resolve_statistics
from toolkit.study.attribution import list_seeded, quick_config
from toolkit.study.config import ConfigError
from toolkit.study.progress import PoolingProgress
from toolkit.study.searching import make_search_options
from toolkit.study.systems import list_systems
from toolkit.study.table import read_table
from toolkit.study.workers import map_on_cluster
from toolkit.systems import EARLY, System, logistic_name
from toolkit.validation import (
    FINAL,
    MOST_COLUMNS,
    estimate_memory,
    fold_name,
    make_folds,
    make_presets,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from toolkit.data import Manifest
    from toolkit.pooling import FeatureTable
    from toolkit.study.config import StudyConfig
    from toolkit.study.workers import UnitTask
    from toolkit.validation import Fold


logger = logging.getLogger(__name__)

OUTPUTS: Final = Path("outputs")


def cache_folder() -> Path:
    """Name the folder that studies share for pooled features and the generated corpus."""
    return Path(os.environ.get("TOOLKIT_CACHE") or OUTPUTS / ".cache")


def pool_all(
    config: StudyConfig, manifest: Manifest, modalities: Sequence[str], client: Any
) -> dict[str, FeatureTable]:
    """Pool modalities here, or each on a worker of a cluster into the shared cache."""
    if client is not None and len(modalities) > 1:
        cache = cache_folder().absolute()
        map_on_cluster(
            client, pool_remotely, [(manifest, name, config, cache) for name in modalities]
        )
    return {name: pool_modality(manifest, name, config) for name in modalities}


def pool_modality(manifest: Manifest, modality: str, config: StudyConfig) -> FeatureTable:
    """Pool one modality as a study asks, from the shared cache where it is there already."""
    with PoolingProgress(modality, manifest.paths[modality]) as progress:
        return _pool(manifest, modality, config, cache_folder(), progress.update)


def pool_remotely(manifest: Manifest, modality: str, config: StudyConfig, cache: Path) -> str:
    """Pool one modality on a worker of a cluster; whoever asked finds it in the cache."""
    return _pool(manifest, modality, config, cache, None).digest


def _pool(
    manifest: Manifest,
    modality: str,
    config: StudyConfig,
    cache: Path,
    progress: Callable[[int, int], None] | None,
) -> FeatureTable:
    wanted = dict.fromkeys(
        name for spec in config.searched_statistics for name in resolve_statistics(spec)
    )
    return pool_manifest(
        manifest,
        modality,
        statistics=tuple(wanted),
        cache=cache / "features",
        missing=config.missing,
        frames=config.frames,
        progress=progress,
    )


def normalise_modality(
    manifest: Manifest, table: FeatureTable, config: StudyConfig
) -> FeatureTable:
    """Standardise features within speakers, where a study asks for it."""
    if config.normalise == "none":
        return table
    return normalise_speakers(
        table,
        manifest.speakers,
        cache=cache_folder() / "features",
        missing=config.missing,
        frames=config.frames,
    )


def check_recordings(manifest: Manifest, *, allow: bool) -> None:
    """Refuse the same recording under two speakers."""
    recordings = find_recordings(manifest)
    if recordings and not allow:
        raise ManifestError(recordings, source=manifest.source)
    for sentence in recordings:
        logger.warning("%s", sentence)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a study consists of and what of it is still to be done.

    - manifest: The utterances.
    - folds: The outer folds.
    - folder: The study's own folder.
    - name: The study's name.
    """

    manifest: Manifest
    folds: tuple[Fold, ...]
    folder: Path
    name: str


def plan_study(config: StudyConfig, manifest: Manifest | None = None) -> Plan:
    """Read and check the data of a study; write nothing but the generated corpus."""
    # What cannot be is refused before any data is read.
    make_search_options(config)
    for booster in config.searched_boosters:
        check_device(booster, config.device)
    if config.data is None:
        logger.info("Generated data: no --data was given; this corpus has a planted signal.")
    source = config.data or _generated_corpus()
    manifest = read_table(config, source) if manifest is None else manifest
    for warning in manifest.warnings:
        logger.info("Note: %s", warning)
    name = config.name or ("generated" if config.data is None else source.resolve().parent.name)
    name += "-quick" if config.quick else ""
    return Plan(
        manifest=manifest,
        folds=make_folds(manifest, config.outer, seed=config.seed),
        folder=config.out or OUTPUTS / name,
        name=name,
    )


def _generated_corpus() -> Path:
    folder = cache_folder() / f"demo-{CORPUS_VERSION}"
    source = folder / "dataset.csv"
    if not source.exists():
        logger.info("Making the generated corpus in %s", folder)
        make_corpus(folder)
    return source


_MEMINFO: Final = Path("/proc/meminfo")
_CGROUP: Final = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Tell how much memory this process and its workers may still take."""
    limits = [_group_memory(), _system_memory()]
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def check_memory(tasks: Sequence[UnitTask], *, workers: int, available: int | None) -> None:
    """Refuse a study whose workers would not fit into memory side by side."""
    needs = {task.system: estimate_task(task) for task in tasks}
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
        f"{len(task.manifest)} utterances, {_widest(task):,} columns, "
        f"{_gigabytes(needs[system])}. What would fit: "
        f"{', or '.join(hints) if hints else 'fewer dimensions a modality, or more memory'}."
    )


def estimate_task(task: UnitTask, statistics: Sequence[str] | None = None) -> int:
    """Estimate the most memory that one unit takes at a time."""
    presets = statistics or task.options.statistics
    widths = _widths(task, presets)
    return estimate_memory(
        len(task.manifest),
        max(widths),
        side_by_side=max(widths) if len(task.tables) > 1 else 0,
        resampled=bool(set(task.options.imbalance) & set(RESAMPLING)),
        logistic=task.logistic,
    )


def _smaller_statistics(tasks: Sequence[UnitTask], workers: int, available: int) -> list[str]:
    """Name the largest preset with which all would fit, if there is one."""
    for preset in ("basic", "minimal"):
        try:
            needs = sorted((estimate_task(task, (preset,)) for task in tasks), reverse=True)
        except ValueError:  # a table was pooled without it
            continue
        if sum(needs[:workers]) <= available:
            return [f"--statistics {preset}"]
    return []


def _widest(task: UnitTask) -> int:
    return max(_widths(task, task.options.statistics))


def _widths(task: UnitTask, presets: Sequence[str]) -> list[int]:
    """Count the columns of each preset, over the unit's tables."""
    taken = [
        make_presets(table, presets, task.options.most_columns)[0] for table in task.tables
    ]
    return [sum(len(columns[preset]) for columns in taken) for preset in presets]


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GB"


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
    """Tell what the control group of a container leaves; pages of files can be dropped."""
    try:
        most = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        taken = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        lines = (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        files = sum(int(n) for name, n in map(str.split, lines) if name == "inactive_file")
        return None if most == "max" else max(int(most) - taken + files, 0)
    except (OSError, ValueError):
        return None


TERMS: Final = ("unit", "value", "tree", "row")
"""Once a unit; a value of the table; a tree and root of the columns; and that times the rows.

The built-in search space lets a tree see columns in proportion to the root of all there are,
and a training set is made once for all trials that ask for the same.
"""

#: Part of the inner folds that a trial fits before it has lost the race, of up to 20 trials;
#: more trials lose more often, but none without its first fold. Measured: .70 of 20, .58 of 50.
_RACED: Final = 0.7
_RACED_LONGER: Final = (1 / 3, 1.64)
#: Seconds of one core a term, from the benchmark.
FACTORS: Final = (0.26, 7.1e-7, 5.7e-4, 1.0e-6)
#: Fits a fold for what is explained: five refits on permuted labels, and contributions.
_EXPLAINED: Final = 6
#: Seconds of one core: a process imports its libraries; figures and page, once and a system.
_START: Final = 3.0
_REPORT: Final = 2.5
#: A logistic regression a fold: seconds a value of its table.
_LOGISTIC: Final = 4e-7
#: Bytes a second that are read and pooled.
_POOLING: Final = 150e6
#: A process with its libraries; a row with its names and predictions; copies of a table.
_PROCESS_BYTES: Final = 285e6
_ROW_BYTES: Final = 2_500
_COPIES: Final = 8
#: Bytes of a model, its record and its predictions beside the tables.
_UNIT_BYTES: Final = 1.5e6


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a study will cost.

    - units: Names of all units, as ``--only`` takes them.
    - seconds: With the workers asked for, pooling included.
    - memory: Bytes of the largest moment, over all workers.
    - disk: Bytes of the study's folder and the cache.
    """

    units: tuple[str, ...]
    seconds: float
    memory: float
    disk: float


def unit_terms(
    n_rows: int, n_features: int, n_classes: int, inner: int, n_trials: int
) -> tuple[float, ...]:
    """Count what the time of a unit is a sum of.

    Examples
    --------
    >>> unit_terms(100, 9, 4, 3, 1)
    (1.0, 900.0, 84.0, 8400.0)
    """
    # A round grows a tree a class, and a single one where there are two.
    trees = count_fits(inner, n_trials) * (n_classes if n_classes > 2 else 1)
    seen = trees * n_features**0.5
    return (1.0, float(n_rows * n_features), seen, n_rows * seen)


def count_fits(inner: int, n_trials: int) -> float:
    """Count the fits of a unit.

    Examples
    --------
    >>> count_fits(3, 1)
    7.0
    """
    least, falling = _RACED_LONGER
    raced = min(_RACED, least + falling / sqrt(n_trials))
    return inner * (1 + raced * (n_trials - 1)) + inner + 1


def estimate_study(plan: Plan, config: StudyConfig, workers: int) -> Estimate:
    """Estimate what a study will cost if none of it is done yet."""
    manifest = plan.manifest
    cost: dict[str, float] = {}
    systems = list_systems(config, manifest.modalities)
    widths = {system: _count_all(manifest, seen, config) for system, seen in systems.items()}
    folds = [fold.name for fold in plan.folds]
    for system, width in widths.items():
        boosted = _time_unit(manifest, width, config)
        cost |= {f"{system}/{fold}": boosted for fold in folds}
        if not System.parse(system).is_subset:
            cost[f"{system}/{fold_name(FINAL)}"] = boosted
        if not System.parse(system).is_subset:
            linear = _LOGISTIC * len(manifest) * width
            cost |= {f"{logistic_name(system)}/{fold}": linear for fold in folds}
    quick = quick_config(config)
    for name, (_, seen) in list_seeded(config, manifest.modalities).items():
        seconds = _time_unit(manifest, _count_all(manifest, seen, quick), quick)
        cost |= {f"{name}/{fold}": seconds for fold in folds}
    used = max(min(workers, len(cost)), 1)
    width = max(widths.values())
    # Labels are permuted for the system of all modalities, or for the only one.
    explained = config.contributions != "none" and (EARLY in systems or len(systems) == 1)
    again = len(folds) * _EXPLAINED * _time_fit(manifest, width, config) if explained else 0.0
    return Estimate(
        units=tuple(cost),
        seconds=(
            _count_bytes(manifest) / _POOLING
            # Workers start side by side, after this process.
            + _START * (1 + (used > 1))
            + max((sum(cost.values()) + again) / used, *cost.values())
            + _REPORT * (1 + len(systems))
        ),
        memory=used * (_PROCESS_BYTES + len(manifest) * (_ROW_BYTES + _COPIES * 4.0 * width)),
        disk=4.0 * len(manifest) * sum(widths[m] for m in manifest.modalities)
        + _UNIT_BYTES * len(cost),
    )


def count_features(manifest: Manifest, modality: str, config: StudyConfig) -> int:
    """Count the columns that a modality will have, from the head of one file."""
    for path in manifest.paths[modality]:
        if path is None:
            continue
        try:
            header = read_header(path)
        except SequenceError:
            continue
        if len(header.shape) == 1:
            return int(header.n_dims)
        return max(
            _count_columns(int(header.n_dims), spec, config)
            for spec in config.searched_statistics
        )
    return 0


def _count_columns(n_dims: int, statistics: str, config: StudyConfig) -> int:
    """Count pooled columns, of a smaller preset where the study takes one."""
    width = n_dims * len(resolve_statistics(statistics))
    if config.wide == "keep" or width <= MOST_COLUMNS or statistics not in PRESETS:
        return width
    smaller = [n_dims * len(names) for names in PRESETS.values()]
    return max((n for n in smaller if n <= MOST_COLUMNS), default=min(smaller))


def _count_all(manifest: Manifest, modalities: Sequence[str], config: StudyConfig) -> int:
    return sum(count_features(manifest, modality, config) for modality in modalities)


def _time_unit(manifest: Manifest, width: int, config: StudyConfig) -> float:
    n_classes = len(manifest.classes)
    terms = unit_terms(len(manifest), width, n_classes, config.inner, config.n_trials)
    # Half the rounds are half the trees; what is done once a unit stays.
    part = np.array([1.0, 1.0] + [config.n_inner_rounds / 300] * (len(terms) - 2))
    return float(np.dot(np.multiply(terms, FACTORS), part))


def _time_fit(manifest: Manifest, width: int, config: StudyConfig) -> float:
    """Time one of a unit's fits."""
    terms = unit_terms(len(manifest), width, len(manifest.classes), config.inner, 1)
    fits = count_fits(config.inner, 1)
    return float(np.dot(terms[2:], FACTORS[2:])) / fits * config.n_inner_rounds / 300


def _count_bytes(manifest: Manifest) -> float:
    named = {path for files in manifest.paths.values() for path in files if path is not None}
    # Several utterances may be arrays of one file.
    files = {path if (member := split_member(path)) is None else member.file for path in named}
    return float(sum(file.stat().st_size for file in files if file.exists()))
