"""A report made again from its folder, numbers computed again, and one page for a browser."""

import csv
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from toolkit.files import FolderError, hash_file
from toolkit.study.cli import main
from toolkit.study.folder import StudyFolder
from toolkit.study.runner import _rebuild_report
from toolkit.study.verify import _verify_study

DERIVED = (
    *("report.html", "report.md", "table.tex", "MODEL_CARD.md", "figures", "models"),
    *("predictions.csv", "scores.csv", "comparisons.csv", "fusion.csv"),
    *(
        f"internal/{name}"
        for name in ("folds.csv", "params.json", "audit.json", "derived.json")
    ),
)


@pytest.fixture
def copy(hostile_study, tmp_path):
    """A copy of the finished study that a test may spoil."""
    return shutil.copytree(hostile_study, tmp_path / "copy")


def contents(folder):
    """Bytes of everything but the lock and what a run alone writes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {".lock", ".lock-owner"}
    }


def differences(folder):
    return [sentence for check in _verify_study(folder)[0] for sentence in check.differences]


def change(path, old, new):
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode())


@pytest.mark.slow
def test_all_derived_files_come_back_from_the_folder_alone(hostile_study, copy):
    for name in DERIVED:
        path = copy / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    _rebuild_report(copy)

    assert contents(copy) == contents(hostile_study)


@pytest.mark.slow
@pytest.mark.usefixtures("no_drawings")
def test_figures_are_written_in_the_formats_asked_for_and_nothing_else_depends_on_them(copy):
    config = copy / "study.toml"
    plain = config.read_text()
    _rebuild_report(copy)
    before = contents(copy)
    stems = {path.stem for path in (copy / "figures").iterdir()}
    config.write_text(plain + 'figures = ["svg", "png", "pdf"]\n')

    _rebuild_report(copy)

    asked = {path.name for path in (copy / "figures").iterdir()}
    assert asked == {f"{stem}.{end}" for stem in stems for end in ("svg", "png", "pdf")}
    assert differences(copy) == []
    further = {f"figures/{stem}.{end}" for stem in stems for end in ("png", "pdf")}
    again = contents(copy)
    changed = {name for name in before | again if before.get(name) != again.get(name)}
    assert changed == {
        "study.toml",
        "internal/inventory.json",
        "internal/derived.json",
        *further,
    }
    (copy / "figures" / "scores.pdf").unlink()
    assert differences(copy) == ["figures/scores.pdf is missing."]

    config.write_text(plain)
    _rebuild_report(copy)

    assert contents(copy) == before


@pytest.mark.usefixtures("no_drawings")
def test_the_report_command_shows_the_scores_and_refuses_what_is_no_study(
    copy, tmp_path, capsys
):
    assert main(["report", str(copy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"]

    assert main(["report", str(tmp_path)]) == 2
    assert "holds no internal/data.json" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "nowhere")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [copy]


def test_damaged_rows_are_named(copy):
    change(copy / "internal" / "rows.csv", "=1+1", "=1+2")

    with pytest.raises(FolderError, match=r"kept of its data is damaged \(KeyError"):
        _rebuild_report(copy)


def test_ten_lines_of_ones_own_give_every_pooled_score(hostile_study):
    scores = pd.read_csv(hostile_study / "scores.csv", keep_default_na=False)
    # The calibration error has no interval.
    scores = scores[scores.scope.eq("all") & scores.method.str.match("speaker|value$")]
    scores = scores[scores.variant.eq("")]
    path = hostile_study / "predictions.csv"
    everything = pd.read_csv(path, dtype=str, keep_default_na=False)
    names = [name[2:] for name in everything.columns[8:]]
    assert set(everything.system) == set(scores.system)
    for system, table in everything.groupby("system"):
        y, guess = table.label, table.predicted
        p = table.iloc[:, 8:].astype(float).to_numpy()
        truth = (y.to_numpy()[:, None] == np.array(names)).astype(float)
        q = p.clip(1e-6)
        q /= q.sum(axis=1, keepdims=True)
        confidence, right = p.max(axis=1), np.array(names)[p.argmax(axis=1)] == y
        bins = np.ceil(confidence * 15).clip(1, 15)
        gaps = pd.Series(right.to_numpy() - confidence).groupby(bins).sum()
        average = {"labels": names, "zero_division": 0}
        mine = {
            "f1_micro": metrics.f1_score(y, guess, average="micro", **average),
            "f1_macro": metrics.f1_score(y, guess, average="macro", **average),
            "uar": metrics.recall_score(y, guess, average="macro", **average),
            "f1_weighted": metrics.f1_score(y, guess, average="weighted", **average),
            "mcc": metrics.matthews_corrcoef(y, guess),
            "log_loss": -(truth * np.log(q)).sum(axis=1).mean(),
            "brier": ((p - truth) ** 2).sum(axis=1).mean(),
            "ece": gaps.abs().sum() / len(table),
        }

        reported = scores[scores.system.eq(system)].set_index("metric").value
        assert reported.to_dict() == pytest.approx(mine, abs=1e-9)


def test_a_finished_study_is_what_its_predictions_give(hostile_study, capsys):
    before = contents(hostile_study)

    assert main(["verify", str(hostile_study)]) == 0

    assert "OK: all numbers are the same" in capsys.readouterr().out
    assert contents(hostile_study) == before


def edit(path, change_rows):
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    change_rows(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def spoil_score(folder):
    def raise_one(rows):
        row = next(row for row in rows if row[:4] == ["text", "", "uar", "all"])
        row[5] = repr(float(row[5]) + 1e-6)

    edit(folder / "scores.csv", raise_one)


def swap_predictions(folder):
    """A wrong and a right utterance exchange their predictions, which still sum to 1."""

    def swap(rows):
        text = [row for row in rows if row[0] == "text"]
        wrong = next(row for row in text if row[6] != row[7])
        right = next(row for row in text if row[6] == row[7])
        wrong[7:], right[7:] = right[7:], wrong[7:]

    edit(folder / "predictions.csv", swap)


#: A change of one file each, and what must be said of it.
CHANGES = (
    (spoil_score, "scores.csv, line"),
    (
        lambda f: change(f / "comparisons.csv", ",f1_micro,0", ",f1_micro,-1"),
        "comparisons.csv, line",
    ),
    (lambda f: change(f / "fusion.csv", ",right,", ",wrong,"), "fusion.csv, line"),
    (
        lambda f: change(f / "internal" / "params.json", '"n_rounds": ', '"n_rounds": 1'),
        "internal/params.json, line",
    ),
    (
        lambda f: change(f / "internal" / "folds.csv", "test", "train"),
        "internal/folds.csv, line 2",
    ),
    (lambda f: change(f / "report.md", "F1-micro 0", "F1-micro 1"), "report.md, line"),
    (lambda f: change(f / "report.html", "F1-micro 0", "F1-micro 1"), "report.html, line"),
    (lambda f: (f / "table.tex").unlink(), "table.tex is missing"),
    (lambda f: (f / "figures" / "scores.svg").unlink(), "figures/scores.svg is missing"),
    (
        lambda f: change(f / "models" / "text" / "final.txt", "tree", "twig"),
        "models/text/final.txt is not what was written",
    ),
)


def test_whatever_is_changed_is_named(copy, capsys):
    for spoil, _ in CHANGES:
        spoil(copy)

    assert main(["verify", str(copy)]) == 2

    said = capsys.readouterr().out
    assert [expected for _, expected in CHANGES if expected not in said] == []
    assert "OK       predictions.csv (" in said
    assert "OK       leakage audit (" in said
    assert "differs  internal/ (" in said


def test_changed_predictions_differ_from_scores_and_from_units(copy):
    swap_predictions(copy)

    named = differences(copy)

    assert any(
        s.startswith("predictions.csv, line") and "the finished units give" in s for s in named
    )
    assert any(s.startswith("scores.csv, line") and "the predictions give" in s for s in named)


def keep_rows(folder, keep):
    def change_rows(rows):
        rows[1:] = [row for row in rows[1:] if keep(row)]

    edit(folder / "predictions.csv", change_rows)


def add_system(folder):
    def change_rows(rows):
        rows += [["other", *row[1:]] for row in rows if row[0] == "text"]

    edit(folder / "predictions.csv", change_rows)


@pytest.mark.family
@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda f: change(f / "study.toml", "seed = 0", "seed = 1"), "study.toml: seed is 1"),
        (
            lambda f: change(f / "internal" / "rows.csv", ",Ses01,", ",Ses02,"),
            "hold other rows than provenance.json names",
        ),
        (add_system, "; the finished units give missing"),
        (
            lambda f: keep_rows(f, lambda row: row[0] != "vote"),
            "comparisons.csv names 'vote', of which there are no predictions",
        ),
    ],
    ids=["options", "rows", "further", "missing"],
)
def test_what_the_numbers_rest_on_is_checked(copy, spoil, expected):
    spoil(copy)

    assert any(expected in sentence for sentence in differences(copy))


def test_a_changed_score_with_other_thresholds_is_found(copy):
    def raise_one(rows):
        row = next(row for row in rows if row[:4] == ["text", "offset-uar", "uar", "all"])
        row[5] = repr(float(row[5]) + 1e-6)

    edit(copy / "scores.csv", raise_one)

    (named,) = differences(copy)
    assert named.startswith("scores.csv, line")
    assert "the finished units give" in named


def test_every_unit_is_checked_also_one_that_no_table_needs(copy, opened):
    units = StudyFolder(copy).units
    shutil.copytree(units / "text", units / "early-audio-text")
    with opened(units / "early-audio-text" / "02.zip") as unit:
        (unit / "unit.json").write_text("{}")

    checks, _ = _verify_study(copy)
    damaged = next(check for check in checks if check.name == "checksums of finished units")

    # A unit per fold of every system, and the explanation of every explained system.
    explained = list((copy / "explain" / "contributions").iterdir())
    assert damaged.n == len(list(units.glob("*/*.zip"))) + len(explained)
    assert [s for s in damaged.differences if "unit.json changed since" in s]
    assert len(damaged.differences) == 1


def test_a_model_that_is_not_its_units_is_named(copy):
    models = copy / "models" / "text"
    (models / "final.txt").write_bytes((models.with_name("audio") / "final.txt").read_bytes())
    sums = json.loads((models / "checksums.json").read_text())
    sums["final.txt"] = hash_file(models / "final.txt")
    (models / "checksums.json").write_text(json.dumps(sums))

    named = "models/text/final.txt is not the model of the finished unit."
    assert named in differences(copy)


def test_names_of_dimensions_are_kept_and_shown_as_they_are(hostile_study, hostile_dimensions):
    rows = pd.read_csv(hostile_study / "explain" / "features.csv", dtype=str, na_filter=False)
    names = json.loads((hostile_study / "internal" / "data.json").read_text())["modalities"]
    audio = rows[rows.modality.eq("audio")]
    markdown = (hostile_study / "report.md").read_text(encoding="utf-8")
    page = (hostile_study / "report.html").read_text(encoding="utf-8")

    named = dict(zip(audio.dimension.astype(int), audio.name, strict=True))
    assert names["audio"]["dimensions"] == hostile_dimensions
    # An apostrophe marks what a spreadsheet would run.
    for dimension, name in named.items():
        assert name.removeprefix("'") == hostile_dimensions[dimension]
        assert not name.startswith(("=", "@"))
    assert set(rows.feature[rows.modality.eq("text")].str.len()) == {len("text__value__0000")}
    assert set(rows.name[rows.modality.eq("text")]) == {""}
    assert "text, dimension " in markdown
    assert "audio: " in markdown
    assert "audio__mean__" not in markdown
    assert "<img src=x" not in page


def test_the_last_digit_of_another_version_is_no_difference(copy):
    def change_rows(rows):
        row = next(row for row in rows if row[:4] == ["text", "", "uar", "all"])
        row[5] = repr(float(np.nextafter(float(row[5]), 2)))

    edit(copy / "scores.csv", change_rows)

    assert differences(copy) == []


def test_names_are_as_they_are_in_the_files_that_programs_read(hostile_study):
    scores = pd.read_csv(hostile_study / "scores.csv", dtype=str, keep_default_na=False)
    table = pd.read_csv(hostile_study / "predictions.csv", dtype=str, keep_default_na=False)

    assert set(scores.group[scores.scope.eq("class")]) == set(table.label)
    # The empty group is the mean over speakers.
    assert set(scores.group[scores.scope.eq("speaker")]) - {""} == set(table.speaker)
