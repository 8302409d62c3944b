"""Units of work on a Dask cluster: the same function, on machines that share a file system.

Nothing here queues, schedules or retries: that is Dask's. joblib's own Dask backend was tried
first; it waits for ever for a task whose worker died too often (joblib 1.6), so the client is
used as it is.

Tables and rows travel by path: the workers see the study's folder and the cache.
"""

from __future__ import annotations

import logging
import platform
import sys
import threading
import uuid
from contextlib import contextmanager
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from toolkit.pooling.table import load_table
from toolkit.study.config import ConfigError
from toolkit.study.executors import UnitFailure, UnitTask, attempt_task
from toolkit.study.provenance import library_versions
from toolkit.study.saved import read_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from toolkit.data import Manifest
    from toolkit.pooling import FeatureTable

logger = logging.getLogger(__name__)

_CONNECT_SECONDS: Final = 20
_WORKER_SECONDS: Final = 60
#: Units of one worker process take turns: one thread a fit is a setting of the process.
_TURN: Final = threading.Lock()


@contextmanager
def connect_cluster(address: str) -> Iterator[Any]:
    """Connect to a Dask scheduler and check that its workers are like this machine."""
    try:
        from distributed import Client  # noqa: PLC0415  (its home, and only where it is used)
    except ImportError:
        raise ConfigError(
            '--scheduler needs Dask: pip install "modality-toolkit[cluster]", here and where '
            "the workers run."
        ) from None
    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except OSError as error:
        raise ConfigError(
            f"No Dask scheduler answers at {address} ({error}). Start one with `dask "
            "scheduler` and give its address."
        ) from None
    try:
        _check_workers(client, address)
        level = logger.getEffectiveLevel()
        client.run(_set_level, level)
        client.forward_logging("toolkit", level=level)
        yield client
    finally:
        client.close()


def count_workers(client: Any) -> int:
    """Count the processes that will write to the storage."""
    return len(client.scheduler_info(n_workers=-1)["workers"])


def run_on_cluster(
    client: Any, tasks: Sequence[UnitTask], on_done: Callable[[str], None]
) -> list[UnitFailure]:
    """Run units on a cluster.

    A unit whose worker dies is run again by the scheduler, on another one; what it had
    searched is in the storage and is not searched again.
    """
    from distributed import as_completed  # noqa: PLC0415

    run = uuid.uuid4().hex[:8]
    futures = {
        client.submit(
            _attempt_packed, *_pack(task), key=f"{task.name} {run}", pure=False
        ): task.name
        for task in tasks
    }
    failures = []
    try:
        for future in as_completed(list(futures), loop=client.loop, raise_errors=False):
            name = futures.pop(future)
            failure = _judge(future, name)
            if failure is None:
                on_done(name)
            else:
                failures.append(failure)
    finally:
        client.cancel(list(futures), force=True)
    return failures


def map_on_cluster(
    client: Any, function: Callable[..., Any], calls: Sequence[Any]
) -> list[Any]:
    """Call a function once a tuple of arguments, on a cluster."""
    futures = [client.submit(function, *arguments, pure=False) for arguments in calls]
    return list(client.gather(futures))


def describe_machine() -> dict[str, str]:
    """Name all of a machine that the bytes of a study depend on."""
    here = {"python": sys.version.split()[0], "processor": platform.machine()}
    return here | library_versions()


def _set_level(level: int) -> None:
    """Let a worker say as much as this process does; its own default is warnings alone."""
    logging.getLogger("toolkit").setLevel(level)


def _check_workers(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=_WORKER_SECONDS)
    except TimeoutError:
        raise ConfigError(
            f"The scheduler at {address} has no worker. Start some with `dask worker "
            f"{address} --nthreads 1`."
        ) from None
    here = describe_machine()
    for worker, there in sorted(client.run(describe_machine).items()):
        other = [
            f"{name} is {there.get(name)}, here {here.get(name)}"
            for name in sorted(here.keys() | there.keys())
            if here.get(name) != there.get(name)
        ]
        if other:
            raise ConfigError(
                f"The worker {worker} would give other bytes than this machine: "
                f"{'; '.join(other)}. Install the same versions on both."
            )


def _judge(future: Any, name: str) -> UnitFailure | None:
    if future.status == "finished":
        outcome: UnitFailure | None = future.result()
        return outcome
    if future.status == "cancelled":
        return UnitFailure(name, "the scheduler cancelled it", expected=True)
    error = future.exception()
    from distributed import KilledWorker  # noqa: PLC0415

    if isinstance(error, KilledWorker):
        reason = "its workers died, each time it was tried: is there memory enough?"
        return UnitFailure(name, reason, expected=True)
    raise error


def _pack(task: UnitTask) -> tuple[dict[str, Any], str, tuple[str, ...]]:
    """Leave out what the worker reads from the shared file system."""
    said = {
        field.name: getattr(task, field.name)
        for field in fields(task)
        if field.name not in {"manifest", "tables"}
    }
    folders = tuple(str(Path(str(_file_of(table))).parent) for table in task.tables)
    return said | {"study": task.study.resolve()}, task.manifest.digest(), folders


def _file_of(table: FeatureTable) -> object:
    return getattr(table.values, "filename")  # noqa: B009  (numpy's stubs lack memmap's field)


def _attempt_packed(
    said: dict[str, Any], rows: str, folders: tuple[str, ...]
) -> UnitFailure | None:
    with _TURN:
        try:
            manifest = _read_rows(said["study"], rows)
            tables = tuple(_open_table(folder) for folder in folders)
        except ValueError as error:
            name = f"{said['system']}/{said['fold'].name}"
            return UnitFailure(name, str(error), expected=True)
        return attempt_task(UnitTask(**said, manifest=manifest, tables=tables))


@lru_cache(maxsize=4)
def _read_rows(study: Path, rows: str) -> Manifest:
    """Read a study's rows once; a worker outlives studies, so their hash is in the key."""
    manifest, _ = read_data(study)
    if manifest.digest() != rows:
        raise ConfigError(f"{study} on this worker holds other rows than the study that runs.")
    return manifest


@lru_cache(maxsize=32)
def _open_table(folder: str) -> FeatureTable:
    table = load_table(Path(folder))
    if table is None:
        raise ConfigError(
            f"The worker {platform.node()} cannot read the pooled features in {folder}. With "
            "--scheduler the study's folder and TOOLKIT_CACHE must lie on a file system that "
            "all workers share."
        )
    return table
