"""The dashboard answers pages of this machine alone, several at once, and edits nothing."""

import http.client
import socket
import threading
from wsgiref.simple_server import make_server

import optuna
import pytest
from optuna_dashboard import wsgi

from toolkit.files import FolderError
from toolkit.study.dashboard import _HOST, _annotate_searches, _Quiet, _restrict, _Server
from toolkit.validation import create_studies
from toolkit.validation.trials import open_storage, sqlite_url


@pytest.fixture
def storage(tmp_path):
    url = sqlite_url(tmp_path / "search.db")
    create_studies(url, {"a/text/00": ["text"]}, metric="f1_micro")
    with open_storage(url) as opened:
        yield opened


@pytest.fixture
def port(storage):
    app = _restrict(wsgi(storage))
    with make_server(_HOST, 0, app, _Server, _Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
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


def test_no_picture_is_uploaded_through_a_link(storage, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "artifacts").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(FolderError, match="artifacts is a symbolic link"):
        _annotate_searches(tmp_path, storage)


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


def test_an_open_connection_holds_up_no_other(port):
    # A browser opens connections ahead of their use, and keeps them.
    with socket.create_connection((_HOST, port)):
        assert ask(port)[0] == 200
