"""Recipes turn the files of other tools into data sets that pass the checks of the toolkit."""

import ast
import csv
import pickle
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from toolkit.data import read_manifest, read_sequence
from toolkit.study.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"
TEXT = PAGE.read_text(encoding="utf-8")
MARK = "**Not run by tests:**"
#: Packages of the blocks that are marked, which neither the toolkit nor its extras need.
FOREIGN = {"opensmile", "soundfile", "torch", "transformers"}
IDS = [f"{speaker}{n}" for speaker in ("ann", "ben", "cem") for n in range(6)]


def read_section(heading):
    return re.split(r"^## ", TEXT.split(f"## {heading}\n", 1)[1], flags=re.MULTILINE)[0]


def read_blocks(section):
    """Give each block of Python of a text, and whether its paragraph before is marked."""
    pieces = re.split(r"```python\n(.*?)```", section, flags=re.DOTALL)
    for before, block in zip(pieces[::2], pieces[1::2], strict=False):
        yield block, before.strip().split("\n\n")[-1].startswith(MARK)


def run_python(heading):
    for block, is_marked in read_blocks(read_section(heading)):
        if not is_marked:
            exec(compile(block, f"{heading} of recipes.md", "exec"), {})


def run_commands(heading, capsys):
    for line in re.findall(r"^    toolkit (.*)$", read_section(heading), re.MULTILINE):
        assert main(shlex.split(line)) == 0, capsys.readouterr()


def write_table(*modalities, ending="npy"):
    """Write a table of made-up people, with a column of files per modality."""
    with Path("corpus/dataset.csv").open("x", newline="") as file:
        table = csv.writer(file)
        table.writerow(["utterance", "speaker", "label", *modalities])
        for number, name in enumerate(IDS):
            files = [f"{modality}/{name}.{ending}" for modality in modalities]
            table.writerow([name, name[:3], "sad" if number % 2 else "happy", *files])


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("corpus", "mosi", "pickled"):
        (tmp_path / folder).mkdir()


def test_blocks_are_marked_if_and_only_if_they_need_other_packages():
    for block, is_marked in read_blocks(TEXT):
        imported = {
            name.partition(".")[0]
            for node in ast.walk(ast.parse(block))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in [getattr(node, "module", None) or node.names[0].name]
        }
        assert bool(imported & FOREIGN) == is_marked, block


def test_scan_writes_the_tables_of_four_corpora(capsys):
    names = {
        "ravdess": [f"03-01-0{e}-01-0{s}-01-0{a}" for a in "123" for e in "34" for s in "12"],
        "crema-d": [
            f"100{a}_{s}_{e}_XX" for a in "123" for e in ("ANG", "SAD") for s in ("DFA",)
        ],
        "emo-db": [f"{a}{s}{e}a" for a in ("03", "08", "09") for e in "WF" for s in ("a01",)],
        "iemocap": [
            f"Ses0{s}F_impro01_{g}00{i}" for s in "123" for g in "FM" for i in range(5)
        ],
    }
    rng = np.random.default_rng(0)
    for corpus, stems in names.items():
        Path(corpus, "voice").mkdir(parents=True)
        for stem in stems:
            np.save(Path(corpus, "voice", f"{stem}.npy"), rng.normal(size=(4, 2)).astype("f4"))
    for session in "123":
        folder = Path(f"iemocap/Session{session}/dialog/EmoEvaluation")
        folder.mkdir(parents=True)
        own = [stem for stem in names["iemocap"] if stem.startswith(f"Ses0{session}")]
        labels = 2 * ["ang", "hap", "exc", "sad", "neu"]
        lines = [f"[0.0 - 1.0]\t{s}\t{x}\t[2, 2, 2]" for s, x in zip(own, labels, strict=True)]
        (folder / f"Ses0{session}F_impro01.txt").write_text("\n".join(lines))

    run_commands("RAVDESS, CREMA-D, EMO-DB, IEMOCAP", capsys)

    for corpus, stems in names.items():
        manifest = read_manifest(Path(corpus, "dataset.csv"))
        assert manifest.modalities == ("voice",)
        assert len(manifest) == len(stems)


