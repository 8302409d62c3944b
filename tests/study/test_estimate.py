"""What a study will cost: counted as it will run, and near what it then takes."""

import json
import os
import resource
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from toolkit.study.config import StudyConfig
from toolkit.study.plan import (
    FACTORS,
    TERMS,
    count_features,
    count_fits,
    estimate_study,
    plan_study,
    unit_terms,
)


def estimate(corpus, workers=1, **options):
    config = StudyConfig(data=corpus / "dataset.csv", **options)
    return estimate_study(plan_study(config), config, workers)


def test_every_unit_of_the_study_is_counted(corpus):
    named = estimate(corpus, outer="session", modality=("text", "audio")).units

    folds = [f"0{fold}" for fold in range(5)]
    assert set(named) == {
        f"{system}{kind}/{fold}"
        for system in ("text", "audio", "early")
        for kind in ("", "-logistic")
        for fold in folds
    } | {f"{system}/final" for system in ("text", "audio", "early")}


@pytest.mark.parametrize(
    "more",
    [{"trials": 40}, {"inner": 6}, {"modality": ("text", "audio")}, {"statistics": "full"}],
)
def test_more_work_costs_more(corpus, more):
    little = {"modality": ("audio",)}

    assert estimate(corpus, **(little | more)).seconds > estimate(corpus, **little).seconds


@pytest.mark.parametrize("less", [{"quick": True}, {"contributions": "none"}])
def test_less_work_costs_less(corpus, less):
    assert estimate(corpus, **less).seconds < estimate(corpus).seconds


def test_later_trials_lose_their_race_sooner_but_not_before_the_first_fold():
    inner, trials = 3, np.array([2, 10, 20, 50, 100, 10_000])
    raced = [count_fits(inner, n) - inner * 2 - 1 for n in trials.tolist()]
    part = np.array(raced) / inner / (trials - 1)

    assert part[:3] == pytest.approx(0.7)
    assert (np.diff(part[2:]) < 0).all()
    assert (part > 1 / inner).all()


def test_workers_share_the_time_and_each_needs_its_memory(corpus):
    one, two = estimate(corpus), estimate(corpus, workers=2)

    assert one.seconds / 2 < two.seconds < one.seconds
    assert two.memory == pytest.approx(2 * one.memory)
    # No number of workers makes a study shorter than its longest unit.
    assert estimate(corpus, workers=500).seconds > np.dot(unit_terms(150, 1, 4, 3, 20), FACTORS)


def test_a_term_has_its_factor_and_none_is_negative():
    assert len(TERMS) == len(FACTORS) == len(unit_terms(10, 10, 2, 3, 5))
    assert min(FACTORS) >= 0


def test_columns_are_counted_as_they_will_be_pooled(corpus, tmp_path):
    config = StudyConfig(data=corpus / "dataset.csv", statistics="basic")
    manifest = plan_study(config).manifest

    assert count_features(manifest, "audio", config) == 7 * 10
    assert count_features(manifest, "text", config) == 24
    np.save(tmp_path / "wide.npy", np.zeros((2, 3000), dtype=np.float32))
    files = {"audio": (tmp_path / "wide.npy",) * len(manifest)}
    manifest = replace(manifest, paths={**manifest.paths, **files})
    assert count_features(manifest, "audio", config) == 3000  # basic would be 21,000
    keep = config.model_copy(update={"wide": "keep"})
    assert count_features(manifest, "audio", keep) == 21_000


@pytest.mark.slow
def test_the_estimate_is_within_a_factor_of_two_of_what_a_study_takes(corpus, tmp_path):
    """Processor time, which other programs on the machine disturb least."""
    command = [sys.executable, "-m", "toolkit.study", "--data", str(corpus / "dataset.csv")]
    command += ["--out", str(tmp_path / "out"), "--workers", "1", "--quick", "--json"]
    env = os.environ | {"TOOLKIT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def run(*more):
        return subprocess.run([*command, *more], check=True, capture_output=True, env=env)

    # What is compiled once a machine is compiled here.
    run("--modality", "text", "--trials", "1", "--outer", "session")
    said = json.loads(run("--dry-run", "--fresh").stdout)["seconds"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run("--fresh")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    taken = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert 0.5 < said / taken < 2
