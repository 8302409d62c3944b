"""Units of work, run one after another or side by side, each written where it ends.

A task is a picklable description of one unit; :meth:`UnitTask.execute` turns it into files. It
is the same method whether it runs in this process or in another, and nothing but the files
comes back, so what was finished stays finished however a run ends.
"""

import logging
import os
import platform
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, TypeVar

from threadpoolctl import threadpool_limits

from toolkit.data import Manifest
from toolkit.files import explain_trouble
from toolkit.models import RESAMPLING, parse_screening
from toolkit.pooling import FeatureTable
from toolkit.study.config import ConfigError, mask_password
from toolkit.study.folder import StudyFolder
from toolkit.study.units import describe_rows
from toolkit.validation import (
    FINAL,
    WIDE_SCREEN,
    Fold,
    LeakageError,
    Protocol,
    SearchOptions,
    make_features,
    run_logistic_unit,
    run_unit,
)
from toolkit.validation.fits import estimate_memory, make_presets
from toolkit.validation.search import size_searches

logger = logging.getLogger(__name__)

_SHOWN: Final = 5
_MEMINFO: Final = Path("/proc/meminfo")
_CGROUP: Final = Path("/sys/fs/cgroup")
#: Units of one worker process take turns: one thread per fit is a setting of the process.
_TURN: Final = threading.Lock()

_Given = TypeVar("_Given")
_Answer = TypeVar("_Answer")


def widest_fit(widths: Sequence[Sequence[int]], options: SearchOptions) -> int:
    """Count the columns of a unit's widest fit, given those of each table by preset."""
    width = max(map(sum, widths))
    most = options.screen_above
    screened = most is not None and max(map(max, widths)) > most
    # A gain is computed over all columns.
    if not screened or any(name.startswith("gain") for name in options.screening):
        return width
    return min(width, max(parse_screening(n)[1] for n in (WIDE_SCREEN, *options.screening)))


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """One system in one fold, boosted or a logistic regression on the same features."""

    system: str
    fold: Fold
    modalities: tuple[str, ...]
    protocol: Protocol
    options: SearchOptions
    logistic: bool = False

    @property
    def name(self) -> str:
        """System and fold, as in ``--only``."""
        return f"{self.system}/{self.fold.name}"

    @property
    def rank(self) -> tuple[int, int]:
        """Place in the order of the run."""
        # Short baselines come last, and the longest final model before the others: no worker
        # then waits long at the end.
        is_final = self.fold.number == FINAL
        return 2 if self.logistic else is_final, -len(self.modalities) if is_final else 0

    def bound_memory(self, manifest: Manifest, widths: Sequence[Sequence[int]]) -> int:
        """Bound the bytes that it takes at a time; `widths` as of :func:`widest_fit`."""
        return estimate_memory(
            len(manifest),
            widest_fit(widths, self.options),
            side_by_side=max(map(sum, widths)) if len(widths[0]) > 1 else 0,
            rounds=len(manifest.classes) * self.options.max_rounds // 2,  # trials have half
            resampled=bool(set(self.options.imbalance) & set(RESAMPLING)),
            logistic=self.logistic,
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class UnitTask(Unit):
    """A unit, and all that is needed to run it anywhere.

    - tables: The pooled features; memory-mapped ones travel to other processes by name.
    - storage: URL of the Optuna storage; it may hold a password, so it is never shown.
    - study_name: Name of the study there, before the system and the fold.
    """

    manifest: Manifest
    tables: tuple[FeatureTable, ...]
    folder: StudyFolder
    storage: str = field(repr=False)
    study_name: str
    device: str = "cpu"

    @property
    def optuna_name(self) -> str:
        """Name of the unit's Optuna study."""
        return f"{self.study_name}/{self.name}"

    def search_sizes(self) -> dict[str, int]:
        """Give the trials of the unit's Optuna studies by name, in the order of the search."""
        return size_searches(self.optuna_name, len(self.fold.train), self.options)

    @property
    def origin(self) -> dict[str, Any]:
        """What the unit is made from, as it is written with it."""
        features = {table.modality: table.digest for table in self.tables}
        return describe_rows(self.manifest, self.fold) | {"features": features}

    def execute(self) -> None:
        """Run one unit and write it."""
        options = self.options
        # One thread per worker: the last bits of sums must not depend on the number of cores.
        # LightGBM has a number of its own, and adds up each column in one thread.
        with threadpool_limits(1):
            features = make_features(
                self.tables,
                options.statistics,
                most_columns=options.most_columns,
                screen_above=options.screen_above,
            )
            given = (self.manifest, features, self.fold)
            kept: Any = {"system": self.system, "protocol": self.protocol}
            if self.logistic:
                statistics = options.statistics[0]
                kept |= {"statistics": statistics, "metric": options.metric}
                unit = run_logistic_unit(*given, **kept)
            else:
                kept |= {"storage": self.storage, "study_name": self.optuna_name}
                unit = run_unit(*given, **kept, options=options, device=self.device)
            for table in self.tables:
                table.check_unchanged()
            self.folder.write_unit(unit, self.modalities, self.origin)


@dataclass(frozen=True, slots=True)
class _UnitFailure:
    """A unit that could not be finished, and the reason in a sentence.

    - expected: Whether the request, the data or the machine caused it, rather than a defect.
    """

    name: str
    reason: str
    expected: bool
    trace: str = ""


class Failures(list["_UnitFailure"]):
    """Units that could not be finished, while the others went on."""

    def raise_any(self) -> None:
        """Raise the failures, if there are any, after the other units are finished."""
        if not self:
            return
        shown = [f"{each.name}: {each.reason}" for each in self[:_SHOWN]]
        if len(self) > _SHOWN:
            shown.append(f"and {len(self) - _SHOWN} more")
        message = (
            f"{len(self)} unit(s) failed; the others are finished and kept, and the same "
            f"command goes on with those that are not. {'; '.join(shown)}"
        )
        defects = [each for each in self if not each.expected]
        if defects:
            raise RuntimeError(f"{message}\n{defects[0].trace}")
        raise ValueError(message)


def _attempt_task(task: Any) -> _UnitFailure | None:
    """Run one unit and write it, or describe its failure, so that the others go on."""
    try:
        task.execute()
    except LeakageError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever it is, the other units are sound)
        expected = isinstance(error, ValueError | OSError)
        if isinstance(error, OSError):
            reason = explain_trouble(error)
        else:
            reason = f"{error}" if expected else f"{type(error).__name__}: {error}"
        trace = "" if expected else mask_password(traceback.format_exc())
        return _UnitFailure(task.name, mask_password(reason), expected, trace)
    return None


