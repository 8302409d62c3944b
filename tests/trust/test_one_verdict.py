"""`check` and a study have one verdict: the same refusals, in the same words."""

import csv
import re

import numpy as np
import pytest

from toolkit.study import runner
from toolkit.study.cli import main

SPEAKERS = ("kim", "lea", "max", "nia", "oli")
N_EACH = 4


class FitsError(Exception):
    """The study got as far as its fits."""


class Data:
    """Twenty utterances of five people, of sequences and vectors, to be spoilt."""

    def __init__(self, root, seed=0):
        self.root, self.rng = root, np.random.default_rng(seed)
        self.rows = []
        for number in range(len(SPEAKERS) * N_EACH):
            who = number // N_EACH
            row = {
                "utterance": f"u{number:02d}",
                "speaker": SPEAKERS[who],
                "label": ("low", "high")[number % 2],
                "session": f"s{who // 2}",
                "split": "test" if who > 2 else "train",
            }
            for modality, shape in (("sound", (6 + number % 5, 5)), ("words", (4,))):
                row[modality] = f"{modality}{number:02d}.npy"
                self.save(row[modality], self.rng.normal(size=shape).astype("f4"))
            self.rows.append(row)

    def save(self, name, array):
        np.save(self.root / name, array)

    def load(self, number, modality="sound"):
        return np.load(self.root / self.rows[number][modality])

    def change(self, number, modality, change):
        self.save(self.rows[number][modality], change(self.load(number, modality)))

    def write(self):
        with (self.root / "dataset.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*self.rows[0]])
            writer.writeheader()
            writer.writerows(self.rows)
        return self.root / "dataset.csv"


def put(value, where):
    def change(array):
        array = array.astype("f8")
        array[where] = value
        return array

    return change


def twice(data, number):
    """Give the recording of the first utterance to another, saved in another way."""
    data.save(data.rows[number]["sound"], np.asfortranarray(data.load(0).astype(">f8")))
    data.save(data.rows[number]["words"], data.load(0, "words").astype("f8"))


def assign(column, value):
    return lambda data, number: data.rows[number].update({column: value})


def assign_all(column, give):
    return lambda data, _: [row.update({column: give(i)}) for i, row in enumerate(data.rows)]


FAULTS = {
    "nothing": lambda *_: None,
    "a frame": lambda d, n: d.change(n, "sound", put(np.nan, (2, 1))),
    "a dimension": lambda d, n: d.change(n, "sound", put(np.inf, (slice(None), 3))),
    "all dimensions": lambda d, n: d.change(n, "sound", put(np.nan, ...)),
    "a value": lambda d, n: d.change(n, "words", put(np.nan, 2)),
    "too large": lambda d, n: d.change(n, "sound", put(2e38, (1, 1))),
    "far too large": lambda d, n: d.change(n, "words", put(-1e300, 1)),
    "all values": lambda d, n: d.change(n, "words", put(np.nan, ...)),
    "no bytes": lambda d, n: (d.root / d.rows[n]["sound"]).write_bytes(b""),
    "text": lambda d, n: (d.root / d.rows[n]["words"]).write_text("1 2 3"),
    "three axes": lambda d, n: d.change(n, "sound", lambda a: a[None]),
    "turned": lambda d, n: d.change(n, "sound", lambda a: a.T),
    "wider": lambda d, n: d.change(n, "words", lambda a: np.append(a, 1)),
    "absent": lambda d, n: (d.root / d.rows[n]["sound"]).unlink(missing_ok=True),
    "no cell": assign("sound", ""),
    "cell of nan": assign("words", "nan"),
    "no cells": assign_all("words", lambda i: "" if i < 18 else f"words{i}.npy"),
    "words of two": assign_all("words", lambda i: f"words{i:02d}.npy" if i < 8 else ""),
    "one without words": assign_all("words", lambda i: f"words{i:02d}.npy" if i > 3 else ""),
    "twice": twice,
    "constant": lambda d, _: [d.save(row["words"], np.ones(4)) for row in d.rows],
    "still": lambda d, n: d.change(n, "sound", np.zeros_like),
    "dev": assign("split", "dev"),
    "both sides": assign("split", "test"),
    "one trains": assign_all("split", lambda i: "train" if i < N_EACH else "test"),
    "sessions": assign_all("session", lambda i: f"s{i % 3}"),
    "one class": assign_all("label", lambda i: "low" if i else "high"),
    "class of a person": assign_all("label", lambda i: ("low", "high")[i < N_EACH]),
    "no people": assign_all("speaker", lambda i: f"p{i}"),
    "two people": assign_all("speaker", lambda i: f"p{i % 2}"),
    "case": assign("speaker", "Kim"),
    "number": assign_all("speaker", lambda i: str(i % 5) + (".0" if i == 7 else "")),
    "number of label": assign_all("label", lambda i: ("0", "1", "1.0")[i % 3]),
    "scale": assign_all("label", lambda i: str(i / 7)),
}
OPTIONS = [
    *("--outer=session", "--outer=split", "--outer=3", "--outer=5", "--outer=7"),
    *("--missing=allow", "--frames=drop", "--frames=interpolate", "--duplicates=allow"),
    *("--normalise=speaker", "--modality=words", "--modality=sound", "--inner=2"),
]


def read_problems(said):
    """Give the problems of a message, whichever command printed it."""
    lines = [line.strip() for line in said.splitlines()]
    found = [
        re.sub(r"^(- |Problem: |error: )", "", line)
        for line in lines
        if line.startswith(("- ", "Problem: ", "error: ", "... and"))
    ]
    return sorted(line for line in found if not re.search(r"has \d+ problems?:$", line))


@pytest.fixture
def judge(monkeypatch, capsys, tmp_path):
    """Give the exit code and the problems of `check` and of a study up to its first fit."""

    def stop(*_):
        raise FitsError

    monkeypatch.setattr(runner, "_open_searches", stop)

    def run(table, options):
        checked = main(["check", str(table), *options])
        words = capsys.readouterr()
        first = checked, read_problems(words.out + words.err)
        out = tmp_path / "studies" / str(len([*tmp_path.glob("studies/*")]))
        study = ["study", f"--data={table}", f"--out={out}", "--statistics=minimal", *options]
        try:
            code = main(study)
        except FitsError:
            code = 0
        words = capsys.readouterr()
        return first, (code, read_problems(words.out + words.err) if code else [])

    return run


@pytest.mark.family
@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_has_one_verdict(tmp_path, judge, fault):
    data = Data(tmp_path)
    FAULTS[fault](data, 9)
    table = data.write()

    for options in ([], *([option] for option in OPTIONS)):
        checked, studied = judge(table, options)

        assert checked == studied, options


@pytest.mark.parametrize("seed", range(25))
def test_faults_together_have_one_verdict(tmp_path, judge, seed):
    data = Data(tmp_path, seed)
    names = data.rng.choice([*FAULTS], size=3, replace=False)
    for name in names:
        # A fault may take away the file that the next one would spoil.
        if all((tmp_path / row["sound"]).is_file() for row in data.rows):
            FAULTS[name](data, int(data.rng.integers(20)))
    options = data.rng.choice(OPTIONS, size=3, replace=False).tolist()
    checked, studied = judge(data.write(), options)

    assert checked == studied, (names.tolist(), options)


@pytest.mark.parametrize(
    ("fault", "options", "words"),
    [
        ("one trains", ["--outer=split"], "trains on a single speaker"),
        ("dev", ["--outer=split"], "holds 'dev'"),
        ("sessions", ["--outer=session"], "speaker(s) in several sessions"),
        ("no cells", [], "Modality 'words', fold 04: 0 utterances of 0 classes to learn"),
        ("words of two", ["--inner=2"], "of 0 classes to learn from and 4 to predict have"),
        ("no cells", [], "have it. Speakers without it: "),
        ("one without words", [], "of 2 classes to learn from and 0 to predict have it."),
        ("no people", ["--normalise=speaker"], "every speaker has a single utterance"),
        ("far too large", [], "-1e+300 is too large"),
        ("scale", [], "different numbers in 20 rows are a continuous target"),
        ("number", [], "'2' (rows 4, 14, 19) and '2.0' (row 9) differ only in spelling"),
        ("twice", [], "'u00' and 'u09' of speakers 'kim' and 'max' hold the same numbers"),
    ],
)
def test_what_no_study_can_use_is_refused_before_anything_is_fitted(
    tmp_path, judge, fault, options, words
):
    data = Data(tmp_path)
    FAULTS[fault](data, 9)

    checked, studied = judge(data.write(), options)

    assert checked == studied
    assert checked[0] == 2
    assert words in " ".join(checked[1])
