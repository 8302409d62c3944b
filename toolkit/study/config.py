"""Everything that decides a study, checked once, from a TOML file and the command line.

:class:`StudyConfig` is the one home of names, defaults and help texts: the command line, the
documentation and the resolved ``study.toml`` are made from it. Nothing heavy is imported, so
that a refused option answers at once.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

#: Options that are planned and not here yet, with what to do meanwhile.
LATER: Final = {
    "normalise": "normalising by speaker is not in this version; features stay as they are.",
    "scheduler": "clusters are not in this version; use --workers.",
    "storage": "other storages are not in this version; searches are kept in search.db.",
    "device": "this version fits on the CPU only.",
    "contributions": "explanations are not in this version.",
}

Booster = Literal["lightgbm", "xgboost", "both"]
Fusion = Literal["none", "early", "vote", "soft", "weighted", "stacked", "hybrid"]
Metric = Literal["f1_micro", "f1_macro", "uar", "f1_weighted", "mcc", "log_loss", "brier"]
FUSIONS: Final = ("early", "vote", "soft", "weighted", "stacked", "hybrid")
Text = Annotated[str, Field(min_length=1)]


class ConfigError(ValueError):
    """The request cannot be understood or cannot be carried out."""


def _option(default: Any, help_text: str, *, identity: bool, **limits: Any) -> Any:
    return Field(
        default, description=help_text, json_schema_extra={"identity": identity}, **limits
    )


class StudyConfig(BaseModel):
    """All that is said of a study; every field is an option and a key of ``study.toml``.

    Parameters
    ----------
    **options : object
        The fields below. Those marked as identity decide the numbers: a study whose folder
        exists goes on only if they are unchanged.

    Examples
    --------
    >>> StudyConfig(trials=5).outer
    'speaker'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Text | None = _option(
        None,
        "name of the study (default: the data's folder, or 'generated')",
        identity=False,
    )
    data: Path | None = _option(
        None, "dataset.csv of recorded utterances (default: a generated corpus)", identity=True
    )
    column: dict[str, str] = _option(
        {}, "role=header, where a column's role cannot be told from its header", identity=True
    )
    label: Text | None = _option(None, "header of the label column", identity=True)
    classes: tuple[str, ...] = _option(
        (), "only these classes; what is left out is named and counted", identity=True
    )
    merge: dict[str, str] = _option(
        {}, "class=class, merge the first into the second", identity=True
    )
    outer: Text = _option(
        "speaker",
        "who is held out: speaker, session, split (the data's own) or a number of folds",
        identity=True,
    )
    inner: int = _option(3, "inner folds of the search", identity=True, ge=2, le=20)
    booster: Booster = _option(
        "lightgbm", "lightgbm, xgboost, or both (searched)", identity=True
    )
    trials: int = _option(
        20, "trials of each search; may be raised later", identity=True, ge=1, le=10_000
    )
    imbalance: Text = _option(
        "auto",
        "auto (none, weights, smote: searched), or any of none, weights, oversample, smote, "
        "borderline, smote_tomek, comma-separated",
        identity=True,
    )
    statistics: Text = _option(
        "rich",
        "minimal, basic, rich, full, comma-separated names, or auto (basic, rich: searched)",
        identity=True,
    )
    screening: Text = _option(
        "auto",
        "auto (searched), none, or ftest-N: keep the N features of largest F, in each fold",
        identity=True,
    )
    metric: Metric = _option("f1_micro", "what the search maximises", identity=True)
    seed: int = _option(0, "seed of everything that is drawn", identity=True, ge=0)
    sampler: Literal["tpe", "random"] = _option(
        "tpe", "how trials are proposed: tpe or random", identity=True
    )
    timeout: float | None = _option(
        None,
        "worker-seconds of a search after which no trial starts (not reproducible)",
        identity=True,
        gt=0,
    )
    missing: Literal["refuse", "allow"] = _option(
        "refuse",
        "unreadable or absent files: refuse, or allow (a missing modality, counted)",
        identity=True,
    )
    frames: Literal["refuse", "drop", "interpolate"] = _option(
        "refuse", "frames that are not finite: refuse, drop or interpolate", identity=True
    )
    duplicates: Literal["refuse", "allow"] = _option(
        "refuse", "the same recording under two speakers: refuse or allow", identity=True
    )
    quick: bool = _option(
        False, "5 trials, at most 150 rounds, basic statistics: a first look", identity=True
    )

    modality: tuple[str, ...] = _option((), "modality to study (default: all)", identity=False)
    fusion: tuple[Fusion, ...] = _option(
        FUSIONS,
        "none, early, vote, soft, weighted, stacked, hybrid; where there are two modalities "
        "or more",
        identity=False,
    )
    workers: int | None = _option(
        None, "local processes (default: the cores, at most 8)", identity=False, ge=1, le=256
    )
    out: Path | None = _option(
        None, "the study's own folder (default: outputs/<name>)", identity=False
    )
    only: Text | None = _option(None, "SYSTEM/FOLD: run this unit alone", identity=False)
    dry_run: bool = _option(False, "say what would run, and run nothing", identity=False)
    fresh: bool = _option(
        False, "set an existing folder aside as <name>.<n> and start again", identity=False
    )

    @field_validator("outer")
    @classmethod
    def _check_outer(cls, outer: str) -> str:
        if outer not in ("speaker", "session", "split") and not outer.isdecimal():
            raise ValueError("choose speaker, session, split or a number of folds")
        return outer

    @field_validator("only")
    @classmethod
    def _check_only(cls, only: str | None) -> str | None:
        if only is not None and not only.rpartition("/")[2].isdecimal():
            raise ValueError("write SYSTEM/FOLD, for example text/03")
        return only

    @field_validator("fusion")
    @classmethod
    def _check_fusion(cls, fusion: tuple[str, ...]) -> tuple[str, ...]:
        if "none" in fusion and len(fusion) > 1:
            raise ValueError("none stands alone")
        if "hybrid" in fusion and "early" not in fusion:
            raise ValueError("hybrid needs early: early fusion is one of its voters")
        return fusion

    @field_validator("imbalance")
    @classmethod
    def _check_imbalance(cls, imbalance: str) -> str:
        known = ("auto", "none", "weights", "oversample", "smote", "borderline", "smote_tomek")
        return _check_words(imbalance, known)

    @field_validator("screening")
    @classmethod
    def _check_screening(cls, screening: str) -> str:
        for word in screening.split(","):
            method, _, kept = word.partition("-")
            fine = method == "ftest" and kept.isdecimal() and int(kept) > 0
            if not fine and word not in ("auto", "none"):
                raise ValueError(f"{word!r} is unknown; choose auto, none, or ftest-N")
        return screening

    @property
    def n_trials(self) -> int:
        """Trials of each search; --quick runs 5 unless fewer were asked for."""
        return min(self.trials, 5) if self.quick else self.trials

    @property
    def n_inner_rounds(self) -> int:
        """Most boosting rounds of a fit."""
        return 150 if self.quick else 300

    @property
    def n_workers(self) -> int:
        """Local processes: as many as were asked for, else the cores, at most 8."""
        return self.workers or min(os.cpu_count() or 1, 8)

    @property
    def searched_statistics(self) -> tuple[str, ...]:
        """Statistics presets that a search chooses among; a single one is fixed."""
        if self.quick and "statistics" not in self.model_fields_set:
            return ("basic",)
        return ("rich", "basic") if self.statistics == "auto" else (self.statistics,)

    def identity(self) -> dict[str, Any]:
        """Give the fields that decide the numbers, as plain data.

        Returns
        -------
        dict
            Field name to value; neither the data's place nor the number of trials is in it:
            the data count by their content, and trials may be raised.
        """
        plain = self.model_dump(mode="json")
        return {
            name: plain[name]
            for name in identity_fields()
            if name not in ("data", "column", "trials")
        } | {"statistics": ",".join(self.searched_statistics)}