def run_tasks(
    tasks: Sequence[Any],
    *,
    workers: int,
    on_done: Callable[[str], None],
    client: Any = None,
) -> Failures:
    """Run units: on the cluster of a client, else in this process or in local ones.

    A task has a ``name`` and a method ``execute`` that writes its files.
    """
    if client is not None:
        packed = {task.name: (_attempt_packed, *_pack(task)) for task in tasks}
        return run_calls(client, packed, on_done)
    workers = min(workers, len(tasks))
    if workers <= 1:
        return _follow(map(_attempt_named, tasks), on_done)
    from joblib import Parallel, delayed  # noqa: PLC0415  (only where processes are used)
    from joblib.externals.loky import get_reusable_executor  # noqa: PLC0415
    from joblib.externals.loky.process_executor import BrokenProcessPool  # noqa: PLC0415

    work = Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)
    try:
        with warnings.catch_warnings():
            # A worker that has read much of a mapped table is taken to leak, and is replaced.
            warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
            # Calling it starts the processes: an interrupt may come before the first result.
            calls = (delayed(call_in_child)(_attempt_named, t, os.getpid()) for t in tasks)
            return _follow(work(calls), on_done)
    except BrokenProcessPool:
        raise ValueError(
            "A worker process was killed, perhaps because memory ran out. What was finished is "
            "kept: run the same command again, with fewer --workers if memory is short."
        ) from None
    except BaseException:
        get_reusable_executor().shutdown(wait=False, kill_workers=True)
        raise


def _follow(
    outcomes: Iterable[tuple[str, _UnitFailure | None]], on_done: Callable[[str], None]
) -> Failures:
    """Announce units as they are finished, and collect those that failed."""
    failures = Failures()
    for name, failure in outcomes:
        if failure is None:
            on_done(name)
        else:
            failures.append(failure)
    return failures


def _attempt_named(task: Any) -> tuple[str, _UnitFailure | None]:
    return task.name, _attempt_task(task)


