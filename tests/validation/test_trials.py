"""The storage of a search: whole or named as damaged."""

import optuna
import pytest

from toolkit.validation.search import create_studies
from toolkit.validation.trials import find_damage


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "search.db"
    create_studies(f"sqlite:///{path}", {"text/00": ["text"]}, metric="f1_micro")
    return path


def test_a_sound_database_and_a_missing_one_have_no_damage(database):
    assert find_damage(database) == ""
    assert find_damage(database.with_name("none.db")) == ""


def test_a_cut_database_is_damaged(database):
    database.write_bytes(database.read_bytes()[: database.stat().st_size // 2])

    assert find_damage(database)


def test_a_trial_that_optuna_cannot_read_is_damage(database):
    study = optuna.load_study(storage=f"sqlite:///{database}", study_name="text/00")
    study.add_trial(optuna.trial.create_trial(value=0.5))  # without the number of a trial

    assert find_damage(database) == "'number'"
