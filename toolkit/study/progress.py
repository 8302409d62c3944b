"""Progress of a study: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

_POLL_INTERVAL = 1.0  # seconds between two counts of the finished trials
_LOG_INTERVAL = 10.0  # seconds between two lines where there is no terminal


@contextmanager
def show_study(
    n_trials: int, n_units: int, count: Callable[[], Mapping[str, tuple[int, float | None]]]
) -> Iterator[Callable[[str], None]]:
    """Show how far a study is; give the function that counts a unit whose files are written.

    `n_trials` is the number of all units together; `count` gives the finished trials and the
    best score of each search. It is called once per second, from a thread, on a terminal only.
    """
    done: set[str] = set()
    started = time.monotonic()
    ended = threading.Event()
    with _open_bar("searching", max(n_trials, 1)) as update_bar:

        def watch() -> None:
            while not ended.wait(_POLL_INTERVAL):
                counts = count()
                running = [
                    f"{name} trial {n}" + ("" if best is None else f", best {best:.3f}")
                    for name, (n, best) in counts.items()
                    if n and name not in done
                ]
                update_bar(
                    completed=sum(n for n, _ in counts.values()),
                    description="; ".join(running[:2]) or "searching",
                )

        def count_unit(name: str) -> None:
            done.add(name)
            if not _is_watched():
                left = (time.monotonic() - started) / len(done) * (n_units - len(done))
                message = "%s done (%d of %d units, about %s left)"
                logger.info(message, name, len(done), n_units, _format_seconds(left))

        watcher = threading.Thread(target=watch, daemon=True)
        if _is_watched():
            watcher.start()
        try:
            yield count_unit
        finally:
            ended.set()
            if watcher.is_alive():
                watcher.join()
        update_bar(completed=n_trials)


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
