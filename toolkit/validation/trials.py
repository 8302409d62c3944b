"""The Optuna storage of a search: opened with a timeout, checked for damage, read in order."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError


def sqlite_url(path: Path) -> str:
    """Build the address of a SQLite file whose path may hold any character."""
    # Joined by hand, a question mark would begin options and a percent sign an escape: two
    # studies could share one file.
    return URL.create("sqlite", database=path.resolve().as_posix()).render_as_string()


class _VersionError(ValueError):
    """Another version of Optuna wrote the storage of the searches."""


class _Storage(optuna.storages.RDBStorage):
    """An Optuna storage whose connections can all be closed, even if it does not open."""

    def __init__(self, url: str, options: dict[str, Any], *, check: bool) -> None:
        try:
            super().__init__(url, options, skip_compatibility_check=not check)
        except BaseException as error:
            self.close()
            if type(error) is RuntimeError:  # Optuna's check of the schema
                raise _VersionError(
                    f"Optuna {optuna.__version__} cannot read the searches in "
                    f"{make_url(url).render_as_string()}: another version wrote them. Install "
                    "that version, or set the searches aside: finished units are kept."
                ) from error
            raise

    def close(self) -> None:
        """Close the connections: the collector would, with a warning from Python 3.13 on."""
        if hasattr(self, "engine"):
            self.remove_session()
            self.engine.dispose()


@contextmanager
def open_storage(url: str, *, check: bool = True) -> Iterator[optuna.storages.RDBStorage]:
    """Open an Optuna storage while the block runs; the check of its version takes longest."""
    # A reader such as the dashboard may hold SQLite's lock for a while: wait, do not fail.
    options = {"connect_args": {"timeout": 100}} if url.startswith("sqlite") else {}
    try:
        with closing(_Storage(url, options, check=check)) as storage:
            yield storage
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        reason = str(getattr(cause, "orig", None) or cause or error).strip().rstrip(".?")
        file = "a full or read-only disk, or another program with the file open"
        server = "a server that is down, cannot be reached, or refused the login"
        # Rendered without the password; and no traceback, which would show it.
        raise ValueError(
            f"The searches in {make_url(url).render_as_string()} cannot be kept: {reason}. "
            f"Correct that ({file if url.startswith('sqlite') else server}) and run the same "
            "command again: finished units and trials are kept."
        ) from None


def find_damage(path: Path) -> str:
    """Describe the damage of a SQLite file of searches; empty if there is none, or no file.

    A file of another version of Optuna raises ValueError: that is no damage.
    """
    if not path.exists():
        return ""
    try:
        with closing(sqlite3.connect(path, timeout=100)) as database:
            ((message, *_), *_) = database.execute("PRAGMA quick_check").fetchall()
        if message != "ok":
            return str(message).partition("\n")[0]
        with open_storage(sqlite_url(path)) as storage:
            for summary in optuna.get_all_study_summaries(storage):
                study = optuna.load_study(storage=storage, study_name=summary.study_name)
                finished_trials(study.get_trials(deepcopy=False))
    except _VersionError:
        raise
    except sqlite3.OperationalError as error:
        # Another program has the file open: that is no damage.
        if "locked" in str(error) or "readonly" in str(error) or "unable to open" in str(error):
            return ""
        return str(error)
    except (sqlite3.Error, ValueError, KeyError, TypeError, AttributeError) as error:
        return str(error) or type(error).__name__
    return ""


def finished_trials(trials: list[optuna.trial.FrozenTrial]) -> list[optuna.trial.FrozenTrial]:
    """Return a search's finished trials by number, each once, up to the first that is missing.

    A trial is finished when COMPLETE, PRUNED, or FAIL with a `failure`: the booster's crash
    would recur at the same point, whereas a killed run leaves nothing to count.
    """
    found: dict[int, optuna.trial.FrozenTrial] = {}
    for trial in trials:
        done = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        if not done and not (trial.state == TrialState.FAIL and "failure" in trial.user_attrs):
            continue
        # Optuna's own numbers count trials that were killed, and those of an orphan twice.
        found.setdefault(trial.user_attrs["number"], trial)
    whole: list[optuna.trial.FrozenTrial] = []
    while (number := len(whole)) in found:
        whole.append(found[number])
    return whole
