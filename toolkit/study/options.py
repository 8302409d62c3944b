"""The options of a study, read from the command line and from ``study.toml``.

Their names, help texts and defaults are those of :class:`~toolkit.study.config.StudyConfig`.
An option that is not given is left out here, so that ``study.toml`` or the default decides.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import shlex
import tomllib
import types
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Literal,
    NoReturn,
    Self,
    Union,
    get_args,
    get_origin,
)

from pydantic import ValidationError

from toolkit.study.config import ConfigError, StudyConfig

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from toolkit.data import Manifest

#: Options of the report, which ``study.toml`` names where they are given.
_REPORTED: Final = (
    *("seeds", "figures", "table_metrics", "learning_curve", "by", "abstain", "published"),
)
_TOP: Final = "; write its keys at the top level, in no table"
#: Copies of the files of ``--with`` in a study's folder.
OUTSIDE: Final = "internal/outside/{}.csv"


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A command line, checked.

    - arguments: those of the command itself; options of a study are in `config`.
    - manifest: None where the command reads no table, or the study has generated data.
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

        - own, words: arguments of the command itself; options of a study.
        """
        own = dict(own)
        options = _read_options(words, own)
        source = own.pop("source", None)
        if source is not None and source.suffix.lower() != ".toml":
            if "data" in options:
                raise ConfigError(f"Two tables are given: {source}, {options['data']}.")
            source, options["data"] = None, source
        config = load_config(source, options)
        manifest = None
        if reads_table and config.data is not None:
            manifest = read_table(config, config.data)
        return cls(own | {"study": source}, config, manifest, as_json)

    def require_table(self) -> Manifest:
        """Give the table of a command that has no generated data."""
        if self.manifest is None:
            raise ConfigError("Name a table of utterances: DATASET.csv or --data DATASET.csv.")
        return self.manifest

    @property
    def reading(self) -> dict[str, Any]:
        """How to read new data; what is not given is None, and stays as a study had it."""
        config = self.config
        given = {
            name: getattr(config, name) if name in config.model_fields_set else None
            for name in ("missing", "frames")
        }
        return given | {"columns": config.column, "roots": config.root, "tables": config.table}

    def format_command(self) -> str:
        """Write the command of a quick study with the options beside those of its file."""
        config, source = self.config, self.arguments["study"]
        words = ["toolkit", "study", str(source or config.data)]
        given = config.model_dump(mode="json", exclude_unset=True, exclude_defaults=True)
        for name, value in given.items():
            if _is_table(name):
                continue  # the file of the study has it
            if isinstance(value, list) and name in _LISTS:
                words += [_flag(name), *value]
            elif isinstance(value, dict | list):
                pairs = (
                    [f"{k}={v}" for k, v in value.items()] if isinstance(value, dict) else value
                )
                words += [word for pair in pairs for word in (_flag(name), pair)]
            elif name not in ("data", "quick"):
                words += [_flag(name), *([] if value is True else [str(value)])]
        return shlex.join([*words, "--quick"])


def load_config(path: Path | None, options: dict[str, Any]) -> StudyConfig:
    """Resolve a study from its TOML file and the options of the command line."""
    keys: dict[str, Any] = {}
    if path is not None:
        text = ""
        try:
            text = path.read_text(encoding="utf-8")
            keys = tomllib.loads(text)
        except FileNotFoundError:
            raise ConfigError(f"There is no study file {path}.") from None
        except (ValueError, OSError, RecursionError) as error:  # the last if nested deeply
            words = f"{path} cannot be read as TOML: {error}{_show_fault(str(error), text)}."
            raise ConfigError(words) from None
        if "with" in keys:  # a keyword of Python, and so no name of a field
            keys["with_"] = keys.pop("with")
        _resolve_paths(keys, path.parent)
    for key in ("trials", "statistics") if options.get("quick") else ():
        keys.pop(key, None)  # given on the command line, quick wins over the file
    unknown = [key for key in (*keys, *options) if key not in StudyConfig.model_fields]
    if unknown:
        place = "unknown option" if path is None else f"{path}: unknown key"
        known = [_flag(name).removeprefix("--") for name in StudyConfig.model_fields]
        raise ConfigError(
            "; ".join(
                f"{place} {key!r}"
                + (_nearest(key, known) or _TOP * isinstance(keys.get(key), dict))
                for key in unknown
            )
        )
    for name, value in options.items():
        is_mapping = isinstance(value, dict) and isinstance(keys.get(name), dict)
        keys[name] = keys[name] | value if is_mapping else value
    try:
        return StudyConfig(**_match_choices(_unify(keys)))
    except ValidationError as error:
        problems = [
            _describe_problem(problem["loc"], problem["input"], problem["msg"])
            for problem in error.errors()
        ]
        raise ConfigError("; ".join(problems) + ".") from None


