"""The data alone: one verdict for ``check`` and for studies, and the tables of ``pool``."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from toolkit.data import (
    DatasetSummary,
    ManifestError,
    SequenceError,
    split_member,
    summarise_manifest,
)
from toolkit.data.containers import missing_dependency
from toolkit.data.dimension_names import name_dimensions
from toolkit.files import cache_folder, write_text
from toolkit.pooling import FeatureTable, write_table
from toolkit.pooling.corpus import pool_modality
from toolkit.pooling.statistics import HASHING, TFIDF, resolve_statistics
from toolkit.study.config import ConfigError
from toolkit.study.inventory import Inventory
from toolkit.study.options import Request
from toolkit.study.plan import Plan, plan_study
from toolkit.study.terminal import is_quiet, print_json, print_lines, print_table, show_files
from toolkit.study.units import hash_code
from toolkit.validation.folds import Fold, inner_folds

logger = logging.getLogger(__name__)

_SETTLED: Final = 2_000_000_000  # nanoseconds
_MOST_THREADS: Final = 8


def _examine_data(plan: Plan, alone: str | None = None) -> DatasetSummary:
    """Examine the data of a planned study: the verdict of ``check`` and of the study itself.

    - alone: Modality whose files are read; all by default.
    """
    config, manifest = plan.config, plan.manifest
    paths = [path for column in manifest.paths.values() for path in column if path is not None]
    with show_files("checking", paths) as update:
        summary = summarise_manifest(
            manifest,
            missing=config.missing,
            frames=config.frames,
            duplicates=config.duplicates,
            progress=update,
            alone=alone,
            n_threads=config.n_workers,
        )
    problems, notes = summary.problems, summary.warnings
    if not problems:
        seen = {alone: summary.present[alone]} if alone else summary.present
        problems = tuple(_find_unlearnable(plan, seen))
        try:
            plan.read_names(alone)
        except SequenceError as error:
            problems += (str(error),)
    n_single = int((np.unique(manifest.speakers, return_counts=True)[1] == 1).sum())
    if config.normalise == "speaker" and n_single:
        single = f"Speakers with a single utterance: {n_single:,}. Standardised within the "
        notes += (single + "speaker, all of its features are 0.",)
    return replace(summary, problems=problems, warnings=notes)


def _find_unlearnable(plan: Plan, present: Mapping[str, NDArray[np.bool_]]) -> Iterator[str]:
    """Describe modalities that are missing where a fold learns from them or is validated."""
    left = dict(present)
    for place, fold, stops in _list_splits(plan):
        for modality, rows in [*left.items()]:
            train, test = fold.train[rows[fold.train]], fold.test[rows[fold.test]]
            n_seen = len(np.unique(plan.manifest.labels[train]))
            if n_seen < 2 or (stops and not len(test)):
                del left[modality]
                speakers = plan.manifest.speakers
                lacking = np.setdiff1d(speakers, speakers[rows]).tolist()
                named = ", ".join(lacking[:5]) + ", ..." * (len(lacking) > 5)
                who = f" Speakers without it: {named}." if lacking else ""
                yield (
                    f"Modality {modality!r}, {place}: {len(train):,} utterances of {n_seen} "
                    f"classes to learn from and {len(test):,} to predict have it.{who} Leave "
                    "it out with --modality, or change --outer or --inner."
                )


def _list_splits(plan: Plan) -> Iterator[tuple[str, Fold, bool]]:
    """List outer folds, and inner folds of every seed, by name; and if rows stop the rounds."""
    yield from ((f"fold {fold.name}", fold, False) for fold in plan.folds)
    splits = {(unit.protocol, unit.fold.number): unit.fold for unit in plan.list_units()}
    for (protocol, _), fold in splits.items():
        split: Any = partial(inner_folds, plan.manifest, fold, **protocol.partition)
        for purpose in ("search", "out-of-fold"):
            for inner in split(purpose=purpose):
                place = f"fold {fold.name}, inner fold {inner.number} ({purpose})"
                yield place, inner, purpose == "search"


def check_data(plan: Plan, alone: str | None = None) -> Plan:
    """Refuse what ``check`` calls a problem; else give the plan with the notes on its files.

    - alone: As in :func:`_examine_data`, for a unit that sees this modality alone.
    """
    found = _find_notes(plan, alone)
    kept: dict[str, Any] = {}
    with suppress(OSError, ValueError):  # not kept yet, or damaged
        kept = json.loads(found.read_text(encoding="utf-8")) if found else {}
    if not kept:
        summary = _examine_data(plan, alone)
        if summary.problems:
            raise ManifestError(summary.problems, source=plan.manifest.source)
        kept = {"warnings": summary.warnings, "notes": summary.notes}
        if found is not None:
            write_text(found, json.dumps(kept))
    for note in kept["warnings"]:
        logger.info("Note: %s", note)
    notes = {name: tuple(own) for name, own in kept["notes"].items()}
    return replace(plan, notes=notes, names=plan.read_names(alone))


def _find_notes(plan: Plan, alone: str | None) -> Path | None:
    """Name the file with the notes on data that passed; None if a file changed just now."""
    config, manifest = plan.config, plan.manifest
    options = (config.missing, config.frames, config.duplicates, config.normalise)
    known: list[object] = [*options, plan.protocol, alone]
    known += [unit.protocol for unit in plan.list_units()]
    # Other code may find other faults.
    known += [hash_code(), manifest.digest(content=True), manifest.warnings]
    newest = 0
    for modality, paths in manifest.paths.items():
        for path in paths:
            size = changed = 0
            if path is not None:
                member = split_member(path)
                try:
                    status = (member.file if member else path).stat()
                except OSError:
                    return None
                size, changed = status.st_size, max(status.st_mtime_ns, status.st_ctime_ns)
            known.append((modality, str(path), size, changed))
            newest = max(newest, changed)
    # File systems keep times in ticks: a file that changed just now may change unnoticed.
    if time.time_ns() - newest < _SETTLED:
        return None
    digest = hashlib.sha256(repr(known).encode()).hexdigest()
    return cache_folder() / "checked" / f"{digest[:24]}.json"


def check_command(request: Request) -> int:
    """Validate a data set with the study's own plan, and describe it."""
    manifest = request.require_table()
    summary = _examine_data(plan_study(request.config, manifest))
    if request.as_json:
        print_json(_describe_summary(summary))
    elif not is_quiet():
        _show_summary(summary)
        if manifest.ignored:
            print_lines(f"Ignored columns: {', '.join(manifest.ignored)}")
        print_lines(*(f"Note: {sentence}" for sentence in summary.warnings))
        print_lines(*(f"Problem: {sentence}" for sentence in summary.problems))
        if not summary.problems:
            print_lines(f"No problems found. Run: {request.format_command()}")
    elif summary.problems:
        raise ManifestError(summary.problems, source=manifest.source)
    return 2 if summary.problems else 0


