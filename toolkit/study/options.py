"""The options of a study, read from the command line and from ``study.toml``.

Their names, help texts and defaults are those of :class:`~toolkit.study.config.StudyConfig`.
An option that is not given is left out here, so that ``study.toml`` or the default decides.
"""

from __future__ import annotations

import argparse
import difflib
import json
import tomllib
import types
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, Union, get_args, get_origin

from pydantic import ValidationError

from toolkit.study.config import ConfigError, StudyConfig

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from toolkit.data import Manifest


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A command line, checked.

    - arguments: the command's own arguments.
    - manifest: None where the command reads no table, or the study has generated data.
    - as_json: whether the answer is JSON on standard output.
    """

    arguments: Mapping[str, Any]
    config: StudyConfig
    manifest: Manifest | None
    as_json: bool

    @classmethod
    def read(
        cls,
        own: Mapping[str, Any],
        words: Mapping[str, Any],
        *,
        reads_table: bool,
        as_json: bool,
    ) -> Self:
        """Resolve the study that a command line names, and read its table where needed.

        - own: the command's own arguments.
        - words: options of a study, as the parser gives them.
        """
        config = load_config(own.get("study"), _read_options(words))
        manifest = None
        if reads_table and (data := own.get("data", config.data)):
            manifest = read_table(config, data)
        return cls(own, config, manifest, as_json)


def load_config(path: Path | None, options: dict[str, Any]) -> StudyConfig:
    """Resolve a study from its TOML file and the options of the command line."""
    keys: dict[str, Any] = {}
    if path is not None:
        try:
            keys = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"There is no study file {path}.") from None
        except (ValueError, OSError, RecursionError) as error:  # the last if nested deeply
            raise ConfigError(f"{path} cannot be read as TOML: {error}.") from None
        _split_keys(keys, path.parent)
        if isinstance(keys.get("outer"), int):
            keys["outer"] = str(keys["outer"])
        for key in ("imbalance", "statistics", "screening"):
            if isinstance(keys.get(key), list):
                keys[key] = ",".join(map(str, keys[key]))
    unknown = [key for key in keys if key not in StudyConfig.model_fields]
    if unknown:
        raise ConfigError(
            "; ".join(f"{path}: unknown key {key!r}{_nearest(key)}" for key in unknown)
        )
    try:
        return StudyConfig(**(keys | options))
    except ValidationError as error:
        problems = [
            _describe_problem(problem["loc"], problem["input"], problem["msg"])
            for problem in error.errors()
        ]
        raise ConfigError("; ".join(problems) + ".") from None


def _split_keys(keys: dict[str, Any], folder: Path) -> None:
    """Resolve the paths of a TOML file from its folder, and split lists in one string."""
    for key in ("data", "out"):
        if isinstance(keys.get(key), str):
            keys[key] = folder / keys[key]
    if isinstance(keys.get("root"), str | list):
        roots = keys["root"] if isinstance(keys["root"], list) else [keys["root"]]
        keys["root"] = [folder / str(root) for root in roots]
    for key in ("modality", "classes", "fusion", "figures"):
        if isinstance(keys.get(key), str):
            keys[key] = keys[key].split(",")


def _nearest(key: str) -> str:
    """Suggest the option _nearest to an unknown one.

    Examples
    --------
    >>> _nearest("trial")
    "; did you mean 'trials'?"
    """
    known = [name.replace("_", "-") for name in StudyConfig.model_fields]
    close = difflib.get_close_matches(key.replace("_", "-"), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def format_config(config: StudyConfig) -> str:
    """Write a resolved configuration as TOML."""
    plain = config.model_dump(mode="json") | config.identity()
    if config.sampler == "grid":
        plain["trials"] = config.n_trials  # by default the size of the grid
    lines = ["# What decided this study's numbers; the data stand in provenance.json."]
    # Late fusions and games decide no other number, but a rebuilt report needs their names.
    shown = [
        name
        for name in ("figures", "table_metrics")
        if getattr(config, name) != StudyConfig.model_fields[name].default
    ]
    for name in (*StudyConfig.identity_fields(), "fusion", "shapley", *shown):
        value = plain[name]
        if name != "data" and value is not None:
            lines.append(f"{name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _describe_problem(location: tuple[int | str, ...], given: Any, message: str) -> str:
    reason = message.removeprefix("Value error, ")
    if not location:  # several options contradict each other
        return reason
    option = f"--{str(location[0]).replace('_', '-')}"
    # A mistyped URL may hold a password anywhere, so it is not shown again.
    return (
        f"{option}: {reason}" if location[0] == "storage" else f"{option} {given!r}: {reason}"
    )


def _toml(value: Any) -> str:
    # A JSON string, number, list or boolean is TOML too; only mappings are written otherwise.
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)} = {_toml(value[key])}" for key in sorted(value))
        return "{" + ", ".join(pairs) + "}"
    return json.dumps(value, ensure_ascii=False)


def read_table(config: StudyConfig, source: Path) -> Manifest:
    """Read and check the table of utterances as the options of a study ask.

    Nothing that fits or draws is imported for it: a bad table is refused at once.
    """
    from toolkit.data import read_manifest  # noqa: PLC0415  (keeps --help instant)

    return read_manifest(
        source,
        columns=config.column,
        label=config.label,
        classes=config.classes,
        merge=config.merge,
        # The people are counted later; any number of them can be held out one by one.
        outer="speaker" if config.outer == "auto" else config.outer,
        missing=config.missing,
        modalities=config.modality,
        spellings=config.spellings,
        roots=config.root,
        bins=config.bins,
    )


class Parser(argparse.ArgumentParser):
    """A parser whose refusals are one line that names the _nearest known option.

    - hint: What every refusal of this command ends with.
    """

    hint: str = ""

    def error(self, message: str) -> NoReturn:
        """Refuse the request."""
        self.exit(2, f"error: {message}{self.hint}\n")

    def add_study_options(self, names: Collection[str]) -> None:
        """Add one option per named field of the configuration."""
        for name, field in StudyConfig.model_fields.items():
            if name not in names or _is_table(name):
                continue
            flag = "--" + name.replace("_", "-")
            silent = field.default in (None, (), {})
            default = "" if silent else f" (default: {_show(field.default)})"
            kind = _kind(field.annotation)
            text = f"{field.description}{'' if kind is bool else default}".replace("%", "%%")
            if kind is bool:
                self.add_argument(
                    flag, action="store_true", default=argparse.SUPPRESS, help=text
                )
            else:
                self.add_argument(
                    flag,
                    action="append" if kind in (tuple, dict) else "store",
                    metavar=_METAVARS.get(kind, "VALUE"),
                    default=argparse.SUPPRESS,
                    help=text,
                )

    def refuse_unknown(self, words: list[str]) -> None:
        """Refuse words that belong to no option."""
        for word in words:
            if not word.startswith("-"):
                continue
            name = word.lstrip("-").partition("=")[0].replace("-", "_")
            if _is_table(name):
                text = StudyConfig.model_fields[name].description
                self.error(f"--{name} is a table of study.toml: {text}")
            self.error(f"unknown option {word.partition('=')[0]}{_nearest(name)}")
        if words:
            self.error(f"unexpected {words[0]!r}")


def _read_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the words of the command line into values of the configuration."""
    values: dict[str, Any] = {}
    for name, words in arguments.items():
        kind = _kind(StudyConfig.model_fields[name].annotation)
        if kind is tuple:
            values[name] = tuple(
                w.strip() for text in words for w in text.split(",") if w.strip()
            )
        elif kind is dict:
            values[name] = dict(_pair(name, text) for text in words)
        elif kind is Path:
            values[name] = Path(words)
        else:
            values[name] = words
    return values


_METAVARS: Final = {
    tuple: "NAME,...",
    dict: "KEY=VALUE",
    int: "N",
    float: "SECONDS",
    Path: "PATH",
}


def _is_table(name: str) -> bool:
    field = StudyConfig.model_fields.get(name)
    extra = None if field is None else field.json_schema_extra
    return isinstance(extra, dict) and bool(extra["table"])


def _kind(annotation: Any) -> type:
    """Reduce an annotation to the type that the command line parses."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
    if get_origin(annotation) in (tuple, dict):
        return tuple if get_origin(annotation) is tuple else dict
    return annotation if isinstance(annotation, type) else str


def _show(default: Any) -> str:
    if isinstance(default, tuple):
        return "all" if len(default) > 1 else default[0]
    return str(default)


def _pair(name: str, text: str) -> tuple[str, str]:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not (key and equals and value):
        raise ValueError(f"--{name} {text}: write it as KEY=VALUE.")
    return key, value
