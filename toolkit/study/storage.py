"""Where the searches' finished trials are kept: a file in the study's folder, or a server."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from toolkit.study.config import ConfigError
from toolkit.study.files import format_json
from toolkit.study.urls import mask_password

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

#: More processes than this wait on one another for SQLite's single lock.
MOST_SQLITE_WORKERS: Final = 8


def storage_url(folder: Path) -> str:
    """Name the Optuna storage of a study that was given no other.

    Parameters
    ----------
    folder : Path
        The study's folder.

    Returns
    -------
    str
        URL of its ``search.db``.
    """
    return f"sqlite:///{(folder / 'search.db').resolve().as_posix()}"


def check_storage(url: str, n_workers: int) -> None:
    """Refuse more workers than a storage can take.

    Parameters
    ----------
    url : str
        URL of the storage.
    n_workers : int
        Processes that will write to it.

    Raises
    ------
    ConfigError
        If it is SQLite and they are more than eight.
    """
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
    """Name a study's searches in a storage.

    Parameters
    ----------
    study : str
        Name of the study.
    provenance : mapping
        What its numbers depend on.
    modalities : iterable of str
        What the search sees.
    shared : bool
        Whether studies of other folders may be in the storage. Their trials must never be
        taken for this study's, so the name then holds a hash of all that decides them.

    Returns
    -------
    str
        What comes before the system and the fold.
    """
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


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turn what a database says into one sentence without a password.

    Parameters
    ----------
    url : str
        URL of the storage.

    Yields
    ------
    None
        While the storage is used.

    Raises
    ------
    ConfigError
        If it cannot be reached or used.
    """
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  (keeps --help instant)

    try:
        yield
    except (SQLAlchemyError, ImportError) as error:
        if isinstance(error, ImportError) and "psycopg" not in str(error):
            raise
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        hint = (
            'pip install "modality-toolkit[cluster]"' if isinstance(error, ImportError) else ""
        )
        raise ConfigError(
            f"The storage {mask_password(url)} cannot be used: {mask_password(reason)}."
            + (f" Install its driver: {hint}." if hint else "")
        ) from None
