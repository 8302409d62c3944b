"""Memory: what cannot fit is refused before it starts, with what would."""

import builtins
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from toolkit.pooling import PRESETS
from toolkit.pooling.table import FeatureTable
from toolkit.study import workers as executors
from toolkit.study import workers as memory
from toolkit.study.config import ConfigError
from toolkit.study.folder import StudyFolder
from toolkit.study.workers import UnitTask
from toolkit.validation import Protocol, SearchOptions, speaker_folds

GB = 2**30


def make_table(modality, n_dims, n_rows):
    names = tuple(f"{modality}__{name}__{k}" for name in PRESETS["rich"] for k in range(n_dims))
    values = np.broadcast_to(np.float32(0), (n_rows, len(names)))
    present, frames = np.ones(n_rows, dtype=bool), np.ones(n_rows, dtype=np.int64)
    return FeatureTable(modality, PRESETS["rich"], names, values, present, frames, "", {})


@pytest.fixture
def make_tasks(manifest):
    def make(**n_dims):
        n_rows = len(manifest)
        tables = {name: make_table(name, k, n_rows) for name, k in n_dims.items()}
        systems = {name: (table,) for name, table in tables.items()}
        if len(tables) > 1:
            systems["early"] = tuple(tables.values())
        return [
            UnitTask(
                system=system,
                fold=fold,
                modalities=tuple(table.modality for table in seen),
                manifest=manifest,
                tables=seen,
                folder=StudyFolder(Path()),
                protocol=Protocol(),
                options=SearchOptions(imbalance=("none",)),
                storage="",
                study_name="s",
            )
            for system, seen in systems.items()
            for fold in speaker_folds(manifest)[:2]
        ]

    return make


def test_what_fits_is_let_through(make_tasks, check_memory):
    tasks = make_tasks(text=10)
    need = memory._task_memory(tasks[0])

    check_memory(tasks, workers=2, available=2 * need)
    check_memory(tasks, workers=2, available=None)
    with pytest.raises(ConfigError, match=r"2 worker\(s\) side by side"):
        check_memory(tasks, workers=2, available=2 * need - 1)


def test_fewer_workers_are_proposed_where_they_would_do(make_tasks, check_memory):
    tasks = make_tasks(text=10)
    need = memory._task_memory(tasks[0])

    with pytest.raises(ConfigError, match=r"text: 150 utterances, 180 columns.*--workers 1"):
        check_memory(tasks, workers=2, available=int(1.5 * need))


def test_smaller_statistics_are_proposed_where_they_would_do(make_tasks, check_memory):
    tasks = make_tasks(visual=3000)
    smaller = memory._task_memory(tasks[0], ("basic",))

    with pytest.raises(ConfigError, match=r"What would fit: --statistics basic\."):
        check_memory(tasks, workers=1, available=smaller)


def test_what_is_too_large_even_so_is_left_out(make_tasks, check_memory):
    tasks = make_tasks(visual=200_000, text=10)
    text = next(memory._task_memory(task) for task in tasks if task.system == "text")

    with pytest.raises(ConfigError, match=r"What would fit: without early, visual\."):
        check_memory(tasks, workers=1, available=text)


def test_nothing_that_fits_is_said_too(make_tasks, check_memory):
    with pytest.raises(ConfigError, match="fewer dimensions per modality, or more memory"):
        check_memory(make_tasks(text=10), workers=1, available=GB // 100)


def test_early_fusion_needs_its_tables_side_by_side(make_tasks):
    needs = {t.system: memory._task_memory(t) for t in make_tasks(visual=500, text=500)}

    rows = len(make_tasks(text=1)[0].manifest)
    assert needs["early"] > needs["visual"] + 4 * rows * 18 * 1000


def test_available_memory_is_what_system_and_group_both_allow(tmp_path, monkeypatch):
    meminfo, group = tmp_path / "meminfo", tmp_path / "group"
    group.mkdir()
    meminfo.write_text("MemTotal: 900 kB\nMemAvailable:   500 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", meminfo)
    monkeypatch.setattr(memory, "_CGROUP", group)
    assert memory._available_memory() == 500 * 1024

    (group / "memory.current").write_text("300000\n")
    (group / "memory.stat").write_text("anon 1\ninactive_file 100000\n")
    (group / "memory.max").write_text("400000\n")
    assert memory._available_memory() == 200_000
    (group / "memory.max").write_text("max\n")
    assert memory._available_memory() == 500 * 1024


def test_a_system_that_does_not_say_refuses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "absent")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "absent")
    monkeypatch.delattr(memory.os, "sysconf")

    assert memory._available_memory() is None


@pytest.mark.slow
def test_a_worker_that_read_much_is_replaced_without_a_word(recwarn):
    # joblib takes mapped pages for a leak; any growth stands for them here.
    def read_much():
        vars(builtins).setdefault("pages", []).append(np.ones(5 * 10**7))
        time.sleep(1.1)

    tasks = [SimpleNamespace(name=str(k), execute=read_much) for k in range(5)]
    done = []

    assert executors.run_tasks(tasks, workers=2, on_done=done.append) == []
    assert sorted(done) == ["0", "1", "2", "3", "4"]
    assert list(recwarn) == []
