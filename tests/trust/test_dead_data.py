"""A modality or a dimension that holds nothing goes through study, explanation and report."""

import csv
import json

import numpy as np
import pytest

from toolkit.study import collecting
from toolkit.study.cli import main

pytestmark = pytest.mark.slow

SPEAKERS = ("kim", "lea", "max", "nia", "oli", "pat")


@pytest.fixture(scope="module", params=["auto", "none"])
def dead(tmp_path_factory, request):
    """Give the folder of a study of a constant modality beside one with dead dimensions."""
    root = tmp_path_factory.mktemp("dead")
    rng = np.random.default_rng(5)
    lines = ["utterance,speaker,label,sound,face"]
    for i in range(48):
        label = i % 3 // 2
        frames = rng.normal(size=(12, 5)) + 2 * label * (np.arange(5) == 0)
        frames[:, 3] = -np.inf  # in every clip
        if i % 4 == 0:
            frames[:, 1] = np.nan  # in some clips
        if i == 7:
            frames[2:4, 0] = np.nan
        np.save(root / f"sound{i}.npy", frames.astype(np.float32))
        np.save(root / f"face{i}.npy", np.full((6, 4), 0.25, dtype=np.float32))
        lines.append(f"u{i:02d},{SPEAKERS[i // 8]},{label},sound{i}.npy,face{i}.npy")
    (root / "dataset.csv").write_text("\n".join(lines) + "\n")
    out = root / "out"
    options = [
        "--quick",
        "--trials=1",
        "--workers=1",
        "--outer=3",
        "--inner=2",
        "--booster=both",
    ]
    options += ["--frames=interpolate", "--imbalance=smote", "--screening=ftest-8"]
    options += [
        f"--linear={request.param}"
    ]  # without it, no feature of a dead modality is used
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_CACHE", str(root / "cache"))
        patch.setattr(collecting, "render_figure", lambda *_, **__: b"")
        assert main(["study", f"--data={root / 'dataset.csv'}", f"--out={out}", *options]) == 0
        yield out


def test_every_clip_stays_and_what_is_missing_is_counted(dead):
    data = json.loads((dead / "internal" / "data.json").read_text(encoding="utf-8"))

    assert data["modalities"]["sound"]["n_present"] == 48
    assert data["modalities"]["sound"]["counts"]["files_with_missing_dimensions"] == 48
    assert data["modalities"]["sound"]["counts"]["frames_interpolated"] == 2
    notes = " ".join(data["modalities"]["sound"]["notes"] + data["modalities"]["face"]["notes"])
    report = (dead / "report.md").read_text(encoding="utf-8")
    assert "Modality 'face' is constant" in report.replace("`", "'")
    assert "dimension 3 in 48 files, dimension 1 in 12 files" in notes
    assert "2 of dimension 0 in 1 files" in notes
    assert "Modality 'face' is constant: all 48 files hold the same numbers." in notes


def test_the_live_dimension_is_still_learnt_from(dead):
    with (dead / "scores.csv").open(encoding="utf-8", newline="") as file:
        scores = list(csv.DictReader(file))
    found = {
        score["system"]: float(score["value"])
        for score in scores
        if (score["variant"], score["scope"], score["metric"]) == ("", "all", "f1_micro")
    }

    assert found["sound"] > 0.9 > found["face"]


def test_the_study_is_verified_and_an_utterance_explained(dead, capsys):
    assert main(["verify", str(dead)]) == 0
    for utterance in ("u00", "u07"):
        assert main(["explain", str(dead), utterance, "--system=sound"]) == 0
    capsys.readouterr()
    (story,) = dead.glob("explain/frames/u00-sound.json")
    assert json.loads(story.read_text(encoding="utf-8"))["frames"]["sound"]["n"] == 12