def test_files_of_opensmile_are_read_as_they_are(capsys):
    rng = np.random.default_rng(1)
    names = ["F0semitoneFrom27.5Hz_sma3nz_amean", "loudness_sma3_amean"]
    functionals = pd.DataFrame(rng.normal(size=(len(IDS), 2)), columns=names)
    index = {"file": [f"wav/{name}.wav" for name in IDS], "start": "0 days", "end": "0 days 01"}
    pd.concat([pd.DataFrame(index), functionals], axis=1).to_csv(
        "corpus/egemaps.csv", index=False
    )
    Path("corpus/lld").mkdir()
    frames = {name: rng.normal(size=(4, 2)).round(6) for name in IDS}
    for name, values in frames.items():
        lines = [f"'{name}';{i / 100};{a};{b}" for i, (a, b) in enumerate(values)]
        text = "\n".join(["name;frameTime;Loudness_sma3;slope0-500_sma3", *lines])
        Path(f"corpus/lld/{name}.csv").write_text(text)

    write_table("lld", ending="csv")
    run_commands("openSMILE", capsys)
    tables = {"egemaps": Path("corpus/egemaps.csv")}
    paths = read_manifest(Path("corpus/dataset.csv"), tables=tables).paths
    for k, name in enumerate(IDS):
        assert read_sequence(paths["egemaps"][k]).tolist() == functionals.iloc[k].tolist()
        assert read_sequence(paths["lld"][k]).tolist() == frames[name].tolist()


def write_openface(name, values):
    head = "frame, face_id, timestamp, confidence, success, gaze_0_x, AU01_r"
    lines = [
        f"{i + 1}, 0, {i / 30:.3f}, 0.98, {int(i != 1)}, {a:.6f}, {b:.6f}"
        for i, (a, b) in enumerate(values)
    ]
    Path("corpus/face").mkdir(exist_ok=True)
    Path(f"corpus/face/{name}.csv").write_text("\n".join([head, *lines]))


def test_openface_frames_without_a_face_are_missing(capsys):
    rng = np.random.default_rng(2)
    frames = {name: rng.normal(size=(5, 2)) for name in IDS}
    for name, values in frames.items():
        write_openface(name, values)

    write_table("face", ending="csv")
    run_commands("OpenFace", capsys)

    for name, values in frames.items():
        read = read_sequence(Path(f"corpus/face/{name}.csv"))
        assert np.isnan(read[1]).all()
        np.testing.assert_allclose(np.delete(read, 1, 0), np.delete(values, 1, 0), atol=1e-6)


def test_files_of_cmu_sdk_are_read_by_utterance(capsys):
    h5py = pytest.importorskip("h5py", reason="the extra formats is not installed")
    rng = np.random.default_rng(3)
    ids = [f"{name[:3]}[{name[3:]}]" for name in IDS]
    frames = {name: rng.normal(size=(4, 3)).astype("f4") for name in ids}
    for stem in ("labels", "audio", "text"):
        with h5py.File(f"mosi/{stem}.csd", "w") as file:
            for number, name in enumerate(ids):
                label = np.array([[-1.5 if number % 2 else 2.0]])
                values = label if stem == "labels" else frames[name] * (1 + (stem == "text"))
                file[f"{stem}/data/{name}/features"] = values
                file[f"{stem}/data/{name}/intervals"] = np.zeros((len(values), 2))

    run_python("CMU-SDK")
    run_commands("CMU-SDK", capsys)

    manifest = read_manifest(Path("mosi/dataset.csv"), bins=(0,))
    assert manifest.modalities == ("audio", "text")
    assert sorted(set(manifest.speakers)) == ["ann", "ben", "cem"]
    for name, path in zip(manifest.utterances, manifest.paths["audio"], strict=True):
        np.testing.assert_array_equal(read_sequence(path), frames[name])


def test_pickles_of_mosi_lose_their_padding_and_keep_their_split(capsys):
    rng = np.random.default_rng(4)
    parts, frames = {}, {}
    for split, speaker in {"train": "ann", "valid": "ben", "test": "cem"}.items():
        ids = [f"{speaker}$_${n}" for n in range(6)]
        part = {"id": ids, "regression_labels": np.array([1.2, -0.4] * 3)}
        for name, n_dims in {"text": 4, "audio": 3, "vision": 2}.items():
            part[name] = np.zeros((6, 8, n_dims))
            for i, utterance in enumerate(ids):
                values = rng.normal(size=(3 + i % 2, n_dims)).astype("f4")
                start = 0 if name == "audio" else 8 - len(values)
                part[name][i, start : start + len(values)] = values
                frames[name, utterance] = values
        parts[split] = part
    parts["test"]["vision"][5] = 0
    Path("pickled/unaligned_50.pkl").write_bytes(pickle.dumps(parts))

    run_python("Pickles of MOSI and MOSEI")
    run_commands("Pickles of MOSI and MOSEI", capsys)

    manifest = read_manifest(Path("pickled/dataset.csv"), bins=(0,))
    assert dict(zip(manifest.speakers, manifest.splits, strict=True)) == {
        "ann": "train",
        "ben": "valid",
        "cem": "test",
    }
    for name in ("text", "audio", "vision"):
        for utterance, path in zip(manifest.utterances, manifest.paths[name], strict=True):
            if (name, utterance) == ("vision", "cem$_$5"):
                assert path is None
            else:
                np.testing.assert_array_equal(read_sequence(path), frames[name, utterance])
