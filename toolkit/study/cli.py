"""The command line: what was asked, carried out, and answered in words.

Exit codes: 0 done; 2 the request or the data is wrong, in one clear message; 130 and 143
interrupted and resumable; 1 a defect. Everything scientific is imported inside the commands,
so that ``--help`` and refused options answer at once.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Final

from toolkit import __version__
from toolkit.study.config import mask_password
from toolkit.study.options import (
    Parser,
    add_study_options,
    load_config,
    read_options,
    refuse_unknown,
)
from toolkit.study.pool_command import OPTIONS as POOL_OPTIONS
from toolkit.study.pool_command import add_pool_options, pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

_PREDICT_OPTIONS: Final = ("column", "missing", "frames")


def report_again(said: dict[str, Any]) -> int:
    """Make every derived file of a study again and show its scores."""
    from toolkit.study.options import load_config  # noqa: PLC0415
    from toolkit.study.results import rebuild_report  # noqa: PLC0415  (keeps --help instant)
    from toolkit.study.terminal import describe_result, show_result  # noqa: PLC0415

    folder: Path = said["folder"]
    result = rebuild_report(folder)
    if said["json"]:
        print(json.dumps(describe_result(result), indent=1, ensure_ascii=False))  # noqa: T201
    else:
        show_result(result, load_config(folder / "study.toml", {}).metric)
    return 0


def verify_again(said: dict[str, Any]) -> int:
    """Compute every number of a study again and say what differs."""
    from toolkit.study.verify import verify_study  # noqa: PLC0415  (keeps --help instant)

    checks = verify_study(said["folder"])
    differences = [sentence for check in checks for sentence in check.differences]
    if said["json"]:
        print(json.dumps([asdict(check) for check in checks], indent=1, ensure_ascii=False))  # noqa: T201
    else:
        for check in checks:
            verdict = "differs" if check.differences else "as computed again"
            print(f"{check.name}: {verdict} ({check.n:,} compared)")  # noqa: T201
            for sentence in check.differences:
                print(f"  {sentence}")  # noqa: T201
        print(  # noqa: T201
            f"{len(differences)} differences."
            if differences
            else "Every number is what the saved predictions and units give."
        )
    return 2 if differences else 0


def predict_again(said: dict[str, Any]) -> int:
    """Apply a study's final models to new utterances."""
    from toolkit.files import write_text  # noqa: PLC0415  (keeps --help instant)
    from toolkit.study.options import load_config, read_options  # noqa: PLC0415
    from toolkit.study.predict import describe_new, format_new, predict_new  # noqa: PLC0415

    options = {name: word for name, word in said.items() if name in _PREDICT_OPTIONS}
    config = load_config(None, read_options(options))
    result = predict_new(
        said["folder"],
        said["data"],
        columns=config.column,
        missing=config.missing if "missing" in said else None,
        frames=config.frames if "frames" in said else None,
    )
    if said["json"]:
        print(json.dumps(describe_new(result), indent=1, ensure_ascii=False))  # noqa: T201
        return 0
    out: Path | None = said["out"]
    if out is None:
        sys.stdout.write(format_new(result))
    else:
        write_text(out, format_new(result))
        print(f"{len(result.utterances):,} utterances, {len(result.systems)} systems: {out}")  # noqa: T201
    return 0


def audit_again(said: dict[str, Any]) -> int:
    """Derive the leakage verdict again and say it."""
    from toolkit.study.verify import audit_folder  # noqa: PLC0415  (keeps --help instant)

    audit = audit_folder(said["folder"])
    if said["json"]:
        print(json.dumps(audit, indent=1, ensure_ascii=False))  # noqa: T201
        return 2 if audit["problems"] else 0
    n_fits = sum(system["fits_and_choices"] for system in audit["systems"].values())
    print(  # noqa: T201
        f"{n_fits:,} fits and choices of {len(audit['systems'])} systems in "
        f"{audit['n_folds']} folds that hold out one {audit['held_out_unit']} or more; "
        f"{audit['n_tested']:,} of {audit['n_utterances']:,} utterances tested, each once."
        if not audit["problems"]
        else f"{len(audit['problems'])} problems:"
    )
    by_role = Counter[str]()
    for system in (*audit["systems"].values(), *audit["final_models"].values()):
        by_role.update(system["by_role"])
    for role, n in by_role.items():
        print(f"  {role}: {n:,}")  # noqa: T201
    for sentence in audit["problems"]:
        print(f"  {sentence}")  # noqa: T201
    print(f"FusedPredictions: {audit['verdict']}.")  # noqa: T201
    return 2 if audit["problems"] else 0


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


