"""Everything that is wrong with a data set is refused in words: file, row, column, mend."""

import csv
import io
import os
import time
import tracemalloc
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from toolkit.data import ManifestError, SequenceError, read_manifest, read_sequence
from toolkit.study.cli import main

HEADER = ["utterance", "label", "speaker", "voice"]
N_ROWS = 6


def sound_rows():
    return [[f"u{i}", "01"[i % 2], "abc"[i // 2], f"voice/u{i}.npy"] for i in range(N_ROWS)]


def frames(i, shape=(6, 3)):
    return np.random.default_rng(i).normal(size=shape).astype(np.float32)


@cache
def make_zeros():
    """1 GB of zeros as Parquet of some kilobytes."""
    zeros, file = pa.array(np.zeros(1 << 24, np.int8)), io.BytesIO()
    parquet.write_table(pa.table([zeros] * 8, names=list("abcdefgh")), file)
    return file.getvalue()


class Corpus:
    """A sound data set of six utterances, to be spoilt."""

    def __init__(self, root):
        self.root = root
        self.header, self.rows = list(HEADER), sound_rows()
        self.raw = None
        (root / "voice").mkdir()
        for i in range(N_ROWS):
            self.save(i, frames(i))

    def save(self, i, array, **options):
        np.save(self.root / "voice" / f"u{i}.npy", array, **options)

    def put(self, i, content):
        (self.root / "voice" / f"u{i}.npy").write_bytes(content)

    def put_csv(self, text, row=1, ending=".csv"):
        (self.root / "voice" / f"u{row}{ending}").write_text(text, encoding="utf-8")
        self.cell(row, "voice", f"voice/u{row}{ending}")

    def put_arff(self, body):
        head = "@attribute name string\n@attribute f0 numeric\n@data\n"
        self.put_csv(body if body.startswith("@") or not body else head + body, ending=".arff")

    def put_every_csv(self, text):
        for row in range(N_ROWS):
            self.put_csv(text.replace("ROW", str(row)), row)

    def put_large(self, ending):
        path = self.root / "voice" / f"u1{ending}"
        if ending == ".csv":  # claimed by the file system alone
            path.touch()
            os.truncate(path, 1 << 42)
        else:
            path.write_bytes(make_zeros())
        self.cell(1, "voice", f"voice/u1{ending}")

    def cell(self, row, column, text):
        self.rows[row][HEADER.index(column)] = text

    def add(self, name, cell):
        self.header.append(name)
        for row in self.rows:
            row.append(cell)

    def write(self):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.header, *self.rows])
        content = text.getvalue().encode() if self.raw is None else self.raw
        (self.root / "dataset.csv").write_bytes(content)
        return self.root / "dataset.csv"


def header_of(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


CASES = {
    # what is done to a sound data set, and what the message must hold
    "empty file": (lambda c: setattr(c, "raw", b""), ["file is empty", "name the columns"]),
    "header alone": (lambda c: c.rows.clear(), ["no row below it", "one row per utterance"]),
    "utf-16": (lambda c: setattr(c, "raw", "a,b".encode("utf-16")), ["UTF-16", "UTF-8"]),
    "latin-1": (
        lambda c: setattr(c, "raw", b"utterance\n\xe9\n"),
        ["line 2", "not UTF-8", "save it as UTF-8"],
    ),
    "nul byte": (lambda c: setattr(c, "raw", b"a,b\n1,\x002\n"), ["NUL byte", "line 2"]),
    "workbook": (lambda c: setattr(c, "raw", b"PK\x03\x04"), ["ZIP archive", "export"]),
    "semicolons": (lambda c: setattr(c, "raw", b"a;b;c\n1;2;3\n"), ["semicolons", "commas"]),
    "tabs": (lambda c: setattr(c, "raw", b"a\tb\tc\n1\t2\t3\n"), ["tabs", "commas"]),
    "open quote": (lambda c: setattr(c, "raw", b'a,b\n"1,2\n'), ["Row 2", "quotes"]),
    "extra field": (lambda c: c.rows[2].append("x"), ["row 4", "5 fields", "header has 4"]),
    "field short": (lambda c: c.rows[2].pop(), ["row 4", "3 fields", "empty cell"]),
    "no label": (lambda c: c.header.__setitem__(1, "mood"), ["label", "--column"]),
    "two labels": (lambda c: c.header.__setitem__(0, "emotion"), ["--column"]),
    "two columns of one name": (
        lambda c: c.add("voice", "voice/u0.npy"),
        ["both called 'voice'", "rename or remove"],
    ),
    "no speaker": (lambda c: c.header.__setitem__(2, "who"), ["speaker", "--column"]),
    "no modality": (
        lambda c: [row.__setitem__(3, "loud") for row in c.rows],
        ["No column lists feature files", "a column, with the path"],
    ),
    "a modality called early": (
        lambda c: c.header.__setitem__(3, "early"),
        ["'early'", "name of a fusion", "rename the column"],
    ),
    "a modality called 2 eyes": (
        lambda c: c.header.__setitem__(3, "2 eyes"),
        ["cannot name a modality", "rename the column"],
    ),
    "one code, two names": (
        lambda c: c.add("label_name", "sad") or c.rows[2].__setitem__(4, "glad"),
        ["'sad'", "'glad'"],
    ),
    "split in other words": (
        lambda c: c.add("split", "dev"),
        ["'train'", "'dev'"],
        "--outer=split",
    ),
    "no split": (lambda _: None, ["column called 'split'", "--column"], "--outer=split"),
    "no session": (lambda _: None, ["session", "--outer speaker"], "--outer=session"),
    "a class that is not there": (lambda _: None, ["'7'", "'0'"], "--classes=0,7"),
    "a class merged from nowhere": (lambda _: None, ["'7'"], "--merge=7=0"),
    "a modality that is not there": (
        lambda _: None,
        ["'smell'", "'voice'"],
        "--modality=smell",
    ),
    "more folds than speakers": (lambda _: None, ["9", "speaker"], "--outer=9"),
    "empty id": (lambda c: c.cell(1, "utterance", " "), ["row 3", "utterance", "is empty"]),
    "empty label": (lambda c: c.cell(1, "label", ""), ["row 3", "label", "is empty"]),
    "empty speaker": (lambda c: c.cell(1, "speaker", ""), ["row 3", "speaker", "is empty"]),
    "repeated id": (lambda c: c.cell(3, "utterance", "u1"), ["row 5", "in row 3 already"]),
    "escape": (lambda c: c.cell(1, "speaker", "a\x1b[31m"), ["row 3", "control character"]),
    "line break": (lambda c: c.cell(1, "utterance", "u\n1"), ["row 3", "one line"]),
    "long name": (lambda c: c.cell(1, "speaker", "a" * 300), ["row 3", "300", "at most 200"]),
    "one class": (lambda c: [row.__setitem__(1, "0") for row in c.rows], ["two classes"]),
    "two speakers": (
        lambda c: [row.__setitem__(2, "ab"[i % 2]) for i, row in enumerate(c.rows)],
        ["speaker", "3"],
    ),
    "path outside": (lambda c: c.cell(1, "voice", "../x.npy"), ["row 3", "voice", "../x.npy"]),
    "path to root": (
        lambda c: c.cell(1, "voice", "/../../etc/x.npy"),
        ["row 3", "leads out of the folder"],
    ),
    "path beside": (
        # /data/root_evil begins as /data/root does, and is another folder.
        lambda c: c.cell(1, "voice", f"../{c.root.name}_evil/x.npy"),
        ["row 3", "voice", "leads out of the folder", "move or copy"],
    ),
    "link out": (
        lambda c: (
            (c.root / "voice" / "u1.npy").unlink()
            or (c.root / "voice" / "u1.npy").symlink_to(__file__)
        ),
        ["row 3", "voice", "leads out of the folder", "a link does not do"],
    ),
    "drive": (lambda c: c.cell(1, "voice", "C:/u.npy"), ["row 3", "begins with a drive"]),
    "csv of another width": (lambda c: c.put_csv("a,b\n1,2\n"), ["voice", "dimensions"]),
    "ragged csv": (lambda c: c.put_csv("a,b,c\n1,2\n"), ["voice", "line 2 has 2 cells"]),
    "text in a csv": (lambda c: c.put_csv("a,b,c\n1,2,x\n"), ["line 2", "'c'", "'x'"]),
    "empty csv": (lambda c: c.put_csv(""), ["u1.csv is empty", "name the columns"]),
    "csv without a header": (lambda c: c.put_csv("1,2,3\n4,5,6\n"), ["begins with numbers"]),
    "csv of terabytes": (lambda c: c.put_large(".csv"), ["u1.csv", "more than the memory"]),
    "parquet of a gigabyte": (lambda c: c.put_large(".parquet"), ["expand to 1,073,741,824"]),
    "column missing": (
        lambda c: c.put_every_csv("f0,hnr\n1,2\n"),
        ["'energy' is no column", "it has 'f0', 'hnr'"],
        "--frames-columns=voice=f0,energy",
    ),
    "column missing in one file": (
        lambda c: (c.put_every_csv("f0,hnr\nROW,2\n"), c.put_csv("f0\n1\n")),
        ["u1.csv", "'hnr' is no column", "it has 'f0'"],
        "--frames-columns=voice=f0,hnr",
    ),
    "column beyond the last": (
        lambda c: c.put_every_csv("f0,hnr\n1,2\n"),
        ["'2-9' is no range of its 2 columns"],
        "--frames-columns=voice=2-9",
    ),
    "columns of arrays": (
        lambda _: None,
        ["u0.npy is no table", "leave the option out"],
        "--frames-columns=voice=1",
    ),
    "columns of no modality": (
        lambda _: None,
        ["--frames-columns voic", "did you mean 'voice'"],
        "--frames-columns=voic=1",
    ),
    "text in a csv of openface": (
        lambda c: c.put_csv("frame,success,AU01_r\n1,1,high\n"),
        ["'high'", "3 columns are 'frame', 'success', 'AU01_r'", "OpenFace", "'timestamp'"],
    ),
    "ragged arff": (lambda c: c.put_arff("'a',1\n'a'\n"), ["line 5 has 1 cells"]),
    "text in an arff": (lambda c: c.put_arff("'a',high\n"), ["line 4", "'f0'", "'high'"]),
    "empty arff": (lambda c: c.put_arff(""), ["u1.arff has no line @data"]),
    "arff without rows": (lambda c: c.put_arff("\n"), ["u1.arff", "no row below"]),
    "attribute of arff": (lambda c: c.put_arff("@attribute x\n"), ["line 1", "'@attribute x'"]),
    "several arrays": (
        lambda c: (
            np.savez(c.root / "voice" / "u1.npz", a=frames(1), b=frames(2, (4, 5))),
            c.cell(1, "voice", "voice/u1.npz"),
        ),
        ["u1.npz holds 2 arrays", "a of shape (6, 3), b of shape (4, 5)", "u1.npz#a"],
    ),
    "gap in a csv": (lambda c: c.put_csv("a,b,c\n1,,3\n4,5,6\n"), ["the first is frame 0"]),
    "file missing": (lambda c: c.cell(1, "voice", "voice/no.npy"), ["row 3", "voice"]),
    "file empty": (lambda c: c.put(1, b""), ["u1.npy", "0 bytes", "empty"]),
    "file cut": (lambda c: c.put(1, header_of(b"{")), ["u1.npy", "np.save"]),
    "pickle": (lambda c: c.put(1, b"\x80\x04."), ["u1.npy", "pickle", "np.save"]),
    "zip": (lambda c: c.put(1, b"PK\x03\x04zip"), ["u1.npy", ".npz", "np.save"]),
    "web page": (lambda c: c.put(1, b"<html>"), ["u1.npy", "web page", "fetch"]),
    "lfs pointer": (
        lambda c: c.put(1, b"version https://git-lfs.github.com/spec/v1"),
        ["u1.npy", "git lfs pull"],
    ),
    "objects": (
        lambda c: c.save(1, np.array([{}, 1], dtype=object), allow_pickle=True),
        ["u1.npy", "Python objects", "plain array"],
    ),
    "text": (lambda c: c.save(1, np.array(["a"])), ["u1.npy", "holds text", "np.save"]),
    "complex": (lambda c: c.save(1, np.ones((2, 3), complex)), ["u1.npy", "complex"]),
    "true or false": (lambda c: c.save(1, np.ones((2, 3), bool)), ["u1.npy", "true/false"]),
    "records": (
        lambda c: c.save(1, np.zeros(2, dtype=[("a", "f4"), ("b", "f4")])),
        ["u1.npy", "structured array", "columns"],
    ),
    "claims 40 GB": (
        lambda c: c.put(
            1,
            header_of(
                b"{'descr': '<f4', 'fortran_order': False, 'shape': (10000000, 1024), }\n"
            ),
        ),
        ["u1.npy", "cut short", "40,960,0"],
    ),
    "trailing bytes": (
        lambda c: c.put(1, (c.root / "voice/u1.npy").read_bytes() + b"more"),
        ["u1.npy", "4 bytes after"],
    ),
    "no axis": (lambda c: c.save(1, np.float32(1)), ["u1.npy", "single number"]),
    "three axes": (lambda c: c.save(1, frames(1, (2, 3, 4))), ["u1.npy", "3 axes"]),
    "no frames": (lambda c: c.save(1, frames(1, (0, 3))), ["u1.npy", "no frames"]),
    "no dimensions": (lambda c: c.save(1, frames(1, (4, 0))), ["u1.npy", "no dimensions"]),
    "other width": (lambda c: c.save(1, frames(1, (4, 5))), ["u1", "5 dimensions", "alike"]),
    "no time axis": (lambda c: c.save(1, frames(1, (3,))), ["u1", "no time axis", "alike"]),
    "not a number": (
        lambda c: c.save(1, np.vstack([[[np.nan] * 3], frames(1)])),
        ["u1", "frame 0", "--frames drop"],
    ),
    "infinite": (
        lambda c: c.save(1, np.vstack([frames(1), [[1, np.inf, 1]]])),
        ["u1", "not finite", "--frames"],
    ),
    "one recording, two people": (
        lambda c: c.save(5, frames(0)),
        ["'u0' and 'u5'", "'a' and 'c'", "--duplicates allow"],
    ),
    "a folder": (
        lambda c: c.cell(1, "voice", "voice.npy") or (c.root / "voice.npy").mkdir(),
        ["voice.npy"],
    ),
}


@pytest.mark.parametrize("command", ["check", "study"])
@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused_in_words(tmp_path, capsys, name, command):
    corpus = Corpus(tmp_path)
    spoil, expected, *options = CASES[name]
    spoil(corpus)
    source = str(corpus.write())
    words = [source] if command == "check" else [f"--data={source}", f"--out={tmp_path / 'o'}"]

    code = main([command, *words, *options])
    said = " ".join("".join(capsys.readouterr()).split())

    assert code == 2, said
    assert "Traceback" not in said
    for words in expected:
        assert words in said
    assert not list(tmp_path.glob("o/internal/units/*"))


def test_speakers_that_differ_by_case_or_space_are_refused_unless_joined(tmp_path, capsys):
    corpus = Corpus(tmp_path)
    corpus.cell(1, "speaker", "A")
    table = str(corpus.write())

    assert main(["check", table]) == 2
    said = " ".join("".join(capsys.readouterr()).split())
    assert "'A' (row 3) and 'a' (row 2) differ only in spelling" in said
    assert main(["check", table, "--spellings", "join"]) == 0


FINE = {
    "nothing": lambda _: None,
    "speaker 01": lambda c: [row.__setitem__(2, "0" + row[2]) for row in c.rows],
    "speaker NA": lambda c: [row.__setitem__(2, row[2].replace("a", "NA")) for row in c.rows],
    "labels with signs": lambda c: [
        row.__setitem__(1, "-+"[int(row[1])] + "1") for row in c.rows
    ],
    "an id from a video site": lambda c: c.cell(1, "utterance", "-3g5yACwYnA[2]"),
    "a handle": lambda c: c.cell(1, "utterance", "@ann"),
    "big-endian": lambda c: c.save(1, frames(1).astype(">f8")),
    "fortran order": lambda c: c.save(1, np.asfortranarray(frames(1))),
    "integers": lambda c: c.save(1, (9 * frames(1)).astype("<i2")),
    "same text twice": lambda c: [c.save(i, frames(i % 5, (3,))) for i in range(N_ROWS)],
    "one frame": lambda c: c.save(1, frames(1, (1, 3))),
    "csv": lambda c: c.put_csv("a;b;c\n1;2;3\n4;5;6.5\n"),
    "white space": lambda c: c.cell(1, "speaker", "  a "),
    "byte order mark": lambda c: c.header.__setitem__(0, "\ufeffutterance"),
}


@pytest.mark.parametrize("name", FINE)
def test_odd_input_that_is_sound_is_taken(tmp_path, capsys, name):
    corpus = Corpus(tmp_path)
    FINE[name](corpus)

    assert main(["check", str(corpus.write())]) == 0, capsys.readouterr()


def damage(data, content, alphabet):
    """Change, insert, delete and cut a few bytes."""
    content = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(content) - 1, 0)))
        how = data.draw(st.sampled_from(["set", "insert", "delete", "cut", "repeat"]))
        if how == "set" and content:
            content[at] = data.draw(alphabet)
        elif how == "insert":
            content[at:at] = bytes([data.draw(alphabet)])
        elif how == "delete":
            del content[at : at + data.draw(st.integers(1, 8))]
        elif how == "cut":
            del content[at:]
        else:
            content[at:at] = content[at : at + 40]
    return bytes(content)


