"""What a study consists of, read and checked before anything is run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.data import CORPUS_VERSION, make_corpus
from toolkit.models import check_device
from toolkit.study.searching import make_search_options
from toolkit.study.table import read_table
from toolkit.study.tables import OUTPUTS, cache_folder
from toolkit.validation import make_folds

if TYPE_CHECKING:
    from toolkit.data import Manifest
    from toolkit.study.config import StudyConfig
    from toolkit.validation import Fold

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a study consists of and what of it is still to be done.

    - manifest: The utterances.
    - folds: The outer folds.
    - folder: The study's own folder.
    - name: The study's name.
    """

    manifest: Manifest
    folds: tuple[Fold, ...]
    folder: Path
    name: str


def plan_study(config: StudyConfig, manifest: Manifest | None = None) -> Plan:
    """Read and check the data of a study; write nothing but the generated corpus."""
    # What cannot be is refused before any data is read.
    make_search_options(config)
    for booster in config.searched_boosters:
        check_device(booster, config.device)
    if config.data is None:
        logger.info("Generated data: no --data was given; this corpus has a planted signal.")
    source = config.data or _generated_corpus()
    manifest = read_table(config, source) if manifest is None else manifest
    for warning in manifest.warnings:
        logger.info("Note: %s", warning)
    name = config.name or ("generated" if config.data is None else source.resolve().parent.name)
    name += "-quick" if config.quick else ""
    return Plan(
        manifest=manifest,
        folds=make_folds(manifest, config.outer, seed=config.seed),
        folder=config.out or OUTPUTS / name,
        name=name,
    )


def _generated_corpus() -> Path:
    folder = cache_folder() / f"demo-{CORPUS_VERSION}"
    source = folder / "dataset.csv"
    if not source.exists():
        logger.info("Making the generated corpus in %s", folder)
        make_corpus(folder)
    return source
