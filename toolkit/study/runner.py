"""From a configuration to a folder of results: check, pool, run what is missing, collect."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from toolkit.data import (
    CORPUS_VERSION,
    ManifestError,
    find_recordings,
    make_corpus,
    read_manifest,
)
from toolkit.pooling import pool_manifest, resolve_statistics
from toolkit.report.facts import LOGISTIC
from toolkit.study.archive import read_modalities, read_unit, unit_folder
from toolkit.study.collect import StudyResult, collect_study
from toolkit.study.config import ConfigError, StudyConfig, format_config
from toolkit.study.executors import UnitTask, run_tasks
from toolkit.study.files import free_name, lock_folder, write_text
from toolkit.study.progress import PoolingProgress, StudyProgress
from toolkit.study.provenance import check_identity, make_provenance, write_provenance
from toolkit.study.saved import write_data
from toolkit.validation import (
    IMBALANCE_AUTO,
    SCREENING_AUTO,
    Protocol,
    SearchOptions,
    count_trials,
    create_studies,
    make_folds,
)

if TYPE_CHECKING:
    from toolkit.data import Manifest
    from toolkit.pooling import FeatureTable
    from toolkit.validation import Fold

logger = logging.getLogger(__name__)

OUTPUTS: Final = Path("outputs")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a study consists of and what of it is still to be done.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    folds : tuple of Fold
        The outer folds.
    folder : Path
        The study's own folder.
    name : str
        The study's name.
    """

    manifest: Manifest
    folds: tuple[Fold, ...]
    folder: Path
    name: str


def cache_folder() -> Path:
    """Name the folder that studies share for pooled features and the generated corpus.

    Returns
    -------
    Path
        ``outputs/.cache``, or what the environment variable ``TOOLKIT_CACHE`` says.
    """
    return Path(os.environ.get("TOOLKIT_CACHE") or OUTPUTS / ".cache")


def plan_study(config: StudyConfig) -> Plan:
    """Read and check the data of a study; write nothing but the generated corpus.

    Parameters
    ----------
    config : StudyConfig
        The study.

    Returns
    -------
    Plan
        What is to be done.

    Raises
    ------
    ManifestError
        If the data are wrong, with everything that is wrong in them.
    ValueError
        If the request does not fit the data.
    """
    if config.data is None:
        logger.info("Generated data: no --data was given; this corpus has a planted signal.")
    source = config.data or _generated_corpus()
    manifest = read_manifest(
        source,
        columns=config.column,
        label=config.label,
        classes=config.classes,
        merge=config.merge,
        outer=config.outer,
        missing=config.missing,
        modalities=config.modality,
    )
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


def run_study(config: StudyConfig) -> StudyResult:
    """Run a study, or go on with one that was interrupted.

    Parameters
    ----------
    config : StudyConfig
        The study.

    Returns
    -------
    StudyResult
        Scores and predictions of every finished system of the folder.

    Raises
    ------
    ValueError
        If the request or the data are wrong, or the folder holds another study.

    Notes
    -----
    Finished units are read and never computed again; what is killed in between is done
    again when the same study is started again, with the same bytes.
    """
    plan = plan_study(config)
    if config.fresh:
        _set_aside(plan.folder)
    plan.folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(plan.folder):
        check_recordings(plan.manifest, allow=config.duplicates == "allow")
        tables = {
            name: pool_modality(plan.manifest, name, config)
            for name in plan.manifest.modalities
        }
        provenance = make_provenance(config, plan.manifest, tables.values())
        known = check_identity(plan.folder, provenance)
        write_text(plan.folder / "study.toml", format_config(config))
        write_provenance(plan.folder, provenance, known)
        write_data(plan.folder, plan.manifest, tables)
        tasks = make_tasks(config, plan, tables)
        supersede(plan.folder, tasks)
        pending = [task for task in tasks if not _is_finished(task)]
        if config.only is not None:
            pending = [
                task for task in pending if task.name == _checked_only(config.only, tasks)
            ]
        _run_pending(config, plan, pending, n_finished=len(tasks) - len(pending))
        return collect_study(plan.folder)


def make_tasks(
    config: StudyConfig, plan: Plan, tables: dict[str, FeatureTable]
) -> list[UnitTask]:
    """List every unit of a study.

    Parameters
    ----------
    config : StudyConfig
        The study.
    plan : Plan
        From :func:`plan_study`.
    tables : dict of str to FeatureTable
        Modality to its pooled features.

    Returns
    -------
    list of UnitTask
        A boosted system and its logistic regression in every outer fold: of each modality,
        and of all together where early fusion is asked for.
    """
    options = make_search_options(config)
    systems: dict[str, tuple[FeatureTable, ...]] = {
        modality: (table,) for modality, table in tables.items()
    }
    if len(tables) > 1 and "early" in config.fusion:
        systems["early"] = tuple(tables.values())
    return [
        UnitTask(
            system=system + LOGISTIC if logistic else system,
            fold=fold,
            logistic=logistic,
            manifest=plan.manifest,
            tables=seen,
            study=plan.folder,
            protocol=Protocol(config.outer, config.inner, config.seed),
            options=options,
            storage=storage_url(plan.folder),
            study_name=plan.name,
        )
        for system, seen in systems.items()
        for logistic in (False, True)
        for fold in plan.folds
    ]


