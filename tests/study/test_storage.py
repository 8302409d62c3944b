"""Searches kept outside the folder: PostgreSQL, and what SQLite cannot take."""

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import optuna
import pytest

from toolkit.study.cli import main
from toolkit.study.config import (
    ConfigError,
    StudyConfig,
    _check_scheduler_address,
    _normalise_storage,
    mask_password,
)
from toolkit.study.options import format_config, load_config
from toolkit.study.plan import Plan
from toolkit.study.runner import _check_storage, run_study
from toolkit.study.workers import UnitTask, _attempt_task
from toolkit.validation.trials import open_storage

USER, PASSWORD = "searcher", "s3cret-of-the-tests"
SMALL = {
    "quick": True,
    "trials": 2,
    "outer": "session",
    "inner": 2,
    "imbalance": "none",
    "screening": "none",
    "statistics": "minimal",
    "modality": ("text",),
}
SECRET = f"postgresql://anna:{PASSWORD}@127.0.0.1:9/searches"


def find_server():
    """Give the folder of the server's programs, or None: Debian keeps them off the PATH."""
    if shutil.which("initdb") and shutil.which("postgres"):
        return Path(shutil.which("initdb")).resolve().parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextmanager
def serve(folder):
    """Start a server in an empty folder; give the URL of its database, password included."""
    programs = find_server()
    data, sockets = folder / "data", folder / "sockets"
    for made in (data, sockets):
        made.mkdir()
    secret = folder / "secret"
    secret.write_text(PASSWORD)
    as_user = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        as_user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        for path in (folder, data, sockets, secret):
            shutil.chown(path, "postgres", "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(program, *words):
        command = [programs / program, *map(str, words)]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, **as_user)

    run("initdb", "-D", data, "-U", USER, f"--pwfile={secret}", "-A", "scram-sha-256", "-N")
    options = f"-p {port} -k {sockets} -c listen_addresses=127.0.0.1 -c fsync=off"
    run("pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start")
    try:
        yield f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def postgres():
    if find_server() is None:
        pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="the extra cluster is not installed")
    # Not below pytest's own folder, which it keeps shut to the server's user.
    with TemporaryDirectory(prefix="toolkit-postgres-") as folder, serve(Path(folder)) as url:
        yield url


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql://a@h/d", "postgresql+psycopg://a@h/d"),
        ("postgresql+psycopg://a:b@h:1/d?x=y", "postgresql+psycopg://a:b@h:1/d?x=y"),
        ("sqlite:////data/x.db", "sqlite:////data/x.db"),
    ],
)
def test_the_driver_of_a_storage_is_named(given, expected):
    assert _normalise_storage(given) == expected
    assert StudyConfig(storage=given).storage == expected


@pytest.mark.parametrize(
    "url", [f"mysql://anna:{PASSWORD}@h/d", f"anna:{PASSWORD}@h", "sqlite:///", "postgresql://"]
)
def test_another_storage_is_refused_without_showing_what_was_given(url):
    with pytest.raises(ConfigError, match=r"--storage: write postgresql\+psycopg://") as error:
        load_config(None, {"storage": url})

    assert PASSWORD not in str(error.value)


@pytest.mark.parametrize("address", ["tcp://h", "h:8786", "http://h:80", "tcp://h:port"])
def test_what_is_no_scheduler_is_refused(address):
    with pytest.raises(ConfigError, match=r"--scheduler .*: write tcp://HOST:PORT"):
        load_config(None, {"scheduler": address})


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:8786", "tls://node.x:1", "tcp://[::1]:2"])
def test_an_address_of_a_scheduler_is_taken(address):
    assert _check_scheduler_address(address) == address


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": "text/00", "fresh": True}, "--fresh sets the folder aside"),
        ({"scheduler": "tcp://h:1", "workers": 2}, "--workers counts local processes"),
    ],
)
def test_options_that_exclude_one_another_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, options)


def test_a_server_without_its_driver_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(ConfigError, match=r"anna:\*\*\*@.*pip install 'psycopg\[binary\]'"):
        _check_storage(_normalise_storage(SECRET), 1)
    _check_storage("sqlite:///x.db", 1)


def test_a_password_is_masked_wherever_a_url_stands():
    assert mask_password(f"a {SECRET} b") == "a postgresql://anna:***@127.0.0.1:9/searches b"
    assert PASSWORD not in mask_password(f"x?password={PASSWORD}&y=1")


@pytest.mark.parametrize("password", ["a@b", "a/b", "a:b@c/d"])
def test_an_odd_password_is_masked_whole(password):
    assert mask_password(f"see postgresql://anna:{password}@db/x now") == (
        "see postgresql://anna:***@db/x now"
    )


@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_a_failed_unit_does_not_show_its_storage(error):
    def fail():
        raise error(f"cannot reach {SECRET}")

    failure = _attempt_task(SimpleNamespace(name="text/00", execute=fail))

    assert "postgresql://anna:***@127.0.0.1:9/searches" in failure.reason
    assert PASSWORD not in failure.reason + failure.trace + repr(failure)


