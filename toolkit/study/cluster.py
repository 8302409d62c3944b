"""A Dask cluster: its workers are like this machine, and its loss is noticed within seconds."""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from inspect import getsource
from math import inf
from typing import Any, Final

from toolkit.study.config import ConfigError
from toolkit.study.units import LIBRARIES, hash_code, library_versions

logger = logging.getLogger(__name__)

#: Seconds until a scheduler that says nothing, or that has no worker, counts as lost.
_PATIENCE: Final = 15
#: The same of workers: one that loads or compiles a library says nothing for up to 15 s.
_SILENCE: Final = 25
_PARTING: Final = 3
_PAUSE: Final = 0.05
#: Describes a machine, and makes a call there if it is as expected. It travels as text: a
#: worker may have another Python, another toolkit, or none.
_PROGRAM: Final = f"""
import hashlib, importlib.metadata, pickle, platform, sys
from functools import cache
from pathlib import Path
{getsource(library_versions)}
{getsource(hash_code)}
found = {{"python": sys.version.split()[0], "processor": platform.machine()}}
found |= library_versions()
try:
    import toolkit
    found["modality-toolkit"] = toolkit.__version__
    found["code of modality-toolkit"] = hash_code()[:12]
except Exception:
    pass
def run(expected, call):
    return pickle.loads(call)() if found == expected else found
"""


@contextmanager
def connect_cluster(address: str) -> Iterator["_Cluster"]:
    """Connect to a Dask scheduler and check that its workers are like this machine."""
    try:
        from distributed import Client  # noqa: PLC0415  (its home, and only where it is used)
    except ImportError:
        raise ConfigError(
            "--scheduler needs Dask, here and where the workers run: pip install distributed"
        ) from None
    try:
        connect = partial(Client, address, timeout=_PATIENCE, set_as_default=False)
        client = _wait_for(connect, _PATIENCE)
    except OSError as error:
        reason = str(error) or "silence"
        raise ConfigError(
            f"No Dask scheduler answers at {address} ({reason}). Start one with `dask "
            "scheduler` and give its address."
        ) from None
    cluster = _Cluster(client, address)
    try:
        while not cluster.checked:
            cluster.look()
            time.sleep(_PAUSE)
        # A worker's own default is warnings alone; a logger travels by its name.
        level = logger.getEffectiveLevel()
        if "dashboard" in cluster.ask(client.scheduler_info)["services"]:
            link = cluster.ask(getattr, client, "dashboard_link")
            logger.info("Dashboard of the cluster: %s", link)
        cluster.ask(client.run, logging.getLogger("toolkit").setLevel, level)
        cluster.ask(client.forward_logging, "toolkit", level=level)
        yield cluster
    finally:
        cluster.leave(client.close)


def _wait_for(call: Callable[[], Any], seconds: float) -> Any:
    """Make a call in a thread, and give it up after a time: Dask may wait for ever."""
    answer: Future[Any] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001  (raised where it is waited for)
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer.result(seconds)


class _ClusterError(ValueError):
    """A cluster whose scheduler or workers are gone."""


def _evaluate(expression: str, *given: Any) -> tuple[Any, ...]:
    """Give the call that evaluates an expression after the program that describes a machine."""
    scope = {"LIBRARIES": LIBRARIES, "given": given}
    return (
        eval,
        f"exec(program, scope) or eval({expression!r}, scope)",
        {"program": _PROGRAM, "scope": scope},
    )


def _describe_machine() -> dict[str, str]:
    """Name the versions that the bytes of a study depend on."""
    call, *given = _evaluate("found")
    found: dict[str, str] = call(*given)
    return found


