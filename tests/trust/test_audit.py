"""``toolkit audit``: the verdict from the files, and each way in which they contradict it."""

import base64
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

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


def audit_as_json(folder, capsys):
    assert main(["audit", str(folder), "--json"]) == 2
    return json.loads(capsys.readouterr().out)


def test_the_verdict_is_derived_again(copy, capsys):
    code, said = audit(copy, capsys)
    n_fits = sum(
        system["fits_and_choices"]
        for system in json.loads((copy / "internal" / "audit.json").read_text())[
            "systems"
        ].values()
    )

    assert code == 0
    assert f"OK       leakage audit ({n_fits:,} compared)\n" in said
    assert said.endswith("no leakage found in 3 folds by session.\n")
    assert main(["verify", str(copy)]) == 0
    assert capsys.readouterr().out == said


def test_json_says_what_audit_json_says(copy, capsys):
    shutil.rmtree(copy / "models")  # the verdict does not need them
    said = audit_as_json(copy, capsys)

    assert said["audit"] == json.loads((copy / "internal" / "audit.json").read_text())
    assert not next(c for c in said["checks"] if c["name"] == "leakage audit")["differences"]


def spoil_ledger(unit):
    """Write a tested utterance into a fit."""
    entry = next(e for e in unit["ledger"] if e["fit"] == "refit" and e["role"] == "train")
    bits = np.frombuffer(base64.b64decode(entry["rows"]), dtype=np.uint8)
    entry["rows"] = base64.b64encode((bits | 255).tobytes()).decode()


def change_unit(change):
    """Give a function that changes the record of a unit, with checksums that hold."""

    def spoil(folder, opened):
        with opened(StudyFolder(folder).unit("text", 1), sums=True) as place:
            unit = json.loads((place / "unit.json").read_text())
            change(unit)
            (place / "unit.json").write_text(json.dumps(unit))

    return spoil


def change_line(path, change):
    lines = path.read_text().splitlines()
    path.write_text("\n".join(change(lines)) + "\n")


def change_predictions(system, change):
    """Give a function that changes the first row of a system, or takes it out."""

    def replace_row(lines):
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{system},"))
        return [*lines[:at], *change(lines[at].split(",")), *lines[at + 1 :]]

    return lambda folder, _: change_line(folder / "predictions.csv", replace_row)


def turn_fold(cells):
    return [",".join([*cells[:4], "02" if cells[4] != "02" else "00", *cells[5:]])]


def turn_label(cells):
    return [",".join([*cells[:6], "sad" if cells[6] != "sad" else "angry", *cells[7:]])]


LEAKING = {
    "a test row in a fit": (change_unit(spoil_ledger), "text/01: refit used"),
    "a fit that recorded nothing": (
        change_unit(lambda unit: unit["ledger"].clear()),
        "text/01: nothing was recorded",
    ),
    "a row in another fold": (
        change_predictions("audio", turn_fold),
        "audio is scored with other folds than the data's, first in Ses01",
    ),
    "a row with another label": (
        change_predictions("audio", turn_label),
        "audio is scored with other labels than the data's, first in Ses01",
    ),
    "a row left out": (
        change_predictions("vote", lambda _: []),
        "vote is scored on other utterances",
    ),
    "a torn table": (
        lambda f, _: (f / "predictions.csv").write_bytes(b"utterance\n\xff"),
        "predictions.csv cannot be read",
    ),
}
CONTRADICTING = {
    "other folds": (
        lambda f: change_line(f / "internal" / "folds.csv", lambda x: x[:-1]),
        "is missing; the finished units give '02,",
    ),
    "no folds": (
        lambda f: (f / "internal" / "folds.csv").unlink(),
        "internal/folds.csv is missing",
    ),
    "no verdict": (
        lambda f: (f / "internal" / "audit.json").unlink(),
        "internal/audit.json is missing",
    ),
    "another verdict": (
        lambda f: change_line(
            f / "internal" / "audit.json", lambda x: [x[0], ' "a": 1,', *x[1:]]
        ),
        """internal/audit.json, line 2 is ' "a": 1,'""",
    ),
}


def test_an_option_that_contradicts_the_units_is_named(copy, capsys):
    change_line(
        copy / "study.toml", lambda lines: [t.replace('"session"', '"speaker"') for t in lines]
    )

    assert main(["audit", str(copy)]) == 2
    assert "held-out groups" in capsys.readouterr().out


@pytest.mark.family
@pytest.mark.parametrize("name", LEAKING)
def test_the_verdict_follows_units_and_predictions(copy, opened, capsys, name):
    spoil, message = LEAKING[name]
    spoil(copy, opened)
    said = audit_as_json(copy, capsys)

    assert said["audit"]["verdict"] == "leakage found"
    assert message in "\n".join(said["audit"]["problems"])
    assert message in "\n".join(s for check in said["checks"] for s in check["differences"])


@pytest.mark.family
@pytest.mark.parametrize("name", CONTRADICTING)
def test_files_that_contradict_the_verdict_are_named(copy, capsys, name):
    spoil, message = CONTRADICTING[name]
    spoil(copy)
    code, said = audit(copy, capsys)

    assert code == 2
    assert message in said
    assert "no leakage found" not in said


def test_a_damaged_unit_and_a_missing_folder_are_errors(copy, opened, capsys):
    with opened(StudyFolder(copy).unit("text", 1)) as place:
        (place / "test.npy").write_bytes(b"")

    code, said = audit(copy, capsys)
    assert code == 2
    assert "text/01.zip is damaged: test.npy changed" in said
    assert "differs  leakage audit (0 compared)" in said
    assert audit_as_json(copy, capsys)["audit"] == {}
    assert main(["audit", str(copy / "nowhere")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    (copy / "empty").mkdir()
    assert main(["audit", str(copy / "empty")]) == 2
    assert "holds no internal/data.json" in capsys.readouterr().err


def test_an_utterance_that_no_fold_tests_is_a_problem(manifest):
    folds = make_folds(manifest, "session", seed=0)
    config = StudyConfig(outer="session")
    study = Study(StudyFolder(Path()), config, manifest, {}, folds[1:])
    verdict = audit_study(study, {})

    assert verdict["problems"] == [f"{len(folds[0].test)} utterances are tested in no fold."]
    assert audit_study(replace(study, folds=folds[:1]), {})["problems"] == []
