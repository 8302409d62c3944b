"""Fixtures that the rooms share: a small generated corpus, and studies without drawings."""

import importlib.util
import os
import shutil
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

# Before numpy is there: two processes of two spinning threads each take ten times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from filelock import FileLock

from toolkit.data import make_corpus, read_manifest
from toolkit.files import CHECKSUMS, format_json, hash_folder


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items):
    """Mark all but the first two of a family slow, and run the commands of the pages first."""
    counts = Counter()
    for item in items:
        if item.get_closest_marker("family"):
            counts[item.parent.nodeid, item.originalname] += 1
            if counts[item.parent.nodeid, item.originalname] > 2:
                item.add_marker(pytest.mark.slow)
    # At the end, one worker would wait for the other.
    items.sort(key=lambda item: item.path.name != "test_docs.py")


@pytest.fixture(scope="session")
def build_once(tmp_path_factory):
    """Build a folder once per run, in whichever worker needs it first, and give its path.

    Each worker gets a copy of its own; without one, nobody may change the folder.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def build(name, make, *, copy=True):
        folder = shared / f"{name}-once" / name
        folder.parent.mkdir(exist_ok=True)
        built = folder.with_name("built")
        with FileLock(folder.with_name("lock")):
            if not built.exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                built.touch()
        return shutil.copytree(folder, tmp_path_factory.mktemp(name) / name) if copy else folder

    return build


@pytest.fixture(scope="session")
def corpus(build_once):
    """Folder of a generated corpus of 150 utterances with few dimensions."""
    dims = {"visual": 8, "audio": 10, "text": 24}
    return build_once(
        "corpus", lambda folder: make_corpus(folder, n_utterances=150, dims=dims), copy=False
    )


@pytest.fixture(scope="session")
def manifest(corpus):
    """What the corpus' dataset.csv says."""
    return read_manifest(corpus / "dataset.csv")


@pytest.fixture(scope="session")
def opened():
    """Give a context in which a finished unit's archive is a folder, to be changed."""

    @contextmanager
    def open_archive(path, *, sums=False):
        folder = path.with_name(f"{path.stem} opened")
        with ZipFile(path) as archive:
            archive.extractall(folder)
        yield folder
        if sums:
            (folder / CHECKSUMS).write_text(format_json(hash_folder(folder)), encoding="utf-8")
        with ZipFile(path, "w") as archive:
            for file in sorted(folder.iterdir()):
                archive.write(file, file.name)
        shutil.rmtree(folder)

    return open_archive


@pytest.fixture(scope="session")
def undrawn():
    """Give a context in which studies write empty figures: drawing takes half of their time."""
    from toolkit.report import summarise_study  # noqa: PLC0415  (few tests need it)
    from toolkit.report.document import Figure, Matrix  # noqa: PLC0415
    from toolkit.study import collecting  # noqa: PLC0415

    def name_figures(facts):
        for part in summarise_study(facts).parts():
            if isinstance(part, Figure | Matrix):
                yield part.stem if isinstance(part, Figure) else part.name, None

    @contextmanager
    def leave_empty():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(collecting, "draw_figures", name_figures)
            patch.setattr(collecting, "render_figure", lambda *_, **__: b"")
            yield

    return leave_empty


@pytest.fixture
def no_drawings(undrawn):
    """Leave the figures of studies empty in one test."""
    with undrawn():
        yield


@pytest.fixture(scope="session")
def sounds():
    """Functions that make recordings."""
    path = Path(__file__).parent / "synthesise_recordings.py"
    spec = importlib.util.spec_from_file_location("synthesise_recordings", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def n_computed(monkeypatch):
    """Count the calls of openSMILE."""
    import opensmile  # noqa: PLC0415  (few tests need it)

    calls = []
    compute = opensmile.Smile.__call__
    monkeypatch.setattr(
        opensmile.Smile, "__call__", lambda *args: calls.append(1) or compute(*args)
    )
    return lambda: len(calls)