def within_bounds(read, path, refusal):
    """Read, and give whether it was refused; neither memory nor time may grow."""
    tracemalloc.start()
    begun = time.process_time()
    try:
        read(path)
        refused = ""
    except refusal as error:
        refused = str(error)
        assert refused
    spent = time.process_time() - begun
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert spent < 5
    assert peak < 64e6
    return refused


def fuzz(max_examples):
    return settings(
        max_examples=max_examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


HEADER_BYTES = st.one_of(st.sampled_from(b"{}(),'0123456789<>|fuiOVSL \n"), st.integers(0, 255))
TABLE_BYTES = st.one_of(st.sampled_from(b',"\n\r;\t|=01ab/. '), st.integers(0, 255))


def fuzz_array(tmp_path, data):
    path = tmp_path / "u.npy"
    order = data.draw(st.sampled_from("CF"))
    code = data.draw(st.sampled_from(["<f4", ">f8", "<i2", "|u1"]))
    np.save(path, np.arange(24).reshape(4, 6).astype(code, order=order))
    path.write_bytes(damage(data, path.read_bytes(), HEADER_BYTES))
    within_bounds(read_sequence, path, SequenceError)


def fuzz_table(tmp_path, data):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADER, *sound_rows()])
    (tmp_path / "voice").mkdir(exist_ok=True)
    for i in range(N_ROWS):
        (tmp_path / "voice" / f"u{i}.npy").touch()
    path = tmp_path / "dataset.csv"
    path.write_bytes(damage(data, text.getvalue().encode(), TABLE_BYTES))
    within_bounds(read_manifest, path, ManifestError)


