import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest

from toolkit.data import ManifestError
from toolkit.files import FolderError
from toolkit.study.config import ConfigError, StudyConfig
from toolkit.study.folder import StudyFolder
from toolkit.study.inventory import Inventory
from toolkit.study.outside import read_outside
from toolkit.study.runner import _rebuild_report
from toolkit.study.verify import _verify_study
from toolkit.validation import compare_systems, majority_predictions, make_folds
from toolkit.validation.predictions import format_predictions


@pytest.fixture(scope="module")
def folds(manifest):
    return make_folds(manifest, "speaker", seed=0)


@pytest.fixture(scope="module")
def rows(manifest):
    """A good file, row by row: right in four of five utterances, folds are speakers."""
    names, classes = manifest.utterances.tolist(), manifest.classes
    made = []
    for row, (name, label) in enumerate(zip(names, manifest.labels.tolist(), strict=True)):
        code = label if row % 5 else (label + 1) % len(classes)
        proba = {f"p_{c}": "0.7" if k == code else "0.1" for k, c in enumerate(classes)}
        made.append({"utterance": name, "fold": str(manifest.speakers[row])} | proba)
    return made[::-1]  # in another order than the study's


@pytest.fixture
def read(manifest, folds, tmp_path):
    """Read rows as ``--with net=net.csv`` does."""

    def run(rows, **options):
        path = tmp_path / "net.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        said = {"outer": "speaker", "with_": {"net": path}} | options
        frame = majority_predictions(manifest, folds)
        return read_outside(StudyConfig(**said), frame, manifest.available)["net"]

    return run


def changed(rows, number, **cells):
    return [row | (cells if k == number else {}) for k, row in enumerate(rows)]


def without(rows, *names):
    return [{key: cell for key, cell in row.items() if key not in names} for row in rows]


def hard(rows, manifest):
    labels = dict(zip(manifest.utterances.tolist(), manifest.labels.tolist(), strict=True))
    return [
        {"utterance": row["utterance"], "predicted": manifest.classes[labels[row["utterance"]]]}
        for row in rows
    ]


def test_predictions_are_aligned_by_utterance(manifest, rows, read):
    found = read(rows)

    table = found.table
    right = np.arange(len(manifest)) % 5 != 0
    assert ((table.y_pred == table.labels) == right).all()
    assert table.utterances.tolist() == manifest.utterances.tolist()
    assert np.isin(table.proba, [0.7, 0.1]).all()
    assert found.n_folds == 10


def test_classes_alone_are_enough_unless_the_metric_needs_probabilities(manifest, rows, read):
    table = read(hard(rows, manifest)).table

    assert (table.y_pred == table.labels).all()
    assert not table.has_proba
    with pytest.raises(ConfigError, match=r"has no probabilities .* --metric log_loss needs"):
        read(hard(rows, manifest), metric="log_loss")


