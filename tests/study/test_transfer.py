"""Final models scored on other corpora: no training score, no dropped label, exact counts."""

import csv
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from toolkit.files import FolderError
from toolkit.fusion.inputs import NewPredictions
from toolkit.report.document import NONE
from toolkit.report.transfer_page import format_transfer, plot_transfer
from toolkit.study.cli import main
from toolkit.study.config import ConfigError
from toolkit.study.outcome import parse_scores
from toolkit.study.predict import predict_new
from toolkit.study.transfer_command import (
    _check_merge,
    _find_truth,
    _mark_rows,
    _measure_transfer,
    _name_apart,
    _restrict,
)
from toolkit.validation.scores import find_score

pytestmark = pytest.mark.usefixtures("no_drawings")


@pytest.fixture(scope="module")
def other(corpus, tmp_path_factory):
    """Table of the corpus as spoken by other people: names and every number differ a little."""
    folder = shutil.copytree(corpus, tmp_path_factory.mktemp("other") / "corpus")
    rng = np.random.default_rng(0)
    for path in sorted(folder.rglob("*.npy")):
        values = np.load(path)
        np.save(path, values + rng.normal(size=values.shape).astype(np.float32) / 100)
    rewrite(folder / "dataset.csv", rename)
    return folder / "dataset.csv"


def rewrite(path, change, to=None):
    """Change the rows of a table: mappings of header to cell."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    header = [name.strip() for name in header]
    rows = [dict(zip(header, row, strict=True)) for row in rows]
    for row in rows:
        change(row)
    to = path if to is None else to
    with to.open("w", newline="") as file:
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        writer.writerows(rows)
    return to


def rename(row):
    row["file_name_list"] = f"new-{row['file_name_list']}"
    row["speakers"] = f"P{row['speakers']}"


def restore(row):
    """Give the names of training back to other numbers."""
    row["file_name_list"] = row["file_name_list"].removeprefix("new-")
    row["speakers"] = row["speakers"].removeprefix("P")


def relabel(row):
    """Call happy joy, and one person's label fear under the code of another class."""
    row["label_name"] = {"happy": "joy"}.get(row["label_name"], row["label_name"])
    row["emotion_labels"] = f"1{row['emotion_labels']}"
    if row["speakers"] == "PF01":
        row["emotion_labels"], row["label_name"] = "1", "fear"


def permute(row):
    names = ["angry", "sad", "happy", "neutral"]
    code = (int(row["emotion_labels"]) + 1) % 4
    row["emotion_labels"], row["label_name"] = str(code), names[code]


def keep_two(row):
    if row["label_name"] in {"sad", "neutral"}:
        row["emotion_labels"] = row["label_name"] = ""


@pytest.fixture(scope="module")
def tables(corpus, other, tmp_path_factory):
    """Tables of the study's own recordings and of other people's, by name."""
    own = shutil.copytree(corpus, tmp_path_factory.mktemp("own") / "corpus") / "dataset.csv"
    made = {"own": own, "renamed": rewrite(own, rename, own.with_name("renamed.csv"))}
    changes = {"restored": restore, "permuted": permute, "two": keep_two, "joy": relabel}
    made |= {
        name: rewrite(other, c, other.with_name(f"{name}.csv")) for name, c in changes.items()
    }
    return made | {"other": other}


@pytest.fixture(scope="module")
def matrix(finished, tables):
    """Cells of the system text, by table; joy is merged into happy."""
    cells = _measure_transfer(
        [finished], [*tables.values()], system="text", merge={"joy": "happy"}
    )
    return dict(zip(tables, cells, strict=True))


def test_every_utterance_is_in_one_count(matrix):
    for cell in matrix.values():
        parts = (cell.n_unlabelled, cell.n_other, cell.n_known, cell.n_alike, cell.n_apart)
        assert cell.n_scored + sum(parts) == cell.n_utterances == 150


def test_a_study_on_its_own_data_shows_its_out_of_fold_scores(finished, matrix):
    cell = matrix["own"]

    expected = parse_scores((finished / "scores.csv").read_text())
    assert (cell.kind, cell.n_scored, cell.n_people) == ("out-of-fold", 150, 10)
    for metric in ("f1_micro", "uar", "log_loss", "mcc"):
        known = find_score(expected, "text", metric)
        found = cell.score(metric)
        assert found.value == pytest.approx(known.value, abs=1e-6)
        assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-6)