logger = logging.getLogger(__name__)

#: Options of a study that say how to read its data; `check` has them too.
_DATA_OPTIONS = (
    "column",
    "label",
    "classes",
    "merge",
    "outer",
    "missing",
    "frames",
    "duplicates",
    "modality",
)
#: What of a study's options `premium` needs: it searches nothing and holds out by itself.
_PREMIUM_OPTIONS = (
    "data",
    *(name for name in _DATA_OPTIONS if name != "outer"),
    "normalise",
    "statistics",
    "metric",
    "seed",
    "workers",
    "name",
    "out",
)


def build_parser() -> tuple[Parser, dict[str, Parser]]:
    """Describe the commands and their options."""
    common = Parser(add_help=False)
    talk = common.add_mutually_exclusive_group()
    talk.add_argument("-v", "--verbose", action="store_true", help="say more")
    talk.add_argument("--quiet", action="store_true", help="say nothing but what is wrong")
    common.add_argument("--json", action="store_true", help="answer in JSON on standard output")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    common.add_argument(
        "--version", action="version", version=f"modality-toolkit {__version__}"
    )
    parser = Parser(
        prog="toolkit",
        description="How well does each modality predict the label of a person never seen?",
        parents=[common],
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    made: dict[str, Parser] = {}
    for name, (text, _) in _commands().items():
        made[name] = commands.add_parser(
            name, help=text, description=text.capitalize() + ".", parents=[common]
        )
    for name in ("study", "premium"):
        made[name].add_argument(
            "study", nargs="?", type=Path, metavar="STUDY.toml", help="options from a file"
        )
    add_study_options(made["study"])
    for flag in _PREMIUM_OPTIONS:
        _copy_option(made["study"], made["premium"], flag)
    made["check"].add_argument("data", type=Path, metavar="DATASET.csv")
    for flag in _DATA_OPTIONS:
        _copy_option(made["study"], made["check"], flag)
    add_pool_options(made["pool"])
    for flag in POOL_OPTIONS:
        _copy_option(made["study"], made["pool"], flag)
    for name in ("demo", "report", "verify", "audit", "explain", "dashboard"):
        made[name].add_argument("folder", type=Path, metavar="DIR")
    made["predict"].add_argument("folder", type=Path, metavar="DIR")
    made["predict"].add_argument("data", type=Path, metavar="NEW.csv")
    made["predict"].add_argument(
        "--out", type=Path, metavar="FILE", help="write the table there (default: print it)"
    )
    for flag in ("column", "missing", "frames"):
        _copy_option(made["study"], made["predict"], flag)
    made["explain"].add_argument("utterance", metavar="UTTERANCE")
    made["explain"].add_argument(
        "--system", metavar="NAME", help="which system explains (default: early, if any)"
    )
    made["explain"].add_argument(
        "--data", type=Path, metavar="DATASET.csv", help="where the data are now"
    )
    made["dashboard"].add_argument(
        "--port", type=int, default=8080, metavar="N", help="where it listens (default: 8080)"
    )
    made["demo"].add_argument(
        "--full", action="store_true", help="5,531 utterances, visual T x 2048: 7 GB"
    )
    return parser, made


def _commands() -> dict[str, tuple[str, Callable[[dict[str, Any]], int]]]:
    """Name every command, what it is for, and what carries it out."""
    return {
        "study": ("search, fit and score each modality on people held out", _study),
        "check": ("validate a data set and describe it; run nothing", _check),
        "report": (
            "make a study's report and all derived files again from its folder",
            report_again,
        ),
        "verify": ("compute every number of a study again and say what differs", verify_again),
        "predict": ("apply a study's final models to new utterances", predict_again),
        "audit": ("derive the leakage verdict again from a study's files", audit_again),
        "premium": ("show what a split that leaks would add to the scores", _premium),
        "pool": ("write the pooled features alone, a table a modality", pool),
        "explain": ("explain one utterance: what contributed, and when", _explain),
        "dashboard": (
            "look at a study's searches in a browser, here only",
            _dashboard,
        ),
        "demo": ("write a generated corpus in the layout of the task", _demo),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command."""
    parser, made = build_parser()
    options, unknown = parser.parse_known_args(argv)
    refuse_unknown(made[options.command], unknown)
    said = vars(options)
    command = said.pop("command")
    debug = said.pop("debug")
    level = logging.DEBUG if said.pop("verbose") else logging.INFO
    level = logging.ERROR if said.pop("quiet") else level
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("toolkit").setLevel(level)
    run = _commands()[command][1]
    interrupts: list[int] = []
    try:
        with interruptible(interrupts):
            return run(said)
    except KeyboardInterrupt:
        return say_interrupted(interrupts)
    except Exception as error:
        # What was interrupted may fail while it is put away; that is the same interrupt.
        if interrupts:
            return say_interrupted(interrupts)
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


def _study(said: dict[str, Any]) -> int:
    as_json = said.pop("json")
    path = said.pop("study")
    config = load_config(path, read_options(said))
    from toolkit.study.options import read_table  # noqa: PLC0415

    manifest = read_table(config, config.data) if config.data else None
    from toolkit.study import runner, terminal  # noqa: PLC0415  (the table may be refused)
    from toolkit.study.plan import estimate_study, plan_study  # noqa: PLC0415

    if config.dry_run:
        plan = plan_study(config, manifest)
        estimate = estimate_study(plan)
        if as_json:
            _print_json(terminal.describe_plan(plan, estimate))
        else:
            terminal.show_plan(plan, estimate)
        return 0
    result = runner.run_study(config, manifest)
    if config.only is not None and not as_json:
        print(  # noqa: T201
            f"{config.only} is written in {result.folder}; when the units you want are done, "
            f"toolkit report {result.folder} collects them."
        )
    elif as_json:
        _print_json(terminal.describe_result(result))
    else:
        terminal.show_result(result, config.metric)
    return 0


def _check(said: dict[str, Any]) -> int:
    as_json = said.pop("json")
    data = said.pop("data")
    config = load_config(None, read_options(said))
    from toolkit.data import summarise_manifest  # noqa: PLC0415
    from toolkit.study.options import read_table  # noqa: PLC0415

    manifest = read_table(config, data)
    summary = summarise_manifest(
        manifest,
        missing=config.missing,
        frames=config.frames,
        duplicates=config.duplicates,
    )
    from toolkit.study import terminal  # noqa: PLC0415  (the table may be refused)

    if as_json:
        _print_json(terminal.describe_summary(summary))
    else:
        terminal.show_summary(summary, manifest.ignored)
    return 2 if summary.problems else 0


def _premium(said: dict[str, Any]) -> int:
    as_json = said.pop("json")
    path = said.pop("study")
    config = load_config(path, read_options(said))
    from toolkit.study import premium_command  # noqa: PLC0415

    result = premium_command.run_premium(config)
    if as_json:
        _print_json(premium_command.describe_result(result))
    else:
        premium_command.show_result(result)
    return 0


def _explain(said: dict[str, Any]) -> int:
    from toolkit.study.explain_command import show_explained  # noqa: PLC0415

    return show_explained(said)


def _dashboard(said: dict[str, Any]) -> int:
    from toolkit.study.dashboard import serve_dashboard  # noqa: PLC0415

    return serve_dashboard(said["folder"], said["port"])


def _demo(said: dict[str, Any]) -> int:
    from toolkit.data import make_corpus  # noqa: PLC0415

    source = make_corpus(said["folder"], full=said["full"])
    if said["json"]:
        _print_json({"data": str(source)})
    else:
        print(f"Generated data, with a planted signal: {source}")  # noqa: T201
    return 0


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=1, ensure_ascii=False))  # noqa: T201


def _copy_option(source: Parser, target: Parser, flag: str) -> None:
    action = source._option_string_actions[f"--{flag}"]  # noqa: SLF001  (argparse has no getter)
    target._add_action(action)  # noqa: SLF001