def _show_summary(summary: DatasetSummary) -> None:
    """Print what a data set holds."""
    if summary.generated:
        print_lines("Generated data: made by this software, with a planted signal.")
    Console().print(
        f"{summary.source}: {summary.n_utterances} utterances, {len(summary.classes)} classes, "
        f"{len(summary.speakers)} speakers"
        + ("" if summary.n_sessions is None else f", {summary.n_sessions} sessions")
        + ("" if summary.n_contents is None else f", {summary.n_contents} scripts or sentences")
        + f"; {summary.n_complete} utterances have every modality.",
        highlight=False,
        markup=False,
    )
    people = zip(summary.speakers, summary.counts.tolist(), strict=True)
    totals = summary.counts.sum(axis=0).tolist()
    print_table(
        ["speaker", *summary.classes, "all"],
        [(speaker, *counts, sum(counts)) for speaker, counts in people],
        total=("all", *totals, sum(totals)),
    )
    files = []
    for each in summary.modalities:
        frames = "no time axis"
        if each.n_frames is not None:
            shortest, middle, longest = each.n_frames
            frames = f"{shortest}-{longest} (median {middle:g})"
        dims = ", ".join(str(n) if n else "words" for n in each.dims)
        counts = (each.n_files, each.n_empty, each.n_absent, each.n_unreadable)
        files.append((each.modality, dims, frames, *counts, each.n_not_finite))
    header = ("modality", "dims", "frames", "files", "empty", "absent", "unreadable")
    print_table((*header, "not finite"), files)


