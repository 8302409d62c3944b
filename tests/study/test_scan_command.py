"""``toolkit scan``: names of files become the table of a corpus, and no name is lost."""

import csv
import json

import numpy as np
import pytest

from toolkit.data import read_manifest
from toolkit.study.cli import main


def fill(folder, *names):
    """Write a small feature file, or an empty file of another kind, per name."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npy":
            rng = np.random.default_rng([number, len(names)])
            np.save(path, rng.normal(size=(5, 3)).astype("f4"))
        else:
            path.touch()


def scan(folder, layout, capsys, out=None):
    """Scan a folder; give its rows as dictionaries, and the answer in JSON."""
    out = out or folder / "dataset.csv"
    capsys.readouterr()
    code = main(["scan", str(folder), "--layout", layout, "--out", str(out), "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    with out.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file)), json.loads(captured.out)


def refuse(arguments, capsys):
    capsys.readouterr()
    assert main(["scan", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def write_evaluation(folder, dialogue, lines):
    path = folder / f"Session{dialogue[4]}" / "dialog" / "EmoEvaluation" / f"{dialogue}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    head = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
    path.write_text(head + "".join(f"{line}\n\n" for line in lines))


def turn(utterance, label):
    return (
        f"[6.2901 - 8.2357]\t{utterance}\t{label}\t[2.5000, 2.5000, 2.5000]\n"
        "C-E1:\tNeutral;\t()\nA-F1:\tval 3; act 2; dom  2;\t()"
    )


def test_ravdess_names_give_actor_emotion_statement_and_sex(tmp_path, capsys):
    fill(tmp_path, "Actor_12/03-01-06-01-02-01-12.npy", "Actor_07/03-01-02-02-01-02-07.npy")

    rows, answer = scan(tmp_path, "ravdess", capsys)

    assert rows == [
        {
            "utterance": "01-02-02-01-02-07",
            "speaker": "07",
            "label": "02",
            "label_name": "calm",
            "sentence": "01",
            "sex": "male",
            "features": "Actor_07/03-01-02-02-01-02-07.npy",
        },
        {
            "utterance": "01-06-01-02-01-12",
            "speaker": "12",
            "label": "06",
            "label_name": "fearful",
            "sentence": "02",
            "sex": "female",
            "features": "Actor_12/03-01-06-01-02-01-12.npy",
        },
    ]
    assert answer["labels"] == {"calm": 1, "fearful": 1}
    assert answer["notes"] == {}


def test_emotions_of_ravdess_are_those_of_its_documentation(tmp_path, capsys):
    fill(tmp_path, *(f"03-01-0{code}-01-01-01-01.npy" for code in range(1, 9)))

    rows, _ = scan(tmp_path, "ravdess", capsys)

    names = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]
    assert [row["label_name"] for row in rows] == names


def test_sound_and_picture_of_one_performance_are_one_row(tmp_path, capsys):
    fill(
        tmp_path,
        "Audio_Speech_Actors_01-24/Actor_01/03-01-01-01-01-01-01.wav",
        "Video_Speech_Actor_01/Actor_01/01-01-01-01-01-01-01.mp4",
        "Video_Speech_Actor_01/Actor_01/02-01-01-01-01-01-01.mp4",
        "voice/03-01-01-01-01-01-01.npy",
        "voice/03-01-01-01-01-01-01.csv",
    )

    (row,), answer = scan(tmp_path, "ravdess", capsys)

    assert list(answer["files"].items()) == [
        ("audio_speech", 1),
        ("video_speech_audiovisual", 1),
        ("video_speech_video", 1),
        ("voice_csv", 1),
        ("voice_npy", 1),
    ]
    assert row["voice_npy"] == "voice/03-01-01-01-01-01-01.npy"
    assert row["video_speech_video"].endswith("/02-01-01-01-01-01-01.mp4")


def test_crema_d_has_sexes_where_its_demographics_are(tmp_path, capsys):
    fill(tmp_path, "AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1091_IEO_SAD_HI.wav")
    fill(tmp_path, "AudioWAV/1040_ITH_SAD_X.wav")

    without, _ = scan(tmp_path, "crema-d", capsys)
    table = "ActorID,Age,Sex,Race,Ethnicity\n1001,51,Male,x,y\n1091,29,Female,x,y\n"
    (tmp_path / "VideoDemographics.csv").write_text(table)
    rows, answer = scan(tmp_path, "crema-d", capsys, tmp_path / "with.csv")

    assert "sex" not in without[0]
    assert [row["sex"] for row in rows] == ["male", "", "female"]
    assert answer["notes"]["speakers without a sex in VideoDemographics.csv"] == ["1040"]
    assert [row["speaker"] for row in rows] == ["1001", "1040", "1091"]
    assert [row["label"] for row in rows] == ["ANG", "SAD", "SAD"]
    assert [row["label_name"] for row in rows] == ["anger", "sadness", "sadness"]
    assert [row["sentence"] for row in rows] == ["DFA", "ITH", "IEO"]
    assert rows[0]["audiowav"] == "AudioWAV/1001_DFA_ANG_XX.wav"


def test_emo_db_has_the_sexes_and_letters_of_its_documentation(tmp_path, capsys):
    speakers = ["03", "08", "09", "10", "11", "12", "13", "14", "15", "16"]
    letters = "WLEAFTNWLE"
    fill(tmp_path, *(f"wav/{s}a01{x}a.wav" for s, x in zip(speakers, letters, strict=True)))

    rows, _ = scan(tmp_path, "emo-db", capsys)

    assert [row["speaker"] for row in rows] == speakers
    men = [row["speaker"] for row in rows if row["sex"] == "male"]
    assert men == ["03", "10", "11", "12", "15"]
    names = ["anger", "boredom", "disgust", "fear", "happiness", "sadness", "neutral"]
    assert [row["label_name"] for row in rows[:7]] == names
    assert {row["sentence"] for row in rows} == {"a01"}


def test_iemocap_takes_labels_from_its_evaluations(tmp_path, capsys):
    write_evaluation(
        tmp_path,
        "Ses02M_script01_1b",
        [turn("Ses02M_script01_1b_F000", "exc"), turn("Ses02M_script01_1b_M003", "xxx")],
    )
    inner = tmp_path / "Session2" / "dialog" / "EmoEvaluation" / "Categorical"
    inner.mkdir()
    (inner / "Ses02M_script01_1b_e1_cat.txt").write_text(turn("Ses02M_script01_1b_F000", "sad"))
    (inner.parent / "._Ses02M_script01_1b.txt").write_bytes(b"\xff\xfe[")
    fill(
        tmp_path,
        "Session2/dialog/wav/Ses02M_script01_1b.wav",
        "Session2/sentences/wav/Ses02M_script01_1b/Ses02M_script01_1b_F000.wav",
        "Session2/sentences/wav/Ses02M_script01_1b/Ses02M_script01_1b_F009.wav",
        "voice/Ses02M_script01_1b_F000.npy",
    )

    rows, answer = scan(tmp_path, "iemocap", capsys)

    first, second = rows
    wav = "Session2/sentences/wav/Ses02M_script01_1b"
    assert first == {
        "utterance": "Ses02M_script01_1b_F000",
        "speaker": "F02",
        "label": "exc",
        "label_name": "excited",
        "sex": "female",
        "session": "Ses02",
        "dialogue": "Ses02M_script01_1b",
        "voice": "voice/Ses02M_script01_1b_F000.npy",
        "wav": f"{wav}/Ses02M_script01_1b_F000.wav",
    }
    assert (second["speaker"], second["sex"], second["label"]) == ("M02", "male", "xxx")
    assert (second["voice"], second["wav"]) == ("", "")
    assert answer["notes"] == {
        "files without a label in dialog/EmoEvaluation": [f"{wav}/Ses02M_script01_1b_F009.wav"],
        "utterances without a file": ["Ses02M_script01_1b_M003"],
    }


def test_lines_of_evaluations_that_name_no_label_are_listed(tmp_path, capsys):
    lines = [turn("Ses01F_impro01_F000", "neu"), turn("Ses01F_impro01_F001", "glad"), "[1 - 2]"]
    write_evaluation(tmp_path, "Ses01F_impro01", lines)

    rows, answer = scan(tmp_path, "iemocap", capsys)

    place = "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt, line"
    assert len(rows) == 1
    noted = answer["notes"]["lines without an utterance and a known label"]
    assert noted == [f"{place} 7", f"{place} 11"]


def test_an_utterance_with_two_labels_is_refused(tmp_path, capsys):
    write_evaluation(tmp_path, "Ses01F_impro01", 2 * [turn("Ses01F_impro01_F000", "neu")])

    error = refuse([tmp_path, "--layout", "iemocap", "--out", tmp_path / "new.csv"], capsys)

    assert "Ses01F_impro01_F000 has a label already" in error


@pytest.mark.parametrize(
    ("layout", "good", "bad"),
    [
        ("ravdess", "03-01-06-01-02-01-12", ["03-01-09-01-02-01-12", "03-01-06-01-02-01-25"]),
        ("ravdess", "03-01-06-01-02-01-12", ["03-01-06-01-02-01", "03-01-06-01-02-01-12-x"]),
        ("crema-d", "1001_DFA_ANG_XX", ["1092_DFA_ANG_XX", "1000_DFA_ANG_XX"]),
        ("crema-d", "1001_DFA_ANG_XX", ["1001_DFA_JOY_XX", "1001_DFA_ANG"]),
        ("emo-db", "03a01Fa", ["04a01Fa", "03a01Xa"]),
    ],
)
def test_names_unlike_the_corpus_are_listed(layout, good, bad, tmp_path, capsys):
    fill(tmp_path, *(f"{name}.npy" for name in [good, *bad]), ".DS_Store", "notes.lab")

    rows, answer = scan(tmp_path, layout, capsys)

    assert len(rows) == 1
    assert answer["notes"][f"names unlike {good}"] == sorted(f"{name}.npy" for name in bad)
    assert answer["notes"]["files with another ending (.lab)"] == ["notes.lab"]


def test_the_notes_are_printed_with_their_number(tmp_path, capsys):
    fill(tmp_path, "03a01Fa.npy", *(f"other{i}.npy" for i in range(7)))

    assert (
        main(["scan", str(tmp_path), "--layout", "emo-db", "--out", str(tmp_path / "d")]) == 0
    )

    shown = capsys.readouterr().out
    assert "names unlike 03a01Fa: 7 (other0.npy, other1.npy, " in shown
    assert "other4.npy and 2 more)" in shown


def test_a_folder_without_an_utterance_is_refused(tmp_path, capsys):
    fill(tmp_path, "a.npy")
    out = tmp_path / "dataset.csv"

    error = refuse([tmp_path, "--layout", "ravdess", "--out", out], capsys)

    assert "no utterance of the layout ravdess" in error
    assert "a.npy" in error
    assert not out.exists()
    missing = refuse([tmp_path / "none", "--layout", "ravdess", "--out", out], capsys)
    assert "There is no folder" in missing


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_an_output_that_exists_is_left_alone(kind, tmp_path, capsys):
    fill(tmp_path, "03a01Fa.npy")
    out = tmp_path / "dataset.csv"
    if kind == "file":
        out.write_text("mine")
    elif kind == "folder":
        out.mkdir()
    else:
        out.symlink_to(tmp_path / "elsewhere")

    error = refuse([tmp_path, "--layout", "emo-db", "--out", out], capsys)

    assert "exists already" in error
    assert kind != "file" or out.read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()


def test_two_files_of_one_utterance_and_column_are_refused(tmp_path, capsys):
    fill(tmp_path, "Actor_01/03-01-01-01-01-01-01.npy", "Actor_02/03-01-01-01-01-01-01.npy")

    error = refuse([tmp_path, "--layout", "ravdess", "--out", tmp_path / "d.csv"], capsys)

    assert "are both the features of 01-01-01-01-01-01" in error


def test_a_table_elsewhere_names_the_files_from_there(tmp_path, capsys):
    fill(tmp_path / "corpus", "voice/03a01Fa.npy")

    (beside,), _ = scan(tmp_path / "corpus", "emo-db", capsys, tmp_path / "above.csv")
    (other,), answer = scan(tmp_path / "corpus", "emo-db", capsys, tmp_path / "x" / "d.csv")

    assert beside["voice"] == "corpus/voice/03a01Fa.npy"
    assert other["voice"] == "../corpus/voice/03a01Fa.npy"
    (note,) = answer["notes"].items()
    assert "--root" in note[0]
    assert note[1] == [str(tmp_path / "corpus")]


def test_a_link_to_a_folder_is_listed(tmp_path, capsys):
    fill(tmp_path, "corpus/03a01Fa.npy", "elsewhere/03a01Wa.npy")
    (tmp_path / "corpus" / "more").symlink_to(tmp_path / "elsewhere")

    rows, answer = scan(tmp_path / "corpus", "EMO-DB", capsys)

    assert len(rows) == 1
    assert answer["notes"] == {"links to folders, which are not followed": ["more"]}


def test_folders_called_like_a_role_become_modalities(tmp_path, capsys):
    fill(tmp_path, "sentence/03a01Fa.npy", "session/03a01Fa.npy")

    (row,), answer = scan(tmp_path, "emo-db", capsys)

    assert set(answer["files"]) == {"sentence_features", "session_features"}
    assert row["sentence"] == "a01"


def make_tiny(folder, layout):
    """Write a made-up corpus of a layout, with features of two modalities."""
    names = {
        "ravdess": [
            f"03-01-0{e}-01-0{s}-01-0{a}" for a in (1, 2, 3) for e in (3, 4, 5) for s in (1, 2)
        ],
        "crema-d": [
            f"100{a}_{s}_{e}_XX"
            for a in (1, 2, 3)
            for e in ("ANG", "HAP", "SAD")
            for s in ("DFA", "IEO")
        ],
        "emo-db": [
            f"{a}{s}{e}a" for a in ("03", "08", "09") for e in "WFT" for s in ("a01", "b02")
        ],
        "iemocap": [
            f"Ses0{s}F_impro01_{g}00{i}" for s in (1, 2, 3) for g in "FM" for i in range(8)
        ],
    }[layout]
    fill(folder, *(f"{kind}/{name}.npy" for kind in ("voice", "face") for name in names))
    for session in (1, 2, 3) if layout == "iemocap" else ():
        dialogue = f"Ses0{session}F_impro01"
        labels = ["ang", "hap", "exc", "sad", "neu", "xxx", "ang", "sad"]
        own = [name for name in names if name.startswith(dialogue)]
        lines = [turn(n, label) for n, label in zip(own, 2 * labels, strict=True)]
        write_evaluation(folder, dialogue, lines)


@pytest.mark.parametrize("layout", ["ravdess", "crema-d", "emo-db", "iemocap"])
def test_the_table_passes_check(layout, tmp_path, capsys):
    make_tiny(tmp_path, layout)

    rows, _ = scan(tmp_path, layout, capsys)

    four = ["--classes", "ang,hap,sad,neu", "--merge", "exc=hap"]
    table = str(tmp_path / "dataset.csv")
    assert main(["check", table, *four * (layout == "iemocap")]) == 0, capsys.readouterr()
    manifest = read_manifest(tmp_path / "dataset.csv")
    assert manifest.modalities == ("face", "voice")
    assert len(manifest) == len(rows)
    assert sorted(set(manifest.speakers)) == sorted({row["speaker"] for row in rows})
