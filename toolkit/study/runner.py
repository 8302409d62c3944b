"""From a configuration to a folder of results: check, pool, run what is missing, collect."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from toolkit.files import free_name, lock_folder, remove_leftovers, write_text
from toolkit.study.attribution import list_seeded, make_quick_options
from toolkit.study.config import StudyConfig
from toolkit.study.explaining import execute_explain_task, make_explain_tasks
from toolkit.study.folder import (
    check_driver,
    check_identity,
    check_storage,
    make_provenance,
    read_modalities,
    read_unit,
    search_name,
    set_damaged_aside,
    storage_url,
    unit_folder,
    write_data,
    write_provenance,
)
from toolkit.study.options import format_config, load_config
from toolkit.study.plan import (
    Plan,
    available_memory,
    check_memory,
    check_recordings,
    estimate_study,
    normalise_modality,
    plan_study,
    pool_all,
)
from toolkit.study.progress import StudyProgress
from toolkit.study.results import StudyResult, collect_study, rebuild_report
from toolkit.study.searching import make_search_options
from toolkit.study.systems import (
    check_only,
    list_systems,
    name_systems,
)
from toolkit.study.terminal import (
    describe_plan,
    describe_result,
    print_json,
    show_plan,
    show_result,
)
from toolkit.study.workers import (
    UnitFailure,
    UnitTask,
    connect_cluster,
    count_workers,
    raise_failures,
    run_on_cluster,
    run_tasks,
)
from toolkit.systems import System, logistic_name, variant_name
from toolkit.validation import (
    Protocol,
    count_trials,
    create_studies,
    final_fold,
    make_presets,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from toolkit.data import Manifest
    from toolkit.pooling import FeatureTable
    from toolkit.study.options import Request

logger = logging.getLogger(__name__)

#: How long a unit of a job array waits for another one to set the folder up.
_SET_UP_SECONDS: Final = 120


def run_study(config: StudyConfig, manifest: Manifest | None = None) -> StudyResult:
    """Run a study, or go on with one that was interrupted.

    Parameters
    ----------
    config : StudyConfig
        The study.
    manifest : Manifest, optional
        Its table, where that was read already.

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
    plan = plan_study(config, manifest)
    if config.only is not None:
        return _run_only(config, plan)
    if config.fresh:
        _set_aside(plan.folder)
    plan.folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(plan.folder), _open_engine(config) as client:
        remove_leftovers(plan.folder)
        check_recordings(plan.manifest, allow=config.duplicates == "allow")
        pooled = pool_all(config, plan.manifest, plan.manifest.modalities, client)
        tables, tasks = _set_up(config, plan, pooled)
        pending = [task for task in tasks if not _is_finished(task)]
        n_finished = len(tasks) - len(pending)
        if n_finished:
            logger.info(
                "%d finished units are kept, %d are left to run.", n_finished, len(pending)
            )
        workers = config.n_workers
        n_writers = count_workers(client) if client is not None else workers
        check_storage(_storage(config, plan), n_writers)
        _open_searches(config, plan, pending)
        failures = _run_pending(config, plan, pending, workers=workers, client=client)
        failures += _explain(config, plan, tables)
        remove_leftovers(plan.folder)  # of workers that a cluster lost on the way
        result = collect_study(plan.folder)
    raise_failures(failures)
    return result


def _run_only(config: StudyConfig, plan: Plan) -> StudyResult:
    """Run a single unit beside others that may be running in the same folder.

    The folder is locked while it is set up and not while the unit runs, and nothing is
    collected: that is for ``toolkit report``, once, when the units are done.
    """
    systems = list_systems(config, plan.manifest.modalities)
    seeded = list_seeded(config, plan.manifest.modalities)
    name = check_only(config.only or "", systems, plan.folds, seeded)
    system = name.rpartition("/")[0]
    boosted = variant_name(system, "") if System.parse(system).is_logistic else system
    plan.folder.mkdir(parents=True, exist_ok=True)
    with _open_engine(config) as client:
        check_recordings(plan.manifest, allow=config.duplicates == "allow")
        # A unit of one modality neither waits for nor reads the files of the others.
        alone = boosted in plan.manifest.modalities
        seen = (boosted,) if alone else plan.manifest.modalities
        pooled = pool_all(config, plan.manifest, seen, client)
        with lock_folder(plan.folder, wait=_SET_UP_SECONDS):
            _, tasks = _set_up(config, plan, pooled)
            pending = [t for t in tasks if t.name == name and not _is_finished(t)]
            _open_searches(config, plan, pending)
        raise_failures(_run_pending(config, plan, pending, workers=1, client=client))
    unfinished = [
        system
        for system in [*name_systems(systems), *seeded]
        if not all(unit_folder(plan.folder, system, f.number).exists() for f in plan.folds)
    ]
    return StudyResult(plan.folder, {}, (), (), tuple(unfinished))


