"""The size of a study: counted as it will run, and its memory bounded."""

from dataclasses import replace

import numpy as np
import pytest

from toolkit.files import FolderError
from toolkit.study.config import ConfigError, StudyConfig
from toolkit.study.plan import plan_study
from toolkit.study.runner import _make_tasks


def plan(corpus, **options):
    return plan_study(StudyConfig(data=corpus / "dataset.csv", **({"workers": 1} | options)))


def test_every_unit_of_the_study_is_counted(corpus):
    named = plan(corpus, outer="session", modality=("text", "audio")).estimate().units

    folds = [f"0{fold}" for fold in range(5)]
    assert set(named) == {
        f"{system}{kind}/{fold}"
        for system in ("text", "audio", "early")
        for kind in ("", "-logistic")
        for fold in folds
    } | {f"{system}/final" for system in ("text", "audio", "early")}


@pytest.mark.parametrize(("limit", "options"), [(1200, {}), (600, {"quick": True})])
def test_the_search_takes_the_rounds_of_its_size(corpus, monkeypatch, limit, options):
    found = plan(corpus, **options)
    assert found.options.max_rounds == limit

    monkeypatch.setattr(StudyConfig, "count_rounds", lambda _, n: n)
    assert plan(corpus, **options).options.max_rounds == len(found.manifest)


def test_the_units_and_the_bound_are_those_of_the_run(corpus, check_memory):
    planned = plan(corpus, shapley="seeds", seeds=2, workers=3)
    tables = {name: planned.pool(name) for name in planned.manifest.modalities}
    tasks = _make_tasks(planned, tables, planned.make_provenance(tables.values()))

    estimate = planned.estimate()

    assert set(estimate.units) == {task.name for task in tasks}
    check_memory(tasks, workers=3, available=estimate.memory)
    with pytest.raises(ConfigError, match=r"3 worker\(s\) side by side"):
        check_memory(tasks, workers=3, available=estimate.memory - 1)


def test_each_worker_needs_its_memory(corpus):
    one, two = (plan(corpus, workers=n).estimate().memory for n in (1, 2))

    assert two == pytest.approx(2 * one)
    assert plan(corpus, modality=("text",)).estimate().memory < one


def test_columns_are_counted_as_they_will_be_pooled(corpus, tmp_path):
    basic = plan(corpus, statistics="basic")

    assert basic.estimate().columns == {
        "visual": 7 * 8,
        "audio": 7 * 10,
        "text": 24,
        "early": 7 * 18 + 24,
    }
    np.save(tmp_path / "wide.npy", np.zeros((2, 3000), dtype=np.float32))
    files = {"audio": (tmp_path / "wide.npy",) * len(basic.manifest)}
    manifest = replace(basic.manifest, paths={**basic.manifest.paths, **files})
    wide = replace(basic, manifest=manifest)
    assert wide.estimate().columns["audio"] == 5000  # basic would be 21,000
    for way, expected in (("reduce", 3000), ("keep", 21_000)):
        other = replace(wide, options=plan(corpus, statistics="basic", wide=way).options)
        assert other.estimate().columns["audio"] == expected


def test_a_screen_of_very_wide_modalities_belongs_to_the_study_of_these_alone(
    corpus, tmp_path, monkeypatch
):
    made = {"out": tmp_path, "modality": ("visual", "text")}
    screened, reduced = plan(corpus, **made), plan(corpus, wide="reduce", **made)
    tables = {name: screened.pool(name) for name in ("visual", "text")}
    both = [each.make_provenance(tables.values()) for each in (screened, reduced)]
    assert [each["identity"] for each in both] == [both[0]["identity"]] * 2
    assert both[0]["data"] == both[1]["data"]  # of narrow modalities

    monkeypatch.setattr("toolkit.study.plan.MOST_COLUMNS", 100)
    screened, reduced = plan(corpus, **made), plan(corpus, wide="reduce", **made)
    now, before = (each.make_provenance(tables.values()) for each in (screened, reduced))

    assert now["data"]["screened"] == {"visual": "ftest-5000"}
    assert screened.search_name(now, ["visual"]) == "corpus"
    shared = replace(screened, config=screened.config.model_copy(update={"storage": "s://x"}))
    assert shared.search_name(now, ["visual"]) != shared.search_name(before, ["visual"])
    folder = screened.folder
    folder.write_provenance(before, None)
    with pytest.raises(FolderError, match=r"Changed: --wide for visual \(before: reduce"):
        folder.check_identity(now)
    folder.check_identity(screened.make_provenance([tables["text"]]))
    # A modality that comes later brings its own screen, and one that is left out keeps it.
    alone = screened.make_provenance([tables["text"]])
    folder.write_provenance(alone, None)
    folder.write_provenance(now, folder.check_identity(now))
    folder.write_provenance(alone, folder.check_identity(alone))
    assert folder.check_identity(now)["data"]["screened"] == {"visual": "ftest-5000"}


def test_auto_is_resolved_before_anything_depends_on_it(corpus):
    automatic, explicit = plan(corpus), plan(corpus, outer="speaker")

    assert automatic.config.outer == "speaker"
    assert automatic.config.identity() == explicit.config.identity()
    assert [f.held_out for f in automatic.folds] == [f.held_out for f in explicit.folds]


@pytest.mark.parametrize(
    ("options", "primary"),
    [
        ({}, "early"),
        ({"modality": ("text",)}, "text"),
        ({"fusion": ("none",)}, "visual"),
        ({"fusion": ("vote",)}, "visual"),
        ({"primary": "stacked"}, "stacked"),
        ({"modality": ("text",), "primary": "early"}, "early"),
    ],
)
def test_the_primary_system_is_early_fusion_or_the_modality_unless_named(
    corpus, options, primary
):
    assert plan(corpus, **options).primary == primary


@pytest.mark.parametrize("name", ["voice", "majority", "text-logistic", "soft"])
def test_an_unknown_primary_system_is_refused_with_those_there_are(corpus, name):
    with pytest.raises(
        ConfigError, match=rf"--primary {name}: .* visual, audio, text, early, vote\."
    ):
        plan(corpus, primary=name, fusion=("early", "vote"))
