"""``study.toml``, read and written: the options of a study as a file says them."""

from __future__ import annotations

import difflib
import json
import tomllib
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from toolkit.study.config import ConfigError, StudyConfig, identity_fields

if TYPE_CHECKING:
    from pathlib import Path


def load_config(path: Path | None, options: dict[str, Any]) -> StudyConfig:
    """Resolve a study from its TOML file and what the command line said."""
    said: dict[str, Any] = {}
    if path is not None:
        try:
            said = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"There is no study file {path}.") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise ConfigError(f"{path} cannot be read as TOML: {error}.") from None
        for key in ("data", "out"):
            if isinstance(said.get(key), str):
                said[key] = path.parent / said[key]
        for key in ("modality", "classes", "fusion"):
            if isinstance(said.get(key), str):
                said[key] = said[key].split(",")
        if isinstance(said.get("outer"), int):
            said["outer"] = str(said["outer"])
        for key in ("imbalance", "statistics", "screening"):
            if isinstance(said.get(key), list):
                said[key] = ",".join(map(str, said[key]))
    unknown = [key for key in said if key not in StudyConfig.model_fields]
    if unknown:
        raise ConfigError(
            "; ".join(f"{path}: unknown key {key!r}{nearest(key)}" for key in unknown)
        )
    try:
        return StudyConfig(**(said | options))
    except ValidationError as error:
        problems = [
            _describe_problem(problem["loc"], problem["input"], problem["msg"])
            for problem in error.errors()
        ]
        raise ConfigError("; ".join(problems) + ".") from None


def nearest(key: str) -> str:
    """Suggest the option nearest to an unknown one.

    Examples
    --------
    >>> nearest("trial")
    "; did you mean 'trials'?"
    """
    known = [name.replace("_", "-") for name in StudyConfig.model_fields]
    close = difflib.get_close_matches(key.replace("_", "-"), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def format_config(config: StudyConfig) -> str:
    """Write a resolved configuration as TOML."""
    plain = config.model_dump(mode="json") | config.identity()
    if config.sampler == "grid":
        plain["trials"] = config.n_trials  # unsaid, it is the size of the grid
    lines = ["# What decided this study's numbers; the data stand in provenance.json."]
    # Which late fusions and games there are decides no other number, and a report made again
    # needs it.
    for name in (*identity_fields(), "fusion", "shapley"):
        value = plain[name]
        if name != "data" and value is not None:
            lines.append(f"{name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _describe_problem(place: tuple[int | str, ...], given: Any, message: str) -> str:
    said = message.removeprefix("Value error, ")
    if not place:  # what is wrong with several options together
        return said
    option = f"--{str(place[0]).replace('_', '-')}"
    # A mistyped URL may hold a password anywhere, so it is not shown again.
    return f"{option}: {said}" if place[0] == "storage" else f"{option} {given!r}: {said}"


def _toml(value: Any) -> str:
    # A JSON string, number, list or boolean is TOML too; only mappings are written otherwise.
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)} = {_toml(value[key])}" for key in sorted(value))
        return "{" + ", ".join(pairs) + "}"
    return json.dumps(value, ensure_ascii=False)
