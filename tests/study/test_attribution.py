"""Other seeds: what they move is said beside the values, and nothing else hears of them."""

import csv
import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from toolkit.study.attribution import _read_seeded
from toolkit.study.config import ConfigError, StudyConfig
from toolkit.study.folder import StudyFolder
from toolkit.study.plan import plan_study
from toolkit.study.results import derive_study
from toolkit.study.runner import run_study
from toolkit.study.searching import make_search_options
from toolkit.study.verify import _verify_study

OPTIONS = {
    "trials": 6,
    "space": {"lightgbm": {"num_leaves": [3, 5], "max_bin": 15}},
    "outer": "3",
    "inner": 2,
    "imbalance": "none",
    "screening": "none",
    "statistics": "minimal",
    "modality": ("audio", "text"),
    "fusion": ("early",),
    "shapley": "seeds",
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
def study(config):
    return run_study(config)


def games(folder):
    with (folder / "explain" / "shapley.csv").open(newline="", encoding="utf-8") as file:
        return {
            (r["game"], r["kind"], r["players"]): r
            for r in csv.DictReader(file)
            if r["group"] == ""
        }


def scores_again(study, system):
    """F1-micro of a system under each seed, from the units' own files."""
    rows = study.systems[system]
    for number in (1, 2, 3):
        right = 0
        for fold in range(3):
            unit = StudyFolder(study.folder).read_unit(f"{system}-seed-{number}", fold)
            right += (unit.proba.argmax(axis=1) == rows.labels[rows.folds == fold]).sum()
        yield right / len(rows)


def test_the_deviation_is_that_of_the_same_game_under_three_seeds(study):
    found = games(study.folder)
    scores = {name: np.array(list(scores_again(study, name))) for name in SYSTEMS}
    majority = study.systems["majority"]
    nothing = np.mean(majority.y_pred == majority.labels)
    value = (scores["text"] - nothing + scores["early"] - scores["audio"]) / 2

    for name, players in (("text", "text"), ("early", "audio+text")):
        said = float(found["refit", "worth", players]["seed_sd"])
        assert_allclose(said, scores[name].std(ddof=1))
    assert_allclose(float(found["refit", "value", "text"]["seed_sd"]), value.std(ddof=1))
    assert value.std() > 0
    assert float(found["late-soft", "value", "text"]["seed_sd"]) >= 0


def test_other_seeds_are_audited_and_neither_scored_nor_compared(study):
    audit = json.loads((study.folder / "internal" / "audit.json").read_text())
    said = [(study.folder / f"{name}.csv").read_text() for name in ("scores", "comparisons")]

    assert audit["systems"]["early-seed-3"]["folds"] == 3
    checks, again = _verify_study(study.folder)
    assert again["verdict"] == "no leakage found"
    assert not any("-seed-" in text for text in said)
    assert not any(check.differences for check in checks)
    assert "over three seeds of the searches" in (study.folder / "report.md").read_text()


def test_other_seeds_have_the_budget_of_quick_and_other_inner_folds(study, config):
    trials, inner = set(), []
    for system in ("text", "text-seed-1", "text-seed-2"):
        unit = StudyFolder(study.folder).read_summary(system, 0)
        trials.add((system, len(unit["search"]["trials"])))
        inner.append([e["rows"] for e in unit["ledger"] if e["role"] == "validate"])

    assert trials == {("text", 6), ("text-seed-1", 5), ("text-seed-2", 5)}
    assert inner[0] != inner[1] != inner[2]
    assert make_search_options(config)[1].max_rounds == 150
    wide = config.model_copy(update={"statistics": "rich"})
    assert make_search_options(wide)[1].statistics == ("basic",)
    assert make_search_options(config)[1].statistics == ("minimal",)


def test_what_is_left_of_a_seed_is_not_taken_for_a_seed(study):
    aside = StudyFolder(study.folder).units / "text-seed-2"
    aside.rename(study.folder / "aside")
    try:
        text = derive_study(StudyFolder(study.folder)).tables["explain/shapley.csv"]
    finally:
        (study.folder / "aside").rename(aside)

    rows = list(csv.DictReader(text.splitlines()))
    assert {row["game"] for row in rows} == {"late-soft", "late-vote", "refit"}
    assert {row["seed_sd"] for row in rows} == {""}


def test_units_that_saw_other_modalities_are_left_out(study):
    kept = StudyFolder(study.folder).read_study()

    seeds, ledgers = _read_seeded(
        kept, {"text": ["text"], "early": ["audio", "text", "visual"]}
    )

    assert [sorted(tables) for tables in seeds] == [["text"]] * 3
    assert sorted(ledgers) == ["text-seed-1", "text-seed-2", "text-seed-3"]


def test_units_of_other_seeds_are_listed_and_run_alone(config):
    plan = plan_study(config)

    assert len(plan.seeded) == 3 * len(SYSTEMS)
    assert plan.check_only("text-seed-2/01") == "text-seed-2/01"
    with pytest.raises(ConfigError, match="no such unit"):
        plan.check_only("text-seed-4/01")
    assert "early-seed-3/02" in plan.estimate().units
    assert not plan_study(config.model_copy(update={"shapley": "refit"})).seeded
