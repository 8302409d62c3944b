"""Progress of a study: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from rich.progress import Progress

logger = logging.getLogger(__name__)

_POLL_INTERVAL = 1.0  # seconds between two counts of the finished trials
_LOG_INTERVAL = 10.0  # seconds between two lines where there is no terminal


class StudyProgress:
    """Show how far a study is.

    - n_trials: trials of all units of this run together.
    - count: a function that gives the finished trials and the best score of each search. It is
      called about once per second, from a thread, on a terminal only.
    """

    def __init__(
        self,
        n_trials: int,
        n_units: int,
        count: Callable[[], Mapping[str, tuple[int, float | None]]],
    ) -> None:
        self._n_trials = n_trials
        self._n_units = n_units
        self._count = count
        self._done: set[str] = set()
        self._started = time.monotonic()
        self._stop = threading.Event()
        self._bar: Progress | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if _is_watched():
            self._bar = _make_bar()
            self._bar.start()
            self._task = self._bar.add_task("searching", total=max(self._n_trials, 1))
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._bar is not None:
            if kind is None:
                self._bar.update(self._task, completed=self._n_trials)
            self._bar.stop()

    def unit_done(self, name: str) -> None:
        """Count a unit whose files are written."""
        self._done.add(name)
        if self._bar is None:
            spent = time.monotonic() - self._started
            left = spent / len(self._done) * (self._n_units - len(self._done))
            logger.info(
                "%s done (%d of %d units, about %s left)",
                name,
                len(self._done),
                self._n_units,
                format_seconds(left),
            )

    def _watch(self) -> None:
        while not self._stop.wait(_POLL_INTERVAL):
            counts = self._count()
            running = [
                f"{name} trial {done}" + ("" if best is None else f", best {best:.3f}")
                for name, (done, best) in counts.items()
                if done and name not in self._done
            ]
            assert self._bar is not None
            self._bar.update(
                self._task,
                completed=sum(done for done, _ in counts.values()),
                description="; ".join(running[:2]) or "searching",
            )


class PoolingProgress:
    """Show how far the pooling of a modality is: files, MB/s and the time left."""

    def __init__(self, modality: str, paths: Sequence[Path | None]) -> None:
        self._modality = modality
        self._paths = paths
        self._megabytes, self._n_counted = 0.0, 0
        self._bar: Progress | None = None
        self._started = self._logged = time.monotonic()

    def __enter__(self) -> Self:
        if _is_watched():
            self._bar = _make_bar()
            self._bar.start()
            self._task = self._bar.add_task(f"pooling {self._modality}", total=None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int) -> None:
        """Count the files that are done."""
        now = time.monotonic()
        self._megabytes += sum(map(_megabytes, self._paths[self._n_counted : done]))
        self._n_counted = done
        rate = self._megabytes / max(now - self._started, 1e-9)
        if self._bar is not None:
            text = f"pooling {self._modality}, {rate:,.0f} MB/s"
            self._bar.update(self._task, completed=done, total=total, description=text)
        elif now - self._logged > _LOG_INTERVAL:
            self._logged = now
            left = (now - self._started) / max(done, 1) * (total - done)
            logger.info(
                "%s: %d of %d files, %.0f MB/s, about %s left",
                self._modality,
                done,
                total,
                rate,
                format_seconds(left),
            )


def _megabytes(path: Path | None) -> float:
    """Size of a file; 0 for one array of a file of many, and for a missing file."""
    try:
        return 0.0 if path is None else path.stat().st_size / 1e6
    except OSError:
        return 0.0


def _is_watched() -> bool:
    return sys.stderr.isatty() and logger.isEnabledFor(logging.INFO)


def _make_bar() -> Progress:
    """Make a progress bar with a count and the time left, on standard error."""
    from rich.console import Console  # noqa: PLC0415  (drawn on a terminal only)
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def format_seconds(seconds: float) -> str:
    """Format a duration for a reader.

    Examples
    --------
    >>> format_seconds(125.4)
    '2 min 05 s'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