def identity_fields() -> tuple[str, ...]:
    """Name the fields that decide a study's numbers.

    Returns
    -------
    tuple of str
        In the order of the class.
    """
    return tuple(
        name
        for name, field in StudyConfig.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra["identity"]
    )


def load_config(path: Path | None, options: dict[str, Any]) -> StudyConfig:
    """Resolve a study from its TOML file and what the command line said.

    Parameters
    ----------
    path : Path or None
        A ``study.toml``; relative paths in it are relative to its folder.
    options : dict
        What the command line said; it wins.

    Returns
    -------
    StudyConfig
        Checked.

    Raises
    ------
    ConfigError
        If the file cannot be read, a key is unknown (the nearest known one is named) or a
        value does not fit, all problems in one message.
    """
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
            "; ".join(
                f"{path}: {key}: {LATER[key]}"
                if key in LATER
                else f"{path}: unknown key {key!r}{nearest(key)}"
                for key in unknown
            )
        )
    try:
        return StudyConfig(**(said | options))
    except ValidationError as error:
        problems = [
            f"--{str(problem['loc'][0]).replace('_', '-')} {problem['input']!r}: "
            + problem["msg"].removeprefix("Value error, ")
            for problem in error.errors()
        ]
        raise ConfigError("; ".join(problems) + ".") from None


def nearest(key: str) -> str:
    """Suggest the option nearest to an unknown one.

    Parameters
    ----------
    key : str
        What was written.

    Returns
    -------
    str
        ``"; did you mean 'trials'?"``, or nothing if nothing is near.

    Examples
    --------
    >>> nearest("trial")
    "; did you mean 'trials'?"
    """
    known = [name.replace("_", "-") for name in StudyConfig.model_fields]
    close = difflib.get_close_matches(key.replace("_", "-"), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def format_config(config: StudyConfig) -> str:
    """Write a resolved configuration as TOML.

    Parameters
    ----------
    config : StudyConfig
        The study.

    Returns
    -------
    str
        Only what decides the numbers, so that it is the same wherever the study ran; the
        place of the data is left out for the same reason.
    """
    plain = config.model_dump(mode="json") | config.identity()
    lines = ["# What decided this study's numbers; the data stand in provenance.json."]
    # Which late fusions there are decides no other number, and a report made again needs it.
    for name in (*identity_fields(), "fusion"):
        value = plain[name]
        if name != "data" and value is not None:
            lines.append(f"{name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    # A JSON string, number, list or boolean is TOML too; only mappings are written otherwise.
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)} = {_toml(value[key])}" for key in sorted(value))
        return "{" + ", ".join(pairs) + "}"
    return json.dumps(value, ensure_ascii=False)


def _check_words(text: str, known: tuple[str, ...]) -> str:
    words = text.split(",")
    if unknown := [word for word in words if word not in known]:
        raise ValueError(f"{', '.join(unknown)} is unknown; choose among {', '.join(known)}")
    if "auto" in words and len(words) > 1:
        raise ValueError("auto stands alone")
    return text
