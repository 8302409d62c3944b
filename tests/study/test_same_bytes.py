"""All systems and fusions: the same bytes whatever the machine does in between."""

import base64
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from toolkit.data import ManifestError, make_corpus, read_manifest
from toolkit.study import explaining as explanation
from toolkit.study import workers as executors
from toolkit.study.config import StudyConfig
from toolkit.study.folder import StudyFolder
from toolkit.study.plan import plan_study
from toolkit.study.runner import _make_tasks, run_study
from toolkit.validation import LeakageError, UnitResult

# Whole studies with every fusion, run again and again.
pytestmark = pytest.mark.slow

SAID = {
    "trials": 2,
    "outer": "3",
    "inner": 2,
    "imbalance": "smote",
    "screening": "none",
    "statistics": "minimal",
    "quick": True,
    "modality": ("audio", "text"),
}

#: Dies before the renaming into the study's folder that the first argument counts: what was
#: written is on the disk under its temporary name.
DYING = """
import os, signal, sys
from pathlib import Path

left, folder = int(sys.argv.pop(1)), sys.argv.pop(1)

def dying(move):
    def moved(path, target):
        global left
        if str(target).startswith(folder):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return move(path, target)
    return moved

Path.rename, Path.replace = dying(Path.rename), dying(Path.replace)
from toolkit.study.cli import main

sys.exit(main())
"""


@pytest.fixture(scope="module", autouse=True)
def _cache(undrawn, tmp_path_factory):
    # The bytes of figures are compared where one system is studied.
    with pytest.MonkeyPatch.context() as patch, undrawn():
        patch.setenv("TOOLKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def source(build_once):
    """A corpus so small that all its systems are searched within seconds."""
    dims = {"visual": 8, "audio": 8, "text": 8}

    def make(folder):
        make_corpus(folder / "corpus", n_utterances=90, dims=dims)

    return build_once("small", make, copy=False) / "corpus" / "dataset.csv"


def run(source, folder, **options):
    return run_study(StudyConfig(data=source, out=folder, **({"workers": 1} | SAID | options)))


@pytest.fixture(scope="module")
def finished(source, build_once):
    return build_once("everything", lambda folder: run(source, folder))


def contents(folder):
    """Bytes of all that a finished study tells, and whatever else lies there."""
    left_out = {"provenance.json", "search.db", ".lock"}
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b"folder"
        for path in folder.rglob("*")
        if path.name not in left_out and path.relative_to(folder).parts[0] != "figures"
    }


def words(source, folder):
    text = [f"--{name}={value}" for name, value in SAID.items() if isinstance(value, str | int)]
    text = [word.removesuffix("=True") for word in text]
    modality = f"--modality={','.join(SAID['modality'])}"
    return ["study", f"--data={source}", f"--out={folder}", modality, *text]


def test_all_systems_are_there(finished):
    with (finished / "predictions.csv").open(newline="") as file:
        systems = {row["system"] for row in csv.DictReader(file)}

    assert systems >= {
        "audio",
        "text",
        "early",
        "vote",
        "soft",
        "weighted",
        "stacked",
        "log-pool",
    }


@pytest.mark.nightly
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_kills_at_any_write_change_no_byte(source, finished, tmp_path):
    folder = tmp_path / "killed"
    n_units = []
    # Five renamings before the first unit, six per boosted unit, and one of the audit at last:
    # deaths at the first, in the second unit, in a third one more, and among the predictions.
    for kill_at, hash_seed, workers in ((0, "1", 1), (12, "2", 1), (18, "3", 1), (7, "4", 2)):
        command = [sys.executable, "-c", DYING, str(kill_at), str(folder)]
        dead = subprocess.run(
            [*command, *words(source, folder), f"--workers={workers}"],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=False,
        )
        assert dead.returncode == -signal.SIGKILL
        units = folder.glob("internal/units/*/[0-9]*")
        n_units.append(len([unit for unit in units if "-permuted" not in unit.parts[-2]]))

    run(source, folder)

    assert n_units == [0, 1, 3, 18]
    assert contents(folder) == contents(finished)


def turned(function):
    """Give the entries of a folder from the last to the first."""

    def listing(*args, **kwargs):
        found = function(*args, **kwargs)
        if isinstance(found, list):
            return sorted(found, reverse=True)
        with found:
            return _Entries(sorted(found, key=lambda entry: entry.name, reverse=True))

    return listing


class _Entries:
    """What os.scandir gives: an iterator that is a context too."""

    def __init__(self, entries):
        self.entries = iter(entries)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.entries)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def close(self):
        return None


def test_the_order_of_rows_and_of_folders_entries_changes_no_byte(
    source, finished, tmp_path, monkeypatch
):
    other = shutil.copytree(source.parent, tmp_path / "corpus") / "dataset.csv"
    header, *rows = other.read_text().splitlines()
    other.write_text("\n".join([header, *rows[1::2], *rows[::2][::-1]]) + "\n")
    plain = sorted(os.listdir(source.parent))  # noqa: PTH208  (what is patched)
    monkeypatch.setattr(os, "listdir", turned(os.listdir))
    monkeypatch.setattr(os, "scandir", turned(os.scandir))

    run(other, tmp_path / "out")
    run(other, tmp_path / "out")  # and read again what was written

    assert os.listdir(source.parent) == plain[::-1]  # noqa: PTH208
    assert [path.name for path in source.parent.iterdir()] == plain[::-1]
    monkeypatch.undo()
    assert contents(tmp_path / "out") == contents(finished)


