"""What a person sees while a study works: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from rich.progress import Progress

logger = logging.getLogger(__name__)

#: Seconds between two looks at how far the searches are.
_INTERVAL = 1.0


class StudyProgress:
    """Show how far a study is.

    - n_trials: Finished trials that all units of this run need together.
    - n_units: Units of this run.
    - count: Gives, for each search of this run, the number of finished trials and the best
      score so far. It is asked about once a second, from a thread, on a terminal only.
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
        if sys.stderr.isatty() and logger.isEnabledFor(logging.INFO):
            self._bar = make_bar()
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
        """Say that a unit's files are written."""
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
        while not self._stop.wait(_INTERVAL):
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
    """Show how far the pooling of one modality is, on a terminal.

    - modality: Its name.
    """

    def __init__(self, modality: str) -> None:
        self._modality = modality
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and logger.isEnabledFor(logging.INFO):
            self._bar = make_bar()
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
        """Say how many files are pooled."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)


def make_bar() -> Progress:
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
