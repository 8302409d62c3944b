"""The command line: a table of commands, their parser, and their exit codes.

Exit codes: 0 done; 2 the request or the data is wrong, in one clear message; 130 and 143
interrupted and resumable; 141 the reader of the output ended first; 1 a defect. A command's
module is imported after its options and its table of utterances are checked, so that ``--help``
and refusals answer at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path, PurePath
from types import FrameType
from typing import Any, Final, NamedTuple, get_args

from toolkit import __version__
from toolkit.study.config import StudyConfig, mask_password
from toolkit.study.options import Parser, Request

_Argument = tuple[str, dict[str, Any]]
#: Number of SIGPIPE, which Windows lacks.
_PIPE: Final = 13


def _argument(name: str, **settings: Any) -> _Argument:
    return name, settings


def _path(name: str, metavar: str, text: str | None = None, **settings: Any) -> _Argument:
    return name, {"type": Path, "metavar": metavar, "help": text, **settings}


def _count(text: str) -> int:
    """Read a number from 0, for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: write a number from 0")
    return int(text)


_DIR: Final = _path("folder", "DIR")
_SOURCE: Final = _path(
    "source", "DATASET.csv | STUDY.toml", "table of utterances, or file with options", nargs="?"
)


def _system(text: str) -> _Argument:
    return _argument("--system", metavar="NAME", help=text)


#: Options of a study that decide how its table is read.
_READING: Final = (
    *("data", "column", "table", "frames_columns", "extract", "label", "bins", "classes"),
    *("merge", "spellings", "outer"),
    *("missing", "frames", "root", "protocol"),
)


class _Command(NamedTuple):
    """One command.

    - target: module and function that carry it out.
    - arguments: its own arguments, as argparse takes them.
    - options: the options of a study that it has too.
    - reads_table: whether its table is read before the module is imported.
    """

    help: str
    target: str
    arguments: tuple[_Argument, ...] = ()
    options: tuple[str, ...] = ()
    reads_table: bool = False


