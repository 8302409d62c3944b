"""From a configuration to a folder of results: check, pool, run what is missing, collect."""

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import numpy as np
from threadpoolctl import threadpool_limits

from toolkit.data import Manifest, ManifestError
from toolkit.files import (
    cache_folder,
    format_json,
    free_name,
    lock_folder,
    read_json,
    refuse_links,
    write_text,
)
from toolkit.pooling import FeatureTable
from toolkit.study.cluster import connect_cluster
from toolkit.study.collecting import collect_study
from toolkit.study.config import ConfigError, StudyConfig, mask_password
from toolkit.study.datasets import write_data
from toolkit.study.examining import check_data
from toolkit.study.explaining import make_explain_tasks
from toolkit.study.folder import CURVE, SUMMARY, StudyFolder
from toolkit.study.inventory import Inventory
from toolkit.study.options import Request, load_config
from toolkit.study.outcome import StudyResult
from toolkit.study.plan import Plan, limit_fixed, plan_study
from toolkit.study.terminal import show_work
from toolkit.study.workers import (
    Failures,
    UnitTask,
    check_memory,
    run_calls,
    run_tasks,
)
from toolkit.systems import variant_name
from toolkit.validation import FINAL, WIDE_SCREEN, create_studies, make_features, outer_grouping
from toolkit.validation.fits import find_wide, make_presets
from toolkit.validation.fixed import N_SIZES, predict_curve
from toolkit.validation.search import count_trials
from toolkit.validation.trials import open_storage

logger = logging.getLogger(__name__)

#: How long a unit of a job array waits for another one to set the folder up.
_SET_UP_SECONDS: Final = 120
#: More processes than this wait on one another for SQLite's single lock.
_MOST_SQLITE_WORKERS: Final = 8


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
        Scores and predictions of every finished system of the folder: ``table()``,
        ``plot_scores()``, and the DataFrames ``scores``, ``predictions``, ``comparisons``.

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
    path = plan.folder.path
    if not config.fresh:
        plan.folder.refuse_first_layout()
    if config.only is not None:
        return _run_only(plan, config.only)
    if config.fresh and path.exists():
        Inventory(path).claim()  # a folder of something else is not set aside
        with lock_folder(path):
            aside = path.rename(free_name(path))
        logger.info("The old %s is now %s.", path, aside)
    if config.storage is not None:  # refused before anything is written
        _check_storage(plan.storage, config.n_workers if config.scheduler is None else 1)
        with open_storage(plan.storage):
            pass
    Inventory(path).claim()
    with lock_folder(path), _open_engine(plan) as client:
        Inventory(path).remove_leftovers()  # under the lock: none of them is another run's
        plan = check_data(plan)
        pooled = _pool_all(plan, plan.manifest.modalities, client)
        tables, tasks = _set_up(plan, pooled)
        pending = [task for task in tasks if not _is_finished(task)]
        n_finished = len(tasks) - len(pending)
        if n_finished:
            logger.info(
                "%d finished units are kept, %d are left to run.", n_finished, len(pending)
            )
        n_writers = config.n_workers
        if client is not None:
            n_writers = len(client.workers)
        _open_searches(plan, pending, n_writers)
        failures = _run_pending(plan, pending, workers=config.n_workers, client=client)
        failures += _explain(plan, tables)
        if config.learning_curve and not _has_curve(plan):
            _fit_curve(plan, tables)
        Inventory(path).remove_leftovers()  # of workers that a cluster lost on the way
        result = collect_study(plan.folder, again=bool(pending or failures))
    failures.raise_any()  # after the report: finished units are in it
    return result


