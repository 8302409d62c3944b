"""The data of a planned study, examined: one verdict for ``check`` and the study itself."""

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import toolkit.data
from toolkit.data import (
    DatasetSummary,
    ManifestError,
    SequenceError,
    split_member,
    summarise_manifest,
)
from toolkit.files import cache_folder, write_text
from toolkit.study.plan import Plan
from toolkit.study.progress import show_files

logger = logging.getLogger(__name__)

_SETTLED: Final = 2_000_000_000  # nanoseconds


def examine_data(plan: Plan, alone: str | None = None) -> DatasetSummary:
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
    """Describe modalities that are missing where a fold would learn from them."""
    for modality, rows in present.items():
        for fold in plan.folds:
            train = fold.train[rows[fold.train]]
            n_seen = len(np.unique(plan.manifest.labels[train]))
            if n_seen < 2:
                yield (
                    f"Modality {modality!r}: outer fold {fold.name} can learn from "
                    f"{len(train):,} utterances of {n_seen} class(es) only, and the modality "
                    "is missing elsewhere. Leave it out with --modality."
                )
                break


def check_data(plan: Plan, alone: str | None = None) -> Plan:
    """Refuse what ``check`` calls a problem; else give the plan with the notes on its files.

    - alone: As in :func:`examine_data`, for a unit that sees this modality alone.
    """
    found = _find_notes(plan, alone)
    kept: dict[str, Any] = {}
    with suppress(OSError, ValueError):  # not kept yet, or damaged
        kept = json.loads(found.read_text(encoding="utf-8")) if found else {}
    if not kept:
        summary = examine_data(plan, alone)
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
    options = (config.missing, config.frames, config.duplicates, config.normalise, config.outer)
    content = hashlib.sha256(
        repr((*options, config.content_parts, config.seed, alone)).encode()
    )
    for file in sorted(Path(toolkit.data.__file__).parent.glob("*.py")):
        content.update(file.read_bytes())  # other code may find other faults
    content.update(repr((manifest.digest(content=True), manifest.warnings)).encode())
    newest = 0
    for modality, paths in manifest.paths.items():
        content.update(modality.encode())
        for path in paths:
            member = None if path is None else split_member(path)
            try:
                status = None if path is None else (member.file if member else path).stat()
            except OSError:
                return None
            changed = 0 if status is None else max(status.st_mtime_ns, status.st_ctime_ns)
            size = None if status is None else status.st_size
            content.update(repr((str(path), size, changed)).encode())
            newest = max(newest, changed)
    # File systems keep times in ticks: a file that changed just now may change unnoticed.
    if time.time_ns() - newest < _SETTLED:
        return None
    return cache_folder() / "checked" / f"{content.hexdigest()[:24]}.json"
