"""Clusters that are lost, silent or of other versions: named at once, and the study ends.

Scheduler and workers are processes of Dask's own commands. What they call is Python's own.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

import toolkit
from toolkit.study import cluster as module
from toolkit.study.cli import main
from toolkit.study.cluster import _ClusterError, connect_cluster
from toolkit.study.config import ConfigError
from toolkit.study.workers import run_calls

pytest.importorskip("distributed", reason="the extra cluster is not installed")

pytestmark = [
    pytest.mark.slow,  # workers that die, and waits for them
    # What Dask's own threads leave behind when a scheduler is killed is not ours to free.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
    pytest.mark.filterwarnings("ignore:Mismatched versions found"),
]

ROOT = Path(toolkit.__file__).parents[1]
#: Writes the number of the process that makes the call, and takes a moment.
WORK = "import os, time; open(path, 'w').write(str(os.getpid())); time.sleep(seconds)"


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 3)
    monkeypatch.setattr(module, "_PARTING", 1)


class Cluster:
    """A scheduler process and worker processes, each with folders before its packages."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = []
        file = folder / "scheduler.json"
        self.scheduler = self.start("scheduler", "--port", "0", "--scheduler-file", str(file))
        wait_until(lambda: file.exists() and file.stat().st_size)
        self.address = json.loads(file.read_text())["address"]

    def start(self, kind, *options, before=()):
        path = os.pathsep.join(map(str, (*before, ROOT)))
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--host", "127.0.0.1"]
        with (self.folder / f"{len(self.processes)}.log").open("w") as log:
            process = subprocess.Popen(
                [*command, "--no-dashboard", *options],
                cwd=self.folder,
                env=os.environ | {"PYTHONPATH": path},
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    @contextmanager
    def add_worker(self, *before):
        worker = self.start_worker(*before)
        try:
            yield worker
        finally:
            worker.kill()
            worker.wait()

    def start_worker(self, *before):
        options = (self.address, "--nthreads", "1", "--no-nanny")
        scratch = ("--local-directory", str(self.folder))
        log = self.folder / f"{len(self.processes)}.log"
        worker = self.start("worker", *options, *scratch, before=before)
        # On a busy machine this takes longer than the patience of these tests.
        wait_until(lambda: "Registered to" in log.read_text())
        return worker

    def stop(self):
        for process in self.processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


def wait_until(holds, seconds=60):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Start a cluster of one worker."""
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.worker = made.start_worker()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Make folders in which a package, the toolkit, or Python has another version."""
    folder = tmp_path_factory.mktemp("others")
    for name in ("lightgbm", "xgboost_cpu"):
        facts = folder / "boosters" / f"{name}-0.1.dist-info" / "METADATA"
        facts.parent.mkdir(parents=True)
        facts.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (folder / "toolkit" / "toolkit").mkdir(parents=True)
    (folder / "toolkit" / "toolkit" / "__init__.py").write_text("__version__ = '0.0.1'\n")
    (folder / "toolkit" / "sitecustomize.py").write_text(
        "import sys\nsys.version = '3.9.1' + sys.version[len(sys.version.split()[0]):]\n"
    )
    return folder


def make_calls(folder, n, seconds=0.3):
    return {
        f"unit/{i}": (exec, WORK, {"path": str(folder / f"{i}.pid"), "seconds": seconds})
        for i in range(n)
    }


@contextmanager
def ends_within(seconds):
    """Interrupt what does not end in time."""

    def give_up(*_):
        raise AssertionError(f"it goes on after {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read_pids(folder):
    return {int(path.read_text()) for path in folder.glob("*.pid") if path.stat().st_size}


def test_a_worker_of_other_versions_that_joins_late_is_refused_by_name(
    cluster, others, tmp_path
):
    named = (
        rf"The worker tcp://\S+ would .*modality-toolkit is 0\.0\.1, here "
        rf"{re.escape(toolkit.__version__)}; python is 3\.9\.1, here 3\.\d+"
    )
    with (
        ends_within(60),
        ExitStack() as stack,
        connect_cluster(cluster.address) as connected,
    ):
        calls = make_calls(tmp_path, 100)
        join = iter([lambda: stack.enter_context(cluster.add_worker(others / "toolkit"))])
        with pytest.raises(ConfigError, match=named):
            run_calls(connected, calls, lambda _: next(join, int)())
        assert len(connected.checked) == 1

    assert read_pids(tmp_path) == {cluster.worker.pid}


def test_a_worker_of_other_versions_is_refused_before_it_works(
    cluster, others, tmp_path, monkeypatch
):
    with connect_cluster(cluster.address) as connected, ExitStack() as stack:
        joined = stack.enter_context(cluster.add_worker(others / "boosters"))
        wait_until(lambda: len(connected.client.scheduler_info()["workers"]) == 2)
        # Connecting finds it.
        here = {name: re.escape(version) for name, version in connected.machine.items()}
        named = f"lightgbm is 0.1, here {here['lightgbm']}"
        if "xgboost-cpu" in here:
            named += f"; xgboost-cpu is 0.1, here {here['xgboost-cpu']}"
        with (
            pytest.raises(ConfigError, match=rf"The worker tcp://\S+ would .*: {named}\."),
            connect_cluster(cluster.address),
        ):
            pass
        # It refuses a call that it gets before it is looked at.
        monkeypatch.setattr(module._Cluster, "look", lambda _: None)
        with pytest.raises(ConfigError, match=rf"The worker that has left would .*{named}"):
            run_calls(connected, make_calls(tmp_path, 4), lambda _: None)

        assert joined.pid not in read_pids(tmp_path)


def test_the_last_worker_may_die_at_any_moment(cluster, tmp_path):
    def kill(_):
        cluster.worker.kill()

    with (
        ends_within(60),
        pytest.raises(_ClusterError, match=r"has no worker that answers.* again to go on"),
        connect_cluster(cluster.address) as connected,
    ):
        run_calls(connected, make_calls(tmp_path, 20), kill)

    # And nothing is waited for where there is none from the start.
    with (
        ends_within(60),
        pytest.raises(_ClusterError, match=rf"`dask worker {cluster.address} --nthreads 1`"),
        connect_cluster(cluster.address),
    ):
        pass


def test_a_result_is_kept_though_its_worker_dies_before_it_is_looked_at(
    cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "_PAUSE", 3)  # both calls have ended at the first look
    cluster.worker.kill()  # no other worker may have the results
    cluster.worker.wait()
    with (
        ends_within(60),
        cluster.add_worker() as worker,
        connect_cluster(cluster.address) as connected,
    ):
        results = connected.call(make_calls(tmp_path, 2, seconds=0), lambda *lost: lost)
        first = next(results)
        worker.kill()
        futures = connected.client.futures.values()
        wait_until(lambda: all(future.status == "lost" for future in futures))

        assert sorted([first, next(results)]) == [("unit/0", None), ("unit/1", None)]
        results.close()


@pytest.mark.parametrize("moment", ["connecting", "the first call", "the second call"])
def test_a_worker_that_falls_silent_counts_as_lost(cluster, tmp_path, monkeypatch, moment):
    monkeypatch.setattr(module, "_SILENCE", 4)
    calls = make_calls(tmp_path, 20)
    cluster.worker.kill()  # no other worker may go on
    cluster.worker.wait()
    named = "answer from the worker tcp://" if moment == "connecting" else "worker that answers"
    with ends_within(60), cluster.add_worker() as worker:

        def stop(_=None):
            worker.send_signal(signal.SIGSTOP)

        def run():
            with connect_cluster(cluster.address) as connected:
                if moment == "the first call":
                    stop()
                run_calls(connected, calls, stop)

        if moment == "connecting":
            stop()
        with pytest.raises(_ClusterError, match=f"no {named}"):
            run()


@pytest.mark.parametrize(
    ("sent", "answer"), [(signal.SIGSTOP, "does not answer"), (signal.SIGKILL, "")]
)
def test_a_scheduler_may_be_lost_at_any_moment(cluster, tmp_path, sent, answer):
    calls = make_calls(tmp_path, 20)
    with (
        cluster.add_worker(),
        ends_within(60),
        pytest.raises(_ClusterError, match=rf"scheduler at {cluster.address} .*{answer}"),
        connect_cluster(cluster.address) as connected,
    ):
        run_calls(connected, calls, lambda _: cluster.scheduler.send_signal(sent))
    cluster.scheduler.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("listens", [True, False])
def test_a_study_ends_where_no_scheduler_answers(
    corpus, tmp_path, capsys, monkeypatch, listens
):
    monkeypatch.setattr(module, "_PATIENCE", 1)
    with socket.create_server(("127.0.0.1", 0)) as server, ends_within(60):
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        if not listens:
            server.close()
        options = ["--data", str(corpus / "dataset.csv"), "--out", str(tmp_path / "study")]
        code = main(
            ["study", *options, "--quick", "--modality", "text", "--scheduler", address]
        )

    assert code == 2
    assert f"No Dask scheduler answers at {address}" in capsys.readouterr().err


@pytest.mark.nightly
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
def test_a_study_that_lost_its_cluster_goes_on_to_the_same_bytes(
    corpus, tmp_path, monkeypatch, capsys, *, contents, undrawn, sent
):
    monkeypatch.setattr(module, "_PATIENCE", 15)
    options = ["--data", str(corpus / "dataset.csv"), "--quick", "--trials", "2"]
    options += ["--modality", "text", "--outer", "session", "--statistics", "minimal"]

    def run(folder, cluster=None):
        where = [] if cluster is None else ["--scheduler", cluster.address]
        return main(["study", *options, "--out", str(folder), *where])

    def lose(cluster, folder):
        wait_until(lambda: list(folder.glob("internal/units/*/0*")))
        lost = cluster.scheduler if sent == signal.SIGSTOP else cluster.worker
        lost.send_signal(sent)
        moments.append(time.monotonic())

    moments = []
    with undrawn():
        (tmp_path / "first").mkdir()
        first = Cluster(tmp_path / "first")
        try:
            first.worker = first.start_worker()
            killer = threading.Thread(target=lose, args=(first, tmp_path / "study"))
            killer.start()
            code = run(tmp_path / "study", first)
            moments.append(time.monotonic())
            killer.join()
        finally:
            first.stop()
        assert code == 2
        assert moments[1] - moments[0] < 30
        assert "run the same command again to go on" in capsys.readouterr().err
        assert run(tmp_path / "study") == 0
        assert run(tmp_path / "alone") == 0

    assert contents(tmp_path / "study") == contents(tmp_path / "alone")