def test_every_fold_of_every_system_has_a_search_of_its_own(finished):
    storage = optuna.storages.RDBStorage(StudyFolder(finished).storage_url)
    studies = {s.study_name: s._study_id for s in optuna.get_all_study_summaries(storage)}
    proposed = {
        name: str([trial.params for trial in storage.get_all_trials(number)])
        for name, number in studies.items()
    }
    storage.remove_session()
    storage.engine.dispose()

    systems = ("audio", "text", "early")
    folds = [*(f"{k:02d}" for k in range(3)), "final"]
    assert set(studies) == {f"corpus-quick/{s}/{fold}" for s in systems for fold in folds}
    # A search that began with another fold's winner would know that fold's test speakers.
    assert len(set(proposed.values())) == len(proposed)


def test_fusion_over_other_modalities_sets_the_old_one_aside(source, finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    before = contents(folder)

    run(source, folder, modality=("audio", "text", "visual"), fusion=("early",))

    assert (folder / "internal" / "superseded" / "early-audio-text.1").is_dir()
    after = contents(folder)["predictions.csv"].splitlines()
    before = before["predictions.csv"].splitlines()
    for system, same in ((b"early,", False), (b"text,", True)):
        lines = [[line for line in each if line.startswith(system)] for each in (before, after)]
        assert len(lines[0]) == len(lines[1]) == 90
        assert (lines[0] == lines[1]) == same


def test_a_held_out_row_in_a_finished_unit_stops_a_study(source, finished, tmp_path, opened):
    folder = shutil.copytree(finished, tmp_path / "copy")
    with opened(StudyFolder(folder).unit("text", 2), sums=True) as unit:
        summary = json.loads((unit / "unit.json").read_text())
        refit = next(
            e for e in summary["ledger"] if (e["fit"], e["role"]) == ("refit", "train")
        )
        everybody = np.packbits(np.ones(90, dtype=bool)).tobytes()
        refit["rows"] = base64.b64encode(everybody).decode()
        (unit / "unit.json").write_text(json.dumps(summary))

    with pytest.raises(
        LeakageError, match=r"The audit failed: text/02: refit used \d+ held-out"
    ):
        run(source, folder)

    audit = json.loads((folder / "internal" / "audit.json").read_text())
    assert audit["verdict"] == "leakage found"


def test_one_recording_under_two_speakers_stops_a_study(source, tmp_path):
    twice = shutil.copytree(source.parent, tmp_path / "corpus") / "dataset.csv"
    header, *rows = twice.read_text().splitlines()
    speakers = [row.split(",")[1] for row in rows]
    other = next(k for k, speaker in enumerate(speakers) if speaker != speakers[0])
    cells = rows[other].split(",")
    rows[other] = ",".join([*cells[:2], *rows[0].split(",")[2:]])
    twice.write_text("\n".join([header, *rows]) + "\n")

    with pytest.raises(ManifestError, match="one recording under several names"):
        run(twice, tmp_path / "out")
    run(twice, tmp_path / "out", duplicates="allow", modality=("text",), only="text/00")


def test_a_unit_is_fitted_with_one_thread_whatever_the_machine_has(
    source, tmp_path, monkeypatch
):
    config = StudyConfig(data=source, out=tmp_path / "out", **SAID | {"modality": ("text",)})
    plan = plan_study(config)
    tables = {"text": plan.pool("text")}
    provenance = plan.make_provenance(tables.values())
    task = next(task for task in _make_tasks(plan, tables, provenance) if task.logistic)
    seen = []

    def look(*_, system, fold=task.fold, **__):
        seen.extend(library["num_threads"] for library in threadpool_info())
        nothing = np.empty(0)
        return UnitResult(
            system, fold.number, *[nothing] * 5, search=None, booster=None, record={}, ledger=[]
        )

    monkeypatch.setattr(executors, "run_logistic_unit", look)

    with threadpool_limits(2):
        task.execute()

    assert seen
    assert set(seen) == {1}


@pytest.mark.parametrize("fold", [None, 0])
def test_explaining_takes_one_thread_too(monkeypatch, fold):
    seen = []

    def look(*_):
        seen.extend(library["num_threads"] for library in threadpool_info())

    for name in ("make_features", "_explain_system", "_permute_fold"):
        monkeypatch.setattr(explanation, name, lambda *_, **__: look())
    plan = SimpleNamespace(options=SimpleNamespace(statistics=(), most_columns=None))
    task = SimpleNamespace(tables=(), plan=plan, fold=fold, name="text")
    with threadpool_limits(2):
        explanation._ExplainTask.execute(task)

    assert seen
    assert set(seen) == {1}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_workers_end_with_a_killed_parent(source, tmp_path):
    folder = tmp_path / "orphans"
    command = [sys.executable, "-m", "toolkit", *words(source, folder), "--workers=2"]
    parent = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: list(folder.glob("internal/units/*/[0-9]*")))
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    finally:
        parent.kill()
        parent.wait()

    assert children
    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def wait_until(reached, seconds=240):
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_row_order_of_the_table_is_no_order_of_the_manifest(source, tmp_path):
    turned_table = shutil.copytree(source.parent, tmp_path / "corpus") / "dataset.csv"
    header, *rows = source.read_text().splitlines()
    turned_table.write_text("\n".join([header, *rows[::-1]]) + "\n")

    one, other = read_manifest(source), read_manifest(turned_table)

    assert one.utterances.tolist() == sorted(one.utterances.tolist())
    for name in ("utterances", "labels", "speakers", "sessions"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
