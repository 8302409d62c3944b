"""The command line's options, made from :class:`~toolkit.study.config.StudyConfig`.

Names, help texts and defaults have their one home there; an option that is not said is left
out here, so that study.toml or the default decides.
"""

from __future__ import annotations

import argparse
import types
from pathlib import Path
from typing import Any, Final, NoReturn, Union, get_args, get_origin

from toolkit.study.config import StudyConfig
from toolkit.study.study_toml import nearest


class Parser(argparse.ArgumentParser):
    """A parser whose refusals are one line that names the nearest known option."""

    def error(self, message: str) -> NoReturn:
        """Refuse the request."""
        self.exit(2, f"error: {message}\n")


def add_study_options(parser: argparse.ArgumentParser) -> None:
    """Add one option a field of the configuration."""
    for name, field in StudyConfig.model_fields.items():
        if _is_table(name):
            continue
        flag = "--" + name.replace("_", "-")
        silent = field.default in (None, (), {})
        default = "" if silent else f" (default: {_show(field.default)})"
        kind = _kind(field.annotation)
        text = f"{field.description}{'' if kind is bool else default}".replace("%", "%%")
        if kind is bool:
            parser.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=text)
        else:
            parser.add_argument(
                flag,
                action="append" if kind in (tuple, dict) else "store",
                metavar=_METAVARS.get(kind, "VALUE"),
                default=argparse.SUPPRESS,
                help=text,
            )


def read_options(said: dict[str, Any]) -> dict[str, Any]:
    """Turn what was said on the command line into values of the configuration."""
    values: dict[str, Any] = {}
    for name, words in said.items():
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


def refuse_unknown(parser: argparse.ArgumentParser, words: list[str]) -> None:
    """Refuse words that no option took."""
    for word in words:
        if not word.startswith("-"):
            continue
        name = word.lstrip("-").partition("=")[0].replace("-", "_")
        if _is_table(name):
            text = StudyConfig.model_fields[name].description
            parser.error(f"--{name} is a table of study.toml: {text}")
        parser.error(f"unknown option {word.partition('=')[0]}{nearest(name)}")
    if words:
        parser.error(f"unexpected {words[0]!r}")


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
    """Reduce an annotation to what the command line must know of it."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
    if get_origin(annotation) in (tuple, dict):
        return tuple if get_origin(annotation) is tuple else dict
    return annotation if isinstance(annotation, type) else str


def _show(default: Any) -> str:
    return "all" if isinstance(default, tuple) else str(default)


def _pair(name: str, text: str) -> tuple[str, str]:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not (key and equals and value):
        raise ValueError(f"--{name} {text}: write it as KEY=VALUE.")
    return key, value