def study(
    data: Any,
    *,
    label: str | None = None,
    speaker: str | None = None,
    features: Mapping[str, Any] | None = None,
    **options: Any,
) -> StudyResult:
    """Run a study of a table in memory or a CSV file, with features in memory or in files.

    Data in memory are written to the cache, under a name made of their content, and checked and
    read as files are: the numbers are the same.

    Parameters
    ----------
    data : DataFrame, datasets.Dataset, Path or str
        One row per utterance, as in ``dataset.csv``; the ids may be the index of a DataFrame.
        A column of arrays is a modality. Class labels of Hugging Face are read by their names.
    label, speaker : str, optional
        Header of the column, where its name does not show its role.
    features : mapping of str to array-like, optional
        Modality to the features of each row: arrays of shape (n_frames, n_dims), with None
        where missing, or a matrix (n, n_dims), where a row of NaN is missing. The rows of a
        DataFrame or Series belong to those of the same index label in the table.
    **options : object
        Fields of :class:`toolkit.StudyConfig`, such as ``trials=5`` or ``out="outputs/x"``.

    Returns
    -------
    StudyResult
        As of :func:`toolkit.run_study`.

    Examples
    --------
    >>> import pandas as pd
    >>> import toolkit
    >>> table = pd.DataFrame({"emotion": ["sad", "glad"], "speaker": ["ann", "bob"]})
    >>> toolkit.study(table, features={"face": [[0.5]]})
    Traceback (most recent call last):
    ...
    toolkit.study.config.ConfigError: features['face'] has 1 rows, and the table has 2.
    """
    for name, header in (("label", label), ("speaker", speaker)):
        if not isinstance(header, str | None):
            raise ConfigError(
                f"{name} is {type(header).__name__}; expected the header of a column of the "
                f"table. Add the values to it: table.assign({name}=...)."
            )
    if not isinstance(features, Mapping | None):
        raise ConfigError(
            f"features is {type(features).__name__}; expected a mapping of modality to rows, "
            'as {"text": rows}.'
        )
    # refused before the data are written
    if load_config(None, options).dry_run:
        raise ConfigError("dry_run lists units on the command line alone: leave it out here.")
    columns = {"speaker": speaker} if speaker is not None else {}
    columns |= options.get("column", {})
    source = data
    if features is not None or hasattr(data, "to_csv"):
        extracted = bool(options.get("extract"))
        source, base = write_data(data, columns, features or {}, recordings=extracted)
        options = {"name": "dataframe"} | options
        options["root"] = [base, *options.get("root", ())]
    if label is not None:
        options["label"] = label
    config = load_config(None, options | {"data": Path(source), "column": columns})
    try:
        return run_study(config)
    except ManifestError as error:
        if not hasattr(data, "to_csv"):
            raise
        name = f"The {type(data).__name__} (counted from row 2, below its header)"
        raise ManifestError(error.problems, source=name) from None


def _pool_all(plan: Plan, modalities: Sequence[str], client: Any) -> dict[str, FeatureTable]:
    """Pool modalities here, or each on a worker of a cluster into the shared cache."""
    if client is not None and len(modalities) > 1:
        cache = cache_folder().absolute()
        calls = {
            f"pooling {name}": (_pool_remotely, plan, name, cache)
            for name in modalities
            if name not in plan.config.extract  # what is extracted is kept here
        }
        run_calls(client, calls, lambda name: logger.debug("%s done", name)).raise_any()
    return {name: plan.pool(name) for name in modalities}


def _pool_remotely(plan: Plan, modality: str, cache: Path) -> None:
    """Pool one modality on a worker of a cluster, into the cache that all of them share."""
    plan.pool(modality, cache=cache)


def _run_only(plan: Plan, only: str) -> StudyResult:
    """Run a single unit beside others that may be running in the same folder.

    Nothing is collected: that is for ``toolkit report``, once, when the units are done.
    """
    folder, manifest = plan.folder, plan.manifest
    name = plan.check_only(only)
    system = name.rpartition("/")[0]
    boosted = variant_name(system, "")
    Inventory(folder.path).claim()
    with _open_engine(plan) as client:
        # A unit of one modality neither waits for nor reads the files of the others.
        alone = boosted in manifest.modalities
        plan = check_data(plan, boosted if alone else None)
        modalities = (boosted,) if alone else manifest.modalities
        pooled = _pool_all(plan, modalities, client)
        # Locked while the shared files are written, and not while the unit runs: units of a
        # job array run side by side, and each writes to a folder of its own.
        with lock_folder(folder.path, wait=_SET_UP_SECONDS):
            _, tasks = _set_up(plan, pooled)
            pending = [t for t in tasks if t.name == name and not _is_finished(t)]
            _open_searches(plan, pending, 1)
        _run_pending(plan, pending, workers=1, client=client).raise_any()
    unfinished = [
        system
        for system in plan.system_names
        if not all(folder.unit(system, fold.number).exists() for fold in plan.folds)
    ]
    return StudyResult(folder.path, {}, (), (), tuple(unfinished))


def _set_up(
    plan: Plan, pooled: Mapping[str, FeatureTable]
) -> tuple[dict[str, FeatureTable], list[UnitTask]]:
    """Write what identifies the study; give the features its units see, and the units."""
    folder = plan.folder
    tables = {name: plan.normalise(table) for name, table in pooled.items()}
    provenance = plan.make_provenance(tables.values())
    known = folder.check_identity(provenance)
    if plan.outside:  # without its files, study.toml could not be read
        kept = {one.kept: one.text.encode("utf-8") for one in plan.outside.values()}
        Inventory(folder.path).write(kept, whole=False)
    folder.write_config(plan.config)
    folder.write_provenance(provenance, known)
    explicit = plan.config.primary is not None
    named = {name: {"dimensions": list(names)} for name, names in plan.names.items()}
    about = {n: {"notes": [*plan.notes.get(n, ())]} | named.get(n, {}) for n in pooled}
    folder.write_data(
        plan.manifest,
        pooled,
        study=plan.name,
        primary=plan.primary,
        explicit=explicit,
        about=about,
    )
    tasks = _make_tasks(plan, tables, provenance)
    _warn_of_reductions(tables, tasks)
    _set_superseded_aside(plan, tasks)
    return tables, tasks