def test_rounded_probabilities_are_divided_by_their_sum(manifest, rows, read):
    first = manifest.classes[0]

    table = read([row | {f"p_{first}": row[f"p_{first}"] + "004"} for row in rows]).table

    np.testing.assert_allclose(table.proba.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("labels", ["a fold per session", "one fold", "none"])
def test_folds_that_hold_out_whole_speakers_are_taken(rows, read, manifest, labels):
    sessions = dict(zip(manifest.utterances, manifest.sessions, strict=True))
    fold = {"a fold per session": sessions.get, "one fold": lambda _: "0"}.get(labels)
    given = without(rows, "fold")
    if fold:
        given = [row | {"fold": fold(row["utterance"])} for row in given]

    assert read(given).n_folds == {"one fold": 1, "none": None}.get(labels, 5)


def test_a_speaker_who_is_tested_in_two_folds_is_refused(rows, read):
    with pytest.raises(
        ManifestError, match=r"1 speakers are tested in several folds, first 'M05'"
    ):
        read(changed(rows, 0, fold="another"))


def test_folds_by_speaker_are_refused_where_sessions_are_held_out(rows, read):
    with pytest.raises(ManifestError, match="5 sessions are tested in several folds"):
        read(rows, outer="session")


BAD = {
    "missing": (lambda rows: rows[1:], "1 tested utterances have no row: 'Ses05"),
    "twice": (
        lambda rows: [*rows, rows[3]],
        r"1 utterances have several rows: .*row 5, 152\)",
    ),
    "extra": (
        lambda rows: [*rows, rows[0] | {"utterance": "who"}],
        r"1 utterances are not tested in this study: 'who' \(row 152\)",
    ),
    "no ids": (lambda rows: without(rows, "utterance"), "Columns 'utterance' are missing"),
    "class unknown": (
        lambda rows: [row | {"p_bored": "0"} for row in rows],
        "Columns 'p_bored' are unknown; .* p_angry, p_sad, p_happy, p_neutral",
    ),
    "class lacking": (lambda rows: without(rows, "p_sad"), "Columns 'p_sad' are missing"),
    "decision unknown": (
        lambda rows: changed(
            [row | {"predicted": "sad"} for row in rows], 2, predicted="bored"
        ),
        r"row 4, column 'predicted': Got 'bored'; expected one of angry, sad, happy, neutral",
    ),
    "no decision": (
        lambda rows: without(rows, *(f"p_{c}" for c in ("angry", "sad", "happy", "neutral"))),
        "Columns 'predicted' or probabilities are missing; .* p_angry",
    ),
    "sum": (
        lambda rows: changed(rows, 1, p_sad="0.2"),
        r"row 3, column 'p_angry': The probabilities sum to",
    ),
    "above 1": (
        lambda rows: changed(rows, 1, p_sad="1.5"),
        r"row 3, column 'p_sad': Got '1.5'; expected a number from 0 to 1",
    ),
    "NaN": (lambda rows: changed(rows, 1, p_sad="nan"), r"column 'p_sad': Got 'nan'"),
    "empty": (lambda rows: changed(rows, 1, p_sad=""), r"column 'p_sad': Got ''"),
    "no fold": (
        lambda rows: changed(rows, 1, fold=""),
        r"row 3, column 'fold': The fold is empty",
    ),
    "label": (
        lambda rows: [row | {"label": "sad"} for row in rows],
        r"column 'label': Got 'sad'; expected '\w+'",
    ),
    "systems": (
        lambda rows: changed([row | {"system": "a"} for row in rows], 1, system="b"),
        r"2 systems \(a, b\); expected one",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_file_is_refused_with_row_and_column(rows, read, fault):
    spoil, message = BAD[fault]

    with pytest.raises(ManifestError, match=message):
        read(spoil(rows))


def test_a_name_of_a_modality_or_fusion_is_refused(rows, read, tmp_path):
    for name in ("text", "vote", "best-single", "a+b", "Early"):
        with pytest.raises(ConfigError, match="cannot name a system"):
            read(rows, with_={name: tmp_path / "net.csv"})


@pytest.fixture(scope="module")
def planted(hostile_study, tmp_path_factory):
    """A finished study with a planted system from outside, in the format of a study's own."""
    root = tmp_path_factory.mktemp("planted")
    folder = StudyFolder(shutil.copytree(hostile_study, root / "study"))
    study = folder.read_study()
    frame = majority_predictions(study.manifest, study.folds)
    n = len(frame.classes)
    wrong = np.arange(len(frame)) % 10 == 0
    y_pred = np.where(wrong, (frame.labels + 1) % n, frame.labels)
    proba = np.full((len(frame), n), 0.1)
    proba[np.arange(len(frame)), y_pred] = 0.7
    table = replace(frame, system="outside+net", proba=proba, y_pred=y_pred)
    kept = {"internal/outside/net.csv": format_predictions(table).encode()}
    Inventory(folder.path).write(kept, whole=False)
    folder.write_config(study.config.model_copy(update={"with_": {"net": root}}))
    return folder, table


@pytest.mark.slow
@pytest.mark.usefixtures("no_drawings")
def test_a_planted_system_is_scored_tested_fused_and_verified(planted):
    folder, table = planted
    accuracy = (table.y_pred == table.labels).mean()

    result = _rebuild_report(folder.path)

    scored = [s for s in result.all_scores if (s.metric, s.scope) == ("f1_micro", "all")]
    pooled = {score.system: score.value for score in scored}
    assert pooled["outside+net"] == pytest.approx(accuracy)
    assert pooled["stacked+net"] > pooled["stacked"]
    assert pooled["vote+net"] > pooled["vote"]
    # The same test as of any pair, which finds the planted difference.
    (pair,) = [p for p in result.all_comparisons if {p.a, p.b} == {"early", "outside+net"}]
    alone = compare_systems([result.systems["early"], table], pairs=[("early", "outside+net")])[
        0
    ]
    assert pair.family == "all pairs"
    assert (pair.difference, pair.p) == (alone.difference, alone.p)
    assert pair.p == pair.smallest_p
    # Marked in the report, and in no ledger.
    brought = ["outside+net", "vote+net", "stacked+net"]
    page = (folder.path / "report.md").read_text("utf-8")
    assert "cannot vouch for it" in page
    assert "A plus in a name: brought from outside" in page
    assert (folder.path / "internal/outside/net.csv").exists()
    checks, audit = _verify_study(folder.path)
    assert [s for check in checks for s in check.differences] == []
    assert sorted(audit["outside"]) == sorted(brought)
    assert not {*brought} & audit["systems"].keys()


def test_a_changed_copy_of_the_predictions_is_refused(planted, tmp_path):
    copy = shutil.copytree(planted[0].path, tmp_path / "study")
    kept = copy / "internal" / "outside" / "net.csv"
    kept.write_bytes(b"".join(kept.read_bytes().splitlines(keepends=True)[:-1]))

    with pytest.raises(FolderError, match=r"outside are damaged: net\.csv has 1 problem"):
        _rebuild_report(copy)


@pytest.mark.usefixtures("no_drawings")
def test_a_study_that_is_run_without_it_keeps_nothing_of_it(planted, tmp_path):
    copy = StudyFolder(shutil.copytree(planted[0].path, tmp_path / "study"))
    other = copy.path / "internal" / "outside" / "notes.txt"
    other.write_text("not the program's")
    copy.write_config(copy.read_config().model_copy(update={"with_": {}}))

    result = _rebuild_report(copy.path)

    assert list(other.parent.iterdir()) == [other]
    assert not any("+" in name for name in result.systems)
