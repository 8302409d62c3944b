"""The Optuna storage of a search: opened carefully, its trials sealed, its damage found.

It is a database that a dashboard may have open, a disk may fill up under, and a crash may tear.
A trial that is taken from it stands for minutes of fitting and decides all that follow, so each
carries a checksum of its own: one that was changed counts as not there and is run again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import optuna
from optuna.distributions import distribution_to_json
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

_SEAL: Final = "checksum"


class StorageError(ValueError):
    """The storage of the searches cannot be read or written."""


@contextmanager
def open_storage(url: str) -> Iterator[optuna.storages.RDBStorage]:
    """Open an Optuna storage while the block runs."""
    # A reader such as the dashboard may hold SQLite's lock for a while: wait, do not fail.
    options = {"connect_args": {"timeout": 100}} if url.startswith("sqlite") else {}
    try:
        storage = optuna.storages.RDBStorage(url, engine_kwargs=options)
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        said = str(getattr(cause, "orig", None) or cause or error).strip().rstrip(".?")
        file = "a full or read-only disk, or another program with the file open"
        server = "a server that does not run, cannot be reached, or lets nobody in by that name"
        raise StorageError(
            f"The searches in {make_url(url).render_as_string()} cannot be kept: {said}. Mend "
            f"that ({file if url.startswith('sqlite') else server}) and run the same command "
            "again: finished units and trials are kept."
        ) from None


def find_damage(path: Path) -> str:
    """Say what is wrong with a SQLite file of searches.

    Parameters
    ----------
    path : Path
        ``search.db``.

    Returns
    -------
    str
        Empty if nothing is, or if there is no such file.
    """
    if not path.exists():
        return ""
    # Opened by a person's own program it would be locked, and that is no damage.
    try:
        with closing(sqlite3.connect(path, timeout=100)) as database:
            ((said, *_), *_) = database.execute("PRAGMA quick_check").fetchall()
        if said != "ok":
            return str(said).partition("\n")[0]
        with open_storage(f"sqlite:///{path.resolve().as_posix()}") as storage:
            for summary in optuna.get_all_study_summaries(storage):
                trials = optuna.load_study(
                    storage=storage, study_name=summary.study_name
                ).get_trials(deepcopy=False)
                finished_trials(summary.study_name, trials)
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "readonly" in str(error) or "unable to open" in str(error):
            return ""
        return str(error)
    except (sqlite3.Error, ValueError, KeyError, TypeError, AttributeError) as error:
        return str(error) or type(error).__name__
    return ""


def seal(trial: optuna.trial.FrozenTrial) -> None:
    """Give a trial a checksum of all that is taken from it when a search goes on."""
    trial.set_user_attr(_SEAL, _checksum(trial))


def finished_trials(
    name: str, trials: list[optuna.trial.FrozenTrial]
) -> list[optuna.trial.FrozenTrial]:
    """Take the finished trials of a search, in order.

    What a crash left running counts for nothing, what it left twice once, and what is not as
    it was written is run again with all that follows.
    """
    found: dict[int, optuna.trial.FrozenTrial] = {}
    for trial in trials:
        done = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        if not done and not (trial.state == TrialState.FAIL and "failure" in trial.user_attrs):
            continue
        if trial.user_attrs.get(_SEAL) != _checksum(trial):
            logger.warning(
                "A trial of %s is not as it was written; the search goes on from before it.",
                name,
            )
            continue
        found.setdefault(trial.user_attrs["number"], trial)
    whole: list[optuna.trial.FrozenTrial] = []
    while (number := len(whole)) in found:
        whole.append(found[number])
    return whole


def _checksum(trial: optuna.trial.FrozenTrial) -> str:
    said = {
        "params": trial.params,
        "space": {
            name: distribution_to_json(space) for name, space in trial.distributions.items()
        },
        "state": trial.state.name,
        "value": trial.value,
        "steps": sorted(trial.intermediate_values.items()),
        "said": {name: each for name, each in trial.user_attrs.items() if name != _SEAL},
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
