"""On the generated corpus the planted signal is found, and without it nothing is."""

import csv
import random
import shutil

import pytest

from toolkit.data import make_corpus
from toolkit.study.config import StudyConfig
from toolkit.study.runner import run_study
from toolkit.validation.scores import find_score


def f1(result, system):
    return find_score(result.all_scores, system, "f1_micro").value


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A corpus of 400 utterances with half the text dimensions of the embedded one."""
    folder = tmp_path_factory.mktemp("planted") / "corpus"
    make_corpus(folder, n_utterances=400, dims={"visual": 8, "audio": 16, "text": 384})
    return folder


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))


def run(folder, out):
    return run_study(
        StudyConfig(
            data=folder / "dataset.csv",
            out=out,
            quick=True,
            trials=2,
            imbalance="none",
            outer="5",
            modality=("text",),
        )
    )


@pytest.mark.nightly
def test_boosted_text_beats_the_majority_by_far(planted, tmp_path):
    result = run(planted, tmp_path / "out")

    assert f1(result, "text") > f1(result, "majority") + 0.1
    (against,) = [c for c in result.all_comparisons if {c.a, c.b} == {"majority", "text"}]
    assert against.shows_difference


@pytest.mark.nightly
def test_shuffled_labels_give_no_more_than_the_baselines(planted, tmp_path):
    lines = (planted / "dataset.csv").read_text().splitlines()
    rows = list(csv.reader(lines[1:]))
    labels = [",".join(row[-2:]) for row in rows]  # the code and the name of the class
    random.Random(0).shuffle(labels)
    text = "\n".join(
        [lines[0], *(",".join([*r[:-2], y]) for r, y in zip(rows, labels, strict=True))]
    )
    shuffled = shutil.copytree(planted, tmp_path / "shuffled")
    (shuffled / "dataset.csv").write_text(text + "\n")

    result = run(shuffled, tmp_path / "out")

    assert f1(result, "text") < f1(result, "majority") + 0.05
    (against,) = [c for c in result.all_comparisons if {c.a, c.b} == {"majority", "text"}]
    assert not (against.shows_difference and f1(result, "text") > f1(result, "majority"))
