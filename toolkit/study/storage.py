"""Where the searches' finished trials are kept: a file in the study's folder, or a server."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from typing import TYPE_CHECKING, Any, Final

from toolkit.files import format_json, free_name
from toolkit.study.config import ConfigError
from toolkit.study.urls import mask_password
from toolkit.validation import find_damage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

#: More processes than this wait on one another for SQLite's single lock.
MOST_SQLITE_WORKERS: Final = 8


def storage_url(folder: Path) -> str:
    """Name the Optuna storage of a study that was given no other."""
    return f"sqlite:///{(folder / 'search.db').resolve().as_posix()}"


def set_damaged_aside(database: Path) -> None:
    """Move a database of searches that cannot be trusted out of the way, and say so.

    Nothing is lost but the finished trials of unfinished units: those run again, to the same
    bytes, and finished units stand in files of their own.
    """
    if not (why := find_damage(database)):
        return
    aside = free_name(database)
    database.rename(aside)
    for end in ("-journal", "-wal", "-shm"):
        database.with_name(database.name + end).unlink(missing_ok=True)
    logger.warning(
        "%s is damaged (%s). It is now %s; finished units are kept, and searches that were "
        "not finished start again.",
        database,
        why,
        aside.name,
    )


def check_driver(url: str) -> None:
    """Refuse a server whose driver is not installed."""
    if url.startswith("postgresql") and importlib.util.find_spec("psycopg") is None:
        raise ConfigError(
            f"The storage {mask_password(url)} needs a driver that is not installed: "
            'pip install "modality-toolkit[cluster]".'
        )


def check_storage(url: str, n_workers: int) -> None:
    """Refuse more workers than a storage can take."""
    if url.startswith("sqlite") and n_workers > MOST_SQLITE_WORKERS:
        raise ConfigError(
            f"{n_workers} workers would write to one SQLite file, which takes one writer at a "
            f"time: beyond {MOST_SQLITE_WORKERS} they wait for its lock until they fail. Use "
            f"at most {MOST_SQLITE_WORKERS} (--workers), or --storage "
            "postgresql+psycopg://USER@HOST/DATABASE."
        )


def search_name(
    study: str, provenance: Mapping[str, Any], modalities: Iterable[str], *, shared: bool
) -> str:
    """Name a study's searches in a storage."""
    if not shared:
        return study
    data = provenance["data"]
    decides = {
        "identity": provenance["identity"],
        "rows": data["rows"],
        "features": [data["modalities"][name] for name in modalities],
        "versions": provenance["versions"],
        "platform": provenance["platform"],
    }
    digest = hashlib.sha256(format_json(decides).encode("utf-8")).hexdigest()
    return f"{study}-{digest[:16]}"
