"""The dashboard shows this machine a copy of the searches, and edits nothing."""

import http.client
import json
import logging
import re
import shutil
import socket
import tempfile
import threading
from types import SimpleNamespace
from wsgiref.simple_server import make_server

import numpy as np
import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore
from optuna_dashboard import get_note, wsgi

from toolkit.files import FolderError, hash_file
from toolkit.study import dashboard
from toolkit.study.cli import main
from toolkit.study.dashboard import (
    _HOST,
    _copy_searches,
    _name_search,
    _plain,
    _Quiet,
    _restrict,
    _Server,
)
from toolkit.study.folder import StudyFolder
from toolkit.validation import FINAL, Fold, create_studies
from toolkit.validation.folds import fold_name
from toolkit.validation.trials import open_storage, sqlite_url


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    url = sqlite_url(tmp_path_factory.mktemp("searches") / "search.db")
    create_studies(url, {"a/text/00": ["text"]}, metric="f1_micro")
    with open_storage(url) as opened:
        yield opened


@pytest.fixture(scope="module")
def port(storage):
    app = _restrict(wsgi(storage))
    with make_server(_HOST, 0, app, _Server, _Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def ask(port, method="GET", path="/api/studies", host=None):
    connection = http.client.HTTPConnection(_HOST, port, timeout=60)
    headers = {} if host is None else {"Host": host}
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8080", "LOCALHOST", "[::1]:80"])
def test_pages_of_this_machine_are_answered(port, host):
    status, body = ask(port, host=host)

    assert status == 200
    assert "a/text/00" in body


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "0.0.0.0"],
)
@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_pages_of_another_name_are_refused(port, host, method):
    status, body = ask(port, method, host=host)

    assert status == 403
    assert "a/text/00" not in body
    assert "The dashboard answers at 127.0.0.1 only." in body


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/api/studies/1"),
        ("POST", "/api/studies/1/rename"),
        ("PUT", "/api/studies/1/note"),
        ("POST", "/api/artifacts/1"),
        ("POST", "/api/trials/0/tell"),
        ("PATCH", "/api/studies/1"),
    ],
)
def test_nothing_can_be_edited_from_a_page(port, storage, method, path):
    status, body = ask(port, method, path)

    assert status == 405
    assert "The searches can only be read here." in body
    assert optuna.study.get_all_study_names(storage) == ["a/text/00"]


@pytest.fixture
def copied(hostile_study, tmp_path):
    """The copy of the searches of a finished study."""
    (tmp_path / "uploads").mkdir()
    store = FileSystemArtifactStore(str(tmp_path / "uploads"))
    return _copy_searches(StudyFolder(hostile_study), store)


def load_all(storage):
    """Give the studies of a storage by name."""
    return {
        name: optuna.load_study(study_name=name, storage=storage)
        for name in optuna.study.get_all_study_names(storage)
    }


def test_every_search_is_copied_under_the_names_of_those_held_out(hostile_study, copied):
    folder = StudyFolder(hostile_study)
    study = folder.read_study()
    expected = {}
    for fold in study.folds:
        people = np.unique(study.manifest.speakers[fold.test]).tolist()
        assert 2 <= len(people) <= 3  # ten speakers in four folds
        expected[fold_name(fold.number)] = f"held out {', '.join(people)}"
    expected[fold_name(FINAL)] = "final model"

    shown = load_all(copied)
    with open_storage(folder.storage_url) as storage:
        kept = load_all(storage)
        assert len(shown) == len(kept) + 1 == 3 * 5 + 1  # of audio, text and early
        for name, search in kept.items():
            _, system, number = name.rsplit("/", 2)
            copy = shown[f"{system}, {expected[number]}"]
            assert [t.params for t in copy.trials] == [t.params for t in search.trials]
            assert [t.values for t in copy.trials] == [t.values for t in search.trials]
            assert copy.best_value == search.best_value