def _show_fault(reason: str, text: str) -> str:
    """Show the line of a fault in TOML, and how the value there is written.

    >>> _show_fault("Invalid value (at line 1, column 7)", "top = .1")
    ': top = .1. Write 0.1'
    """
    place = re.search(r"\(at line (\d+), column (\d+)\)", reason)
    if place is None:
        return ""
    line = text.split("\n")[int(place[1]) - 1].rstrip()
    value = re.match(r"([+-]?)(\.\d+)|[A-Za-z./~][\w./~-]*", line[int(place[2]) - 1 :])
    if value is None or not reason.startswith("Invalid value"):
        return f": {line.strip()}"
    form = f"{value[1]}0{value[2]}" if value[2] else f'"{value[0]}"'
    form = value[0].lower() if value[0] in ("True", "False") else form
    return f": {line.strip()}. Write {form}"


def _resolve_paths(keys: dict[str, Any], folder: Path) -> None:
    """Resolve the paths of a TOML file from its folder."""
    for key in ("data", "out"):
        if isinstance(keys.get(key), str):
            keys[key] = folder / keys[key]
    if isinstance(keys.get("root"), str | list):
        roots = keys["root"] if isinstance(keys["root"], list) else [keys["root"]]
        keys["root"] = [folder / str(root) for root in roots]
    for key in ("names", "table", "with_"):
        if isinstance(keys.get(key), dict):
            keys[key] = {name: folder / str(path) for name, path in keys[key].items()}


def _unify(keys: dict[str, Any]) -> dict[str, Any]:
    """Bring lists in one string, texts in a list, and a number of groups to one form."""
    unified = dict(keys)
    for key, value in keys.items():
        if key in _LISTS and isinstance(value, str):
            unified[key] = value.split(",")
        elif key == "outer" and isinstance(value, Integral):
            unified[key] = str(value)
        elif key in ("imbalance", "statistics", "screening") and isinstance(value, list):
            unified[key] = ",".join(map(str, value))
    return unified


def _nearest(key: str, known: Collection[str]) -> str:
    """Suggest the option nearest to an unknown one.

    >>> _nearest("trial", ["trials", "seed"])
    "; did you mean 'trials'?"
    """
    close = difflib.get_close_matches(key.replace("_", "-"), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def format_config(config: StudyConfig) -> str:
    """Write a resolved configuration as TOML."""
    # The effective values: --quick and a grid change the number of trials.
    plain = config.model_dump(mode="json") | config.identity() | {"trials": config.n_trials}
    lines = ["# The options that decided the numbers. Data: internal/provenance.json."]
    # Late fusions and games decide no other number, but a rebuilt report needs their names.
    shown = [
        name
        for name in _REPORTED
        if getattr(config, name) != StudyConfig.model_fields[name].default
    ]
    for name in (*StudyConfig.identity_fields(), "fusion", "shapley", *shown):
        value = plain[name]
        # study.toml was written without them
        unused = name in ("extract", "frames_columns") and not value
        if name not in ("data", "table") and value is not None and not unused:
            lines.append(f"{name} = {_toml(value)}")
    if config.with_:
        lines.append(f"with = {_toml({name: OUTSIDE.format(name) for name in config.with_})}")
    return "\n".join(lines) + "\n"


def _describe_problem(location: tuple[int | str, ...], given: Any, message: str) -> str:
    reason = message.removeprefix("Value error, ")
    reason = re.sub("^Input should be (?=greater|less)", "expected a number ", reason)
    reason = reason.replace("Input should be", "expected")
    if not location:  # several options contradict each other
        return reason
    # The last part is the key of a table in a list, as in [[published]].
    option = _flag(str(location[0])) + (f" {location[2]}" if len(location) > 2 else "")
    # A mistyped URL may hold a password anywhere, so it is not shown again.
    return (
        f"{option}: {reason}" if location[0] == "storage" else f"{option} {given!r}: {reason}"
    )


def _toml(value: Any) -> str:
    # A JSON string, number, list or boolean is TOML too; only mappings are written otherwise.
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)} = {_toml(value[key])}" for key in sorted(value))
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
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
        outer=config.outer.replace("auto", "speaker"),
        missing=config.missing,
        modalities=config.modality,
        spellings=config.spellings,
        roots=config.root,
        tables=config.table,
        extract=config.extract,
        frames_columns=config.frames_columns,
        bins=config.bins,
        by=config.by,
    )


