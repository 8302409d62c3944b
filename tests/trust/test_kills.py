"""A study that is killed at any moment keeps what was finished, and ends in the same bytes."""

import random
import signal

import pytest

N_TRIALS_KILLED, N_WRITES_KILLED = 6, 4


def moments(ending):
    """Seeded moments inside trials and inside writes."""
    rng = random.Random(0)
    return [
        *(("round", n) for n in sorted(rng.sample(range(1, ending["round"]), N_TRIALS_KILLED))),
        *(("write", n) for n in sorted(rng.sample(range(1, ending["write"]), N_WRITES_KILLED))),
    ]


@pytest.mark.slow
def test_killed_at_ten_moments(whole, run_faults, read_results, tmp_path):
    ending, expected, _ = whole
    kills = moments(ending)
    folders = [tmp_path / f"{kind}-{n}" for kind, n in kills]
    runs = [{"out": folder, "kill": kill} for folder, kill in zip(folders, kills, strict=True)]

    endings = run_faults(runs)
    kept = [finished_units(folder) for folder in folders]
    resumed = run_faults([{"out": folder} for folder in folders])

    assert len(kills) == 10
    assert [each.get("signal") for each in endings] == [signal.SIGKILL] * 10
    assert [each["code"] for each in resumed] == [0] * 10
    for folder, before in zip(folders, kept, strict=True):
        assert read_results(folder) == expected, folder.name
        assert {path: path.stat().st_mtime_ns for path in before} == before, folder.name
    assert sum(map(bool, kept)) >= 4
    assert sum(each["round"] < ending["round"] for each in resumed) >= 6


@pytest.mark.nightly
def test_killed_again_and_again(whole, run_faults, read_results, tmp_path):
    # Every run gets a little further; no trial is lost, and none is run twice for good.
    ending, expected, _ = whole
    runs = [{"out": tmp_path / "s", "kill": ("round", 1 + ending["round"] // 9)}] * 12
    endings = run_faults([*runs, {"out": tmp_path / "s"}])

    assert endings[0] == {"signal": signal.SIGKILL}
    assert endings[-1]["code"] == 0
    assert read_results(tmp_path / "s") == expected


@pytest.mark.slow
def test_a_clock_that_jumps_changes_nothing(whole, run_faults, read_results, tmp_path):
    (ending,) = run_faults([{"out": tmp_path / "study", "clock": True}])

    assert ending["code"] == 0, ending
    assert read_results(tmp_path / "study") == whole[1]


def finished_units(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("internal/units/*/0*.zip")}