def test_the_same_recordings_under_other_names_are_not_scored(matrix):
    cell = matrix["renamed"]

    assert (cell.kind, cell.n_scored, cell.n_alike, cell.scores) == ("none", 0, 150, ())
    assert "not scored: 150 with the numbers of training" in cell.describe()


def test_other_numbers_under_the_names_of_training_are_not_its_own_data(
    finished, tables, matrix
):
    cell = matrix["restored"]

    assert (cell.kind, cell.n_scored, cell.n_known) == ("none", 0, 150)
    assert "--column speaker=HEADER+HEADER" in cell.describe()
    (alone,) = _measure_transfer([finished], [tables["restored"]], system="text")
    assert replace(alone, corpus=cell.corpus) == cell


def test_without_the_data_of_training_nothing_is_scored(finished, tables, tmp_path):
    moved = shutil.copytree(finished, tmp_path / "moved")
    path = moved / "internal" / "provenance.json"
    content = json.loads(path.read_text())
    content["data"]["path"] = str(tmp_path / "gone.csv")
    path.write_text(json.dumps(content))

    # The same rows with other numbers are other data.
    with pytest.raises(FolderError, match=r"The data of moved are not in .*gone\.csv"):
        _measure_transfer([moved], [tables["restored"]])
    (cell,) = _measure_transfer([moved], [tables["own"]])
    assert cell.kind == "out-of-fold"


def test_marks_of_rows_are_words_or_numbers_that_vary():
    values = np.array([[1, 2, np.nan], [0, 0, 0], [np.nan] * 3], dtype=np.float32)
    present = np.array([True, True, False])

    def mark(values, texts=()):
        return _mark_rows(SimpleNamespace(values=values, present=present, texts=texts))

    assert mark(values) == [values[0].tobytes(), None, None]
    assert mark(values[:, :1]) == [values[0, :1].tobytes(), values[1, :1].tobytes(), None]
    assert mark(values * np.nan, ("Stop!", "stop!", "")) == ["stop!", "stop!", None]


def test_other_people_are_scored_as_predict_scores_them(finished, other, matrix):
    (cell,) = _measure_transfer([finished], [other], system="vote")

    expected = predict_new(finished, other).score(["vote"])
    assert (cell.kind, cell.n_scored, cell.n_people) == ("final model", 150, 10)
    for metric in ("f1_micro", "uar", "log_loss"):
        assert cell.score(metric) == find_score(expected, "vote", metric)
        known = find_score(expected, "majority", metric)
        assert cell.score(metric, "majority").value == pytest.approx(known.value)
    # Nearly the recordings of training.
    assert matrix["other"].score("uar").value > 0.6


def test_labels_are_mapped_by_name_and_others_are_counted(other, matrix):
    cell = matrix["joy"]

    n_fear = int((pd.read_csv(other)["speakers"] == "PF01").sum())
    assert (cell.n_other, cell.n_scored) == (n_fear, 150 - n_fear)
    assert cell.classes == ("angry", "sad", "happy", "neutral")
    assert cell.score("uar").value > 0.6
    assert f"{n_fear} with other labels" in cell.describe()


def test_permuted_labels_are_missed(matrix):
    assert matrix["permuted"].score("uar").value < 0.25


def test_classes_that_the_corpus_lacks_are_no_choice(finished, tables, matrix):
    cell = matrix["two"]

    result = predict_new(finished, tables["two"])
    rows = result.labels >= 0
    pair = result.systems["text"].proba[rows][:, [0, 2]].argmax(axis=1)
    truth = (result.labels[rows] == 2).astype(int)
    recalls = [(pair[truth == k] == k).mean() for k in (0, 1)]
    assert (cell.classes, cell.n_unlabelled) == (("angry", "happy"), int((~rows).sum()))
    assert cell.score("uar").value == pytest.approx(np.mean(recalls))


def test_probabilities_of_merged_classes_are_added_and_rescaled():
    proba = np.array([[0.2, 0.3, 0.1, 0.4], [0.0, 0.0, 0.0, 1.0]])
    found = NewPredictions(proba, np.array([1, 3]), np.ones(2, dtype=bool))
    priors = np.array([0.1, 0.2, 0.3, 0.4])

    same, merged = (
        _restrict(found, SimpleNamespace(classes=named, system="x"), classes, priors)
        for named, classes in (("abcd", "dcba"), ("abad", "ab"))
    )

    # A decision that is not the likeliest stays.
    assert same["systems"]["x"].y_pred.tolist() == [2, 0]
    np.testing.assert_allclose(same["systems"]["x"].proba, proba[:, ::-1])
    np.testing.assert_allclose(merged["systems"]["x"].proba, [[0.5, 0.5], [2 / 3, 1 / 3]])
    np.testing.assert_allclose(merged["priors"], [2 / 3, 1 / 3])


