"""What a folder says of its own making, and that a change of anything is found."""

import json
import shutil

import pytest

from toolkit.study.cli import main
from toolkit.study.units import hash_code


def test_data_options_code_versions_and_seed_are_named(finished):
    said = json.loads((finished / "internal" / "provenance.json").read_text())

    assert said["identity"]["seed"] == 0
    assert said["identity"]["normalise"] == "none"
    assert set(said["data"]["modalities"]) == {"text", "audio"}
    assert said["code"] == hash_code()
    assert {"modality-toolkit", "python", "lightgbm", "optuna", "numpy"} <= set(
        said["versions"]
    )
    assert str(finished) not in json.dumps(said)


def test_nothing_differs_in_a_finished_study(finished, capsys):
    assert main(["verify", str(finished)]) == 0, capsys.readouterr().out


@pytest.mark.family
@pytest.mark.parametrize(
    "name",
    [
        "predictions.csv",
        "scores.csv",
        "comparisons.csv",
        "fusion.csv",
        "table.tex",
        "MODEL_CARD.md",
        "internal/folds.csv",
        "internal/params.json",
        "internal/audit.json",
        "report.md",
        "internal/rows.csv",
        "study.toml",
        "models/final.json",
        "models/text/final.txt",
        "internal/units/audio/02.zip",
    ],
)
def test_a_change_of_any_file_is_found(finished, tmp_path, capsys, name):
    copy = shutil.copytree(finished, tmp_path / "copy")
    content = (copy / name).read_bytes()
    start = content.index(b"\n")  # names in a header are other files' affair
    at = next(i for i in range(start, len(content)) if chr(content[i]).isdigit())
    digit = b"7" if content[at : at + 1] != b"7" else b"3"
    (copy / name).write_bytes(content[:at] + digit + content[at + 1 :])

    assert main(["verify", str(copy)]) == 2, capsys.readouterr().out
