"""The table of utterances as a study's options say to read it, before anything heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.data import read_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from toolkit.data import Manifest
    from toolkit.study.config import StudyConfig


def read_table(config: StudyConfig, source: Path) -> Manifest:
    """Read and check the table of utterances.

    A table that is refused is refused at once: nothing that fits or draws is imported for it.
    """
    return read_manifest(
        source,
        columns=config.column,
        label=config.label,
        classes=config.classes,
        merge=config.merge,
        outer=config.outer,
        missing=config.missing,
        modalities=config.modality,
    )
