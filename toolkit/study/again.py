"""The commands on a finished study: its report again, its numbers checked, its models used."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

_PREDICT_OPTIONS: Final = ("column", "missing", "frames")


def report_again(said: dict[str, Any]) -> int:
    """Make every derived file of a study again and show its scores."""
    from toolkit.study.collect import rebuild_report  # noqa: PLC0415  (keeps --help instant)
    from toolkit.study.present import describe_result, show_result  # noqa: PLC0415
    from toolkit.study.study_toml import load_config  # noqa: PLC0415

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
    from toolkit.study.options import read_options  # noqa: PLC0415
    from toolkit.study.predict import describe_new, format_new, predict_new  # noqa: PLC0415
    from toolkit.study.study_toml import load_config  # noqa: PLC0415

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
    from toolkit.study.reaudit import audit_folder  # noqa: PLC0415  (keeps --help instant)

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
    print(f"Verdict: {audit['verdict']}.")  # noqa: T201
    return 2 if audit["problems"] else 0
