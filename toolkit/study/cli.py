"""The command line: what was asked, carried out, and answered in words.

Exit codes: 0 done; 2 the request or the data is wrong, in one clear message; 130 and 143
interrupted and resumable; 1 a defect. Everything scientific is imported inside the commands,
so that ``--help`` and refused options answer at once.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import __version__
from toolkit.study.again import audit_again, predict_again, report_again, verify_again
from toolkit.study.interrupts import interruptible, say_interrupted
from toolkit.study.options import Parser, add_study_options, read_options, refuse_unknown
from toolkit.study.pool_command import OPTIONS as POOL_OPTIONS
from toolkit.study.pool_command import add_pool_options, pool
from toolkit.study.study_toml import load_config
from toolkit.study.urls import mask_password

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
    from toolkit.study.table import read_table  # noqa: PLC0415  (keeps --help instant)

    manifest = read_table(config, config.data) if config.data else None
    from toolkit.study import present, runner  # noqa: PLC0415  (the table may be refused)
    from toolkit.study.estimate import estimate_study  # noqa: PLC0415
    from toolkit.study.plan import plan_study  # noqa: PLC0415

    if config.dry_run:
        plan = plan_study(config, manifest)
        estimate = estimate_study(plan, config, config.n_workers)
        if as_json:
            _print_json(present.describe_plan(plan, estimate))
        else:
            present.show_plan(plan, config, estimate)
        return 0
    result = runner.run_study(config, manifest)
    if config.only is not None and not as_json:
        print(  # noqa: T201
            f"{config.only} is written in {result.folder}; when the units you want are done, "
            f"toolkit report {result.folder} collects them."
        )
    elif as_json:
        _print_json(present.describe_result(result))
    else:
        present.show_result(result, config.metric)
    return 0


def _check(said: dict[str, Any]) -> int:
    as_json = said.pop("json")
    data = said.pop("data")
    config = load_config(None, read_options(said))
    from toolkit.data import summarise_manifest  # noqa: PLC0415
    from toolkit.study.table import read_table  # noqa: PLC0415

    manifest = read_table(config, data)
    summary = summarise_manifest(
        manifest,
        missing=config.missing,
        frames=config.frames,
        duplicates=config.duplicates,
    )
    from toolkit.study import present  # noqa: PLC0415  (the table may be refused)

    if as_json:
        _print_json(present.describe_summary(summary))
    else:
        present.show_summary(summary, manifest.ignored)
    return 2 if summary.problems else 0


def _premium(said: dict[str, Any]) -> int:
    as_json = said.pop("json")
    path = said.pop("study")
    config = load_config(path, read_options(said))
    from toolkit.study import premium  # noqa: PLC0415

    result = premium.run_premium(config)
    if as_json:
        _print_json(premium.describe_result(result))
    else:
        premium.show_result(result)
    return 0


def _explain(said: dict[str, Any]) -> int:
    from toolkit.study.utterance import show_explained  # noqa: PLC0415

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