@pytest.mark.parametrize(
    ("merge", "message"),
    [
        ({"joy": "happy"}, "no study and no corpus has the label 'joy'"),
        ({"happy": "hapy"}, "has the label 'hapy'; did you mean 'happy'"),
        ({"happy": "sad", "sad": "angry"}, "'sad' is itself merged into 'angry'"),
    ],
)
def test_merges_that_cannot_be_are_refused(manifest, merge, message):
    with pytest.raises(ConfigError) as refused:
        _check_merge(merge, [SimpleNamespace(trained=manifest, manifest=manifest)])

    assert message in str(refused.value)


def test_a_single_shared_class_is_refused(finished, other):
    merge = {"happy": "sad", "angry": "sad", "neutral": "sad"}

    with pytest.raises(ConfigError, match=r"share 1 classes \(sad\), and two are needed"):
        _measure_transfer([finished], [other], merge=merge)


def test_a_label_of_two_meanings_is_refused(manifest):
    corpus = replace(manifest, classes=("angry", "sad", "excited", "neutral"))
    meanings = ({"excited": "happy"}, {"excited": "angry"})
    given = [
        SimpleNamespace(trained=replace(manifest, merged=merged), manifest=corpus)
        for merged in meanings
    ]

    with pytest.raises(ConfigError, match=r"is angry in one study and happy in another"):
        _find_truth("x", given, {})
    assert set(_find_truth("x", given, {"excited": "sad"})) == {"angry", "sad", "neutral"}


def test_the_command_writes_table_page_and_figure(finished, tables, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["transfer", str(finished), str(tables["own"])]

    assert main([*words, "--metric", "uar", "--system", "text", "--out", str(out)]) == 0

    shown = capsys.readouterr().out
    assert "*: the study's own data, out-of-fold" in shown
    table = pd.read_csv(out / "transfer.csv")
    assert table["kind"].unique().tolist() == ["out-of-fold"]
    assert set(table["system"]) == {"majority", "text"}
    assert {"transfer.md", "figures"} <= {path.name for path in out.iterdir()}
    assert (out / "figures" / "transfer.svg").read_bytes().startswith(b"<?xml")
    more = [out / "figures" / name for name in ("transfer.png", "mine.png")]
    more[1].write_text("mine")
    again = [*words, "--system", "text", "--out", str(out)]
    assert main([*again, "--figures", "svg,png"]) == 0
    assert all(path.exists() for path in more)
    assert main(again) == 0
    assert [path.exists() for path in more] == [False, True]
    capsys.readouterr()
    assert main([*words[:2], "--out", str(out)]) == 2
    assert "there is no table of a labelled corpus" in capsys.readouterr().err


def test_page_and_figure_mark_what_is_out_of_fold_or_empty(matrix):
    cells = [matrix[name] for name in ("own", "renamed", "other")]

    page = format_transfer(cells, "log_loss")
    ax = plot_transfer(cells, "log_loss")

    own, empty, new = (cell.score("log_loss") for cell in cells)
    assert empty is None
    row = next(line for line in page.splitlines() if line.startswith("| predicting |"))
    assert f"{own.value:.3f}" in row
    assert row.count("\\*") == 1
    assert f"| {NONE} |" in row
    texts = [text.get_text() for text in ax.texts]
    assert texts[0].startswith(f"{own.value:.3f}\n[")
    assert texts[1] == NONE
    assert texts[2].startswith(f"{new.value:.3f}\n[")
    assert texts[2].endswith("10 people")
    assert len(ax.lines) == 1  # one frame


def test_tables_of_one_name_are_told_apart(tmp_path):
    paths = [tmp_path / "a" / "dataset.csv", tmp_path / "b" / "dataset.csv"]

    assert _name_apart(paths) == ["a/dataset.csv", "b/dataset.csv"]
    assert _name_apart(paths[:1]) == ["dataset.csv"]
    with pytest.raises(ConfigError, match="is given twice"):
        _name_apart([paths[0], paths[0]])
