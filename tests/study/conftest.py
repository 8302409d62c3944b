"""One finished study of two modalities and their fusions, by people of the worst names."""

import csv
import os
import shutil

import pytest

from toolkit.data import make_corpus
from toolkit.study import workers as workers_module
from toolkit.study.config import StudyConfig
from toolkit.study.runner import run_study

LABELS = {
    "0": "<script>alert('0')</script>",
    "1": "=1+1",
    "2": "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "3": '"$\\alpha$" & <b>%_#{}~^</b>',
}
SPEAKERS = {
    "F01": "<img src=x onerror=alert(1)>",
    "M01": "@SUM(A1)",
    "F02": "-2+3",
    "M02": "x" * 200,
    "F03": 'O\'Neill, "Jo"',
}
#: One per dimension of audio.
DIMENSIONS = (*LABELS.values(), *SPEAKERS.values(), "F0 mean")
OPTIONS = {
    "quick": True,
    "trials": 2,
    "outer": "4",
    "inner": 2,
    "imbalance": "none",
    "screening": "none",
    "statistics": "minimal",
    "modality": ("audio", "text"),
    "workers": 1,
}


#: A study of three modalities that is over soon.
SMALL = {
    "quick": True,
    "trials": 2,
    "outer": "3",
    "inner": 2,
    "imbalance": "none",
    "screening": "none",
    "statistics": "minimal",
    "modality": ("audio", "text", "visual"),
    "workers": 1,
}


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    """Keep pooled tables of tests out of the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def small_options():
    """Options of the study below."""
    return SMALL


@pytest.fixture(scope="module")
def finished(corpus, undrawn, build_once):
    """Folder of a finished study of three modalities, a copy for each file of tests."""

    def make(folder):
        run_study(StudyConfig(data=corpus / "dataset.csv", out=folder, **SMALL))

    with undrawn():
        return build_once("predicting", make)


@pytest.fixture(scope="session")
def contents():
    """Read all of a study but what says when and on what it ran, or keeps a search's clock."""
    unlike = {"provenance.json", "search.db", ".lock"}

    def read(folder):
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in files
            if path.name not in unlike
        }

    return read


@pytest.fixture(scope="session")
def hostile_dimensions():
    """Names of the dimensions of audio in the study below."""
    return list(DIMENSIONS)


@pytest.fixture(scope="session")
def hostile_study(build_once):
    """Folder of the finished study; its data set is gone."""
    return build_once("hostile", make_hostile_study) / "study"


def make_hostile_study(root):
    source = make_corpus(
        root / "corpus", n_utterances=160, dims={"visual": 8, "audio": 10, "text": 24}
    )
    with source.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    for row in rows:
        row[1], row[-2:] = SPEAKERS.get(row[1], row[1]), [LABELS[row[-2]]]
    with source.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header[:-1], *rows])
    (root / "names.txt").write_text("\n".join(DIMENSIONS), encoding="utf-8")
    names = {"audio": root / "names.txt"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_CACHE", str(root / "cache"))
        run_study(StudyConfig(data=source, out=root / "study", names=names, **OPTIONS))
    shutil.rmtree(root / "corpus")


@pytest.fixture
def synced(monkeypatch):
    """Collect the inodes of the files and folders that reach the disk in a test."""
    found, fsync = set(), os.fsync

    def note(descriptor):
        found.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return found


@pytest.fixture
def check_memory(monkeypatch):
    """Check the memory of tasks as if so many bytes were free."""

    def check(tasks, *, workers, available):
        monkeypatch.setattr("toolkit.study.workers._available_memory", lambda: available)
        workers_module.check_memory(tasks, workers=workers)

    return check