@fuzz(100)
@given(st.data())
def test_a_hundred_damaged_arrays_are_read_or_refused(tmp_path, data):
    fuzz_array(tmp_path, data)


@fuzz(100)
@given(st.data())
def test_a_hundred_damaged_files_of_frames_are_read_or_refused(tmp_path, data):
    path = tmp_path / "u.csv"
    content = b"name;frameTime;f0;hnr\n'u';0.00;1.5e2;-3\n'u';0.01;;0.5\n"
    path.write_bytes(damage(data, content, TABLE_BYTES))
    within_bounds(read_sequence, path, SequenceError)


@fuzz(100)
@given(st.data())
def test_a_hundred_damaged_tables_are_read_or_refused(tmp_path, data):
    fuzz_table(tmp_path, data)


@pytest.fixture
def _within_a_gigabyte():
    """The most that the process ever held while it read, libraries and all."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not clear.exists():
        yield  # no other system tells so much, and starts anew
        return

    def held(what):
        lines = status.read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith(what)))

    before = held("VmRSS:")
    clear.write_text("5")
    yield
    assert held("VmHWM:") - before < 2**30


@pytest.mark.slow
@pytest.mark.usefixtures("_within_a_gigabyte")
@fuzz(1000)
@given(st.data())
def test_a_thousand_damaged_arrays_are_read_or_refused(tmp_path, data):
    fuzz_array(tmp_path, data)


@pytest.mark.slow
@pytest.mark.usefixtures("_within_a_gigabyte")
@fuzz(1000)
@given(st.data())
def test_a_thousand_damaged_tables_are_read_or_refused(tmp_path, data):
    fuzz_table(tmp_path, data)