class Parser(argparse.ArgumentParser):
    """A parser whose refusals are one line that names the nearest known option.

    - hint: What every refusal of this command ends with.
    """

    hint: str = ""

    def error(self, message: str) -> NoReturn:
        """Refuse the request."""
        self.exit(2, f"error: {message}{self.hint}\n")

    def add_study_options(self, names: Collection[str], *, shows_all: bool) -> None:
        """Add one option per named field; the help leaves out rare ones unless asked."""
        titles = {title: self.add_argument_group(title) for title in _GROUPS}
        for name, field in StudyConfig.model_fields.items():
            if name not in names or _is_table(name):
                continue
            group = titles[next(title for title, own in _GROUPS.items() if name in own)]
            kind, choices = _kind(field.annotation), ",".join(_list_choices(field.annotation))
            text = field.description or ""
            if kind is not bool and field.default not in (None, (), {}):
                default = field.default
                if isinstance(default, tuple):
                    default = "all" if len(default) > 1 else default[0]
                text += f" (default: {default})"
            is_shown = shows_all or name not in _RARE
            settings: dict[str, Any] = {
                "default": argparse.SUPPRESS,
                "help": text.replace("%", "%%") if is_shown else argparse.SUPPRESS,
                "dest": name,
            }
            if kind is bool:
                settings["action"] = "store_true"
            else:
                metavar = f"{{{choices}}}" if choices and kind is str else "VALUE"
                settings["metavar"] = _METAVARS.get(kind, metavar)
                settings["action"] = "append" if kind in (tuple, dict) else "store"
                if name in _LISTS:
                    settings |= {"nargs": "+", "metavar": "NAME"}
            group.add_argument(_flag(name), **settings)
        if _RARE & {*names}:
            self.add_argument("--help-all", action="help", help="show rare options too")

    def refuse_unknown(self, words: list[str]) -> None:
        """Refuse words that belong to no option."""
        for word in words:
            if not word.startswith("-"):
                continue
            name = word.lstrip("-").partition("=")[0].replace("-", "_")
            if _is_table(name):
                text = StudyConfig.model_fields[name].description
                self.error(f"--{name} is a table of study.toml: {text}")
            known = [flag.lstrip("-") for flag in self._option_string_actions]
            option, hint = word.partition("=")[0], _nearest(name, known)
            if name == "label" and "column" in known:
                hint = "; write --column label=HEADER"
            elif option in map(_flag, StudyConfig.model_fields):
                hint = f" of {self.prog}: it is one of toolkit study"
            self.error(f"unknown option {option}{hint}")
        if words:
            self.error(f"unexpected {words[0]!r}")


