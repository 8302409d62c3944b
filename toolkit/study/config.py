"""The options of a study, checked once.

:class:`StudyConfig` is the one home of their names, defaults and help texts: the command line,
the documentation and the resolved ``study.toml`` are made from it. Nothing heavy is imported,
so that a refused option answers at once.
"""

import math
import os
import re
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from toolkit.literature import MetricName, Published, Text, expand_protocol
from toolkit.systems import HYBRID


def _check_scheduler_address(address: str) -> str:
    """Check the address of a Dask scheduler."""
    if not re.fullmatch(r"(tcp|tls)://(\[[0-9a-fA-F:.]+\]|[^:/\s]+):\d{1,5}", address):
        raise ValueError(
            "write tcp://HOST:PORT, as `dask scheduler` prints it (tls:// where it is secured)"
        )
    return address


def _normalise_storage(url: str) -> str:
    """Check the URL of an Optuna storage and add its driver.

    >>> _normalise_storage("postgresql://anna@db/searches")
    'postgresql+psycopg://anna@db/searches'
    """
    scheme, separator, rest = url.partition("://")
    if separator and rest and scheme in {"postgresql", "postgresql+psycopg"}:
        return f"postgresql+psycopg://{rest}"
    if separator and rest.strip("/") and scheme == "sqlite":
        return url
    raise ValueError(
        "write postgresql+psycopg://USER@HOST:PORT/DATABASE (the password in PGPASSFILE), or "
        "sqlite:///FILE"
    )


def mask_password(text: str) -> str:
    """Replace passwords in a text that may hold the URL of a storage.

    >>> mask_password("cannot reach postgresql://anna:se:cr@et@db/x?password=y")
    'cannot reach postgresql://anna:***@db/x?password=***'
    """
    # Up to the last @ of the word: a password may hold one, and a slash.
    text = re.sub(r"(://[^:/@\s]*):\S*@", r"\1:***@", text)
    return re.sub(r"(password=)[^&\s]*", r"\1***", text)


_Booster = Literal["lightgbm", "xgboost", "both"]
_Fusion = Literal["none", "early", "vote", "soft", "weighted", "stacked", "log-pool"]
_Extractor = Literal["egemaps", "egemaps-functionals", "mfcc", "tfidf", "hashing"]
_LATER: Final = {
    "space": {},
    "grid": {},
    "extract": {},
    "spellings": "refuse",
    "bins": [],
    "linear": "none",
    "content_parts": 3,
}


class ConfigError(ValueError):
    """A request that is not understood or cannot be carried out."""


def _option(
    default: Any, help_text: str, *, identity: bool = False, table: bool = False, **limits: Any
) -> Any:
    """Describe a field; a ``table`` exists in ``study.toml`` only, not as a flag."""
    extra: dict[str, Any] = {"identity": identity, "table": table}
    return Field(default, description=help_text, json_schema_extra=extra, **limits)


#: Describe a field that decides the numbers.
_identity = partial(_option, identity=True)


