"""A report made again from its folder, numbers computed again, and one page for a browser."""

import csv
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from toolkit.files import FolderError
from toolkit.study.cli import main
from toolkit.study.runner import _rebuild_report
from toolkit.study.verify import _verify_study

DERIVED = (
    "report.html",
    "report.md",
    "table.csv",
    "table.tex",
    "scores.csv",
    "scores.json",
    "comparisons.csv",
    "fusion.csv",
    "folds.csv",
    "params.json",
    "audit.json",
    "predictions",
    "figures",
    "models",
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
    return [sentence for check in _verify_study(folder) for sentence in check.differences]


def change(path, old, new):
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode())


def test_all_derived_files_come_back_from_the_folder_alone(hostile_study, copy):
    for name in DERIVED:
        path = copy / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    _rebuild_report(copy)

    assert contents(copy) == contents(hostile_study)


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
    assert changed == {"study.toml", "internal/inventory.json", *further}
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
    assert "holds no data.json" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "nowhere")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [copy]


def test_damaged_rows_are_named(copy):
    change(copy / "rows.csv", "=1+1", "=1+2")

    with pytest.raises(FolderError, match=r"kept of its data is damaged \(KeyError"):
        _rebuild_report(copy)


def test_ten_lines_of_ones_own_give_every_pooled_score(hostile_study):
    scores = pd.read_csv(hostile_study / "scores.csv", keep_default_na=False)
    # The calibration error has no interval.
    scores = scores[scores.scope.eq("all") & scores.method.str.match("speaker|value$")]
    for path in sorted((hostile_study / "predictions").glob("*.csv")):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        names = [name[2:] for name in table.columns[7:]]
        y, guess = table.label, table.predicted
        p = table.iloc[:, 7:].astype(float).to_numpy()
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

        reported = scores[scores.system.eq(path.stem)].set_index("metric").value
        assert reported.to_dict() == pytest.approx(mine, abs=1e-9)


def test_a_finished_study_is_what_its_predictions_give(hostile_study, capsys):
    before = contents(hostile_study)

    assert main(["verify", str(hostile_study)]) == 0

    assert "Every number is what the saved predictions" in capsys.readouterr().out
    assert contents(hostile_study) == before