@pytest.mark.parametrize(("error", "code"), [(ValueError, 2), (OSError, 2), (RuntimeError, 1)])
def test_no_error_that_is_shown_holds_a_password(monkeypatch, capsys, error, code):
    def fail(_):
        raise error(f"cannot reach {SECRET}")

    monkeypatch.setattr("toolkit.study.datasets.demo_command", fail)

    assert main(["demo", "nowhere"]) == code
    said = capsys.readouterr()
    assert "postgresql://anna:***@127.0.0.1:9/searches" in said.err
    assert PASSWORD not in said.err + said.out


def test_no_file_holds_a_storage():
    config = StudyConfig(storage=SECRET)

    assert PASSWORD not in repr(config) + str(config) + format_config(config)
    assert "storage" not in config.identity()


def test_a_task_does_not_show_its_storage():
    parts = dict.fromkeys(("manifest", "tables", "folder"))
    task = UnitTask("text", *[None] * 4, storage=SECRET, study_name="x", **parts)

    assert PASSWORD not in repr(task)


def test_sqlite_refuses_more_than_eight_workers_and_says_why(corpus, tmp_path):
    config = StudyConfig(data=corpus / "dataset.csv", out=tmp_path / "out", workers=9, **SMALL)

    with pytest.raises(ConfigError, match=r"9 workers would write to one SQLite file.*one wri"):
        run_study(config)

    _check_storage("sqlite:///x.db", 8)
    _check_storage("postgresql+psycopg://h/d", 900)


def test_a_shared_storage_never_mixes_studies():
    provenance = {
        "identity": {"seed": 0},
        "data": {"rows": "r", "modalities": {"text": "t", "audio": "a"}},
        "versions": {"lightgbm": "4"},
        "platform": {"machine": "x"},
    }

    def name(provenance, storage=SECRET):
        plan = SimpleNamespace(name="study", config=SimpleNamespace(storage=storage))
        return Plan.search_name(plan, provenance, ["text"])

    text = name(provenance)

    assert name(provenance, storage=None) == "study"
    for other in (
        provenance | {"identity": {"seed": 1}},
        provenance | {"versions": {"lightgbm": "5"}},
        provenance | {"data": {"rows": "q", "modalities": {"text": "t"}}},
        provenance | {"data": {"rows": "r", "modalities": {"text": "u"}}},
    ):
        assert name(other) != text
    more = provenance | {"data": {"rows": "r", "modalities": {"text": "t", "audio": "b"}}}
    assert name(more) == text


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_named_without_the_password(
    corpus, tmp_path, capsys, caplog
):
    out = tmp_path / "out"
    words = ["--data", str(corpus / "dataset.csv"), "--out", str(out), "--quick"]

    assert main(["study", *words, "--modality", "text", "--storage", SECRET]) == 2

    assert not out.exists()

    said = capsys.readouterr()
    assert "postgresql+psycopg://anna:***@127.0.0.1:9/searches cannot be kept" in said.err
    assert "is down, cannot be reached, or refused the login" in said.err
    assert PASSWORD not in said.err + said.out + caplog.text


@pytest.mark.nightly
def test_eight_workers_on_postgresql_write_the_bytes_of_one_on_sqlite(
    corpus, contents, postgres, tmp_path, caplog
):
    caplog.set_level(logging.DEBUG)
    shared = {"data": corpus / "dataset.csv"} | SMALL
    run_study(StudyConfig(out=tmp_path / "sqlite", name="s", workers=1, **shared))
    config = StudyConfig(out=tmp_path / "pg", name="s", workers=8, storage=postgres, **shared)

    run_study(config)

    assert contents(tmp_path / "pg") == contents(tmp_path / "sqlite")
    assert not (tmp_path / "pg" / "internal" / "search.db").exists()
    with open_storage(config.storage) as storage:
        there = optuna.study.get_all_study_names(storage)
    assert len([name for name in there if name.startswith("s-")]) == 6
    assert PASSWORD not in (tmp_path / "pg" / "internal" / "provenance.json").read_text()
    assert PASSWORD not in caplog.text


@pytest.mark.nightly
def test_a_study_on_postgresql_that_was_killed_goes_on_to_the_same_bytes(
    corpus, contents, postgres, tmp_path
):
    folder = tmp_path / "killed"
    words = ["--quick", "--trials", "3", "--outer", "session", "--inner", "2"]
    words += ["--imbalance", "none", "--screening", "none", "--statistics", "minimal"]
    words += ["--data", str(corpus / "dataset.csv"), "--modality", "text", "--name", "killed"]
    command = [sys.executable, "-m", "toolkit.study", *words, "--storage", postgres]
    run = subprocess.Popen([*command, "--out", str(folder), "--workers", "2"])
    deadline = time.monotonic() + 120
    while not list(folder.glob("internal/units/text/0*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()

    subprocess.run([*command, "--out", str(folder), "--workers", "1"], check=True)
    # Another folder finds every trial in the storage, and comes to the same bytes by them.
    subprocess.run([*command, "--out", str(tmp_path / "again")], check=True)

    assert contents(folder) == contents(tmp_path / "again")


@pytest.mark.slow
def test_a_wrong_password_is_refused_without_being_shown(postgres, corpus, tmp_path):
    wrong = postgres.replace(PASSWORD, "wr0ng-secret")
    config = StudyConfig(
        data=corpus / "dataset.csv", out=tmp_path / "out", storage=wrong, **SMALL
    )

    with pytest.raises(ValueError, match="password authentication failed") as error:
        run_study(config)

    assert "wr0ng-secret" not in str(error.value)
