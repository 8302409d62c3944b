"""Repeated searches: further units, their scores, tests and games; the first seed stays."""

import csv
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from toolkit.files import FolderError
from toolkit.report.answer import _gain
from toolkit.report.contents import summarise_study
from toolkit.study.config import ConfigError, StudyConfig
from toolkit.study.folder import StudyFolder
from toolkit.study.plan import plan_study
from toolkit.study.results import derive_study
from toolkit.study.runner import run_study
from toolkit.study.verify import _check_numbers, _verify_study

# Whole studies under several seeds.
pytestmark = pytest.mark.slow

OPTIONS = {
    "trials": 2,
    "space": {"lightgbm": {"num_leaves": [3, 5], "max_bin": 15}},
    "outer": "3",
    "inner": 2,
    "imbalance": "none",
    "screening": "none",
    "linear": "none",
    "statistics": "minimal",
    "modality": ("audio", "text"),
    "fusion": ("early",),
    "contributions": "totals",
    "workers": 1,
}
SYSTEMS = ("audio", "text", "early")


@pytest.fixture(scope="module", autouse=True)
def _cache(undrawn, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, undrawn():
        patch.setenv("TOOLKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def config(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "seeds"
    return StudyConfig(data=corpus / "dataset.csv", out=folder, **OPTIONS)


@pytest.fixture(scope="module")
def once(config):
    """Files of the study with one seed, before more were asked for in the same folder."""
    run_study(config)
    paths = (path for path in config.out.rglob("*") if path.is_file())
    return {path.relative_to(config.out).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def more(config):
    return config.model_copy(update={"seeds": 3, "shapley": "seeds"})


@pytest.fixture(scope="module")
def study(once, more):
    assert once
    return run_study(more)


@pytest.fixture(scope="module")
def tables(study):
    """Rows of predictions.csv by system, read without the toolkit."""
    every = pd.read_csv(study.folder / "predictions.csv", dtype={"label": str})
    return dict(tuple(every.groupby("system")))


def read(study, name):
    return (study.folder / name).read_text(encoding="utf-8")


def accuracies(tables, system):
    seeds = (tables[f"{system}{end}"] for end in ("", "-seed-1", "-seed-2"))
    return [np.mean(table["label"] == table["predicted"].astype(str)) for table in seeds]


def test_one_seed_writes_nothing_about_seeds(once):
    assert b"seeds" not in once["study.toml"]
    assert '"seeds"' not in json.loads(once["internal/provenance.json"])
    assert not [name for name in once if "-seed-" in name or "ensemble" in name]


def test_raising_the_seeds_runs_their_units_alone_and_keeps_the_first(study, once):
    units = {n for n in once if n.startswith("internal/units/") and n.endswith(".zip")}
    kept = {name for name in units if (study.folder / name).read_bytes() == once[name]}

    assert kept == units
    for name in ("predictions.csv", "scores.csv"):
        assert set(once[name].decode().splitlines()) <= set(read(study, name).splitlines())
    assert "\nseeds = 3\n" in read(study, "study.toml")


def test_other_seeds_have_the_same_budget_and_other_inner_folds(study):
    trials, inner = set(), []
    for system in ("text", "text-seed-1", "text-seed-2"):
        unit = StudyFolder(study.folder).read_summary(system, 0)
        trials.add(len(unit["search"]["trials"]))
        inner.append([e["rows"] for e in unit["ledger"] if e["role"] == "validate"])

    assert trials == {2}
    assert inner[0] != inner[1] != inner[2] != inner[0]


def test_the_ensemble_is_the_mean_of_the_rows_of_predictions(tables):
    for system in SYSTEMS:
        seeds = [tables[f"{system}{end}"] for end in ("", "-seed-1", "-seed-2")]
        columns = [name for name in seeds[0] if name.startswith("p_")]
        mean = np.mean([seed[columns].to_numpy() for seed in seeds], axis=0)
        found = tables[f"{system}-ensemble"]
        assert_allclose(found[columns].to_numpy(), mean)
        names = np.array([name.removeprefix("p_") for name in columns])
        assert found["predicted"].astype(str).tolist() == names[mean.argmax(axis=1)].tolist()


def test_mean_and_deviation_are_those_of_the_rows_of_predictions(study, tables):
    rows = list(csv.DictReader(read(study, "scores.csv").splitlines()))
    for system in SYSTEMS:
        each = accuracies(tables, system)
        found = {
            row["method"].partition(" (")[0]: float(row["value"])
            for row in rows
            if row["system"] == system
            and row["metric"] == "f1_micro"
            and "over seeds" in row["method"]
        }
        assert_allclose(found["mean over seeds"], np.mean(each))
        assert_allclose(found["sd over seeds"], np.std(each, ddof=1))
    assert not any("-seed-" in row["system"] for row in rows)


def test_comparisons_are_of_means_and_name_the_ensemble_as_one_more_system(study, tables):
    pairs = {(p.a, p.b): p for p in study.all_comparisons if p.family == "all pairs"}
    found = pairs["audio", "text"]

    means = [np.mean(accuracies(tables, system)) for system in ("audio", "text")]
    assert_allclose(found.difference, means[0] - means[1])
    assert found.method.endswith("mean over 3 seeds")
    assert "seeds" not in pairs["audio-ensemble", "text-ensemble"].method.rpartition(";")[2]
    assert not any("-seed-" in name for pair in pairs for name in pair)
    assert list(study.table().index[-6:]) == [
        *(f"{system}-ensemble" for system in SYSTEMS),
        *(f"{system}-logistic" for system in SYSTEMS),
    ]


def test_a_difference_in_words_is_the_one_that_was_tested(study):
    facts = derive_study(StudyFolder(study.folder)).facts

    for pair in facts.comparisons:
        assert _gain(facts, pair.a, pair.b) == pair.difference
    firsts = facts.score("audio").value - facts.score("text").value
    assert _gain(facts, "audio", "text") != firsts


def test_the_deviation_of_a_game_is_that_of_the_game_of_every_seed(study, tables):
    rows = csv.DictReader(read(study, "explain/shapley.csv").splitlines())
    games = {
        (r["game"], r["kind"], r["players"]): r["seed_sd"] for r in rows if r["group"] == ""
    }
    scores = {name: np.array(accuracies(tables, name)) for name in SYSTEMS}
    constant = max(
        np.mean(tables[name]["label"] == tables[name]["predicted"].astype(str))
        for name in ("majority", "no-information")
    )
    value = (scores["text"] - constant + scores["early"] - scores["audio"]) / 2

    assert_allclose(float(games["refit", "worth", "text"]), scores["text"].std(ddof=1))
    assert_allclose(float(games["refit", "value", "text"]), value.std(ddof=1))
    assert value.std() > 0
    assert float(games["late-soft", "value", "text"]) >= 0


def test_all_seeds_are_audited_and_verified(study):
    checks, audit = _verify_study(study.folder)

    assert not [sentence for check in checks for sentence in check.differences]
    assert audit["systems"]["early-seed-2"]["folds"] == 3
    assert json.loads(read(study, "internal/params.json"))["text-seed-2"]


def test_changed_rows_of_a_further_seed_are_found(study):
    table = study.systems["text-seed-1"]
    changed = study.systems | {"text-seed-1": replace(table, y_pred=table.labels)}

    checks = _check_numbers(StudyFolder(study.folder).read_study(), changed)

    assert {c.name for c in checks if c.differences} == {"scores.csv", "comparisons.csv"}


def test_the_report_shows_first_seed_mean_deviation_and_ensemble(study):
    report = summarise_study(derive_study(StudyFolder(study.folder)).facts)
    table = next(part for part in report.parts() if getattr(part, "name", "") == "seeds")

    assert table.header[1:] == (
        *("first seed", "mean over seeds", "SD over seeds", "ensemble"),
    )
    assert [row[0].text for row in table.rows] == list(SYSTEMS)
    text = read(study, "report.md")
    assert "early over 3 seeds: mean " in text
    assert "Every search was repeated under 3 seeds" in text
    assert "Comparisons of these systems are of means over seeds." in text


def test_a_mean_is_over_all_seeds_or_there_is_none(study):
    units = StudyFolder(study.folder).units
    (units / "text-seed-2" / "01.zip").rename(study.folder / "aside")
    try:
        collected = derive_study(StudyFolder(study.folder))
    finally:
        (study.folder / "aside").rename(units / "text-seed-2" / "01.zip")

    facts = collected.facts
    assert facts.unfinished == ("text-seed-2",)
    assert facts.repeated == ["audio", "early"]
    assert not [name for name in facts.predictions if name.startswith("text-seed")]
    assert facts.compare("text", "majority").method.endswith("pairs")
    assert facts.compare("audio", "majority").method.endswith("mean over 3 seeds")


def test_fewer_seeds_than_before_are_refused(study, config):
    assert study.folder == config.out
    with pytest.raises(FolderError, match=r"--seeds was 3, is 1 \(it may be raised only\)"):
        run_study(config)


def test_searches_of_a_version_with_another_budget_are_not_taken_for_seeds(once, tmp_path):
    for name, content in once.items():
        if not name.endswith(".db"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
    folder, known = StudyFolder(tmp_path), json.loads(once["internal/provenance.json"])
    raised = known | {"seeds": 3}

    assert folder.check_identity(raised) == known
    (tmp_path / "internal" / "units" / "text-seed-1").mkdir()
    with pytest.raises(FolderError, match="--shapley seeds of an earlier version"):
        folder.check_identity(raised)
    (tmp_path / "internal" / "units" / "text-seed-1").rmdir()
    text = once["study.toml"].decode().replace('shapley = "late"', 'shapley = "seeds"')
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    with pytest.raises(FolderError, match="--shapley seeds of an earlier version"):
        folder.check_identity(raised)


def test_games_under_seeds_need_seeds(more):
    with pytest.raises(ConfigError, match="add --seeds 3, or choose --shapley refit"):
        plan_study(more.model_copy(update={"seeds": 1}))


def test_units_of_further_seeds_are_listed_and_run_alone(more):
    plan = plan_study(more)

    assert list(plan.seeded) == [f"{name}-seed-{k}" for k in (1, 2) for name in SYSTEMS]
    assert plan.check_only("text-seed-2/01") == "text-seed-2/01"
    for name in ("text-seed-3/01", "text-seed-1/final"):
        with pytest.raises(ConfigError, match="no such unit"):
            plan.check_only(name)
    assert "early-seed-2/02" in plan.estimate().units


def test_sets_of_modalities_are_repeated_for_the_games_alone(corpus):
    def seeded(shapley):
        config = StudyConfig(data=corpus / "dataset.csv", seeds=2, shapley=shapley)
        return set(plan_study(config).seeded)

    plain = {f"{name}-seed-1" for name in ("visual", "audio", "text", "early")}
    assert seeded("late") == seeded("refit") == plain
    assert len(seeded("seeds")) == 7