def _list_choices(annotation: Any) -> tuple[str, ...]:
    """List the choices of an option, or of each of its values; none where any text will do."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) in (tuple, dict):
        return _list_choices(get_args(annotation)[-1 if get_origin(annotation) is dict else 0])
    return ()


def _match_choices(keys: dict[str, Any]) -> dict[str, Any]:
    """Spell choices as they are documented: case, and hyphen or underscore, do not count."""

    def match(value: Any, choices: Mapping[str, str]) -> Any:
        if isinstance(value, list | tuple):
            return [match(each, choices) for each in value]
        if isinstance(value, dict):
            return {key: match(each, choices) for key, each in value.items()}
        return choices.get(_fold(value), value) if isinstance(value, str) else value

    matched = dict(keys)
    for name, value in keys.items():
        choices = _list_choices(StudyConfig.model_fields[name].annotation)
        if choices:
            matched[name] = match(value, {_fold(choice): choice for choice in choices})
        elif name in _LOWER and isinstance(value, str):
            matched[name] = value.lower()
    return matched


def _fold(text: str) -> str:
    return text.lower().replace("-", "_")


def _read_options(arguments: Mapping[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Turn the words of the command line into values of the configuration.

    A file behind a list of names, as in ``--modality text my/dataset.csv``, is the source.
    """
    values: dict[str, Any] = {}
    for name, words in arguments.items():
        kind = _kind(StudyConfig.model_fields[name].annotation)
        if name in _LISTS:
            for given in words:
                is_file = Path(given[-1]).suffix.lower() in {".csv", ".toml"}
                if is_file and len(given) > 1 and own.get("source", ...) is None:
                    own["source"] = Path(given.pop())
            words = [word for given in words for word in given]  # noqa: PLW2901
        if kind is tuple:
            values[name] = tuple(
                w.strip() for text in words for w in text.split(",") if w.strip()
            )
        elif kind is dict:
            values[name] = {}
            for key, value in (_pair(name, text) for text in words):
                if values[name].setdefault(key, value) != value:
                    pairs = f"{key}={values[name][key]} and {key}={value}"
                    raise ConfigError(f"{_flag(name)} has {pairs}: leave one of them out.")
        elif kind is Path:
            values[name] = Path(words)
        else:
            values[name] = words
    return values


#: Options by subject, as ``--help`` groups them.
_GROUPS: Final = {
    "basic options": (
        *("data", "label", "column", "table", "extract", "modality", "metric", "outer"),
        *("trials", "quick", "primary", "seed", "seeds", "with_", "name", "out", "fresh"),
        "dry_run",
    ),
    "data": (
        *("classes", "merge", "bins", "spellings", "missing", "frames", "normalise"),
        *("duplicates", "root", "frames_columns", "protocol", "content_parts"),
    ),
    "search": (
        *("statistics", "booster", "linear", "imbalance", "screening", "inner", "sampler"),
        *("wide", "timeout", "space", "grid"),
    ),
    "fusion": ("fusion",),
    "explanation and report": (
        *("shapley", "contributions", "figures", "names", "table_metrics"),
        *("learning_curve", "by", "abstain", "published"),
    ),
    "computing": ("workers", "device", "scheduler", "storage", "only"),
}
#: Options that ``--help-all`` alone shows.
_RARE: Final = frozenset(
    {"bins", "spellings", "frames", "duplicates", "root", "inner", "sampler", "wide"}
    | {"frames_columns", "content_parts"}
    | {"timeout", "contributions", "scheduler", "storage", "only", "device"}
)
#: Lists of names, which spaces or commas separate.
_LISTS: Final = frozenset({"modality", "classes", "fusion", "figures", "table_metrics", "by"})
#: Texts whose case does not count.
_LOWER: Final = frozenset({"outer", "imbalance", "statistics", "screening"})

_METAVARS: Final = {
    tuple: "NAME,...",
    dict: "KEY=VALUE",
    int: "N",
    float: "SECONDS",
    Path: "PATH",
}


def _flag(name: str) -> str:
    """Write the flag of a field; one named like a keyword of Python ends in an underscore."""
    return "--" + name.rstrip("_").replace("_", "-")


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


def _pair(name: str, text: str) -> tuple[str, str]:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not (key and equals and value):
        raise ValueError(f"{_flag(name)} {text}: write it as KEY=VALUE.")
    return key, value
