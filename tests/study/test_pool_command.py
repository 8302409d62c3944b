"""`toolkit pool`: tables for other programs, and refusals before anything is pooled."""

import json
import logging
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from toolkit.study import terminal
from toolkit.study.cli import main
from toolkit.study.inventory import Inventory


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))


def run(corpus, *words):
    return main(["pool", str(corpus / "dataset.csv"), *map(str, words)])


def test_every_modality_becomes_a_table_with_a_schema(corpus, manifest, tmp_path, capsys):
    out = tmp_path / "out"

    assert (
        run(corpus, "--out", out, "--statistics", "mean,p90", "--json", "--form", "parquet")
        == 0
    )

    said = json.loads(capsys.readouterr().out)
    assert [table["modality"] for table in said["tables"]] == ["visual", "audio", "text"]
    audio = said["tables"][1]
    assert (audio["features"], audio["statistics"]) == (20, ["mean", "p90"])
    columns = parquet.read_table(out / audio["file"])
    assert columns["utterance"].to_pylist() == manifest.utterances.tolist()
    schema = json.loads((out / audio["schema"]).read_text(encoding="utf-8"))
    assert schema["columns"] == columns.column_names[3:]
    frames = np.load(manifest.paths["audio"][5])
    found = columns["audio__mean__0003"][5].as_py()  # float32
    np.testing.assert_allclose(found, frames[:, 3].mean(), rtol=1e-6)


def test_names_of_dimensions_are_in_the_schema_and_columns_stay(corpus, tmp_path):
    names = [f"name {k}" for k in range(10)]
    (tmp_path / "names.txt").write_text("\n".join(names))
    words = ["--out", tmp_path / "out", "--modality", "audio", "--statistics", "mean"]

    assert run(corpus, *words, "--names", f"audio={tmp_path / 'names.txt'}") == 0

    schema = json.loads((tmp_path / "out" / "audio.schema.json").read_text(encoding="utf-8"))
    assert schema["dimensions"] == names
    assert schema["columns"][3] == "audio__mean__0003"


def test_npy_needs_no_extra_and_modalities_may_be_chosen(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    out = tmp_path / "out"

    assert run(corpus, "--out", out, "--form", "parquet") == 2
    assert "pip install" in capsys.readouterr().err
    assert run(corpus, "--out", out, "--modality", "speech") == 0

    names = ["audio.npy", "audio.schema.json", "internal"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert "audio: 150 utterances x 180 features (18 statistics" in capsys.readouterr().out


def test_the_same_command_writes_the_same_bytes(corpus, tmp_path):
    for name in ("one", "two"):
        words = ["--out", tmp_path / name, "--modality", "visual", "--workers", len(name) - 2]
        assert run(corpus, *words) == 0

    for path in filter(Path.is_file, (tmp_path / "one").rglob("*")):
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == other.read_bytes()


def test_files_of_others_are_neither_replaced_nor_written_through(corpus, tmp_path, capsys):
    out, words = tmp_path / "out", ["--modality", "visual"]
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    assert run(corpus, "--out", out, *words) == 2
    assert "holds files but no feature table (thesis.tex)" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]

    (out / "thesis.tex").unlink()
    assert run(corpus, "--out", out, *words) == 0
    # Its own files are replaced, and another's are not, whatever stands beside them.
    (out / "text.npy").write_text("mine")
    (tmp_path / "diary.npy").write_text("mine")
    (out / "audio.npy").symlink_to(tmp_path / "diary.npy")
    assert run(corpus, "--out", out, *words) == 0
    assert run(corpus, "--out", out, "--modality", "text") == 2
    assert "would replace: text.npy" in capsys.readouterr().err
    assert run(corpus, "--out", out, "--modality", "speech") == 2
    assert "audio.npy is a symbolic link" in capsys.readouterr().err

    assert (out / "text.npy").read_text() == "mine"
    assert (tmp_path / "diary.npy").read_text() == "mine"


@pytest.mark.parametrize(("form", "other"), [("npy", "parquet"), ("parquet", "npy")])
def test_a_table_of_another_form_keeps_its_schema(corpus, tmp_path, capsys, form, other):
    out, words = tmp_path / "out", ["--modality", "visual", "--statistics"]
    assert run(corpus, "--out", out, *words, "mean", "--form", form) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    capsys.readouterr()

    assert run(corpus, "--out", out, *words, "max", "--form", other) == 2

    error = capsys.readouterr().err
    assert f"holds tables of visual in the form {form}, whose schemas would be" in error
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    # Another modality has a schema of its own.
    assert run(corpus, "--out", out, "--modality", "audio", "--form", other) == 0


def test_no_table_is_written_into_a_study(corpus, tmp_path, capsys):
    Inventory(tmp_path / "study").claim()

    assert run(corpus, "--out", tmp_path / "study", "--modality", "visual") == 2

    assert "holds a study: name another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--statistics", "median"], "Unknown statistics ['median']"),
        (["--modality", "smell"], "There is no modality 'smell'"),
        (["--frames", "keep"], "--frames 'keep'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    corpus, tmp_path, capsys, words, message
):
    assert run(corpus, "--out", tmp_path / "out", *words) == 2

    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_cannot_be_the_folder(corpus, tmp_path, capsys):
    (tmp_path / "out").touch()

    assert run(corpus, "--out", tmp_path / "out") == 2
    assert "is a file; name a folder" in capsys.readouterr().err


def test_a_folder_must_be_named(corpus, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(corpus)

    assert "--out" in capsys.readouterr().err


def test_words_of_a_table_are_whole_where_they_fit(capsys, monkeypatch):
    header = ("modality", "dims", "frames", *("files", "empty", "absent", "unreadable"))
    rows = [("acoustic", 40, "30-139 (median 84.5)", 300, 58, 11, 22, 33)]
    printed = {}
    for width in (200, *range(40, 100)):
        monkeypatch.setenv("COLUMNS", str(width))
        terminal.print_table((*header, "not finite"), rows, total=("all", *"1234567"))
        printed[width] = capsys.readouterr().out.replace("\u2500", "")
        assert max(map(len, printed[width].splitlines())) <= width

    # Nothing is cut off, whether words are broken or not.
    assert (
        len({"".join(sorted(text.replace(" ", ""))).strip() for text in printed.values()}) == 1
    )
    assert sorted(printed[80].split()) == sorted(printed[200].split())
    assert {"unreadable", "acoustic", "(median", "33"} <= {*printed[80].split()}
    assert "unreadable" not in printed[40]


def test_away_from_a_terminal_the_rate_is_said_in_lines(manifest, caplog, monkeypatch):
    monkeypatch.setattr(terminal, "_LOG_INTERVAL", -1.0)
    caplog.set_level(logging.INFO, logger="toolkit")
    paths = manifest.paths["audio"]

    with terminal.show_files("pooling audio", paths) as update:
        update(0, 150)
        update(50, 150)
        later = time.monotonic() + 50
        monkeypatch.setattr(time, "monotonic", lambda: later)
        update(100, 150)

    lines = caplog.messages
    assert lines[0] == "pooling audio: 0 of 150 files"
    # The first files hold the start; from then on, 50 files took 50 seconds.
    assert lines[1].startswith("pooling audio: 50 of 150 files, ")
    assert lines[1].endswith(" MB/s")
    assert lines[2].endswith(" MB/s, about 50 s left")
