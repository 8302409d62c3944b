"""What the data bring with them is said: repeated lines, and features made transductive."""

import json
import shutil

import numpy as np
import pytest

from toolkit.files import FolderError


@pytest.mark.slow
def test_normalising_by_speaker_is_off_unless_asked_for_and_called_transductive(
    dyads, run_units, tmp_path
):
    plain = run_units(dyads, tmp_path / "plain", modality=("text",))
    asked = run_units(dyads, tmp_path / "asked", modality=("text",), normalise="speaker")
    report = "\n".join(repr(section) for section in asked.report.sections)

    assert "transductive" not in "\n".join(map(repr, plain.report.sections))
    assert report.count("the evaluation is transductive") == 2  # protocol and doubts
    assert 'normalise = "speaker"' in (tmp_path / "asked" / "study.toml").read_text()
    with pytest.raises(FolderError, match="--normalise was 'none', is 'speaker'"):
        run_units(dyads, tmp_path / "plain", modality=("text",), normalise="speaker")


@pytest.mark.slow
def test_repeated_and_nearly_repeated_lines_of_others_are_counted(dyads, run_units, tmp_path):
    corpus = shutil.copytree(dyads, tmp_path / "corpus")
    rng = np.random.default_rng(0)
    for path in sorted((corpus / "features" / "lexical_features").rglob("*.npy")):
        # In fewer than 20 dimensions, nearness would say little.
        np.save(path, np.concatenate([np.load(path), rng.normal(size=20)], dtype=np.float32))
    files = sorted((corpus / "features" / "lexical_features").rglob("Ses01*.npy"))
    by_speaker = {path: path.stem.rpartition("_")[2][0] for path in files}
    one, other = (next(p for p in files if by_speaker[p] == sex) for sex in "FM")
    third = [path for path in files if by_speaker[path] == "M" and path != other][-1]
    np.save(other, np.load(one))
    np.save(third, np.load(one) * np.float32(1.001))
    run_units(corpus, tmp_path / "out", modality=("text",))
    text = json.loads((tmp_path / "out" / "internal" / "data.json").read_text())["modalities"][
        "text"
    ]

    assert text["same_as_other_speaker"] == 2
    assert text["near_other_speaker"] == 1
    assert text["near_cosine"] == 0.99
