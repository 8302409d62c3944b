"""A study of three modalities explained: kept beside its units, derived again, verified."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
import warnings
from pathlib import Path

import numpy as np
import optuna
import pytest
from numpy.testing import assert_allclose
from optuna.artifacts import FileSystemArtifactStore

from toolkit.data import read_manifest
from toolkit.files import FolderError, hash_file
from toolkit.study.cli import main
from toolkit.study.collecting import collect_study
from toolkit.study.config import ConfigError, StudyConfig
from toolkit.study.dashboard import _copy_searches
from toolkit.study.explain_command import _explain_from_study, _file_name
from toolkit.study.folder import ARTIFACTS, StudyFolder
from toolkit.study.runner import _rebuild_report, run_study
from toolkit.study.verify import _verify_study
from toolkit.validation.trials import open_storage

# Whole studies with their explanations.
pytestmark = pytest.mark.slow

OPTIONS = {
    "quick": True,
    "trials": 1,
    "outer": "3",
    "inner": 2,
    "imbalance": "none",
    "screening": "none",
    "statistics": "basic",
    "fusion": ("early", "log-pool"),
    "shapley": "refit",
    "contributions": "full",
    "workers": 1,
}
MODALITIES = ("visual", "audio", "text")


@pytest.fixture(scope="module")
def study(corpus, tmp_path_factory):
    """The explained study and its folder."""
    folder = tmp_path_factory.mktemp("study") / "explained"
    return run_study(StudyConfig(data=corpus / "dataset.csv", out=folder, **OPTIONS))


def rows_of(folder, name):
    with (folder / "explain" / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def load(folder, system, name):
    return np.load(folder / "explain" / "contributions" / system / f"{name}.npy")


@pytest.mark.parametrize("system", [*MODALITIES, "early"])
def test_contributions_give_the_saved_predictions(study, system):
    """Every utterance is explained by the very model that predicted it."""
    margins = load(study.folder, system, "signed").sum(axis=2) + load(
        study.folder, system, "base"
    )
    table = study.systems[system]

    odds = np.exp(margins)
    proba = odds / odds.sum(axis=1, keepdims=True)
    assert_allclose(proba[table.present], table.proba[table.present], atol=1e-9)
    trained = load(study.folder, system, "trained")
    assert np.array_equal(trained.any(axis=1), table.present)


def test_contributions_through_the_pool_give_its_saved_predictions(study):
    """Up to the expected margin, which all rows of a fold have in common."""
    weights = json.loads((study.folder / "internal" / "params.json").read_text())["log-pool"]
    table = study.systems["log-pool"]
    whole = np.all([study.systems[name].present for name in MODALITIES], axis=0)
    assert set(weights["00"]["weights"]) == {
        *(f"{name} (trees)" for name in (*MODALITIES, "early")),
        "early (linear)",
    }

    for fold, found in weights.items():
        rows = np.flatnonzero(whole & (table.folds == int(fold)))
        margins = np.zeros((len(rows), len(table.classes)))
        for member, weight in found["weights"].items():
            system, part = member.removesuffix(")").split(" (")
            margins += weight * load(study.folder, system, part)[rows].sum(axis=2)
        logs = np.log(table.proba[rows])
        gaps = (logs - logs.mean(axis=1, keepdims=True)) - (
            margins - margins.mean(axis=1, keepdims=True)
        )
        assert_allclose(gaps, np.tile(gaps[:1], (len(rows), 1)), atol=1e-9)


def test_shares_of_the_pool_and_the_linear_share_are_tables(study):
    pool = [
        float(row["share"])
        for row in rows_of(study.folder, "shares.csv")
        if (row["system"], row["level"], row["outcome"]) == ("log-pool", "modality", "all")
        and row["speaker"] == row["class_name"] == ""
    ]
    linear = rows_of(study.folder, "linear.csv")

    assert len(pool) == 3
    assert sum(pool) == pytest.approx(1)
    assert [row["modality"] for row in linear if row["system"] == "early"] == [
        "",
        *MODALITIES,
    ]
    assert all(0 <= float(row["share"]) <= 1 for row in linear)
    assert "The linear part makes up" in (study.folder / "report.md").read_text()


def test_weights_of_the_parts_belong_to_the_models_that_are_explained(study, tmp_path, opened):
    copy = StudyFolder(shutil.copytree(study.folder, tmp_path / "copy"))
    before = copy.model_sums("text", [0, 1, 2])
    with opened(copy.unit("text", 1), sums=True) as unit:
        meta = json.loads((unit / "model.meta.json").read_text())
        meta["linear"]["weights"][0] += 0.5
        (unit / "model.meta.json").write_text(json.dumps(meta))

    assert copy.model_sums("text", [0, 1, 2]) != before


def test_all_contributions_are_kept_where_asked_for(study):
    full = load(study.folder, "early", "full")
    summary = json.loads(
        (study.folder / "explain/contributions/early/summary.json").read_text()
    )

    assert full.dtype == np.float32
    assert full.shape[2] == len(summary["full"])
    assert_allclose(full.sum(axis=2), load(study.folder, "early", "signed").sum(2), atol=1e-4)


def test_the_games_share_out_the_gain_over_majority(study):
    games = {}
    for row in rows_of(study.folder, "shapley.csv"):
        if row["group"] == "":
            games.setdefault(row["game"], {})[row["kind"], row["players"]] = float(row["value"])

    assert set(games) == {"late-soft", "late-vote", "refit"}
    hits = {n: np.mean(t.y_pred == t.labels) for n, t in study.systems.items()}
    for numbers in games.values():
        total = sum(numbers["value", name] for name in MODALITIES)
        gain = numbers["worth", "visual+audio+text"] - numbers["worth", ""]
        assert_allclose(total, gain, rtol=0, atol=1e-12)
    assert_allclose(games["refit"]["worth", "visual+audio+text"], hits["early"])
    assert_allclose(games["refit"]["worth", "audio+text"], hits["early-audio-text"])
    assert_allclose(games["refit"]["worth", "visual"], hits["visual"])


def test_subsets_have_the_budget_of_all_and_are_not_compared(study):
    params = json.loads((study.folder / "internal" / "params.json").read_text())
    with (study.folder / "comparisons.csv").open(newline="") as file:
        compared = {row[side] for row in csv.DictReader(file) for side in "ab"}

    budgets = {
        tuple(fold["trials_done"] for fold in params[name].values())
        for name in ("text", "early", "early-audio-text")
    }
    assert len(budgets) == 1
    assert "early" in compared
    assert "early-audio-text" not in compared


def test_shares_stand_beside_those_of_permuted_labels(study):
    rows = [
        row
        for row in rows_of(study.folder, "shares.csv")
        if (row["level"], row["outcome"], row["speaker"], row["class_name"])
        == ("modality", "all", "", "")
    ]
    early = {row["modality"]: row for row in rows if row["system"] == "early"}

    assert_allclose(sum(float(row["share"]) for row in early.values()), 1)
    assert_allclose(sum(float(row["permuted"]) for row in early.values()), 1)
    assert all(row["permuted"] == "" for row in rows if row["system"] != "early")


def test_the_refits_on_permuted_labels_are_in_the_audit(study):
    audit = json.loads((study.folder / "internal" / "audit.json").read_text())

    assert audit["verdict"] == "no leakage found"
    assert audit["systems"]["early-permuted"]["folds"] == 3


@pytest.mark.usefixtures("no_drawings")
def test_nothing_is_explained_twice_and_the_report_comes_out_again(
    study, corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "toolkit.study.explaining._ExplainTask.execute",
        lambda _: pytest.fail("explained again"),
    )
    copy = shutil.copytree(study.folder, tmp_path / "copy")
    files = [copy / "report.md", *sorted((copy / "explain").glob("*.csv"))]
    before = [path.read_bytes() for path in files]

    run_study(StudyConfig(data=corpus / "dataset.csv", out=copy, **OPTIONS))
    _rebuild_report(copy)

    assert [path.read_bytes() for path in files] == before


def test_every_number_is_verified(study):
    checks = {check.name: check for check in _verify_study(study.folder)[0]}

    assert not any(check.differences for check in checks.values())
    assert {"explain/shares.csv", "explain/shapley.csv"} <= checks.keys()


def test_a_changed_contribution_is_found(study, tmp_path):
    copy = shutil.copytree(study.folder, tmp_path / "copy")
    path = copy / "explain" / "contributions" / "early" / "signed.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)

    found = [line for check in _verify_study(copy)[0] for line in check.differences]

    assert any("signed.npy changed" in line for line in found)


@pytest.mark.usefixtures("no_drawings")
def test_explanations_of_other_models_are_not_shown(study, tmp_path):
    copy = shutil.copytree(study.folder, tmp_path / "copy")
    for name in ("text", "audio", "visual", "early"):
        folder = copy / "explain" / "contributions" / name
        summary = json.loads((folder / "summary.json").read_text())
        text = json.dumps(summary | {"models": ["of before"]})
        (folder / "summary.json").write_text(text)
        shutil.copy(study.folder / "report.md", copy / "report.md")
        _sign(folder)

    _rebuild_report(copy)

    assert "Modality contributions" in (study.folder / "report.md").read_text()
    assert "Modality contributions" not in (copy / "report.md").read_text()


def _sign(folder):
    sums = {p.name: hash_file(p) for p in folder.iterdir() if p.name != "checksums.json"}
    (folder / "checksums.json").write_text(json.dumps(sums))


def test_the_report_has_a_section_on_modality_contributions(study):
    text = (study.folder / "report.md").read_text()

    section = text.split("## Modality contributions")[1].split("\n## ")[0]
    assert "has the largest Shapley value in" in section
    assert "figures/shap-beeswarm-0.svg" in section
    page = (study.folder / "report.html").read_text()
    assert "Modality contributions" in page
    for stem in ("modalities", "class-gains", "shap-bar", "shap-heatmap-0", "shap-waterfall-0"):
        assert (study.folder / "figures" / f"{stem}.svg").exists()


def test_the_recipe_of_three_lines_opens_shaps_own_plots(study):
    folder = study.folder / "explain" / "contributions" / "early"

    def load_one(name):
        return np.load(folder / f"{name}.npy")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what matplotlib says of shap is not ours
        import shap  # noqa: PLC0415

    names = json.loads((folder / "shown_names.json").read_text())
    parts = (load_one("shown_contributions")[:, 0], load_one("base")[:, 0])
    explanation = shap.Explanation(*parts, load_one("shown_values"), feature_names=names)

    margins = load_one("signed")[:, 0].sum(axis=1) + load_one("base")[:, 0]
    assert_allclose(explanation.values.sum(axis=1) + explanation.base_values, margins)
    assert explanation.shape == (len(margins), len(names))


@pytest.mark.slow
@pytest.mark.usefixtures("no_drawings")
def test_a_modality_that_was_left_out_since_is_no_player(study, corpus, tmp_path):
    copy = shutil.copytree(study.folder, tmp_path / "copy")

    fewer = OPTIONS | {"modality": ("audio", "text")}
    again = run_study(StudyConfig(data=corpus / "dataset.csv", out=copy, **fewer))

    early = again.systems["early"]
    rows = [r for r in rows_of(copy, "shapley.csv") if (r["game"], r["group"]) == ("refit", "")]
    assert {r["players"] for r in rows if r["kind"] == "value"} == {"audio", "text"}
    worth = next(r for r in rows if (r["kind"], r["players"]) == ("worth", "audio+text"))
    assert_allclose(float(worth["value"]), np.mean(early.y_pred == early.labels))


def test_one_utterance_is_told_by_part_and_frame(study, corpus):
    utterance = str(study.systems["early"].utterances[7])

    summary, files = _explain_from_study(study.folder, utterance)

    assert all(path.exists() for path in files)
    for k, name in enumerate(study.systems["early"].classes):
        placed = summary["expected_margins"][name]
        placed += sum(part["margins"][name] for part in summary["frames"].values())
        placed += sum(part[name] for part in summary["without_frames"].values())
        assert_allclose(placed, summary["margins"][name], atol=1e-9)
        assert_allclose(summary["probabilities"][name], study.systems["early"].proba[7, k])
    assert set(summary["without_frames"]) == {"text"} | (
        set() if "visual" in summary["frames"] else {"visual"}
    )
    with files[1].open(newline="") as file:
        frames = [row for row in csv.DictReader(file) if row["modality"] == "audio"]
    path = next((corpus / "features").rglob(f"acoustic*/**/{utterance}.npy"))
    assert len(frames) == len(np.load(path))
    total = sum(float(row[name]) for row in frames)
    assert_allclose(total, summary["frames"]["audio"]["margins"][name], atol=1e-9)


@pytest.mark.usefixtures("no_drawings")
def test_the_leading_contributions_are_on_the_terminal(study, capsys):
    early = study.systems["early"]
    row = int(np.flatnonzero(early.y_pred != early.labels)[0])
    classes = [early.classes[early.y_pred[row]], early.classes[early.labels[row]]]

    assert main(["explain", str(study.folder), str(early.utterances[row])]) == 0

    shown = capsys.readouterr().out.splitlines()
    files = [Path(line.strip()) for line in shown[shown.index("Files:") + 1 :]]
    summary = json.loads(files[0].read_text())
    with files[1].open(newline="") as file:
        frames = list(csv.DictReader(file))
    assert f"predicted {classes[0]}, true {classes[1]}" in shown[0]
    heads = [at for at, line in enumerate(shown) if line.startswith("Contributions to class")]

    def minus_mean(values, name):
        return float(values[name]) - np.mean([float(values[each]) for each in early.classes])

    assert [shown[at].split()[3] for at in heads] == classes
    for name, at in zip(classes, heads, strict=True):
        parts = {
            f"{part['modality']} {part['family']}": minus_mean(part["margins"], name)
            for part in summary["contributions"]
        }
        sums = {
            m: sum(v for key, v in parts.items() if key.split()[0] == m) for m in MODALITIES
        }
        by_frame = {f"{f['modality']} {f['frame']}": minus_mean(f, name) for f in frames}
        for line, values in zip(shown[at + 1 :], (sums, parts, by_frame), strict=False):
            largest = sorted(values, key=lambda key: -abs(values[key]))[:5]
            expected = ", ".join(f"{key} {values[key]:+.3f}" for key in largest)
            assert line.split(": ")[1] == expected


@pytest.mark.usefixtures("no_drawings")
def test_an_explained_utterance_replaces_its_own_files_and_stays(study, corpus, tmp_path):
    folder = shutil.copytree(study.folder, tmp_path / "copy")
    utterance, other = read_manifest(corpus / "dataset.csv").utterances[[0, 1]].tolist()
    _, files = _explain_from_study(folder, utterance)
    own = folder / "explain" / "frames" / f"{other}-early.csv"
    own.write_text("mine")

    assert _explain_from_study(folder, utterance)[1] == files
    with pytest.raises(FolderError, match=f"would replace: explain/frames/{own.name}"):
        _explain_from_study(folder, other)
    collect_study(StudyFolder(folder))

    assert own.read_text() == "mine"
    assert all(path.exists() for path in files)


@pytest.mark.parametrize(
    "names", [("Müller 1", "Möller 1"), ("a b", "a_b"), ("a/b", "a\\b"), ("日本", "中国")]
)
def test_files_of_two_utterances_have_two_portable_names(names):
    files = {_file_name(name) for name in names}

    assert len(files) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in files)


def test_an_unknown_utterance_is_refused_with_the_nearest(study, capsys):
    utterance = str(study.systems["early"].utterances[7])

    code = main(["explain", str(study.folder), utterance[:-1]])

    assert code == 2
    assert "There is no utterance" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=rf"did you mean '{utterance[:10]}"):
        _explain_from_study(study.folder, utterance[:-1])


def test_a_system_that_has_no_model_is_refused(study):
    utterance = str(study.systems["early"].utterances[0])

    with pytest.raises(ValueError, match=r"No model of smell .* with models: audio, early"):
        _explain_from_study(study.folder, utterance, system="smell")


@pytest.mark.usefixtures("no_drawings")
def test_without_explanations_there_is_no_section(corpus, tmp_path):
    options = OPTIONS | {"contributions": "none", "shapley": "none", "modality": ("text",)}

    run_study(StudyConfig(data=corpus / "dataset.csv", out=tmp_path / "none", **options))

    assert not (tmp_path / "none" / "explain").exists()
    assert "Modality contributions" not in (tmp_path / "none" / "report.md").read_text()


def test_the_end_of_a_run_says_how_to_open_the_searches(study, capsys):
    study.show("f1_micro")

    said = capsys.readouterr().out
    assert f"toolkit dashboard {study.folder}" in said


def test_the_dashboard_and_a_running_search_do_not_disturb_each_other(study, tmp_path):
    copy = StudyFolder(shutil.copytree(study.folder, tmp_path / "copy"))
    store = FileSystemArtifactStore(str(tmp_path))
    failures = []

    def search():
        try:
            with open_storage(copy.storage_url) as storage:
                made = optuna.create_study(storage=storage, study_name="x/text/99")
                made.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=15)
        except Exception as error:  # noqa: BLE001  (whatever it is, the test has to see it)
            failures.append(error)

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    thread = threading.Thread(target=search)
    thread.start()
    shown = _copy_searches(copy, store)
    thread.join()

    assert failures == []
    # Seven systems, three folds; four final ones; the overview.
    assert len(shown.get_all_studies()) in (25 + 1, 25 + 2)
    with open_storage(copy.storage_url) as storage:
        assert len(optuna.load_study(study_name="x/text/99", storage=storage).trials) == 15


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="needs the browser chromium")
def test_overview_note_and_picture_are_on_the_pages_in_a_browser(study, tmp_path):
    command = ["toolkit", "dashboard", str(study.folder), "--port", "0"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True, env=environment
    ) as server:
        try:
            line = server.stdout.readline()
            address = line.split("Dashboard: ")[1].split()[0]
            browser = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
            browser += ["--virtual-time-budget=20000", f"--user-data-dir={tmp_path}"]
            root = re.match(r"http://127\.0\.0\.1:\d+", address)[0]

            def look(path):
                words = [*browser, root + path]
                options = {"capture_output": True, "text": True, "timeout": 120}
                return subprocess.run(words, check=True, **options).stdout

            overview = look(address.removeprefix(root))
            links = re.findall(
                r'<a href="(/dashboard/studies/\d+)">(early, held out[^<]*)', overview
            )
            page = look(f"{links[0][0]}/note")
            pictures = {}
            for found in re.findall(r'src="(/artifacts/[^"]+)"', page):
                with urllib.request.urlopen(root + found) as answer:
                    pictures[found] = answer.read()
        finally:
            server.terminate()

    assert "text, final model" in overview
    assert len(links) == 3
    assert links[0][1] in page
    assert "True classes in rows" in page
    picture = re.search(r'<img alt="modalities"[^>]* src="(/artifacts/[^"]+)"', page)[1]
    assert pictures[picture] == (study.folder / ARTIFACTS / "modalities.png").read_bytes()
