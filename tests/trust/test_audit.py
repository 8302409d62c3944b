"""``toolkit audit``: the verdict from the files, and each way in which they contradict it."""

import base64
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from toolkit.files import hash_file
from toolkit.study.cli import main
from toolkit.study.config import StudyConfig
from toolkit.study.folder import Study, StudyFolder
from toolkit.study.results import audit_study
from toolkit.validation import make_folds


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


def audit(folder, capsys):
    code = main(["audit", str(folder)])
    return code, capsys.readouterr().out


def test_the_verdict_is_derived_again(copy, capsys):
    shutil.rmtree(copy / "models")
    code, said = audit(copy, capsys)

    assert code == 0
    assert "fits and choices of" in said
    assert said.endswith("Verdict: no leakage found.\n")


def test_json_says_what_audit_json_says(copy, capsys):
    assert main(["audit", str(copy), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads((copy / "audit.json").read_text())


def spoil_ledger(folder):
    """Write a tested utterance into a fit, with checksums that hold."""
    place = StudyFolder(folder).unit("text", 1)
    unit = json.loads((place / "unit.json").read_text())
    entry = next(e for e in unit["ledger"] if e["fit"] == "refit" and e["role"] == "train")
    bits = np.frombuffer(base64.b64decode(entry["rows"]), dtype=np.uint8)
    entry["rows"] = base64.b64encode((bits | 255).tobytes()).decode()
    (place / "unit.json").write_text(json.dumps(unit))
    sums = {p.name: hash_file(p) for p in place.iterdir() if p.name != "checksums.json"}
    (place / "checksums.json").write_text(json.dumps(sums))


def forget_ledger(folder):
    place = StudyFolder(folder).unit("text", 1)
    unit = json.loads((place / "unit.json").read_text())
    (place / "unit.json").write_text(json.dumps(unit | {"ledger": []}))
    sums = {p.name: hash_file(p) for p in place.iterdir() if p.name != "checksums.json"}
    (place / "checksums.json").write_text(json.dumps(sums))


def change_line(path, change):
    lines = path.read_text().splitlines()
    path.write_text("\n".join(change(lines)) + "\n")


def turn_fold(lines):
    cells = lines[1].split(",")
    cells[3] = "02" if cells[3] != "02" else "00"
    return [lines[0], ",".join(cells), *lines[2:]]


def turn_label(lines):
    cells = lines[1].split(",")
    cells[5] = "3" if cells[5] != "3" else "0"
    return [lines[0], ",".join(cells), *lines[2:]]


SPOILT = {
    "a test row in a fit": (spoil_ledger, "text/01: refit used"),
    "a fit that recorded nothing": (forget_ledger, "text/01: nothing was recorded"),
    "a row in another fold": (
        lambda f: change_line(f / "predictions" / "audio.csv", turn_fold),
        "audio is scored with other folds than the data's, first in Ses01",
    ),
    "a row with another label": (
        lambda f: change_line(f / "predictions" / "audio.csv", turn_label),
        "audio is scored with other labels than the data's, first in Ses01",
    ),
    "a row left out": (
        lambda f: change_line(f / "predictions" / "vote.csv", lambda x: x[:1] + x[2:]),
        "vote is scored on other utterances",
    ),
    "a torn table": (
        lambda f: (f / "predictions" / "soft.csv").write_bytes(b"utterance\n\xff"),
        "predictions/soft.csv cannot be read",
    ),
    "other folds": (
        lambda f: change_line(f / "folds.csv", lambda x: x[:-1]),
        "folds.csv names other folds",
    ),
    "no folds": (lambda f: (f / "folds.csv").unlink(), "folds.csv is missing"),
    "no verdict": (lambda f: (f / "audit.json").unlink(), "audit.json is missing"),
    "another verdict": (
        lambda f: change_line(f / "audit.json", lambda x: [x[0], ' "a": 1,', *x[1:]]),
        "audit.json is not the verdict",
    ),
}


def test_an_option_that_contradicts_the_units_is_named(copy, capsys):
    change_line(
        copy / "study.toml", lambda lines: [t.replace('"session"', '"speaker"') for t in lines]
    )

    assert main(["audit", str(copy)]) == 2
    assert "held-out groups" in capsys.readouterr().err


@pytest.mark.parametrize("name", SPOILT)
def test_files_that_contradict_the_verdict_are_named(copy, capsys, name):
    spoil, message = SPOILT[name]
    spoil(copy)
    code, said = audit(copy, capsys)

    assert code == 2
    assert message in said
    assert said.endswith("Verdict: leakage found.\n")


def test_a_damaged_unit_and_a_missing_folder_are_errors(copy, capsys):
    (StudyFolder(copy).unit("text", 1) / "test.npy").write_bytes(b"")

    assert main(["audit", str(copy)]) == 2
    assert "text/01 is damaged: test.npy changed" in capsys.readouterr().err
    assert main(["audit", str(copy / "nowhere")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    (copy / "empty").mkdir()
    assert main(["audit", str(copy / "empty")]) == 2
    assert "holds no data.json" in capsys.readouterr().err


def test_an_utterance_that_no_fold_tests_is_a_problem(manifest):
    folds = make_folds(manifest, "session", seed=0)
    config = StudyConfig(outer="session")
    study = Study(StudyFolder(Path()), config, manifest, {}, folds[1:])
    verdict = audit_study(study, {})

    assert verdict["problems"] == [f"{len(folds[0].test)} utterances are tested in no fold."]
    assert audit_study(replace(study, folds=folds[:1]), {})["problems"] == []