def _make_tasks(
    plan: Plan, tables: Mapping[str, FeatureTable], provenance: Mapping[str, Any]
) -> list[UnitTask]:
    """List every unit of a study whose modalities are all pooled."""
    return [
        UnitTask(
            **{part.name: getattr(unit, part.name) for part in fields(unit)},
            manifest=plan.manifest,
            tables=tuple(tables[name] for name in unit.modalities),
            folder=plan.folder,
            storage=plan.storage,
            study_name=plan.search_name(provenance, unit.modalities),
            device=plan.config.device,
        )
        for unit in sorted(plan.list_units(), key=attrgetter("rank"))
        if tables.keys() >= {*unit.modalities}
    ]


def _check_storage(url: str, n_workers: int) -> None:
    """Refuse more workers than a storage can take, and a server without its driver."""
    if url.startswith("sqlite") and n_workers > _MOST_SQLITE_WORKERS:
        raise ConfigError(
            f"{n_workers} workers would write to one SQLite file, which takes one writer at a "
            f"time: beyond {_MOST_SQLITE_WORKERS} they wait for its lock until they fail. Use "
            f"at most {_MOST_SQLITE_WORKERS} (--workers), or --storage "
            "postgresql+psycopg://USER@HOST/DATABASE."
        )
    if url.startswith("postgresql") and importlib.util.find_spec("psycopg") is None:
        raise ConfigError(
            f"The storage {mask_password(url)} needs a driver that is not installed: "
            "pip install 'psycopg[binary]'"
        )


def _open_searches(plan: Plan, pending: Sequence[UnitTask], n_writers: int) -> None:
    """Create the Optuna studies that are not there yet, before any worker starts."""
    _check_storage(plan.storage, n_writers)
    searches = {
        name: list(task.modalities)
        for task in pending
        if not task.logistic
        for name in task.search_sizes()
    }
    if not searches:
        return
    if plan.config.storage is None:
        plan.folder.set_damaged_aside()
    create_studies(plan.storage, searches, metric=plan.config.metric)


def _run_pending(
    plan: Plan, pending: Sequence[UnitTask], *, workers: int, client: Any
) -> Failures:
    if not pending:
        return Failures()
    if client is None:  # workers of a cluster have memory of their own
        check_memory(pending, workers=workers)
    searched = [task for task in pending if not task.logistic]
    sizes = {task.name: task.search_sizes() for task in searched}
    n_trials = {name: n for each in sizes.values() for name, n in each.items()}
    n_all = max(sum(n_trials.values()), 1)
    names = {task.name: _describe_unit(plan, task) for task in pending}
    done: set[str] = set()

    def count() -> tuple[int, int, str]:
        counts = {name: c for name, c in count_trials(plan.storage).items() if name in n_trials}
        running = []
        for task in searched:
            started = [name for name in sizes[task.name] if counts.get(name, (0, None))[0]]
            if started and task.name not in done:
                n, best = counts[started[-1]]
                stage = started[-1].removeprefix(task.optuna_name)
                running.append(
                    f"{names[task.name]}, trial {n} of {n_trials[started[-1]]}{stage}"
                    + ("" if best is None else f", best {best:.3f}")
                )
        return sum(n for n, _ in counts.values()), n_all, "; ".join(running[:2])

    with show_work("Searching", len(pending), count) as count_unit:

        def on_done(name: str) -> None:
            done.add(name)
            count_unit(names[name])

        return run_tasks(pending, workers=workers, on_done=on_done, client=client)


def _describe_unit(plan: Plan, task: UnitTask) -> str:
    """Name a unit by what it holds out: "text, fold 3 of 10 (speaker F03)"."""
    fold = task.fold
    if fold.number == FINAL:
        return f"{task.system}, final model"
    held = ", ".join(fold.held_out[:2]) + (", ..." if len(fold.held_out) > 2 else "")
    kind = outer_grouping(plan.config.outer)
    return f"{task.system}, fold {fold.number + 1} of {len(plan.folds)} ({kind} {held})"


def _open_engine(plan: Plan) -> AbstractContextManager[Any]:
    """Connect to the cluster where one is asked for; else give None."""
    address = plan.config.scheduler
    return nullcontext() if address is None else connect_cluster(address)


