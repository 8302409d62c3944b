"""Explanations: the same bytes by one worker and by two, and after a death in between."""

import os
import signal
import subprocess
import sys

import pytest

from toolkit.data import make_corpus
from toolkit.study.config import StudyConfig
from toolkit.study.runner import run_study

SAID = {
    "trials": 1,
    "outer": "3",
    "inner": 2,
    "imbalance": "none",
    "screening": "none",
    "statistics": "minimal",
    "quick": True,
    "modality": ("audio", "text"),
    "fusion": ("early",),
    "shapley": "refit",
    "contributions": "full",
}

#: Dies before the renaming into a place that the first argument ends.
DYING = """
import os, signal, sys
from pathlib import Path

place = sys.argv.pop(1)

def dying(move):
    def moved(path, target):
        if Path(target).as_posix().endswith(place):
            os.kill(os.getpid(), signal.SIGKILL)
        return move(path, target)
    return moved

Path.rename, Path.replace = dying(Path.rename), dying(Path.replace)
from toolkit.study.cli import main

sys.exit(main())
"""


pytestmark = pytest.mark.usefixtures("no_drawings")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))


def explained(folder):
    """Bytes of all that explaining wrote."""
    places = [folder / "explain", *sorted((folder / "internal" / "units").glob("*-permuted"))]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for place in places
        for path in place.rglob("*")
        if path.is_file()
    }


def words(source, folder):
    said = {
        name: ",".join(v) if isinstance(v, tuple) else v
        for name, v in SAID.items()
        if v is not True
    }
    text = [f"--{name}={value}" for name, value in said.items()]
    return ["study", f"--data={source}", f"--out={folder}", "--quick", *text]


@pytest.mark.nightly
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_workers_and_deaths_change_no_byte_of_an_explanation(tmp_path):
    dims = {"visual": 8, "audio": 8, "text": 8}
    source = make_corpus(tmp_path / "corpus", n_utterances=90, dims=dims)
    run_study(StudyConfig(data=source, out=tmp_path / "one", workers=1, **SAID))

    folder = tmp_path / "killed"
    left = []
    for place in ("contributions/text", "early-permuted/01.zip"):
        dead = subprocess.run(
            [sys.executable, "-c", DYING, place, *words(source, folder), "--workers=1"],
            capture_output=True,
            check=False,
        )
        assert dead.returncode == -signal.SIGKILL
        assert not (folder / "explain" / "shares.csv").exists()
        left.append(len(list(folder.glob("explain/contributions/[a-z]*"))))
    run_study(StudyConfig(data=source, out=folder, workers=2, **SAID))

    assert left == [1, 3]
    assert explained(folder) == explained(tmp_path / "one")
    assert "explain/contributions/early/full.npy" in explained(folder)