def make_search_options(config: StudyConfig) -> SearchOptions:
    """Say what the search of a study may choose.

    Parameters
    ----------
    config : StudyConfig
        The study.

    Returns
    -------
    SearchOptions
        ``auto`` replaced by its candidates.
    """
    both = ("lightgbm", "xgboost")
    return SearchOptions(
        boosters=both if config.booster == "both" else (config.booster,),
        statistics=config.searched_statistics,
        screening=_candidates(config.screening, SCREENING_AUTO),
        imbalance=_candidates(config.imbalance, IMBALANCE_AUTO),
        n_trials=config.n_trials,
        max_rounds=config.n_inner_rounds,
        metric=config.metric,
        sampler=config.sampler,
        timeout=config.timeout,
    )


def storage_url(folder: Path) -> str:
    """Name the Optuna storage of a study.

    Parameters
    ----------
    folder : Path
        The study's folder.

    Returns
    -------
    str
        URL of its ``search.db``.
    """
    return f"sqlite:///{(folder / 'search.db').resolve().as_posix()}"


def _run_pending(
    config: StudyConfig, plan: Plan, pending: list[UnitTask], *, n_finished: int
) -> None:
    if n_finished:
        logger.info("%d finished units are kept, %d are left to run.", n_finished, len(pending))
    if not pending:
        return
    storage = storage_url(plan.folder)
    searches = {
        task.optuna_name: [table.modality for table in task.tables]
        for task in pending
        if not task.logistic
    }
    create_studies(storage, searches, metric=config.metric)

    def count() -> dict[str, tuple[int, float | None]]:
        prefix = f"{plan.name}/"
        return {
            name.removeprefix(prefix): progress
            for name, progress in count_trials(storage).items()
            if name in searches
        }

    with StudyProgress(len(searches) * config.n_trials, len(pending), count) as progress:
        run_tasks(pending, workers=config.n_workers, on_done=progress.unit_done)


def supersede(folder: Path, tasks: list[UnitTask]) -> None:
    """Move finished units of fusions over other modalities out of the way.

    Parameters
    ----------
    folder : Path
        The study's folder.
    tasks : list of UnitTask
        What is to run there.
    """
    sights = {task.system: [table.modality for table in task.tables] for task in tasks}
    for system, seen in sights.items():
        units = sorted((folder / "units" / system).glob("[0-9]*"))
        before = read_modalities(units[0]) if units else None
        if before is None or before == seen:
            continue
        aside = folder / "superseded" / f"{system}-{'-'.join(before)}"
        aside.parent.mkdir(exist_ok=True)
        (folder / "units" / system).rename(free_name(aside))
        logger.warning("%s over %s is now in %s.", system, ", ".join(before), aside)


def _is_finished(task: UnitTask) -> bool:
    unit = read_unit(unit_folder(task.study, task.system, task.fold.number))
    if unit is None:
        return False
    if unit.search is None:
        return True
    enough = len(unit.search.trials) >= task.options.n_trials
    return enough or unit.search.stopped_by == "time"


def pool_modality(manifest: Manifest, modality: str, config: StudyConfig) -> FeatureTable:
    """Pool one modality as a study asks, from the shared cache where it is there already.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    modality : str
        One of the manifest's.
    config : StudyConfig
        Statistics, and what to do about missing files and frames.

    Returns
    -------
    FeatureTable
        One row an utterance.
    """
    wanted = dict.fromkeys(
        name for spec in config.searched_statistics for name in resolve_statistics(spec)
    )
    with PoolingProgress(modality) as progress:
        return pool_manifest(
            manifest,
            modality,
            statistics=tuple(wanted),
            cache=cache_folder() / "features",
            missing=config.missing,
            frames=config.frames,
            progress=progress.update,
        )


def check_recordings(manifest: Manifest, *, allow: bool) -> None:
    """Refuse the same recording under two speakers.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    allow : bool
        Say so only.

    Raises
    ------
    ManifestError
        If there is one and it is not allowed.
    """
    recordings = find_recordings(manifest)
    if recordings and not allow:
        raise ManifestError(recordings, source=manifest.source)
    for sentence in recordings:
        logger.warning("%s", sentence)


def _generated_corpus() -> Path:
    folder = cache_folder() / f"demo-{CORPUS_VERSION}"
    source = folder / "dataset.csv"
    if not source.exists():
        logger.info("Making the generated corpus in %s", folder)
        make_corpus(folder)
    return source


def _candidates(said: str, auto: tuple[str, ...]) -> tuple[str, ...]:
    return auto if said == "auto" else tuple(said.split(","))


def _checked_only(only: str, tasks: list[UnitTask]) -> str:
    system, _, number = only.rpartition("/")
    name = f"{system}/{int(number):02d}"
    if name not in {task.name for task in tasks}:
        systems = ", ".join(dict.fromkeys(task.system for task in tasks))
        raise ConfigError(
            f"--only {only}: there is no such unit. Systems: {systems}; folds 00 to "
            f"{max(task.fold.number for task in tasks):02d}."
        )
    return name


def _set_aside(folder: Path) -> None:
    if not folder.exists():
        return
    aside = free_name(folder)
    with lock_folder(folder):
        folder.rename(aside)
    logger.info("The old %s is now %s.", folder, aside)