class StudyConfig(BaseModel):
    """Options of a study; every field is a flag and a key of ``study.toml``.

    Parameters
    ----------
    **options : object
        The fields below. Those of the identity decide the numbers: an existing study goes on
        only where they are unchanged.

    Examples
    --------
    >>> StudyConfig(trials=5).outer
    'auto'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Text | None = _option(
        None, "name of the study (default: the data's folder, or 'generated')"
    )
    data: Path | None = _identity(
        None, "dataset.csv of recorded utterances (default: a generated corpus)"
    )
    column: dict[str, str] = _identity(
        {}, "role=header or modality=header, where a header does not name them"
    )
    table: dict[str, Path] = _identity(
        {},
        "modality=FILE, a CSV, ARFF or Parquet table of its features, with a row per "
        "utterance, a column per feature and a column of ids (utterance, id, file, name)",
    )
    frames_columns: dict[str, Text] = _identity(
        {},
        "modality=COLUMNS, its dimensions in CSV, ARFF or Parquet files: numbers from 1, "
        "ranges and headers, as in audio=2-40 or audio=F0,loudness (default: all but ids, "
        "times and roles)",
    )
    extract: dict[str, _Extractor] = _identity(
        {},
        "modality=EXTRACTOR, features that are computed here: egemaps, egemaps-functionals or "
        "mfcc from a column of recordings, tfidf or hashing from a column of texts",
    )
    label: Text | None = _identity(None, "header of the label column")
    classes: tuple[str, ...] = _identity(
        (), "only these classes; what is left out is named and counted"
    )
    merge: dict[str, str] = _identity({}, "class=class, merge the first into the second")
    bins: tuple[float, ...] = _identity(
        (),
        "edges that make classes of a numeric label; --bins=-1,1 gives below -1, from -1 to "
        "below 1, and from 1",
    )
    spellings: Literal["refuse", "join", "keep"] = _identity(
        "refuse",
        "names that differ in spelling alone (1 and 1.0, Ann and ann): refuse, "
        "join, or keep as different",
    )
    outer: Text = _identity(
        "auto",
        "held-out people: auto (each in turn up to 20, above that 10 groups of them), speaker, "
        "session, split (the data's own) or a number of groups; with +content, as in "
        "speaker+content, scripts or sentences are held out as well",
    )
    content_parts: int = _identity(
        3, "parts of the content, of which a fold with +content tests one", ge=2, le=100
    )
    inner: int = _identity(3, "inner folds of the search", ge=2, le=20)
    booster: _Booster = _identity("lightgbm", "lightgbm, xgboost, or both (searched)")
    trials: int = _identity(20, "trials of each search; may be raised later", ge=1, le=10_000)
    imbalance: Text = _identity(
        "auto",
        "auto (none, weights, smote: searched), or any of none, weights, oversample, smote, "
        "borderline, smote_tomek, comma-separated",
    )
    statistics: Text = _identity(
        "rich",
        "minimal, basic, rich, full, comma-separated names, or auto (basic, rich: searched)",
    )
    screening: Text = _identity(
        "auto",
        "auto (none, ftest-2000, ftest-500: searched), or any of none, ftest-N, mutual-N, "
        "gain-N, comma-separated: keep the N best features by F, mutual information or the "
        "gain of a small booster, in each fold",
    )
    linear: Literal["auto", "none"] = _identity(
        "auto", "a linear part beside the trees of every model: auto or none"
    )
    metric: MetricName = _identity(
        "f1_micro", "score of the search: log_loss and brier are minimised, others maximised"
    )
    seed: int = _identity(0, "seed of everything that is drawn", ge=0)
    seeds: int = _option(
        1, "seeds under which every search is repeated; may be raised later", ge=1, le=100
    )
    sampler: Literal["tpe", "random", "grid"] = _identity(
        "tpe",
        "how trials are proposed: tpe, random, or grid (every point, unless --trials says "
        "fewer)",
    )
    space: dict[Literal["lightgbm", "xgboost"], dict[str, Any]] = _identity(
        {},
        "[space.lightgbm] or [space.xgboost]: name = [low, high], {low, high, log}, "
        "{choices}, a list of other choices, or one value; what is not named stays",
        table=True,
    )
    grid: dict[Literal["lightgbm", "xgboost"], dict[str, Any]] = _identity(
        {},
        "[grid.lightgbm] or [grid.xgboost]: name = list of values, for sampler grid",
        table=True,
    )
    wide: Literal["screen", "reduce", "keep"] = _identity(
        "screen",
        "a modality of more than 20,000 pooled columns: screen (ftest-5000 replaces none in "
        "--screening), reduce (to the largest smaller preset of statistics) or keep",
    )
    timeout: float | None = _identity(
        None, "worker-seconds of a search after which no trial starts (not reproducible)", gt=0
    )
    missing: Literal["refuse", "allow"] = _identity(
        "refuse", "unreadable or absent files: refuse, or allow (a missing modality, counted)"
    )
    frames: Literal["refuse", "drop", "interpolate"] = _identity(
        "refuse", "frames that are not finite: refuse, drop or interpolate"
    )
    normalise: Literal["none", "speaker"] = _identity(
        "none",
        "none, or speaker: standardise features within each speaker, which is transductive",
    )
    duplicates: Literal["refuse", "allow"] = _identity(
        "refuse", "the same recording under two speakers: refuse or allow"
    )
    quick: bool = _identity(
        False, "a first look, in outputs/<name>-quick: 5 trials, 600 rounds, basic statistics"
    )

    root: tuple[Path, ...] = _option(
        (), "folder that feature files may lie below, beside that of the table"
    )
    modality: tuple[str, ...] = _option((), "modality to study (default: all)")
    names: dict[str, Path] = _option(
        {},
        "modality=FILE, names of its dimensions for plots and tables, one per line (default: "
        "an array or attribute 'names' of npz and HDF5 files, headers of tables)",
    )
    with_: dict[str, Path] = _option(
        {}, "NAME=predictions.csv, system from outside, scored, tested, fused and not audited"
    )
    published: tuple[Published, ...] = _option(
        (), "[[published]]: system, metric, value, protocol, source; never tested", table=True
    )
    protocol: Literal["iemocap4-session"] | None = _option(
        None, "protocol to follow: iemocap4-session (ang, hap with exc, sad, neu; Busso 2008)"
    )
    fusion: tuple[_Fusion, ...] = _option(
        get_args(_Fusion)[1:],
        "none, early, vote, soft, weighted, stacked, log-pool; where there are two modalities "
        "or more",
    )
    primary: Text | None = _option(
        None,
        "system that the study is about, recorded at its first run (default: early where there "
        "are two modalities or more, else the modality)",
    )
    contributions: Literal["none", "totals", "full"] = _option(
        "totals",
        "what is kept of explanations: none, totals, or full (every feature's contribution)",
    )
    shapley: Literal["none", "late", "refit", "seeds"] = _option(
        "late",
        "games over modalities: none, late (over late fusion, at no cost), refit (early "
        "fusion of every set of modalities as well, each with a search of its own), or seeds "
        "(refit, and all of it again under every one of --seeds)",
    )
    figures: tuple[Literal["svg", "png", "pdf"], ...] = _option(
        ("svg",), "formats of the figures: svg, and png or pdf besides"
    )
    table_metrics: tuple[MetricName, ...] = _option(
        ("f1_micro", "f1_macro", "uar", "log_loss"),
        "metrics of the table of scores and of table.tex, after the metric of the search",
    )
    learning_curve: bool = _option(
        False, "score a fixed configuration on growing numbers of training speakers as well"
    )
    by: tuple[str, ...] = _option(
        (),
        "columns of the table that group people, as sex,age,language: scores of each group and "
        "a test of the gap; numbers are cut into bins",
    )
    abstain: tuple[float, ...] = _option(
        (),
        "errors such as .05,.1,.2: which utterances can be answered at each, and prediction "
        "sets that miss the class as rarely",
    )
    workers: int | None = _option(
        None, "local processes (default: the cores, at most 8)", ge=1, le=256
    )
    scheduler: Annotated[Text, AfterValidator(_check_scheduler_address)] | None = _option(
        None, "tcp://HOST:PORT of a Dask scheduler that runs the units (extra: cluster)"
    )
    storage: Annotated[Text, AfterValidator(_normalise_storage)] | None = _option(
        None,
        "postgresql+psycopg://USER@HOST/DATABASE for the searches (default: search.db)",
        repr=False,
    )
    device: Literal["cpu", "cuda"] = _option(
        "cpu", "where boosters are fitted: cpu, or cuda where GPU and build allow"
    )
    out: Path | None = _option(None, "the study's own folder (default: outputs/<name>)")
    only: Text | None = _option(None, "SYSTEM/FOLD: run this unit alone")
    dry_run: bool = _option(False, "say what would run, and run nothing")
    fresh: bool = _option(False, "set an existing folder aside as <name>.<n> and start again")

    @model_validator(mode="before")
    @classmethod
    def _take_protocol(cls, given: Any) -> Any:
        return expand_protocol(given)

    @field_validator("outer")
    @classmethod
    def _check_outer(cls, outer: str) -> str:
        groups = outer.removesuffix("+content")
        known = groups in ("auto", "speaker", "session") or groups.isdecimal()
        if not known and outer != "split":
            raise ValueError(
                "choose auto, speaker, session, split or a number of groups, or one of these "
                "but split with +content"
            )
        return outer

    @field_validator("table")
    @classmethod
    def _check_table(cls, table: dict[str, Path]) -> dict[str, Path]:
        # Complete paths: the provenance keeps them, and `explain` may run elsewhere.
        return {name: path.absolute() for name, path in table.items()}

    @field_validator("bins")
    @classmethod
    def _check_bins(cls, bins: tuple[float, ...]) -> tuple[float, ...]:
        if not all(math.isfinite(edge) for edge in bins) or list(bins) != sorted(set(bins)):
            raise ValueError("write numbers in increasing order, as in --bins=-1,1")
        return bins

    @field_validator("abstain")
    @classmethod
    def _check_abstain(cls, errors: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < error < 1 for error in errors):
            raise ValueError("write errors above 0 and below 1, as in --abstain .05,.1,.2")
        return tuple(sorted(set(errors)))

    @field_validator("only")
    @classmethod
    def _check_only(cls, only: str | None) -> str | None:
        fold = "" if only is None else only.rpartition("/")[2]
        if only is not None and not (fold.isdecimal() or fold == "final"):
            raise ValueError("write SYSTEM/FOLD, for example text/03 or text/final")
        return only

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.only is not None and self.fresh:
            raise ValueError(
                "--fresh sets the folder aside, and with --only other units may be writing "
                "into it: leave out one of them"
            )
        if self.scheduler is not None and self.workers is not None:
            raise ValueError(
                "--workers counts local processes, and with --scheduler the cluster's own "
                "workers run the units: leave out one of them"
            )
        if self.normalise == "speaker" and "tfidf" in self.extract.values():
            raise ValueError(
                "--normalise speaker is for features that are there before the folds, and "
                "tfidf is fitted within them: leave out one, or take --extract text=hashing"
            )
        return self

    @field_validator("fusion", mode="before")
    @classmethod
    def _refuse_hybrid(cls, fusion: object) -> object:
        if isinstance(fusion, list | tuple) and HYBRID in fusion:
            raise ValueError("hybrid was replaced by log-pool; write log-pool in its place")
        return fusion

    @field_validator("fusion")
    @classmethod
    def _check_fusion(cls, fusion: tuple[str, ...]) -> tuple[str, ...]:
        if "none" in fusion and len(fusion) > 1:
            raise ValueError("none stands alone")
        if "log-pool" in fusion and "early" not in fusion:
            raise ValueError("log-pool needs early: early fusion is one of its members")
        return fusion

    @field_validator("figures")
    @classmethod
    def _check_figures(cls, figures: tuple[str, ...]) -> tuple[str, ...]:
        if "svg" not in figures:
            raise ValueError("svg cannot be left out: the report holds it; write svg,png")
        # A figure that was drawn in another format first may be laid out a little otherwise.
        return tuple(dict.fromkeys(("svg", *figures)))

    @field_validator("imbalance")
    @classmethod
    def _check_imbalance(cls, imbalance: str) -> str:
        known = ("auto", "none", "weights", "oversample", "smote", "borderline", "smote_tomek")
        words = imbalance.split(",")
        if unknown := [word for word in words if word not in known]:
            raise ValueError(
                f"{', '.join(unknown)} is unknown; choose among {', '.join(known)}"
            )
        if "auto" in words and len(words) > 1:
            raise ValueError("auto stands alone")
        return imbalance

    @field_validator("screening")
    @classmethod
    def _check_screening(cls, screening: str) -> str:
        for word in screening.split(","):
            method, _, kept = word.partition("-")
            known = method in ("ftest", "mutual", "gain")
            fine = known and kept.isdecimal() and int(kept) > 0
            if not fine and word not in ("auto", "none"):
                raise ValueError(
                    f"{word!r} is unknown; choose auto, none, ftest-N, mutual-N or gain-N"
                )
        if "auto" in screening.split(",") and screening != "auto":
            raise ValueError("auto stands alone")
        return screening

    @model_validator(mode="after")
    def _check_tables(self) -> Self:
        if self.grid and self.sampler != "grid":
            raise ValueError('[grid] is for --sampler grid; write sampler = "grid"')
        if self.space and self.sampler == "grid":
            raise ValueError("[space] is not for --sampler grid; give the values in [grid]")
        for name, tables in (("space", self.space), ("grid", self.grid)):
            if idle := [kind for kind in tables if kind not in self.searched_boosters]:
                raise ValueError(f"[{name}.{idle[0]}] is not for --booster {self.booster}")
        return self

    @property
    def searched_boosters(self) -> tuple[str, ...]:
        """Boosters of the search; a single one is fixed."""
        return ("lightgbm", "xgboost") if self.booster == "both" else (self.booster,)

    @property
    def n_trials(self) -> int:
        """Trials of each search, 5 by --quick alone; the plan counts a grid's points."""
        return 5 if self.quick and "trials" not in self.model_fields_set else self.trials

    def count_rounds(self, n: int) -> int:
        """Count the most boosting rounds of a model, given the number of utterances.

        With more than 20,000, the probabilities of every round, which a search keeps, would
        take too much memory.
        """
        return 600 if self.quick or n > 20_000 else 1_200

    @property
    def n_workers(self) -> int:
        """Local processes: as asked, else one per core and at most 8."""
        return self.workers or min(os.cpu_count() or 1, 8)

    @property
    def searched_statistics(self) -> tuple[str, ...]:
        """Presets of statistics of the search; a single one is fixed."""
        if self.quick and "statistics" not in self.model_fields_set:
            return ("basic",)
        return ("rich", "basic") if self.statistics == "auto" else (self.statistics,)

    @classmethod
    def identity_fields(cls) -> tuple[str, ...]:
        """Name the fields that decide a study's numbers."""
        return tuple(
            name
            for name, field in cls.model_fields.items()
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra["identity"]
        )

    def identity(self) -> dict[str, Any]:
        """Give the fields of the identity as plain data.

        Paths and headers of the data are left out, since their content counts; so is the number
        of trials, which may be raised.
        """
        plain = self.model_dump(mode="json")
        left_out = {
            "data",
            "column",
            "table",
            "frames_columns",
            "trials",
            # They differ for wide modalities alone, which the provenance names.
            *(["wide"] if plain["wide"] != "keep" else []),
            # So they were in folders of versions that did not have them.
            *(name for name, default in _LATER.items() if plain[name] == default),
        }
        return {
            name: plain[name] for name in self.identity_fields() if name not in left_out
        } | {"statistics": ",".join(self.searched_statistics)}