def _describe_summary(summary: DatasetSummary) -> dict[str, Any]:
    """Give a data set's summary as plain data."""
    plain = {each.name: getattr(summary, each.name) for each in fields(summary)}
    del plain["present"], plain["notes"]  # one entry per utterance; among the warnings
    modalities = [
        {each.name: getattr(modality, each.name) for each in fields(modality)}
        | {"dims": dict(modality.dims)}
        for modality in summary.modalities
    ]
    return plain | {"counts": summary.counts.tolist(), "modalities": modalities}


def pool_command(request: Request) -> int:
    """Pool every modality of a data set and write one table per modality."""
    config, manifest = request.config, request.require_table()
    out, form = request.arguments["out"], request.arguments["form"]
    missing = missing_dependency("table.parquet") if form == "parquet" else None
    if missing:
        raise ValueError(f"{missing} Or write the tables with --form npy.")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder.")
    other = "npy" if form == "parquet" else "parquet"
    if mixed := [m for m in manifest.modalities if (out / f"{m}.{other}").exists()]:
        raise ValueError(
            f"--out {out} holds tables of {', '.join(mixed)} in the form {other}, whose "
            "schemas would be replaced. Name another folder."
        )
    resolve_statistics(config.statistics)
    inventory = Inventory(out)
    inventory.claim("feature table")
    written = []
    for modality in manifest.modalities:
        extractor = config.extract.get(modality, "")
        if extractor == TFIDF:
            raise ConfigError(
                f"--extract {modality}={TFIDF}: these features are fitted on training rows "
                f"alone, so there is no table of all utterances; {HASHING} has one."
            )
        with show_files(f"pooling {modality}", manifest.paths[modality]) as update:
            table = pool_modality(
                manifest,
                modality,
                extractor,
                statistics=config.statistics,
                cache=cache_folder() / "features",
                missing=config.missing,
                frames=config.frames,
                progress=update,
                n_threads=config.workers or min(os.cpu_count() or 1, _MOST_THREADS),
            )
        inventory.reserve(f"{modality}.{end}" for end in (form, "schema.json"))
        named = name_dimensions(manifest, {modality: table.n_dims}, config.names)
        ids = manifest.utterances.tolist()
        path = write_table(table, ids, out, form=form, dimensions=named.get(modality, ()))
        written.append(_describe_table(table, path))
        if not (request.as_json or is_quiet()):
            _show_table(table, path)
    if request.as_json:
        print_json({"data": str(config.data), "folder": str(out), "tables": written})
    return 0


def _describe_table(table: FeatureTable, path: Path) -> dict[str, Any]:
    return {
        "modality": table.modality,
        "file": path.name,
        "schema": f"{table.modality}.schema.json",
        "utterances": len(table.present),
        "present": int(table.present.sum()),
        "statistics": list(table.statistics),
        "features": len(table.names),
        "counts": dict(table.counts),
    }


def _show_table(table: FeatureTable, path: Path) -> None:
    odd = "".join(
        f", {count:,} {name.replace('_', ' ')}" for name, count in table.counts.items()
    )
    print(  # noqa: T201
        f"{table.modality}: {len(table.present):,} utterances x {len(table.names):,} features "
        f"({len(table.statistics)} statistics of {table.n_dims:,} dimensions){odd}: {path}"
    )