def edit(path, change_rows):
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    change_rows(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def spoil_score(folder):
    def raise_one(rows):
        row = next(row for row in rows if row[:3] == ["text", "uar", "all"])
        row[4] = repr(float(row[4]) + 1e-6)

    edit(folder / "scores.csv", raise_one)


def swap_predictions(folder):
    """A wrong and a right utterance exchange their predictions, which still sum to 1."""

    def swap(rows):
        wrong = next(row for row in rows[1:] if row[5] != row[6])
        right = next(row for row in rows[1:] if row[5] == row[6])
        wrong[6:], right[6:] = right[6:], wrong[6:]

    edit(folder / "predictions" / "text.csv", swap)


#: A change of one file each, and what must be said of it.
CHANGES = (
    (spoil_score, "scores.csv, line"),
    (
        lambda f: change(f / "comparisons.csv", ",f1_micro,0", ",f1_micro,-1"),
        "comparisons.csv, line",
    ),
    (lambda f: change(f / "fusion.csv", ",right,", ",wrong,"), "fusion.csv, line"),
    (lambda f: change(f / "scores.json", '"value": 0', '"value": 1'), "scores.json, line"),
    (lambda f: change(f / "params.json", '"n_rounds": ', '"n_rounds": 1'), "params.json, line"),
    (lambda f: change(f / "folds.csv", "test", "train"), "folds.csv, line 2"),
    (lambda f: change(f / "report.md", "F1-micro 0", "F1-micro 1"), "report.md, line"),
    (lambda f: change(f / "report.html", "F1-micro 0", "F1-micro 1"), "report.html, line"),
    (lambda f: change(f / "table.csv", "text,0", "text,1"), "table.csv, line"),
    (lambda f: (f / "table.tex").unlink(), "table.tex is missing"),
    (lambda f: (f / "figures" / "scores.svg").unlink(), "figures/scores.svg is missing"),
    (
        lambda f: change(f / "models" / "text" / "fold-00.txt", "tree", "twig"),
        "models/text/fold-00.txt is not what was written",
    ),
)


def test_whatever_is_changed_is_named(copy, capsys):
    for spoil, _ in CHANGES:
        spoil(copy)

    assert main(["verify", str(copy)]) == 2

    said = capsys.readouterr().out
    assert [expected for _, expected in CHANGES if expected not in said] == []
    assert "predictions/text.csv: as computed again" in said
    assert "audit.json: as computed again" in said


def test_changed_predictions_differ_from_scores_and_from_units(copy):
    swap_predictions(copy)

    named = differences(copy)

    assert any(
        s.startswith("predictions/text.csv, line") and "the finished units give" in s
        for s in named
    )
    assert any(s.startswith("scores.csv, line") and "the predictions give" in s for s in named)
    assert not any(s.startswith("predictions/audio.csv") for s in named)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (
            lambda f: (f / "units" / "text" / "00" / "test.npy").write_bytes(b"x"),
            "test.npy changed since it was written",
        ),
        (lambda f: change(f / "study.toml", "seed = 0", "seed = 1"), "study.toml: seed is 1"),
        (
            lambda f: change(f / "rows.csv", ",Ses01,", ",Ses02,"),
            "hold other rows than provenance.json names",
        ),
        (
            lambda f: shutil.copy(f / "predictions/text.csv", f / "predictions/other.csv"),
            "predictions/other.csv comes from no finished unit",
        ),
        (
            lambda f: (f / "predictions" / "vote.csv").unlink(),
            "scores.csv names 'vote', of which there are no predictions",
        ),
    ],
    ids=["unit", "options", "rows", "further", "missing"],
)
def test_what_the_numbers_rest_on_is_checked(copy, spoil, expected):
    spoil(copy)

    assert any(expected in sentence for sentence in differences(copy))


def test_every_unit_is_checked_also_one_that_no_table_needs(copy):
    shutil.copytree(copy / "units" / "text", copy / "units" / "early-audio-text")
    (copy / "units" / "early-audio-text" / "02" / "unit.json").write_text("{}")

    damaged = next(c for c in _verify_study(copy) if c.name == "checksums of finished units")

    # A unit a fold of every system, and what explains a system's units.
    explained = list((copy / "explain" / "contributions").iterdir())
    assert damaged.n == len(list(copy.glob("units/*/[0-9][0-9]"))) + len(explained)
    assert [s for s in damaged.differences if "unit.json changed since" in s]
    assert len(damaged.differences) == 1


def test_a_model_that_is_not_its_units_is_named(copy):
    models = copy / "models" / "text"
    (models / "fold-00.txt").write_bytes((models / "fold-01.txt").read_bytes())
    sums = json.loads((models / "checksums.json").read_text())
    sums["fold-00.txt"] = sums["fold-01.txt"]
    (models / "checksums.json").write_text(json.dumps(sums))

    assert "models/text/fold-00.txt is not the model of text/00." in differences(copy)


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
    path = copy / "scores.json"
    scores = json.loads(path.read_text(encoding="utf-8"))
    scores[3]["value"] = float(np.nextafter(scores[3]["value"], 2))
    path.write_text(json.dumps(scores), encoding="utf-8")

    assert differences(copy) == []


def test_names_are_as_they_are_in_the_files_that_programs_read(hostile_study):
    scores = pd.read_csv(hostile_study / "scores.csv", dtype=str, keep_default_na=False)
    table = pd.read_csv(
        hostile_study / "predictions" / "text.csv", dtype=str, keep_default_na=False
    )

    assert set(scores.group[scores.scope.eq("class")]) == set(table.label)
    # The empty group is the mean over speakers.
    assert set(scores.group[scores.scope.eq("speaker")]) - {""} == set(table.speaker)
