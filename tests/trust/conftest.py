"""A corpus of three sessions, small enough that a whole study of it takes two seconds."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.data import make_corpus
from toolkit.study import runner
from toolkit.study.config import StudyConfig
from toolkit.study.results import derive_study

#: Everything that looks at labels is on, and nothing of it is large.
OPTIONS = {
    "quick": True,
    "trials": 2,
    "outer": "session",
    "inner": 2,
    "imbalance": "smote",
    "screening": "ftest-4",
    "statistics": "minimal",
    "modality": ("text", "audio"),
    "workers": 1,
    "contributions": "none",
    "shapley": "none",
}


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    """Keep pooled tables of tests out of the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def dyads(build_once):
    """Folder of a corpus of three sessions and six speakers: text and audio of 8 dimensions."""
    return build_once("dyads", make_dyads, copy=False)


def make_dyads(folder):
    make_corpus(folder, n_utterances=90, dims={"visual": 8, "audio": 8, "text": 8})
    shutil.rmtree(folder / "features" / "visual_features")
    header, *rows = (folder / "dataset.csv").read_text().splitlines()
    place = [name.strip() for name in header.split(",")].index("visual_features")
    kept = [header, *(row for row in rows if row.startswith(("Ses01", "Ses02", "Ses03")))]
    cells = [line.split(",") for line in kept]
    lines = [",".join(row[:place] + row[place + 1 :]) for row in cells]
    (folder / "dataset.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def small_options():
    """Give what decides a study that is over soon."""
    return OPTIONS


@pytest.fixture(scope="session")
def finished(dyads, undrawn, build_once):
    """Folder of a whole study of text and audio with every fusion; not to be changed."""
    options = OPTIONS | {"trials": 1, "screening": "none", "imbalance": "none"}
    options |= {"contributions": "totals", "shapley": "late"}

    def make(folder):
        runner.run_study(StudyConfig(data=dyads / "dataset.csv", out=folder, **options))

    with undrawn():  # no test here looks at figures
        return build_once("fused", make)


@pytest.fixture
def run_units(monkeypatch):
    """Run a whole study but for its drawings: units, fusions, scores, the audit."""
    monkeypatch.setattr(runner, "collect_study", lambda folder, **_: derive_study(folder))

    def run(corpus, out, **options):
        said = OPTIONS | options
        return runner.run_study(StudyConfig(data=corpus / "dataset.csv", out=out, **said))

    return run


@pytest.fixture(scope="session")
def whole(run_faults, read_results, build_once):
    """Give an uninterrupted run of text: its ending, its files, and its folder."""

    def make(folder):
        # The first run also writes the cache of pooled features, which no later run does.
        _, ending = run_faults([{"out": folder / "cold"}, {"out": folder / "study"}])
        assert ending["code"] == 0, ending
        (folder / "ending.json").write_text(json.dumps(ending))

    folder = build_once("whole", make)
    ending = json.loads((folder / "ending.json").read_text())
    return ending, read_results(folder / "study"), folder / "study"


@pytest.fixture(scope="session")
def run_faults(dyads):
    """Run studies of text one after the other, each with a fault; give their endings."""

    def run(said, **options):
        options = OPTIONS | {"modality": ["text"], "screening": "none"} | options
        options["imbalance"] = "none"
        common = {"data": str(dyads / "dataset.csv"), "options": options}
        text = json.dumps([common | each | {"out": str(each["out"])} for each in said])
        program = [sys.executable, str(Path(__file__).with_name("faults.py"))]
        done = subprocess.run(
            program, input=text, capture_output=True, text=True, check=True, env=os.environ
        )
        return json.loads(done.stdout)

    return run


#: What must be the same whatever happened in between; no times in them.
_STABLE = ("*.csv", "*.toml", "*.md", "*.tex", "internal/*.csv", "internal/*.json")
_STABLE += ("internal/units/*/*.zip", "models/*", "models/*/*")


@pytest.fixture(scope="session")
def read_results():
    """Read all files of a study that must be the same whatever happened in between."""

    def read(folder):
        files = {path for pattern in _STABLE for path in folder.glob(pattern)}
        stable = {path for path in files if path.is_file() and path.name != "provenance.json"}
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in stable}

    return read
