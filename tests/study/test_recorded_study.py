"""A study of recordings and transcripts, from one command to a report and to new recordings."""

import csv
import json
import shutil

import numpy as np
import opensmile
import pandas as pd
import pytest

from toolkit.data import read_manifest, read_sequence
from toolkit.data.audio import name_features
from toolkit.study.cli import main
from toolkit.study.config import StudyConfig
from toolkit.study.datasets import write_data
from toolkit.study.options import Request, format_config, load_config

FAST = (
    *("--quick", "--trials", "1", "--inner", "2", "--statistics", "mean,slope"),
    *("--imbalance", "none", "--screening", "none", "--linear", "none", "--workers", "1"),
    *("--contributions", "totals", "--shapley", "none", "--fusion", "none"),
)


EXTRACT = ("--extract", "audio=egemaps", "--extract", "text=tfidf")


def add_words(table):
    """Add a column of transcripts, which tell nothing."""
    header, *rows = table.read_text().splitlines()
    words = ("now", "then", "home")
    rows = [f"{row},we go {words[n % 3]}" for n, row in enumerate(rows)]
    table.write_text("\n".join([f"{header},transcript", *rows, ""]))
    return table


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, sounds, undrawn):
    """Table of recordings and words of three speakers, and the folder of their study."""
    folder = tmp_path_factory.mktemp("recorded")
    table = add_words(sounds.make_recordings(folder, n_speakers=3, n_each=8, seconds=0.3))
    options = [*EXTRACT, *FAST, "--out", str(folder / "study")]
    with undrawn():
        assert main(["study", str(table), *options]) == 0
    return table, folder / "study"


def test_a_study_of_recordings_has_a_report_that_describes_them(recorded):
    _, study = recorded
    page = (study / "report.html").read_text()
    assert "transcripts that several people speak" in page
    assert "24 recordings, 0.1 minutes, 16,000 Hz, 1 channel; features by egemaps" in page
    # The pitch rises in one class and stays in the other.
    with (study / "scores.csv").open() as file:
        scores = {
            row["metric"]: float(row["value"])
            for row in csv.DictReader(file)
            if row["system"] == "audio" and row["variant"] in {"", "as trained"}
        }
    assert scores["f1_micro"] > 0.9


def test_names_of_descriptors_are_those_of_the_plots(recorded):
    names = json.loads((recorded[1] / "internal" / "data.json").read_text())
    assert tuple(names["modalities"]["audio"]["dimensions"]) == name_features("a.wav#egemaps@1")


def test_the_extractor_is_part_of_the_identity_and_absent_without_one(recorded):
    provenance = json.loads((recorded[1] / "internal" / "provenance.json").read_text())
    assert provenance["identity"]["extract"] == {"audio": "egemaps", "text": "tfidf"}
    assert provenance["versions"]["opensmile"] == opensmile.__version__
    assert "extract" not in StudyConfig().identity()
    assert "extract" not in format_config(StudyConfig())


def test_another_run_computes_nothing_and_another_extractor_is_another_study(
    recorded, n_computed, capsys
):
    table, study = recorded
    options = [*FAST, "--out", str(study)]
    assert main(["study", str(table), *EXTRACT, *options]) == 0
    given = ["--extract", "audio=EGEMAPS", "--missing", "allow", "--root", str(table.parent)]
    assert main(["check", str(table), *given]) == 0
    given[1] = "audio=egemaps"
    out = capsys.readouterr().out.splitlines()[-1]
    assert sorted(out.split("Run: ")[1].split()) == sorted(
        ["toolkit", "study", str(table), *given, "--quick"]
    )
    assert n_computed() == 0
    assert main(["study", str(table), *EXTRACT[2:], "--extract", "audio=mfcc", *options]) == 2
    assert "extract" in capsys.readouterr().err