def call_in_child(call: Callable[[_Given], _Answer], given: _Given, parent: int) -> _Answer:
    """Make a call in a process that ends soon after its parent has, however that ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    if not any(thread.name == "exit-with-parent" for thread in threading.enumerate()):
        threading.Thread(target=watch, name="exit-with-parent", daemon=True).start()
    return call(given)


def run_calls(
    cluster: Any, calls: Mapping[str, Sequence[Any]], on_done: Callable[[str], None]
) -> Failures:
    """Have a cluster make calls by name, each a function and its arguments.

    The function gives nothing, or a failure.
    """
    lose = partial(_UnitFailure, expected=True)
    return _follow(cluster.call(calls, lose), on_done)


def _pack(task: UnitTask) -> tuple[dict[str, Any], str, tuple[str, ...]]:
    """Leave out what the worker reads from the shared file system."""
    payload = {
        field.name: getattr(task, field.name)
        for field in fields(task)
        if field.name not in {"manifest", "tables"}
    }
    folders = tuple(str(Path(str(_file_of(table))).parent) for table in task.tables)
    folder = StudyFolder(task.folder.path.resolve())
    return payload | {"folder": folder}, task.manifest.digest(), folders


def _file_of(table: FeatureTable) -> object:
    return getattr(table.values, "filename")  # noqa: B009  (numpy's stubs lack memmap's field)


def _attempt_packed(
    payload: dict[str, Any], rows: str, folders: tuple[str, ...]
) -> _UnitFailure | None:
    with _TURN:
        try:
            manifest = _read_rows(payload["folder"], rows)
            tables = tuple(_open_table(folder) for folder in folders)
        except ValueError as error:
            name = f"{payload['system']}/{payload['fold'].name}"
            return _UnitFailure(name, str(error), expected=True)
        return _attempt_task(UnitTask(**payload, manifest=manifest, tables=tables))


@lru_cache(maxsize=4)
def _read_rows(folder: StudyFolder, rows: str) -> Manifest:
    """Read a study's rows once; a worker outlives studies, so their hash is in the key."""
    manifest, _ = folder.read_data()
    if manifest.digest() != rows:
        raise ConfigError(
            f"{folder.path} on this worker holds other rows than the study that runs."
        )
    return manifest


@lru_cache(maxsize=32)
def _open_table(folder: str) -> FeatureTable:
    table = FeatureTable.load(Path(folder))
    if table is None:
        raise ConfigError(
            f"The worker {platform.node()} cannot read the pooled features in {folder}. With "
            "--scheduler the study's folder and TOOLKIT_CACHE must lie on a file system that "
            "all workers share."
        )
    return table


def check_memory(tasks: Sequence[UnitTask], *, workers: int) -> None:
    """Refuse a study whose workers would not fit into the free memory side by side."""
    available = _available_memory()
    needs = {task.system: _task_memory(task) for task in tasks}
    largest = sorted((needs[task.system] for task in tasks), reverse=True)
    if available is None or sum(largest[:workers]) <= available:
        return
    fitting = max((n for n in range(1, workers) if sum(largest[:n]) <= available), default=0)
    system = max(needs, key=lambda name: needs[name])
    task = next(task for task in tasks if task.system == system)
    widest = widest_fit(_task_widths(task, task.options.statistics), task.options)
    hints = [f"--workers {fitting}"] if fitting else []
    hints += _smaller_statistics(tasks, workers, available)
    left = {name for name, need in needs.items() if need <= available}
    if not hints and left:
        hints.append(f"without {', '.join(sorted(set(needs) - left))}")
    raise ConfigError(
        f"{workers} worker(s) side by side may need {_gigabytes(sum(largest[:workers]))} of "
        f"memory, and {_gigabytes(available)} are free. The largest is {system}: "
        f"{len(task.manifest)} utterances, {widest:,} columns, "
        f"{_gigabytes(needs[system])}. What would fit: "
        f"{', or '.join(hints) if hints else 'fewer dimensions per modality, or more memory'}."
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
    widths = _task_widths(task, statistics or task.options.statistics)
    return task.bound_memory(task.manifest, widths)


def _task_widths(task: UnitTask, presets: Sequence[str]) -> list[list[int]]:
    """Count the columns of each of the unit's tables, by preset."""
    most = task.options.most_columns
    taken = [make_presets(table, presets, most)[0] for table in task.tables]
    return [[len(columns[preset]) for columns in taken] for preset in presets]


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GB"


def _available_memory() -> int | None:
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
