"""Addresses of what a study may use beside its own process, checked before anything heavy."""

from __future__ import annotations

import re


def check_scheduler(address: str) -> str:
    """Check the address of a Dask scheduler."""
    if not re.fullmatch(r"(tcp|tls)://(\[[0-9a-fA-F:.]+\]|[^:/\s]+):\d{1,5}", address):
        raise ValueError(
            "write tcp://HOST:PORT, as `dask scheduler` prints it (tls:// where it is secured)"
        )
    return address


def normalise_storage(url: str) -> str:
    """Check the URL of an Optuna storage, and name its driver.

    Examples
    --------
    >>> normalise_storage("postgresql://anna@db/searches")
    'postgresql+psycopg://anna@db/searches'
    """
    scheme, separator, rest = url.partition("://")
    if separator and rest and scheme in {"postgresql", "postgresql+psycopg"}:
        return f"postgresql+psycopg://{rest}"
    if separator and rest.strip("/") and scheme == "sqlite":
        return url
    raise ValueError(
        "write postgresql+psycopg://USER@HOST:PORT/DATABASE (the password in PGPASSFILE), or "
        "sqlite:///FILE"
    )


def mask_password(text: str) -> str:
    """Take passwords out of a text that may hold the URL of a storage.

    Examples
    --------
    >>> mask_password("cannot reach postgresql://anna:se:cr@et@db/x?password=y")
    'cannot reach postgresql://anna:***@db/x?password=***'
    """
    # Up to the last @ of the word: a password may hold one, and a slash.
    text = re.sub(r"(://[^:/@\s]*):\S*@", r"\1:***@", text)
    return re.sub(r"(password=)[^&\s]*", r"\1***", text)
