"""From finished units to the files a reader opens; nothing here fits anything."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.files import (
    FolderError,
    format_json,
    hash_file,
    lock_folder,
    write_bytes,
    write_text,
)
from toolkit.report import draw_figures, format_page, render_figure
from toolkit.study.archive import MODEL_STEM, unit_folder
from toolkit.study.derive import derive_study
from toolkit.study.finals import FINAL_FILES, model_stem
from toolkit.study.saved import read_data

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from toolkit.validation import Comparison, Predictions, Score, UnitResult


@dataclass(frozen=True, slots=True)
class StudyResult:
    """All that came out of a study.

    - folder: Where its files are.
    - predictions: System to its out-of-fold predictions, in the order of the tables.
    - scores: Of every system.
    - comparisons: Of every pair of systems; variants with class offsets are scored but not
      compared.
    - unfinished: Systems that lack folds and are therefore in no table.
    """

    folder: Path
    predictions: Mapping[str, Predictions]
    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    unfinished: tuple[str, ...]


def collect_study(folder: Path) -> StudyResult:
    """Write predictions, scores, comparisons, the audit, models, figures and the report."""
    collected = derive_study(folder)
    facts = collected.facts
    for name, text in collected.tables.items():
        write_text(folder / name, text)
    _keep_only(folder / "predictions", [f"{system}.csv" for system in facts.predictions])
    _copy_models(folder, collected.units, collected.finals)
    for name in FINAL_FILES:
        if name not in collected.tables:
            (folder / name).unlink(missing_ok=True)
    drawn = {}
    for stem, ax in draw_figures(facts):
        svg = render_figure(ax, "svg")
        drawn[stem] = svg.decode("utf-8")
        write_bytes(folder / "figures" / f"{stem}.svg", svg)
        write_bytes(folder / "figures" / f"{stem}.png", render_figure(ax, "png"))
    _keep_only(
        folder / "figures", [f"{stem}.{end}" for stem in drawn for end in ("svg", "png")]
    )
    write_text(folder / "report.html", format_page(collected.report, drawn))
    return StudyResult(
        folder,
        facts.predictions,
        tuple(facts.scores),
        tuple(facts.comparisons),
        facts.unfinished,
    )


def rebuild_report(folder: Path) -> StudyResult:
    """Make every derived file of a study again: the command ``toolkit report``."""
    if not folder.is_dir():
        raise FolderError(f"There is no folder {folder}.")
    read_data(folder)
    with lock_folder(folder):
        return collect_study(folder)


def _copy_models(
    folder: Path, units: Mapping[str, Sequence[UnitResult]], finals: Mapping[str, UnitResult]
) -> None:
    for system, found in units.items():
        models = folder / "models" / system
        sums = {}
        for unit in [*found, *([finals[system]] if system in finals else [])]:
            source = unit_folder(folder, system, unit.fold)
            for path in sorted(source.glob(f"{MODEL_STEM}.*")):
                models.mkdir(parents=True, exist_ok=True)
                name = model_stem(unit.fold) + path.name.removeprefix(MODEL_STEM)
                shutil.copyfile(path, models / name)
                sums[name] = hash_file(path)
        if sums:
            write_text(models / "checksums.json", format_json(sums))
            _keep_only(models, [*sums, "checksums.json"])


def _keep_only(folder: Path, names: Iterable[str]) -> None:
    """Remove derived files of systems that the study no longer has."""
    for path in set(folder.iterdir()) - {folder / name for name in names}:
        path.unlink()