_COMMANDS: Final = {
    "study": _Command(
        "search, fit and score each modality on held-out people",
        "toolkit.study.runner:study_command",
        (_SOURCE,),
        tuple(StudyConfig.model_fields),
        reads_table=True,
    ),
    "check": _Command(
        "validate a data set and describe it; run nothing",
        "toolkit.study.examining:check_command",
        (_SOURCE,),
        (
            *(*_READING, "content_parts", "duplicates", "modality", "names", "inner"),
            *("normalise", "seed"),
        ),
        reads_table=True,
    ),
    "report": _Command(
        "rebuild a study's report and all derived files from its folder",
        "toolkit.study.runner:report_command",
        (_DIR,),
    ),
    "verify": _Command(
        "recompute every number of a study, audit it, and name each difference",
        "toolkit.study.verify:verify_command",
        (_DIR,),
    ),
    "predict": _Command(
        "apply a study's final models to new utterances",
        "toolkit.study.predict:predict_command",
        (
            _DIR,
            _path("data", "NEW.csv"),
            _path(
                "--out",
                "FILE",
                "write the table to a .csv or .parquet file (default: print it); scores, "
                "where there are labels, go to FILE's name with .scores.csv",
            ),
            _system("predict by this system (default: the primary one)"),
            _argument(
                "--all-systems",
                action="store_true",
                help="predict by all systems, one below the other, with a column system",
            ),
        ),
        ("column", "table", "missing", "frames", "root"),
    ),
    "transfer": _Command(
        "score the final models of several studies on several labelled corpora",
        "toolkit.study.transfer_command:transfer_command",
        (
            _path(
                "inputs",
                "DIR | OTHER.csv",
                "folders of finished studies, and tables of labelled corpora",
                nargs="+",
            ),
            _system("score this system of each study (default: the primary one)"),
            _argument(
                "--metric",
                choices=get_args(StudyConfig.model_fields["metric"].annotation),
                default="f1_micro",
                help="score that is shown; transfer.csv has all (default: f1_micro)",
            ),
            _path("--out", "DIR", "folder of table, page and figure"),
        ),
        ("column", "table", "merge", "missing", "frames", "root", "figures"),
    ),
    "audit": _Command("the same as verify", "toolkit.study.verify:verify_command", (_DIR,)),
    "premium": _Command(
        "measure how much a leaking split would raise the scores",
        "toolkit.study.premium_command:premium_command",
        (
            _SOURCE,
            _argument(
                "--permutations",
                type=_count,
                default=99,
                metavar="N",
                help="permutations of the labels for the level of chance; 0 leaves it out "
                "(default: 99)",
            ),
            _argument(
                "--probes",
                action="store_true",
                help="also measure how well a linear probe tells label, speaker, content and "
                "columns of --by from the features, and draw them",
            ),
        ),
        (
            *("data", "column", "table", "label", "bins", "classes", "merge", "spellings"),
            *("missing", "frames", "frames_columns", "extract", "root", "content_parts", "by"),
            *("duplicates", "modality", "normalise", "statistics", "metric", "seed", "figures"),
            *("wide", "workers", "name", "out"),
        ),
    ),
    "pool": _Command(
        "write the pooled features only, one table per modality",
        "toolkit.study.examining:pool_command",
        (
            _SOURCE,
            _path("--out", "DIR", "folder of the tables", required=True),
            _argument(
                "--form",
                choices=("npy", "parquet"),
                default="npy",
                help="npy, or parquet (needs the extra formats) (default: npy)",
            ),
        ),
        (*_READING, "modality", "names", "statistics", "workers"),
        reads_table=True,
    ),
    "explain": _Command(
        "explain one utterance: contributions by modality, family and frame",
        "toolkit.study.explain_command:explain_command",
        (
            _DIR,
            _argument("utterance", metavar="UTTERANCE"),
            _system("which system explains (default: early, if any)"),
            _path("--data", "DATASET.csv", "where the data are now"),
        ),
        ("root", "table"),
    ),
    "dashboard": _Command(
        "show a study's searches in a browser on this machine",
        "toolkit.study.dashboard:dashboard_command",
        (
            _DIR,
            _argument(
                "--port",
                type=int,
                default=8080,
                metavar="N",
                help="where it listens (default: 8080)",
            ),
        ),
    ),
    "scan": _Command(
        "write the dataset.csv of a known corpus from its file names",
        "toolkit.study.datasets:scan_command",
        (
            _DIR,
            _argument(
                "--layout",
                type=str.lower,
                choices=("ravdess", "crema-d", "emo-db", "iemocap"),
                required=True,
                help="the corpus: ravdess, crema-d, emo-db or iemocap",
            ),
            _path(
                "--out",
                "FILE",
                "table to write, which must be new; its paths begin at its folder",
                required=True,
            ),
        ),
    ),
    "demo": _Command(
        "write the generated corpus in the layout of IEMOCAP",
        "toolkit.study.datasets:demo_command",
        (
            _DIR,
            _argument(
                "--full", action="store_true", help="5,531 utterances, visual T x 2048: 7 GB"
            ),
        ),
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command and give its exit code."""
    _open_closed_streams()
    words = sys.argv[1:] if argv is None else argv
    parser, parsers = _build_parser(words)
    options, unknown = parser.parse_known_args(words)
    parsers[options.command].refuse_unknown(unknown)
    arguments = vars(options)
    command = _COMMANDS[arguments.pop("command")]
    debug = arguments.pop("debug")
    level = logging.DEBUG if arguments.pop("verbose") else logging.INFO
    level = logging.ERROR if arguments.pop("quiet") else level
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("toolkit").setLevel(level)
    received: list[int] = []
    try:
        with _handle_interrupts(received):
            code = _carry_out(command, arguments)
            sys.stdout.flush()  # here a full disk or a closed pipe has an answer
            return code
    except KeyboardInterrupt:
        return _report_interrupt(received)
    except Exception as error:
        # Cleaning up after an interrupt may fail as well; that is the same interrupt.
        if received:
            return _report_interrupt(received)
        if isinstance(error, OSError) and _has_lost_reader(error):
            return 128 + _PIPE
        if debug or not isinstance(error, ValueError | OSError):
            trace = traceback.format_exc()
            if (shown := mask_password(trace)) == trace:
                raise
            print(shown, file=sys.stderr)  # noqa: T201
            return 1
        if isinstance(error, OSError):
            from toolkit.files import explain_trouble  # noqa: PLC0415  (instant --help)

            reason = explain_trouble(error)
        else:
            reason = str(error)
        print(f"error: {mask_password(reason)}", file=sys.stderr)  # noqa: T201
        return 2


def _open_closed_streams() -> None:
    """Open the null device in place of standard streams that are closed.

    Otherwise the next file to be opened takes their number, and libraries write into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _has_lost_reader(error: OSError) -> bool:
    """Check that nothing reads the output any more, as after ``| head``; drop what is left."""
    lost = False
    if isinstance(error, BrokenPipeError):
        # A pipe to another process, such as a worker, may have broken instead.
        with suppress(OSError, ValueError, AttributeError):  # the last on Windows
            poll = select.poll()
            poll.register(sys.stdout.fileno(), 0)
            lost = bool(poll.poll(0))
    try:
        sys.stdout.flush()
    except OSError:
        # Python would fail once more when it writes the rest: that goes elsewhere.
        with suppress(OSError, ValueError):  # a stream of a test or notebook has no number
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
    return lost


def _carry_out(command: _Command, arguments: dict[str, Any]) -> int:
    as_json = arguments.pop("json")
    names = [name.removeprefix("--").replace("-", "_") for name, _ in command.arguments]
    own = {name: arguments.pop(name) for name in names}
    request = Request.read(own, arguments, reads_table=command.reads_table, as_json=as_json)
    module, _, function = command.target.partition(":")
    code: int = getattr(import_module(module), function)(request)
    return code


def _build_parser(
    words: Collection[str] = tuple(_COMMANDS),
) -> tuple[Parser, dict[str, Parser]]:
    """Make the parsers of all commands, with the options of those that are among the words."""
    common = Parser(add_help=False)
    volume = common.add_mutually_exclusive_group()
    volume.add_argument("-v", "--verbose", action="store_true", help="show debug messages")
    volume.add_argument("--quiet", action="store_true", help="show errors only")
    common.add_argument("--json", action="store_true", help="print the result as JSON")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    common.add_argument(
        "--version", action="version", version=f"modality-toolkit {__version__}"
    )
    parser = Parser(
        prog="toolkit",
        description="Speaker-independent multimodal classification with gradient boosting.",
        parents=[common],
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    parsers: dict[str, Parser] = {}
    for name, command in _COMMANDS.items():
        parsers[name] = subparsers.add_parser(
            name,
            help=command.help,
            description=command.help.capitalize() + ".",
            parents=[common],
        )
        if name in words:  # the options of all commands take a tenth of a second
            for argument, settings in command.arguments:
                parsers[name].add_argument(argument, **settings)
            # As argparse does, take the beginning of --help-all for it.
            shows_all = any(word.startswith("--help-") for word in words)
            parsers[name].add_study_options(command.options, shows_all=shows_all)
    parsers[
        "explain"
    ].hint = (
        "; write -- before an utterance that begins with a minus: toolkit explain DIR -- -id"
    )
    return parser, parsers


#: Seconds until an interrupt that came at a bad moment is sent again.
_PAUSE: Final = 0.02


def _report_interrupt(received: list[int]) -> int:
    """Say that the same command goes on, and give the exit code of an interrupt."""
    message = "Interrupted. Run the same command again to go on."
    print(message, file=sys.stderr, flush=True)  # noqa: T201
    return 128 + (received[0] if received else signal.SIGINT)


@contextmanager
def _handle_interrupts(received: list[int]) -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C, record the signal, and repeat an interrupt that is lost."""
    ended = threading.Event()

    def send(signum: int) -> None:
        if ended.is_set():
            return
        if hasattr(signal, "pthread_kill"):
            # Sent to this thread, it would not end what the main one waits for.
            signal.pthread_kill(threading.main_thread().ident or 0, signum)
        else:
            signal.raise_signal(signum)

    def send_later(signum: int) -> None:
        timer = threading.Timer(_PAUSE, send, (signum,))
        timer.daemon = True
        timer.start()

    def interrupt(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        if not _is_called_back(frame):
            raise KeyboardInterrupt
        send_later(signum)

    def repeat_lost(lost: sys.UnraisableHookArgs) -> None:
        # Raised in a finalizer or a library's callback, it would be printed and lost.
        if received and isinstance(lost.exc_value, KeyboardInterrupt):
            send_later(received[0])
        else:
            earlier_hook(lost)

    # A process that ignores Ctrl-C from the start, as a shell's background job, still does.
    listens = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signals = [signal.SIGINT] * listens + [signal.SIGTERM] * (os.name != "nt")
    earlier_hook, sys.unraisablehook = sys.unraisablehook, repeat_lost
    handlers = {signum: signal.signal(signum, interrupt) for signum in signals}
    try:
        yield
    finally:
        ended.set()
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        sys.unraisablehook = earlier_hook


def _is_called_back(frame: FrameType | None) -> bool:
    """Check whether XGBoost is calling Python, as while it reads its rows.

    An exception there is printed and lost, and XGBoost goes on with rows that it never got:
    it was seen to die of its own memory.
    """
    while frame is not None:
        if "xgboost" in PurePath(frame.f_code.co_filename).parts:
            return True
        frame = frame.f_back
    return False
