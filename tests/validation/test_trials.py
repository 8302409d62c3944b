"""The storage of a search: whole or named as damaged."""

import sqlite3
from contextlib import closing

import optuna
import pytest

from toolkit.validation.search import count_trials, create_studies
from toolkit.validation.trials import find_damage, open_storage, sqlite_url


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "search.db"
    create_studies(f"sqlite:///{path}", {"text/00": ["text"]}, metric="f1_micro")
    return path


def change(database, statement):
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement)


@pytest.fixture
def connections(monkeypatch):
    """Connections that SQLAlchemy makes."""
    made, connect = [], sqlite3.dbapi2.connect

    def record(*args, **options):
        made.append(connect(*args, **options))
        return made[-1]

    monkeypatch.setattr(sqlite3.dbapi2, "connect", record)
    return made


def test_a_sound_database_and_a_missing_one_have_no_damage(database):
    assert find_damage(database) == ""
    assert find_damage(database.with_name("none.db")) == ""


def test_a_cut_database_is_damaged(database):
    database.write_bytes(database.read_bytes()[: database.stat().st_size // 2])

    assert find_damage(database)


def test_a_trial_that_optuna_cannot_read_is_damage(database):
    with open_storage(f"sqlite:///{database}") as storage:
        study = optuna.load_study(storage=storage, study_name="text/00")
        study.add_trial(optuna.trial.create_trial(value=0.5))  # without the number of a trial

    assert find_damage(database) == "'number'"


OTHER_VERSION = "UPDATE alembic_version SET version_num = 'none'"
OTHER_COLUMNS = "ALTER TABLE version_info RENAME COLUMN library_version TO version"


@pytest.mark.parametrize("statement", [OTHER_VERSION, OTHER_COLUMNS, None])
def test_no_connection_stays_open_if_the_storage_cannot_be_opened(
    database, connections, statement
):
    if statement is None:
        database.write_bytes(b"no database")
    else:
        change(database, statement)

    with pytest.raises(ValueError, match="searches in sqlite"):  # noqa: SIM117
        with open_storage(f"sqlite:///{database}"):
            pass
    assert_closed(connections)


def test_no_connection_stays_open_after_a_failure_in_the_block(database, connections):
    with pytest.raises(KeyError), open_storage(f"sqlite:///{database}") as storage:
        storage.get_study_id_from_name("none")
    assert_closed(connections)


def assert_closed(connections):
    assert connections
    for connection in connections:
        with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
            connection.execute("SELECT 1")


def test_a_database_of_another_version_of_optuna_is_refused_and_not_damaged(database):
    change(database, OTHER_VERSION)

    with pytest.raises(ValueError, match=r"^Optuna \S+ cannot read the searches in sqlite:"):
        find_damage(database)


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "r?seed=0",
        "a%20b",
        "a b",
        "x#y",
        "{SCHEMA_VERSION}",
        "mode=memory",
        "a&b",
        "é漢",
    ],
)
def test_each_folder_has_a_database_of_its_own_whatever_its_name(tmp_path, name):
    database = tmp_path / name / "search.db"
    database.parent.mkdir()
    url = sqlite_url(database)

    create_studies(url, {"text/00": ["text"]}, metric="f1_micro")

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [database]
    assert find_damage(database) == ""
    assert count_trials(url) == {"text/00": (0, None)}
