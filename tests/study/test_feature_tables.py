"""A study of one table of features is that of the same numbers in a file per utterance."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from toolkit.data import read_manifest, read_sequence
from toolkit.study.config import StudyConfig
from toolkit.study.folder import StudyFolder
from toolkit.study.options import format_config, load_config
from toolkit.study.predict import predict_new
from toolkit.study.runner import run_study
from toolkit.study.verify import _verify_study

pytestmark = pytest.mark.usefixtures("no_drawings")

NAMES = [
    *(f"mfcc{k}_sma3_amean" for k in range(10)),
    *(f"F0semitoneFrom27.5Hz_sma3nz_percentile{k}.0" for k in range(10)),
    *("loudnessPeaksPerSec", "equivalentSoundLevel_dBp", "jitterLocal_sma3nz_amean", "score"),
]
CHOSEN = {"text": "2-25"}
SMALL = {
    "quick": True,
    "trials": 1,
    "outer": "3",
    "inner": 2,
    "imbalance": "none",
    "screening": "none",
    "statistics": "minimal",
    "workers": 1,
}


@pytest.fixture(scope="module")
def inputs(corpus, tmp_path_factory):
    """The table of utterances without feature files, and the table of their features."""
    folder = tmp_path_factory.mktemp("inputs")
    manifest = read_manifest(corpus / "dataset.csv")
    rows = pd.DataFrame({"utterance": manifest.utterances, "speaker": manifest.speakers})
    rows["label"] = [manifest.codes[label] for label in manifest.labels]
    rows["label_name"] = [manifest.classes[label] for label in manifest.labels]
    rows.to_csv(folder / "dataset.csv", index=False)
    values = [read_sequence(path) for path in manifest.paths["text"]]
    table = pd.DataFrame(np.array(values, np.float64), columns=NAMES)
    table.insert(0, "file", [f"wav/{name}.wav" for name in manifest.utterances])
    table["note"] = "text of no use"
    table.sample(frac=1, random_state=0).to_csv(folder / "text.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def finished(inputs, undrawn, build_once):
    def make(folder):
        tables = {"text": inputs / "text.csv"}
        config = {"table": tables, "frames_columns": CHOSEN, "out": folder, **SMALL}
        run_study(StudyConfig(data=inputs / "dataset.csv", **config))

    with undrawn():
        return build_once("of-a-table", make)


def test_the_predictions_are_those_of_files(corpus, finished, tmp_path):
    config = StudyConfig(data=corpus / "dataset.csv", modality=("text",), **SMALL)
    config = config.model_copy(update={"out": tmp_path / "files"})
    run_study(config)

    for name in ("predictions.csv", "scores.csv"):
        assert (finished / name).read_bytes() == (tmp_path / "files" / name).read_bytes()


def test_the_folder_knows_the_table_and_its_names(finished):
    assert StudyFolder(finished).read_data()[1]["modalities"]["text"]["dimensions"] == NAMES
    known = StudyFolder(finished).read_provenance()["data"]["tables"]
    inputs = Path(known["text"]).parent  # of the process that made the study
    assert known == {"text": str((inputs / "text.csv").resolve())}
    for path in finished.rglob("*"):
        if path.is_file() and path.name not in {"provenance.json", "search.db"}:
            assert str(inputs).encode() not in path.read_bytes(), path
    assert not [line for check in _verify_study(finished)[0] for line in check.differences]


def test_new_utterances_need_columns_in_the_order_of_training(finished, inputs, tmp_path):
    data, table = inputs / "dataset.csv", pd.read_csv(inputs / "text.csv")
    found = predict_new(finished, data, tables={"text": inputs / "text.csv"})
    assert len(found.utterances) == 150

    table[["file", *NAMES[::-1]]].to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(ValueError, match="1 is 'score', which was dimension 24 in training"):
        predict_new(finished, data, tables={"text": tmp_path / "other.csv"})
    # A new name elsewhere does not hide that two others are exchanged.
    names = ["new", NAMES[2], NAMES[1], *NAMES[3:]]
    table[["file", NAMES[0], *names[1:]]].rename(columns={NAMES[0]: "new"}).to_csv(
        tmp_path / "other.csv", index=False
    )
    with pytest.raises(ValueError, match=f"2 is '{NAMES[2]}', which was dimension 3 in trai"):
        predict_new(finished, data, tables={"text": tmp_path / "other.csv"})


def test_names_of_the_study_s_own_hide_no_exchanged_columns(inputs, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("".join(f"own{k}\n" for k in range(len(NAMES))))
    tables = {"text": inputs / "text.csv"}
    config = {"table": tables, "frames_columns": CHOSEN, "out": tmp_path / "out", **SMALL}
    given = {"contributions": "none", "names": {"text": names}}
    run_study(StudyConfig(data=inputs / "dataset.csv", **config, **given))
    assert (
        StudyFolder(tmp_path / "out").read_data()[1]["modalities"]["text"]["headers"] == NAMES
    )

    data = inputs / "dataset.csv"
    assert len(predict_new(tmp_path / "out", data, tables=tables).utterances) == 150
    table = pd.read_csv(inputs / "text.csv")
    table[["file", *NAMES[::-1]]].to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(ValueError, match="1 is 'score', which was dimension 24"):
        predict_new(tmp_path / "out", data, tables={"text": tmp_path / "other.csv"})


def test_other_names_than_those_of_training_are_mentioned(finished, inputs, tmp_path, caplog):
    table = pd.read_csv(inputs / "text.csv").rename(columns={NAMES[3]: "mfcc three"})
    table.to_csv(tmp_path / "other.csv", index=False)

    predict_new(finished, inputs / "dataset.csv", tables={"text": tmp_path / "other.csv"})
    assert f"1 have another name than in training (4 is 'mfcc three', was '{NAMES[3]}')" in (
        caplog.text
    )


def test_functionals_are_shared_out_by_family_and_functional(finished):
    shares = pd.read_csv(finished / "explain" / "shares.csv")
    whole = shares[(shares.outcome == "all") & shares.speaker.isna() & shares.class_name.isna()]
    parts = {level: {*rows.part} for level, rows in whole.groupby("level")}
    families = {"spectrum", "pitch", "rate", "energy", "voice quality", "other"}
    assert parts["family"] == families
    percentiles = {f"percentile{k}.0" for k in range(10)}
    assert parts["statistic"] == {"amean", "value", *percentiles}
    sums = whole[whole.level == "family"][["share", "permuted"]].sum()
    np.testing.assert_allclose(sums, 1)


def test_chosen_columns_are_written_where_there_are_some_alone(finished):
    assert "frames_columns = {" in (finished / "study.toml").read_text(encoding="utf-8")
    assert "frames_columns" not in format_config(StudyConfig())
    assert "frames_columns" not in StudyConfig(frames_columns=CHOSEN).identity()


def test_a_path_in_a_file_is_relative_to_it(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text('table = {audio = "egemaps.csv"}\n', encoding="utf-8")

    config = load_config(path, {})
    assert config.table == {"audio": tmp_path / "egemaps.csv"}
    assert "table" not in config.identity()
    assert "egemaps" not in format_config(config)
