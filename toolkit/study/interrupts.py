"""Interrupts: taken as one exception, and never left waiting for a library."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

#: Seconds that an interrupt may take before the process is ended where it stands.
_GRACE: Final = 3.0
#: Seconds until an interrupt that came at a bad moment comes again.
_PAUSE: Final = 0.02


def say_interrupted(interrupts: list[int]) -> int:
    """Say that the same command goes on, and give the exit code of an interrupt."""
    said = "Interrupted. Run the same command again to go on."
    print(said, file=sys.stderr, flush=True)  # noqa: T201
    return 128 + (interrupts[0] if interrupts else signal.SIGINT)


@contextmanager
def interruptible(interrupts: list[int]) -> Iterator[None]:
    """Let a polite request to end (SIGTERM) take the way of Ctrl-C, and note which it was."""
    over = threading.Event()

    def again(signum: int) -> None:
        if over.is_set():
            return
        if hasattr(signal, "pthread_kill"):
            # To this thread it would not end what the main one waits for.
            signal.pthread_kill(threading.main_thread().ident or 0, signum)
        else:
            signal.raise_signal(signum)

    def postpone(signum: int) -> None:
        later = threading.Timer(_PAUSE, again, (signum,))
        later.daemon = True
        later.start()

    def interrupt(signum: int, frame: FrameType | None) -> None:
        interrupts.append(signum)
        if not _is_called_back(frame):
            raise KeyboardInterrupt
        postpone(signum)

    def lose(lost: sys.UnraisableHookArgs) -> None:
        # What is raised in a finalizer or a library's callback is printed and lost.
        if interrupts and isinstance(lost.exc_value, KeyboardInterrupt):
            postpone(interrupts[0])
        else:
            loses(lost)

    # A process that was started deaf to Ctrl-C, as a shell's background jobs are, stays so.
    listening = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signals = [signal.SIGINT] * listening + [signal.SIGTERM] * (os.name != "nt")
    loses, sys.unraisablehook = sys.unraisablehook, lose
    before = {signum: signal.signal(signum, interrupt) for signum in signals}
    try:
        with _leave_when_deaf(signals, over):
            yield
    finally:
        over.set()
        for signum, handler in before.items():
            signal.signal(signum, handler)
        sys.unraisablehook = loses


def _is_called_back(frame: FrameType | None) -> bool:
    """Say whether XGBoost waits for an answer of Python's, as while it is handed its rows.

    An exception there is printed and lost, and XGBoost goes on with rows that it never got:
    it was seen to die of its own memory.
    """
    while frame is not None:
        if "xgboost" in PurePath(frame.f_code.co_filename).parts:
            return True
        frame = frame.f_back
    return False


@contextmanager
def _leave_when_deaf(signals: Sequence[int], ended: threading.Event) -> Iterator[None]:
    """End the process some seconds after an interrupt that the block did not end by.

    Python hears of a signal between two of its own steps, and one step can be a minute inside
    a library. Nothing is lost by leaving at once: what is finished is on the disk, what was
    begun is swept away by the next run, and workers leave with their parent.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch() -> None:
        while heard := os.read(reader, 1):
            if heard[0] in signals and not ended.wait(_GRACE):
                show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
                sys.stderr.write(show_cursor)
                os._exit(say_interrupted([heard[0]]))

    watcher = threading.Thread(target=watch, name="leave-when-deaf", daemon=True)
    watcher.start()
    earlier = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(earlier)
        ended.set()
        os.close(writer)
        watcher.join()
        os.close(reader)