@dataclass(slots=True, eq=False)
class _Cluster:
    """A Dask cluster that is looked at while it works, since Dask waits for what was lost.

    - machine: Versions of this machine, which those of every worker must equal.
    - checked: Addresses of workers that were compared with it.
    - workers: Addresses of the present workers, and the time of each one's last sign.
    - changed: When a worker last gave a sign, by the clock of this process.
    """

    client: Any
    address: str
    machine: dict[str, str] = field(default_factory=_describe_machine)
    checked: set[str] = field(default_factory=set)
    workers: dict[str, float] = field(default_factory=dict)
    changed: float = field(default_factory=time.monotonic)
    next_look: float = 0

    def ask(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Ask the scheduler something."""
        try:
            return _wait_for(partial(call, *args, **options), _PATIENCE)
        except OSError as error:
            raise self._describe_loss(f"does not answer ({str(error) or 'silence'})") from None

    def leave(self, call: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Tell the scheduler something; one that is gone need not hear it."""
        with suppress(Exception):
            _wait_for(partial(call, *args, **options), _PARTING)

    def look(self) -> None:
        """Raise an error where the cluster is gone, or a worker has other versions."""
        now = time.monotonic()
        if now < self.next_look:
            return
        self.next_look = now + 1
        if self.client.status != "running":
            raise self._describe_loss("closed the connection")
        signs = self._read_signs()
        if new := signs.keys() - self.checked:
            self._check(sorted(new))
        if signs and signs != self.workers:
            self.changed = now
        self.workers = signs
        if now - self.changed > (_SILENCE if signs else _PATIENCE):
            start = f"dask worker {self.address} --nthreads 1"
            raise self._describe_loss(f"has no worker that answers; `{start}` starts one")

    def _read_signs(self) -> dict[str, float]:
        identity = self.ask(self.client.sync, self.client.scheduler.identity)
        return {name: worker["last_seen"] for name, worker in identity["workers"].items()}

    def call(
        self, calls: Mapping[str, Sequence[Any]], lose: Callable[[str, str], Any]
    ) -> Iterator[tuple[str, Any]]:
        """Have the workers make calls; give the name and result of each as it ends.

        The scheduler makes a call again, on another worker, if its worker dies.

        - calls: Name to a function and its arguments.
        - lose: Gives the result of a call that has none, from its name and the reason.
        """
        from distributed import as_completed  # noqa: PLC0415
        from distributed.protocol.pickle import dumps  # noqa: PLC0415

        self.changed, self.next_look = time.monotonic(), 0
        self.look()
        run = uuid.uuid4().hex[:8]
        names = {}
        for name, (call, *given) in calls.items():
            # Checked there as well: a worker may join, and get it, before it is looked at.
            program = _evaluate("run(*given)", self.machine, dumps(partial(call, *given)))
            future = self.client.submit(*program, key=f"{name} {run}", pure=False)
            names[future] = name
        # Results are fetched there: a worker may die between its last call and the fetching.
        done = as_completed(
            list(names), loop=self.client.loop, with_results=True, raise_errors=False
        )

        try:
            while not done.is_empty():
                for future, result in done.next_batch(block=False):
                    name = names.pop(future)
                    reason = self._find_fault(future.status, result)
                    yield name, lose(name, reason) if reason else result
                self.look()
                time.sleep(_PAUSE)
        finally:  # an interrupt leaves nothing running on the cluster
            self.leave(self.client.cancel, list(names), force=True)

    def _find_fault(self, status: str, result: Any) -> str:
        """Name the fault of a call that ended without a result; raise its error, if any."""
        # Once fetched, a result is kept, though its worker may since be lost: status "lost".
        has_ended = status not in ("error", "cancelled")
        if has_ended and not isinstance(result, dict):
            return ""
        # A lost scheduler cancels everything, and a worker of other versions names them.
        self.next_look = 0
        self.look()
        if has_ended:
            _refuse_other("that has left", result, self.machine)
        if status == "cancelled":
            return "the scheduler cancelled it"
        _, error, _ = result
        from distributed import KilledWorker  # noqa: PLC0415

        if isinstance(error, KilledWorker):
            return "its workers died, each time it was tried: is there memory enough?"
        raise error

    def _check(self, addresses: list[str]) -> None:
        run = partial(self.client.run, *_evaluate("found"), workers=addresses)
        try:
            found = self.ask(run, on_error="return")
        except _ClusterError:
            signs = self._read_signs()  # the scheduler answers, so one of the workers does not
            silent = min(addresses, key=lambda name: signs.get(name, inf))
            raise self._describe_loss(f"gets no answer from the worker {silent}") from None
        for worker, versions in sorted(found.items()):
            if isinstance(versions, OSError):  # it left
                continue
            if isinstance(versions, Exception):
                raise ConfigError(f"The worker {worker} cannot name its versions: {versions}.")
            _refuse_other(worker, versions, self.machine)
            self.checked.add(worker)

    def _describe_loss(self, what: str) -> _ClusterError:
        return _ClusterError(
            f"The Dask scheduler at {self.address} {what}. What was finished is kept: when "
            "scheduler and workers are there, run the same command again to go on."
        )


def _refuse_other(worker: str, remote: dict[str, str], local: dict[str, str]) -> None:
    """Refuse a worker of other versions, by its address."""
    unequal = [
        f"{name} is {remote.get(name, 'missing')}, here {local.get(name, 'missing')}"
        for name in sorted(local.keys() | remote.keys())
        if local.get(name) != remote.get(name)
    ]
    if unequal:
        raise ConfigError(
            f"The worker {worker} would give other bytes than this machine: "
            f"{'; '.join(unequal)}. Install the same versions on both."
        )
