"""The results of a study written as files, or left as they are where they are up to date."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from toolkit.files import (
    CHECKSUMS,
    INTERNAL,
    FolderError,
    format_json,
    hash_file,
    parse_records,
    read_json,
)
from toolkit.report import StudyFacts, draw_figures, format_page, render_figure
from toolkit.study.final_models import FINAL_STEM
from toolkit.study.folder import ARTIFACTS, CURVE, StudyFolder
from toolkit.study.inventory import Inventory
from toolkit.study.outcome import StudyResult, parse_scores
from toolkit.study.results import Derived, derive_study
from toolkit.study.terminal import show_work
from toolkit.study.units import hash_code, library_versions
from toolkit.systems import System
from toolkit.validation import FINAL, Comparison
from toolkit.validation.predictions import parse_predictions

logger = logging.getLogger(__name__)

#: What the derived files were made from, and their SHA-256.
_DERIVED: Final = f"{INTERNAL}/derived.json"
#: Figures that the dashboard shows.
_PICTURES: Final = ("confusion-", "modalities", "shap-bar", "shap-beeswarm-")


def collect_study(folder: StudyFolder, *, again: bool = True) -> StudyResult:
    """Write predictions, scores, comparisons, the audit, models, figures and the report.

    - again: Whether they are made again where they are up to date already.
    """
    inputs = _hash_inputs(folder)
    if not again and (kept := _read_result(folder, inputs)):
        logger.info("Nothing to do: the results in %s are up to date.", folder.path)
        return kept
    with show_work("Scoring and comparing systems"):
        collected = derive_study(folder)
    facts, path = collected.facts, folder.path
    formats = collected.derived.study.config.figures
    with show_work("Drawing figures") as count_figure:
        figures = _render_figures(facts, formats, count_figure)
    logger.info("Writing %s", path / "report.html")
    drawn = {Path(n).stem: c.decode("utf-8") for n, c in figures.items() if n.endswith(".svg")}
    page = format_page(collected.report, drawn)
    texts = {name: text.encode("utf-8") for name, text in collected.tables.items()}
    texts["report.html"] = page.encode("utf-8")
    files = texts | figures | _list_models(collected.derived)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    made = {"inputs": inputs, "files": sums, "unfinished": list(facts.unfinished)}
    files[_DERIVED] = format_json(made).encode("utf-8")
    Inventory(path).write(files, whole=True)
    return StudyResult(
        path,
        {n: table for n, table in facts.predictions.items() if not System.parse(n).is_offset},
        tuple(facts.scores),
        tuple(facts.comparisons),
        facts.unfinished,
    )


def _hash_inputs(folder: StudyFolder) -> str:
    """Hash all that the derived files are made from: finished work, options, rows and code."""
    parts = [*folder.units.glob("*/*.zip"), *folder.path.glob("explain/contributions/*/*.json")]
    parts += [folder.path / name for name in ("study.toml", "intended_use.md", CURVE)]
    parts += [folder.path / INTERNAL / name for name in ("data.json", "rows.csv")]
    parts += folder.path.glob(f"{INTERNAL}/outside/*.csv")
    sums = {
        path.relative_to(folder.path).as_posix(): hash_file(path)
        for path in parts
        if path.exists()
    }
    content = {"code": hash_code(), "versions": library_versions(), "files": sums}
    return hashlib.sha256(format_json(content).encode("utf-8")).hexdigest()


def _read_result(folder: StudyFolder, inputs: str) -> StudyResult | None:
    """Read the results of earlier; None where the inputs or the files are other ones."""
    path = folder.path
    if not (path / _DERIVED).exists():
        return None
    try:
        made = read_json(path / _DERIVED)
        sums = made["files"].items()
        current = all((path / n).exists() and hash_file(path / n) == s for n, s in sums)
        if made["inputs"] != inputs or not current:
            return None
    except (FolderError, KeyError, TypeError, AttributeError):  # damaged: made again as well
        return None
    texts = {
        name: (path / f"{name}.csv").read_bytes().decode("utf-8")
        for name in ("predictions", "scores", "comparisons")
    }
    return StudyResult(
        path,
        parse_predictions(texts["predictions"], "predictions.csv"),
        tuple(parse_scores(texts["scores"])),
        tuple(parse_records(Comparison, texts["comparisons"])),
        tuple(made["unfinished"]),
    )


def _render_figures(
    facts: StudyFacts, formats: Sequence[str], on_done: Callable[[str], None]
) -> dict[str, bytes]:
    """Draw every figure in these formats; return the content of each file by its name."""
    files = {}
    for stem, ax in draw_figures(facts):
        for end in formats:
            files[f"figures/{stem}.{end}"] = render_figure(ax, end)
        # Optuna's dashboard shows pictures that are its own artifacts, on a screen.
        if stem.startswith(_PICTURES):
            files[f"{ARTIFACTS}/{stem}.png"] = render_figure(ax, "png", dpi=150)
        on_done(stem)
    return files


def _list_models(derived: Derived) -> dict[str, bytes]:
    """List the files of ``models/``: those of the units that are fitted on everybody."""
    files: dict[str, bytes] = {}
    for system in derived.final_units:
        models = derived.study.folder.read_models(system, FINAL)
        named = {FINAL_STEM + end: content for end, content in models.items()}
        files |= {f"models/{system}/{name}": content for name, content in named.items()}
        if named:
            sums = {name: hashlib.sha256(c).hexdigest() for name, c in named.items()}
            files[f"models/{system}/{CHECKSUMS}"] = format_json(sums).encode("utf-8")
    return files