def _explain(plan: Plan, tables: Mapping[str, FeatureTable]) -> Failures:
    """Explain what has finished and is not explained yet."""
    pending = [task for task in make_explain_tasks(plan, tables) if not task.is_done()]
    if not pending:
        return Failures()
    systems = ", ".join(dict.fromkeys(task.system for task in pending))
    with show_work(f"Explaining {systems}", len(pending)) as count_job:
        return run_tasks(pending, workers=plan.config.n_workers, on_done=count_job)


def _has_curve(plan: Plan) -> bool:
    """Check that there is a learning curve, of the modalities that there are now."""
    path = plan.folder.path / CURVE
    if not path.exists():
        return False
    with plan.folder.open_part(path) as kept:
        return bool(read_json(kept / SUMMARY)["modalities"] == list(plan.manifest.modalities))


def _fit_curve(plan: Plan, tables: Mapping[str, FeatureTable]) -> None:
    """Fit the fixed configuration to the features of all modalities, and keep predictions."""
    make = partial(make_features, [tables[name] for name in plan.manifest.modalities])
    features = make(plan.options.statistics[:1], most_columns=limit_fixed(plan.config))
    work = "Fitting the learning curve"
    with show_work(work, N_SIZES * len(plan.folds)) as count_fit, threadpool_limits(1):
        seed = plan.config.seed
        found = predict_curve(features, plan.manifest, plan.folds, seed=seed, on_done=count_fit)

    def write(folder: Path) -> None:
        summary = {"modalities": list(plan.manifest.modalities), "sizes": list(found)}
        write_text(folder / SUMMARY, format_json(summary))
        for size, parts in found.items():
            np.save(folder / f"{size}.npy", np.concatenate(parts), allow_pickle=False)

    plan.folder.write_part(plan.folder.path / CURVE, write)


def _set_superseded_aside(plan: Plan, tasks: Sequence[UnitTask]) -> None:
    """Move finished units of fusions over other modalities out of the way."""
    numbers = (*(fold.number for fold in plan.folds), FINAL)
    seen = {task.system: list(task.modalities) for task in tasks}
    for system, modalities in seen.items():
        finished = (plan.folder.read_modalities(system, number) for number in numbers)
        before = next((names for names in finished if names is not None), modalities)
        if before == modalities:
            continue
        units = plan.folder.units
        aside = units.with_name("superseded") / f"{system}-{'-'.join(before)}"
        for path in (aside, units / system):
            refuse_links(plan.folder.path, path)
        aside.parent.mkdir(exist_ok=True)
        (units / system).rename(free_name(aside))
        logger.warning("%s over %s is now in %s.", system, ", ".join(before), aside)


def _warn_of_reductions(tables: Mapping[str, FeatureTable], tasks: Sequence[UnitTask]) -> None:
    """Name the modalities of fewer columns, or fits of fewer columns, than were asked for."""
    options = tasks[0].options
    found = find_wide(tuple(tables.values()), options.statistics, options.screen_above)
    for modality, width in found.items():
        logger.warning(
            "%s: %d columns are more than %d; %s screens them in each fit that would take "
            "all. --wide keep takes all.",
            modality,
            width,
            options.screen_above,
            WIDE_SCREEN,
        )
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
    unit = task.folder.read_unit(task.system, task.fold.number, task.origin)
    if unit is None:
        return False
    if unit.search is None:
        return True
    # Trials may be raised later: a finished unit of fewer trials is then continued.
    enough = len(unit.search.trials) >= task.options.n_trials
    return enough or unit.search.stopped_by in ("time", "grid")


def study_command(request: Request) -> int:
    """Run a study, or describe what ``--dry-run`` would run."""
    config = request.config
    if config.dry_run:
        plan = plan_study(config, request.manifest)
        for warning in plan.manifest.warnings:
            logger.info("Note: %s", warning)
        plan.show(as_json=request.as_json)
        return 0
    result = run_study(config, request.manifest)
    if config.only is not None and not request.as_json:
        message = (
            "%s is written in %s. When all units are done, toolkit report %s collects them."
        )
        logger.info(message, config.only, result.folder, result.folder)
    else:
        result.show(config.metric, as_json=request.as_json)
    return 0


def _rebuild_report(path: Path) -> StudyResult:
    """Make every derived file of a study again: the command ``toolkit report``."""
    folder = StudyFolder(path)
    folder.check_exists()
    folder.read_data()  # a folder of something else gets no lock file
    with lock_folder(path):
        return collect_study(folder)


def report_command(request: Request) -> int:
    """Make every derived file of a study again and show its scores."""
    result = _rebuild_report(request.arguments["folder"])
    metric = StudyFolder(result.folder).read_config().metric
    result.show(metric, as_json=request.as_json)
    return 0