def _set_up(
    config: StudyConfig, plan: Plan, pooled: dict[str, FeatureTable]
) -> tuple[dict[str, FeatureTable], list[UnitTask]]:
    """Write what a folder says of itself; give what its units see, and the units."""
    tables = {
        name: normalise_modality(plan.manifest, table, config) for name, table in pooled.items()
    }
    provenance = make_provenance(config, plan.manifest, tables.values())
    known = check_identity(plan.folder, provenance)
    write_text(plan.folder / "study.toml", format_config(config))
    write_provenance(plan.folder, provenance, known)
    write_data(plan.folder, plan.manifest, pooled)
    tasks = make_tasks(config, plan, tables)
    _tell_reductions(tables, tasks)
    supersede(plan.folder, tasks)
    return tables, tasks


def make_tasks(
    config: StudyConfig, plan: Plan, tables: dict[str, FeatureTable]
) -> list[UnitTask]:
    """List every unit of a study."""
    provenance = make_provenance(config, plan.manifest, tables.values())
    systems = list_systems(config, tuple(tables))
    seeded = list_seeded(config, tuple(tables))
    folds, everybody = plan.folds, (final_fold(plan.manifest),)
    protocol = Protocol(config.outer, config.inner, config.seed)
    options = make_search_options(config)
    quick = make_quick_options(config)
    kinds = [
        *(
            (
                logistic_name(system) if logistic else system,
                seen,
                folds,
                logistic,
                protocol,
                options,
            )
            for system, seen in systems.items()
            for logistic in (False, True)[: 1 if System.parse(system).is_subset else 2]
        ),
        *(
            (name, seen, folds, False, replace(protocol, seed=seed), quick)
            for name, (seed, seen) in seeded.items()
        ),
        # Scores need no final model, so the models for new recordings come last; the longest
        # first, or the other workers would wait for it.
        *(
            (system, seen, everybody, False, protocol, options)
            for system, seen in sorted(systems.items(), key=lambda item: -len(item[1]))
            if not System.parse(system).is_subset
        ),
    ]
    return [
        UnitTask(
            system=system,
            fold=fold,
            logistic=logistic,
            manifest=plan.manifest,
            tables=tuple(tables[name] for name in seen),
            study=plan.folder,
            protocol=split,
            options=searched,
            storage=_storage(config, plan),
            study_name=search_name(
                plan.name, provenance, seen, shared=config.storage is not None
            ),
            device=config.device,
        )
        for system, seen, tested, logistic, split, searched in kinds
        for fold in tested
    ]


def _storage(config: StudyConfig, plan: Plan) -> str:
    return config.storage or storage_url(plan.folder)


def _open_searches(config: StudyConfig, plan: Plan, pending: list[UnitTask]) -> None:
    """Create the Optuna studies that are not there yet, before any worker starts."""
    storage = _storage(config, plan)
    check_driver(storage)
    searches = {
        task.optuna_name: [table.modality for table in task.tables]
        for task in pending
        if not task.logistic
    }
    if not searches:
        return
    if config.storage is None:
        set_damaged_aside(plan.folder / "search.db")
    create_studies(storage, searches, metric=config.metric)


def _run_pending(
    config: StudyConfig, plan: Plan, pending: list[UnitTask], *, workers: int, client: Any
) -> list[UnitFailure]:
    if not pending:
        return []
    if client is None:
        check_memory(pending, workers=workers, available=available_memory())
    storage = _storage(config, plan)
    searches = {task.optuna_name: task.name for task in pending if not task.logistic}
    n_trials = sum(task.options.n_trials for task in pending if not task.logistic)

    def count() -> dict[str, tuple[int, float | None]]:
        return {
            searches[name]: progress
            for name, progress in count_trials(storage).items()
            if name in searches
        }

    with StudyProgress(n_trials, len(pending), count) as progress:
        if client is not None:
            return run_on_cluster(client, pending, progress.unit_done)
        return run_tasks(pending, workers=workers, on_done=progress.unit_done)