def test_the_suggested_study_names_the_file_that_has_its_tables(tmp_path):
    path = tmp_path / "study.toml"
    published = 'system = "A"\nmetric = "uar"\nvalue = 0.5\nsource = "B"\nprotocol = "C"\n'
    path.write_text(f'data = "d.csv"\nclasses = ["a", "b"]\n[[published]]\n{published}')
    config = load_config(path, {"missing": "allow"})
    found = Request({"study": path}, config, None, as_json=False).format_command()
    assert found == f"toolkit study {path} --classes a b --missing allow --quick"


def test_new_recordings_go_through_the_same_extractor(
    recorded, tmp_path, sounds, capsys, caplog
):
    caplog.set_level("INFO")
    _, study = recorded
    new = add_words(sounds.make_recordings(tmp_path, n_speakers=1, n_each=4, seconds=0.3))
    rows = [row.replace("s0", "new") for row in new.read_text().splitlines()]
    new.write_text("\n".join(row.replace("/new", "/s0") for row in rows))
    assert main(["predict", str(study), str(new), "--json"]) == 0
    assert "'audio': 4 recordings, 0.0 minutes, 16,000 Hz, 1 channel" in caplog.text
    predicted = json.loads(capsys.readouterr().out)["predictions"]
    assert [row["predicted"] for row in predicted] == ["0", "1", "0", "1"]


def test_the_numbers_of_recordings_and_words_are_the_same_again(recorded):
    assert main(["verify", str(recorded[1])]) == 0


def test_predict_warns_of_another_version(recorded, caplog, tmp_path):
    table, study = recorded
    copy = shutil.copytree(study, tmp_path / "study")
    path = copy / "internal" / "provenance.json"
    current = opensmile.__version__
    path.write_text(path.read_text().replace(f'"opensmile": "{current}"', '"opensmile": "1.0"'))
    assert main(["predict", str(copy), str(table)]) == 0
    assert f"computed by opensmile {current}, those of the study by 1.0" in caplog.text


def test_explain_reads_the_frames_of_a_recording(recorded):
    _, study = recorded
    assert main(["explain", str(study), "s0_1"]) == 0
    assert (study / "explain" / "frames" / "s0_1-audio.csv").exists()


def test_a_data_frame_may_list_recordings(recorded, monkeypatch):
    table, _ = recorded
    monkeypatch.chdir(table.parent)
    frame = pd.read_csv(table)
    written, base = write_data(frame, {}, {}, recordings=True)
    manifest = read_manifest(written, extract={"audio": "egemaps"}, roots=[base])
    assert manifest.modalities == ("audio",)
    # Without extraction, names of recordings may be ids, which stay as they are.
    plain, _ = write_data(frame, {}, {})
    assert plain.read_text() == table.read_text().replace("\r\n", "\n")


def test_functionals_are_88_named_features(recorded, tmp_path):
    table, _ = recorded
    options = ["--extract", "audio=egemaps-functionals", "--out", str(tmp_path / "pooled")]
    assert main(["pool", str(table), *options]) == 0
    schema = json.loads((tmp_path / "pooled" / "audio.schema.json").read_text())
    assert np.load(tmp_path / "pooled" / "audio.npy").shape == (24, 88)
    assert "F0semitoneFrom27.5Hz_sma3nz_amean" in json.dumps(schema)


def test_speech_has_the_pitch_of_its_speakers(tmp_path, sounds):
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng, which makes the speech, is not installed")
    table = sounds.make_speech(tmp_path)
    names = name_features("a.wav#egemaps-functionals@1")
    pitch = names.index("F0semitoneFrom27.5Hz_sma3nz_amean")
    found = {}
    with table.open() as file:
        for row in csv.DictReader(file):
            path = f"{tmp_path / row['audio']}#egemaps-functionals@2.6.0"
            found.setdefault(row["speaker"], []).append(read_sequence(path)[pitch])
    low, high = (found[speaker] for speaker in ("s0", "s2"))  # voices m1 and f1
    assert max(low) < min(high)
