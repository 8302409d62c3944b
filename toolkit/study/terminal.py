"""What commands print: answers as JSON, tables and sentences; progress as a bar or lines."""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_POLL_INTERVAL = 1.0  # seconds between two looks at work
_LOG_INTERVAL = 5.0  # seconds without a line, where there is no terminal


def is_quiet() -> bool:
    """Check for ``--quiet``: nothing is printed but errors, and data that were asked for."""
    return logging.getLogger("toolkit").getEffectiveLevel() >= logging.ERROR


def print_json(content: Any) -> None:
    """Print plain data as JSON."""
    print(json.dumps(content, indent=1, ensure_ascii=False))  # noqa: T201


def list_some(names: Iterable[str], most: int = 5) -> str:
    """List the first names, and count the others."""
    listed = list(names)
    n_more = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {n_more:,} more" if n_more > 0 else "")


def print_lines(*lines: str) -> None:
    """Print sentences as they are, whatever the width of the terminal."""
    from rich.console import Console  # noqa: PLC0415  (not for the workers)

    for line in lines:
        Console().print(line, highlight=False, markup=False, soft_wrap=True)


def print_table(
    header: Iterable[object], rows: Iterable[Iterable[object]], total: Iterable[object] = ()
) -> None:
    """Print a table that shows every word, also where the terminal is narrow."""
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    for name in header:
        table.add_column(escape(str(name)), overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    if total := [escape(str(cell)) for cell in total]:
        table.add_row(*total, style="bold")
    Console().print(table)


@contextmanager
def show_work(
    work: str,
    n_parts: int | None = None,
    count: Callable[[], tuple[int, int, str]] | None = None,
) -> Iterator[Callable[[str], None]]:
    """Show how far some work is; give the function that counts a finished part by its name.

    On a terminal a bar moves once per second; elsewhere a line says it after 5 s without one.

    - n_parts: None where the number of parts is not known.
    - count: Gives finer steps (done, of how many) and what is running now, from a thread.
    """
    done: list[str] = []
    of_all = "" if n_parts is None else f" of {n_parts}"
    started = last = time.monotonic()
    ended = threading.Event()
    logger.info("%s", work)

    def log(line: str) -> None:
        nonlocal last
        last = time.monotonic()
        logger.info("%s", line)

    with _open_bar(work, n_parts) as update_bar:

        def watch() -> None:
            while not ended.wait(_POLL_INTERVAL):
                if _is_watched():
                    n, total, running = count() if count else (len(done), n_parts, "")
                    update_bar(completed=n, total=total, description=running or work)
                elif time.monotonic() - last > _LOG_INTERVAL:
                    running = count()[2] if count else ""
                    log(f"{running or work}: {len(done)}{of_all} done")

        def count_part(name: str) -> None:
            done.append(name)
            now = time.monotonic()
            if not _is_watched() and (count or now - last > _LOG_INTERVAL):
                left = ""
                # The first parts hold the start of the workers, too.
                if n_parts is not None and len(done) >= min(n_parts, 5):
                    seconds = (now - started) / len(done) * (n_parts - len(done))
                    left = f", about {_format_seconds(seconds)} left"
                log(f"{name}: {len(done)}{of_all} done{left}")

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield count_part
        finally:
            ended.set()
            watcher.join()


@contextmanager
def show_files(work: str, paths: Sequence[Path | None]) -> Iterator[Callable[[int, int], None]]:
    """Show how far the reading of files is: files, MB/s and the time left.

    The function that it gives takes the number of files that were read and of all files.
    """
    started = logged = time.monotonic()
    megabytes, n_counted = 0.0, 0
    with _open_bar(work, None) as update_bar:

        def update(done: int, total: int) -> None:
            nonlocal logged, megabytes, n_counted
            now = time.monotonic()
            megabytes += sum(map(_megabytes, paths[n_counted:done]))
            n_counted = done
            rate = megabytes / max(now - started, 1e-9)
            description = f"{work}, {rate:,.0f} MB/s"
            update_bar(completed=done, total=total, description=description)
            if not _is_watched() and now - logged > _LOG_INTERVAL:
                logged = now
                left = _format_seconds((now - started) / max(done, 1) * (total - done))
                message = "%s: %d of %d files, %.0f MB/s, about %s left"
                logger.info(message, work, done, total, rate, left)

        yield update


def _megabytes(path: Path | None) -> float:
    """Size of a file; 0 for one array of a file of many, and for a missing file."""
    try:
        return 0.0 if path is None else path.stat().st_size / 1e6
    except OSError:
        return 0.0


def _is_watched() -> bool:
    return sys.stderr.isatty() and logger.isEnabledFor(logging.INFO)


@contextmanager
def _open_bar(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    """Open a bar on a terminal; give the function that updates it, which is idle elsewhere."""
    if not _is_watched():
        yield lambda **_: None
        return
    from rich.console import Console  # noqa: PLC0415  (drawn on a terminal only)
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(description, total=total)

        def update(**changes: Any) -> None:
            bar.update(task, **changes)

        yield update


def _format_seconds(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