@contextmanager
def _open_engine(config: StudyConfig) -> Iterator[Any]:
    """Connect to the cluster where one is asked for; else give None."""
    if config.scheduler is None:
        yield None
        return
    with connect_cluster(config.scheduler) as client:
        yield client


def _explain(
    config: StudyConfig, plan: Plan, tables: dict[str, FeatureTable]
) -> list[UnitFailure]:
    """Explain what has finished and is not explained yet."""
    tasks = make_explain_tasks(
        plan.manifest,
        plan.folds,
        tables,
        plan.folder,
        protocol=Protocol(config.outer, config.inner, config.seed),
        options=make_search_options(config),
        contributions=config.contributions,
    )
    pending = [task for task in tasks if not task.is_done()]
    if not pending:
        return []
    systems = ", ".join(dict.fromkeys(task.system for task in pending))
    logger.info("Explaining %s: %d pieces of work.", systems, len(pending))
    return run_tasks(
        pending,
        workers=config.n_workers,
        on_done=lambda name: logger.debug("%s is explained.", name),
        execute=execute_explain_task,
    )


def supersede(folder: Path, tasks: list[UnitTask]) -> None:
    """Move finished units of fusions over other modalities out of the way."""
    sights = {task.system: [table.modality for table in task.tables] for task in tasks}
    for system, seen in sights.items():
        units = sorted((folder / "units" / system).glob("[!.]*"))
        before = read_modalities(units[0]) if units else None
        if before is None or before == seen:
            continue
        aside = folder / "superseded" / f"{system}-{'-'.join(before)}"
        aside.parent.mkdir(exist_ok=True)
        (folder / "units" / system).rename(free_name(aside))
        logger.warning("%s over %s is now in %s.", system, ", ".join(before), aside)


def _tell_reductions(tables: Mapping[str, FeatureTable], tasks: Sequence[UnitTask]) -> None:
    """Say in which modalities a smaller preset stands in for the one asked for."""
    options = tasks[0].options
    for modality, table in tables.items():
        _, reduced = make_presets(table, options.statistics, options.most_columns)
        for preset, stand_in in reduced.items():
            logger.warning(
                "%s: %s statistics make %d columns, more than %d; %s statistics (%d columns) "
                "are used instead. --wide keep takes all.",
                modality,
                preset,
                stand_in["n_asked"],
                options.most_columns,
                stand_in["statistics"],
                stand_in["n_columns"],
            )


def _is_finished(task: UnitTask) -> bool:
    unit = read_unit(unit_folder(task.study, task.system, task.fold.number))
    if unit is None:
        return False
    if unit.search is None:
        return True
    enough = len(unit.search.trials) >= task.options.n_trials
    return enough or unit.search.stopped_by in ("time", "grid")


def _set_aside(folder: Path) -> None:
    if not folder.exists():
        return
    aside = free_name(folder)
    with lock_folder(folder):
        folder.rename(aside)
    logger.info("The old %s is now %s.", folder, aside)


def study_command(request: Request) -> int:
    """Run a study, or describe what ``--dry-run`` would run."""
    config = request.config
    if config.dry_run:
        plan = plan_study(config, request.manifest)
        estimate = estimate_study(plan, config, config.n_workers)
        if request.as_json:
            print_json(describe_plan(plan, estimate))
        else:
            show_plan(plan, config, estimate)
        return 0
    result = run_study(config, request.manifest)
    if request.as_json:
        print_json(describe_result(result))
    elif config.only is not None:
        print(  # noqa: T201
            f"{config.only} is written in {result.folder}; when the units you want are done, "
            f"toolkit report {result.folder} collects them."
        )
    else:
        show_result(result, config.metric)
    return 0


def report_command(request: Request) -> int:
    """Make every derived file of a study again and show its scores."""
    folder: Path = request.arguments["folder"]
    result = rebuild_report(folder)
    if request.as_json:
        print_json(describe_result(result))
    else:
        show_result(result, load_config(folder / "study.toml", {}).metric)
    return 0
