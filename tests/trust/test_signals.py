"""Runs that are interrupted, lose a worker, or meet another run in their folder."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.nightly,
    pytest.mark.skipif(not os.path.exists("/proc"), reason="children are found in /proc"),  # noqa: PTH110
]


@pytest.fixture
def start(dyads):
    """Start the command on text with two workers; it would take an hour."""
    runs = []

    def run(folder):
        # A shell starts its background jobs deaf to SIGINT, and children inherit that.
        listening = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        listening += "import sys; from toolkit.study.cli import main; sys.exit(main())"
        words = ["study", "--data", str(dyads / "dataset.csv"), "--out", str(folder)]
        words += ["--modality", "text", "--outer", "session", "--inner", "2", "--workers", "2"]
        words += ["--trials", "5000", "--statistics", "minimal"]
        command = [sys.executable, "-c", listening, *words]
        options = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True}
        runs.append(subprocess.Popen(command, **options))
        return runs[-1]

    yield run
    for each in runs:
        if each.poll() is None:
            each.kill()
        each.wait()
        each.stderr.close()


def workers_of(run):
    """Process ids of the workers of a run: children that load its tasks."""
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208
        try:
            with open(f"/proc/{entry}/stat") as file:  # noqa: PTH123
                parent = int(file.read().rpartition(")")[2].split()[1])
            with open(f"/proc/{entry}/cmdline") as file:  # noqa: PTH123
                command = file.read()
        except (OSError, ValueError):
            continue
        if parent == run.pid and "popen_loky_posix" in command:
            found.append(int(entry))
    return found


def wait_for(happened, seconds=90):
    deadline = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found


def is_alive(process):
    try:
        with open(f"/proc/{process}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def has_begun(folder):
    """Say whether workers are at work: the database of the searches has a finished trial."""

    def look():
        database = folder / "internal" / "search.db"
        if not database.exists():
            return False
        try:
            with closing(sqlite3.connect(database, timeout=10)) as searches:
                return searches.execute("SELECT count(*) FROM trials").fetchone()[0] > 1
        except sqlite3.OperationalError:  # its tables are being made
            return False

    return look


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_everything_within_five_seconds(start, tmp_path, signum, code):
    run = start(tmp_path / "s")
    wait_for(has_begun(tmp_path / "s"))
    workers = wait_for(lambda: len(found := workers_of(run)) == 2 and found)
    begun = time.monotonic()
    # A terminal sends Ctrl-C to the workers too, a batch system its signal to the command.
    os.killpg(run.pid, signum) if signum == signal.SIGINT else run.send_signal(signum)
    said = run.stderr.read()
    run.wait(timeout=60)
    spent = time.monotonic() - begun

    assert run.returncode == code, said
    assert said.endswith("Interrupted. Run the same command again to go on.\n")
    assert "Traceback" not in said
    # To unload these libraries alone takes an interpreter a second of computing.
    assert spent < 5 * max(1, os.getloadavg()[0] / (os.cpu_count() or 1))
    wait_for(lambda: not any(map(is_alive, workers)), 30)


def test_a_killed_worker_is_said_and_the_rest_is_kept(start, tmp_path):
    run = start(tmp_path / "s")
    workers = wait_for(lambda: len(found := workers_of(run)) == 2 and found)
    wait_for(has_begun(tmp_path / "s"))
    os.kill(workers[0], signal.SIGKILL)
    run.wait(timeout=60)
    said = run.stderr.read()

    assert run.returncode == 2
    assert "A worker process was killed" in said
    assert "run the same command again, with fewer --workers" in said
    assert "Traceback" not in said
    wait_for(lambda: not any(map(is_alive, workers)), 30)


def test_a_second_run_is_refused_and_takes_over_when_the_first_is_dead(start, tmp_path):
    first = start(tmp_path / "s")
    workers = wait_for(lambda: len(found := workers_of(first)) == 2 and found)
    second = start(tmp_path / "s")
    second.wait(timeout=60)

    assert second.returncode == 2
    assert f"(process {first.pid})" in second.stderr.read()
    assert first.poll() is None

    first.kill()
    first.wait()
    wait_for(lambda: not any(map(is_alive, workers)), 30)
    third = start(tmp_path / "s")
    owner = tmp_path / "s" / "internal" / ".lock-owner"
    wait_for(lambda: owner.read_text().strip() == str(third.pid))
    assert third.poll() is None
