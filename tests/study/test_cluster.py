"""Units on a Dask cluster of several processes: the bytes of a run in one process."""

import logging
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from toolkit.study import workers as cluster_module
from toolkit.study.cluster import connect_cluster
from toolkit.study.config import StudyConfig
from toolkit.study.runner import run_study
from toolkit.study.workers import run_tasks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.nightly,
    # What Dask's own threads leave behind when a worker is killed is not ours to mend.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

distributed = pytest.importorskip("distributed", reason="the extra cluster is not installed")

SMALL = {
    "quick": True,
    "trials": 2,
    "outer": "session",
    "inner": 2,
    "imbalance": "none",
    "screening": "none",
    "statistics": "minimal",
    "modality": ("text", "audio"),
}


@pytest.fixture(scope="module")
def scheduler():
    """Address of a cluster of four worker processes."""
    with distributed.LocalCluster(
        n_workers=4,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=50,
    ) as made:
        yield made.scheduler_address


def configure(corpus, folder, **options):
    return StudyConfig(data=corpus / "dataset.csv", out=folder, **(SMALL | options))


@pytest.fixture(scope="module")
def sequential(corpus, contents, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "sequential"
    run_study(configure(corpus, folder, workers=1))
    return contents(folder)


def count_openings():
    """Count, on a worker, the tables that it has opened."""
    return cluster_module._open_table.cache_info().misses


def find_workers(address):
    with distributed.Client(address, set_as_default=False) as client:
        return set(client.run(os.getpid).values())


def test_a_cluster_that_loses_a_worker_writes_the_bytes_of_one_process(
    corpus, scheduler, tmp_path, caplog, *, contents, sequential
):
    caplog.set_level(logging.INFO, "toolkit")
    folder = tmp_path / "cluster"
    killed = []

    def kill():
        """Kill a worker in the middle: some units are written, others are not."""
        deadline = time.monotonic() + 200
        while len(list(folder.glob("internal/units/*/0*"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        killed.append(min(find_workers(scheduler)))
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    result = run_study(configure(corpus, folder, scheduler=scheduler))
    thread.join()

    assert killed
    assert killed[0] not in find_workers(scheduler)
    assert not result.unfinished
    assert contents(folder) == sequential
    # Progress comes back unit by unit.
    units = [
        path
        for path in folder.glob("internal/units/*/*")
        if "-permuted" not in path.parent.name
    ]
    told = {
        f"{path.parent.name}, fold {int(path.stem) + 1} of"
        for path in units
        if path.stem.isdecimal()
    }
    assert {line for line in told if line not in caplog.text} == set()
    assert caplog.text.count("Dashboard of the cluster: http://127.0.0.1:") == 1
    # Tables travel by path, and a worker opens each of them once.
    with distributed.Client(scheduler, set_as_default=False) as client:
        opened = client.run(count_openings).values()
    assert max(opened) == len(SMALL["modality"])


def test_what_workers_log_comes_back(scheduler, caplog):
    caplog.set_level(logging.INFO, "toolkit")
    speak = "import logging; logging.getLogger('toolkit.study').info('a worker speaks')"

    with connect_cluster(scheduler) as cluster:
        cluster.client.submit(exec, speak, pure=False).result()
        deadline = time.monotonic() + 20
        while "a worker speaks" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)

    assert "a worker speaks" in caplog.text


def test_a_unit_that_fails_names_itself_and_the_rest_goes_on(corpus, scheduler, tmp_path):
    folder = tmp_path / "failing"
    run_study(configure(corpus, folder, only="text/0"))
    # A file stands where the unit's folder should be made, so it cannot be written.
    (folder / "internal" / "units" / "audio-logistic").write_text("in the way")

    with pytest.raises(ValueError, match=r"5 unit\(s\) failed.*audio-logistic/0\d: "):
        run_study(configure(corpus, folder, scheduler=scheduler))

    assert len(list((folder / "internal" / "units" / "text").iterdir())) == 6
    assert (folder / "report.html").exists()


def _die(*_):
    os._exit(1)


def test_a_unit_that_kills_its_workers_is_named(scheduler, monkeypatch):
    task = type("Task", (), {"name": "text/00"})()
    monkeypatch.setattr(cluster_module, "_pack", lambda _: ())
    monkeypatch.setattr(cluster_module, "_attempt_packed", _die)
    with connect_cluster(scheduler) as client:
        (failure,) = run_tasks([task], workers=1, on_done=lambda _: None, client=client)

    assert failure.name == "text/00"
    assert failure.expected
    assert "its workers died" in failure.reason


def test_tables_travel_by_path(corpus, scheduler, tmp_path, monkeypatch):
    """No feature is sent: a table that a worker cannot read is named with its folder."""
    monkeypatch.setattr(
        cluster_module, "_file_of", lambda _: Path(tmp_path / "nowhere" / "values.npy")
    )

    with pytest.raises(ValueError, match=r"cannot read the pooled features in .*nowhere"):
        run_study(configure(corpus, tmp_path / "out", scheduler=scheduler, modality=("text",)))