def test_the_overview_is_listed_first_and_leads_to_every_search(copied):
    with make_server(_HOST, 0, _restrict(wsgi(copied)), _Server, _Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        found = json.loads(ask(server.server_port)[1])["study_summaries"]
        # The page sorts by falling number, unless its user wants another order.
        first, *others = sorted(found, key=lambda each: -each["study_id"])
        note = json.loads(ask(server.server_port, path=f"/api/studies/{first['study_id']}")[1])
        server.shutdown()
        thread.join()

    assert first["study_name"] == "Overview of study"
    lines = note["note"]["body"].splitlines()
    rows = [re.fullmatch(r"\| \[(.*)\]\((.*)\) \| (\d+) \| (.*) \|", line) for line in lines]
    rows = [row.groups() for row in rows if row]
    assert rows == [
        (
            _plain(each["study_name"]),
            f"/dashboard/studies/{each['study_id']}",
            "2",
            f"{copied.get_best_trial(each['study_id']).value:.3f}",
        )
        for each in others
    ]
    assert [name.split(",")[0] for name, *_ in rows] == ["audio"] * 5 + ["early"] * 5 + [
        "text"
    ] * 5


def test_scores_and_confusions_of_each_system_are_in_the_notes(hostile_study, copied):
    study = StudyFolder(hostile_study).read_study()
    labels = study.manifest.labels

    for name, search in load_all(copied).items():
        if name.startswith("Overview"):
            continue
        units = [study.read_unit(name.split(",")[0], fold.number) for fold in study.folds]
        y_pred = np.empty_like(labels)
        for fold, unit in zip(study.folds, units, strict=True):
            y_pred[fold.test] = unit.proba.argmax(axis=1)
        note = get_note(search)
        assert f"| F1-micro | {(y_pred == labels).mean():.3f} |" in note
        counts = np.bincount(y_pred[labels == 0], minlength=4).tolist()
        assert (
            f"| {_plain(study.manifest.classes[0])} | {' | '.join(map(str, counts))} |" in note
        )


def test_names_from_the_data_are_no_markup(copied):
    notes = [get_note(search) for search in load_all(copied).values()]

    assert not any("<img" in note or "<script" in note for note in notes)
    assert any("&#60;img src&#61;x" in note for note in notes)


def test_nothing_in_the_folder_of_the_study_changes(hostile_study, tmp_path):
    def digest():
        return {path: hash_file(path) for path in hostile_study.rglob("*") if path.is_file()}

    before = digest()

    _copy_searches(StudyFolder(hostile_study), FileSystemArtifactStore(str(tmp_path)))

    assert digest() == before


def test_a_system_that_is_not_finished_has_its_searches_and_no_scores(hostile_study, tmp_path):
    copy = shutil.copytree(hostile_study, tmp_path / "running")
    StudyFolder(copy).unit("text", 2).unlink()
    (tmp_path / "uploads").mkdir()

    shown = load_all(
        _copy_searches(StudyFolder(copy), FileSystemArtifactStore(str(tmp_path / "uploads")))
    )

    notes = {name: get_note(search) for name, search in shown.items()}
    assert {
        name.split(",")[0] for name, note in notes.items() if "3 of 4 outer folds" in note
    } == {"text", "Overview of running"}
    assert "F1-micro" in notes["early, final model"]
    assert "F1-micro" not in notes["text, final model"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("study/text/00", "text, held out Ses01F"),
        ("a/b/text/01", "text, held out A, B, C"),
        ("study/early/02", "early, held out A, B, C and 2 more"),
        ("study/text/final", "text, final model"),
        ("study/text/03", "study/text/03"),
        ("study/early/00 over audio, text", "early over audio, text, held out Ses01F"),
    ],
)
def test_a_search_is_named_by_those_held_out(name, expected):
    row = np.array([0])
    groups = [("Ses01F",), ("A", "B", "C"), ("A", "B", "C", "D", "E")]
    folds = [Fold(number, row, row, held) for number, held in enumerate(groups)]

    assert _name_search(name, folds) == expected


def test_a_folder_without_searches_is_refused_before_anything_is_announced(tmp_path, caplog):
    caplog.set_level(logging.INFO)

    with pytest.raises(FolderError, match=r"holds no search\.db: no search has started"):
        dashboard.dashboard_command(SimpleNamespace(arguments={"folder": tmp_path, "port": 0}))

    assert caplog.records == []


def test_the_end_leaves_no_copy_behind(hostile_study, tmp_path, monkeypatch, capsys):
    def interrupt(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(_Server, "serve_forever", interrupt)

    assert main(["dashboard", str(hostile_study), "--port", "0"]) == 0

    assert list(tmp_path.iterdir()) == []
    answer = capsys.readouterr().out
    assert re.search(r"Dashboard: http://127\.0\.0\.1:\d+/dashboard/studies/15/note", answer)
    assert "It shows 15 searches as they are now" in answer


def test_an_open_connection_holds_up_no_other(port):
    # A browser opens connections ahead of their use, and keeps them.
    with socket.create_connection((_HOST, port)):
        assert ask(port)[0] == 200
