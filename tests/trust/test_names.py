"""Hostile names run nowhere and come back letter by letter; nothing read is ever run."""

import ast
import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toolkit
from toolkit.files import escape_formula, format_csv, unescape_formula
from toolkit.models import FittedBooster
from toolkit.models.boosters import fit_booster, make_training_data
from toolkit.models.libraries import find_library
from toolkit.study.folder import StudyFolder
from toolkit.validation import majority_predictions, make_folds
from toolkit.validation.predictions import format_predictions, parse_predictions

HOSTILE = ("=cmd|' /C calc'!A1", "@SUM(A1)", "+1+cmd|x", "-2*f(3)", "'=1", "''=1", "= 1")
HARMLESS = ("-1", "+1.5", "@ann", "-3g5yACwYnA[2]", "'tis", "a=b", "")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_would_run_is_marked_and_comes_back(name):
    assert escape_formula(name) == "'" + name
    assert unescape_formula(escape_formula(name)) == name


@pytest.mark.parametrize("name", HARMLESS)
def test_other_names_are_written_as_they_are(name):
    assert escape_formula(name) == unescape_formula(name) == name


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.text(st.sampled_from("'=+-@(|!a1\n"), max_size=8))
def test_every_name_comes_back_and_none_runs(name):
    said = escape_formula(name)

    assert unescape_formula(said) == name
    assert not said.startswith("=")
    assert said[:1] not in "+-@" or not set("(|!") & set(said)


@pytest.fixture
def hostile(manifest):
    """The corpus, its people, utterances and classes named by somebody who means harm."""
    names = np.array([f"={name}" for name in manifest.utterances])
    people = np.array([f"@SUM({name})" for name in manifest.speakers])
    classes = ("=1+1", "-1+cmd|x", "+f(1)", "'=1")
    return replace(manifest, utterances=names, speakers=people, classes=classes, codes=classes)


def test_no_table_of_a_study_runs_and_all_names_come_back(hostile, tmp_path):
    folds = make_folds(hostile, "speaker", seed=0)
    table = majority_predictions(hostile, folds)
    text = format_predictions(table)
    StudyFolder(tmp_path).write_data(hostile, {}, study="s", primary="text", explicit=False)
    again, _ = StudyFolder(tmp_path).read_data()
    back = parse_predictions(text, "predictions.csv")["majority"]

    rows = (tmp_path / "internal" / "rows.csv").read_text()
    for content in (text, rows, format_csv(["=a"], [["=b"]])):
        cells = [cell for row in csv.reader(io.StringIO(content)) for cell in row]
        assert not [cell for cell in cells if cell.startswith(("=", "@", "+"))]
    assert again.utterances.tolist() == hostile.utterances.tolist()
    assert again.classes == hostile.classes
    assert back.speakers.tolist() == table.speakers.tolist()
    assert back.classes == table.classes


def test_nothing_that_is_read_is_unpickled_or_run():
    refused = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}
    for path in Path(toolkit.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.partition(".")[0] for alias in node.names}
                names.add((getattr(node, "module", "") or "").partition(".")[0])
                assert not names & refused, path
            if isinstance(node, ast.keyword) and node.arg in {"allow_pickle", "shell"}:
                assert ast.unparse(node.value) == "False", path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"eval", "exec", "joblib.load", "os.system"}, path
                if called == "np.load":
                    assert "allow_pickle" in {each.arg for each in node.keywords}, path


@pytest.mark.parametrize("booster", ["lightgbm", "xgboost"])
def test_a_model_is_not_handed_to_its_library_before_its_checksum_holds(
    booster, tmp_path, monkeypatch
):
    X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    data = make_training_data(
        booster,
        X,
        (X[:, 0] > 0).astype(np.int64),
        n_classes=2,
        names=("a", "b", "c"),
        max_bin=15,
    )
    fit_booster(data, {}, n_rounds=2, seed=0).save(tmp_path / "model")
    library = find_library(booster)
    model = tmp_path / f"model{library.suffix}"
    model.write_bytes(model.read_bytes().replace(b"1", b"2", 1))
    monkeypatch.setattr(type(library), "load", lambda *_: pytest.fail("the model was loaded"))

    with pytest.raises(ValueError, match="is damaged: its bytes are not those written"):
        FittedBooster.load(tmp_path / "model")
