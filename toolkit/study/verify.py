"""Verification of a finished study: every number is computed again and compared with the files.

Two ways lead to the numbers, and both are taken: from the predictions on disk to scores,
comparisons and fusion ledger, without any unit; and from the finished units to the predictions
and every file that is made of them.
"""

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from toolkit.files import (
    CHECKSUMS,
    FolderError,
    format_json,
    format_records,
    hash_folder,
    read_checksums,
)
from toolkit.fusion.fuse import FusionRecord, fusion_records
from toolkit.report import Report, format_page
from toolkit.report.document import Figure, Matrix
from toolkit.study.config import ConfigError
from toolkit.study.final_models import FINAL_STEM
from toolkit.study.folder import Study, StudyFolder
from toolkit.study.options import Request
from toolkit.study.outcome import format_scores
from toolkit.study.results import Collected, audit_study, derive_study, derive_units
from toolkit.study.terminal import is_quiet, print_json
from toolkit.study.units import describe_rows
from toolkit.systems import BEST_SINGLE, System
from toolkit.validation import FINAL, Comparison, LeakageError, Predictions
from toolkit.validation.comparison import compare_families
from toolkit.validation.folds import final_fold, holds_content
from toolkit.validation.predictions import parse_predictions
from toolkit.validation.scores import group_seeds, score_systems

_NUMBER: Final = re.compile(r"([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
#: Other versions of numpy may sum in another order; a real difference is far larger.
_RELATIVE: Final = 1e-9
_ABSOLUTE: Final = 1e-12
_MOST_NAMED: Final = 10
#: Files whose numbers come from the predictions on disk.
_SCORED: Final = ("comparisons.csv", "fusion.csv")


def _text_differences(name: str, text: str, expected: str, source: str) -> tuple[str, ...]:
    """Name the lines in which a file differs from its expected text.

    Numbers of a table or of JSON that agree within rounding are no difference.
    """
    if name.endswith(".json"):
        try:
            text = format_json(json.loads(text))  # spaces are no difference either
        except (ValueError, RecursionError) as error:
            return (f"{name} cannot be compared: {error}",)
    lines, wanted = text.split("\n"), expected.split("\n")
    if name.endswith((".csv", ".json")):
        pairs = zip(lines, wanted, strict=False)
        lines[: len(wanted)] = [b if _agree(a, b) else a for a, b in pairs]
    if lines == wanted:
        return ()
    changed = [
        (number, found, right)
        for tag, start, end, first, last in SequenceMatcher(None, lines, wanted).get_opcodes()
        if tag != "equal"
        for number, (found, right) in enumerate(
            zip_longest(lines[start:end], wanted[first:last]), start + 1
        )
    ]
    named = [
        f"{name}, line {number} is {_quote(found)}; {source} {_quote(right)}."
        for number, found, right in changed[:_MOST_NAMED]
    ]
    if len(changed) > _MOST_NAMED:
        named.append(f"{name}: {len(changed) - _MOST_NAMED:,} further lines differ.")
    return tuple(named)


def _agree(line: str, expected: str) -> bool:
    """Compare two lines, their numbers within rounding."""
    if line == expected:
        return True
    # The group of the pattern puts numbers at the odd indices.
    parts, wanted = _NUMBER.split(line), _NUMBER.split(expected)
    return parts[::2] == wanted[::2] and all(
        a == b or math.isclose(float(a), float(b), rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
        for a, b in zip(parts[1::2], wanted[1::2], strict=True)
    )


def _quote(line: str | None) -> str:
    if line is None:
        return "missing"
    return repr(line if len(line) <= 120 else line[:119] + "…")


@dataclass(frozen=True, slots=True)
class _Check:
    """One comparison of `n` files or numbers; each difference is a sentence."""

    name: str
    n: int
    differences: tuple[str, ...]


def _verify_study(path: Path) -> tuple[list[_Check], dict[str, Any]]:
    """Compute every number of a study again and compare it with the files; audit it as well.

    Nothing is written into the folder, and the data are not needed.
    """
    folder = StudyFolder(path)
    folder.check_exists()
    study = folder.read_study()
    predictions, unreadable = _read_predictions(folder)
    checks = [
        _check_identity(study),
        _check_units(folder),
        _check_origins(study),
        _check_models(folder),
        _Check("predictions.csv can be read", len(predictions), unreadable),
        *_check_numbers(study, predictions),
    ]
    try:
        derived = derive_units(study)
    except (FolderError, ConfigError) as error:  # damaged units: nothing can be audited
        return [*checks, _Check("leakage audit", 0, (str(error),))], {}
    audit = audit_study(study, derived.ledgers, derived.final_ledgers, predictions)
    audit["problems"] += derived.leaks
    n_fits = sum(system["fits_and_choices"] for system in audit["systems"].values())
    checks.append(_Check("leakage audit", n_fits, tuple(audit["problems"])))
    audit["problems"] += unreadable
    audit["verdict"] = "leakage found" if audit["problems"] else "no leakage found"
    try:
        collected = derive_study(folder, derived=derived)
    except (FolderError, LeakageError, ConfigError) as error:
        return [*checks, _Check("files against finished units", 0, (str(error),))], audit
    return [*checks, *_check_derived(folder, collected)], audit


def _check_identity(study: Study) -> _Check:
    """Compare rows and options with those that the folder's provenance names."""
    known = study.folder.read_provenance()
    if known is None:
        return _Check("rows and options", 0, ("provenance.json is missing.",))
    differences = []
    content = holds_content(study.config.outer)
    if known["data"]["rows"] != study.manifest.digest(content=content):
        differences.append("rows.csv and data.json hold other rows than provenance.json names.")
    if known["data"].get("screened") and study.config.wide != "screen":
        differences.append(
            f"study.toml: wide is {study.config.wide!r}; provenance.json says 'screen'."
        )
    differences += [
        f"study.toml: {name} is {value!r}; provenance.json says "
        f"{known['identity'].get(name)!r}."
        for name, value in study.config.identity().items()
        if known["identity"].get(name) != value
    ]
    return _Check("rows and options", 1 + len(known["identity"]), tuple(differences))


def _check_units(folder: StudyFolder) -> _Check:
    parts = sorted(folder.units.glob("*/*.zip"))
    parts += sorted((folder.path / "explain" / "contributions").glob("[a-z]*"))
    differences = []
    for part in parts:
        try:
            with folder.open_part(part):
                pass
        except FolderError as error:
            differences.append(str(error))
    return _Check("checksums of finished units", len(parts), tuple(differences))


def _check_origins(study: Study) -> _Check:
    """Compare what each unit states of its rows, features and code with the study's."""
    known = study.folder.read_provenance() or {"data": {"modalities": {}}}
    features = {"features": known["data"]["modalities"]}
    folds = {fold.name: fold for fold in (*study.folds, final_fold(study.manifest))}
    differences, n = [], 0
    for unit in sorted(study.folder.units.glob("*/*.zip")):
        system, name = unit.parent.name, unit.stem
        if name not in folds or System.parse(system).variant == "permuted":
            continue
        n += 1
        origin = describe_rows(study.manifest, folds[name]) | features
        try:
            study.folder.read_unit(system, folds[name].number, origin)
            summary = study.folder.read_summary(system, folds[name].number) or {}
            code = summary["origin"]["code"]
        except ValueError as error:
            differences.append(str(error))
            continue
        if code != known.get("code", code):
            differences.append(
                f"{unit} was made by other code of modality-toolkit than "
                "provenance.json names; toolkit study --fresh makes all units by the same code."
            )
    return _Check("origin of finished units", n, tuple(differences))


def _check_models(folder: StudyFolder) -> _Check:
    """Compare models with their checksums, and with the units that they come from."""
    differences, n = [], 0
    for models in sorted((folder.path / "models").glob("*/")):
        stem = models.relative_to(folder.path).as_posix()
        try:
            sums = read_checksums(models)
        except (OSError, ValueError):
            differences.append(f"{stem}/{CHECKSUMS} cannot be read.")
            continue
        found = hash_folder(models)
        n += len(sums)
        differences += [
            f"{stem}/{name} is not what was written."
            for name in sorted(sums)
            if sums[name] != found.get(name)
        ]
        if folder.unit(models.name, FINAL).exists():
            trained = folder.read_models(models.name, FINAL)
            differences += [
                f"{stem}/{FINAL_STEM}{end} is not the model of the finished unit."
                for end, content in trained.items()
                if sums.get(FINAL_STEM + end) != hashlib.sha256(content).hexdigest()
            ]
    return _Check("checksums of models", n, tuple(differences))


def _read_predictions(folder: StudyFolder) -> tuple[dict[str, Predictions], tuple[str, ...]]:
    path = folder.path / "predictions.csv"
    try:
        return parse_predictions(_read(path), path.name), ()
    except (OSError, ValueError) as error:
        return {}, (f"predictions.csv cannot be read: {error}",)


def _check_numbers(study: Study, predictions: dict[str, Predictions]) -> Iterator[_Check]:
    """Compare scores, comparisons and fusion ledger with those of the predictions on disk."""
    path, config = study.folder.path, study.config

    def comparisons() -> str:
        rows = [
            r for r in _read_rows(path / "comparisons.csv") if r.get("family") == "all pairs"
        ]
        named = dict.fromkeys(name for end in ("a", "b") for name in (r[end] for r in rows))
        tables = [predictions[name] for name in named]
        modalities = study.manifest.available
        if not tables:
            return format_records(Comparison, ())
        repeated = group_seeds(predictions)
        pairs = compare_families(tables, modalities, config.metric, config.seed, repeated)
        return format_records(Comparison, pairs)

    def fusion() -> str:
        rows = _read_rows(path / "fusion.csv")
        if not rows:
            return format_records(FusionRecord, ())
        fused = dict.fromkeys(row["system"] for row in rows if row["quantity"] == "fixed")
        available = study.manifest.available
        records = fusion_records(
            [predictions[name] for name in available if name in predictions],
            [predictions[name] for name in fused],
            predictions[BEST_SINGLE],
        )
        return format_records(FusionRecord, records)

    yield _check_table(path / "scores.csv", lambda: format_scores(score_systems(predictions)))
    yield _check_table(path / "comparisons.csv", comparisons)
    yield _check_table(path / "fusion.csv", fusion)


def _check_table(path: Path, make: Callable[[], str]) -> _Check:
    name = path.name
    try:
        text, expected = _read(path), make()
        if name == "scores.csv":  # those with other decision thresholds come from the units
            rows = _read_rows(path)
            kept = (row for row in rows if not row["variant"])
            text = _write_rows(list(rows[0]) if rows else [], kept)
    except KeyError as error:
        return _Check(name, 0, (f"{name} names {error}, of which there are no predictions.",))
    except (OSError, ValueError) as error:
        return _Check(name, 0, (f"{name} cannot be compared: {error}",))
    found = _text_differences(name, text, expected, "the predictions give")
    return _Check(name, expected.count("\n") - 1, found)


def _check_derived(folder: StudyFolder, collected: Collected) -> Iterator[_Check]:
    """Compare every derived file with the one that the finished units give."""
    for name, expected in collected.tables.items():
        if name in _SCORED:
            continue
        found: tuple[str, ...] = (f"{name} is missing.",)
        if (path := folder.path / name).exists():
            text = path.read_bytes().decode("utf-8", errors="replace")
            found = _text_differences(name, text, expected, "the finished units give")
        yield _Check(name, max(expected.count("\n") - 1, 1), found)
    yield _check_page(folder, collected.report, collected.derived.study.config.figures)


def _check_page(folder: StudyFolder, report: Report, formats: Sequence[str]) -> _Check:
    """Compare the page with the numbers, and its drawings with the figures' files."""
    path = folder.path / "report.html"
    if not path.exists():
        return _Check("report.html", 1, ("report.html is missing.",))
    stems = [
        part.stem if isinstance(part, Figure) else part.name
        for part in report.parts()
        if isinstance(part, Figure | Matrix)
    ]
    drawn, differences = {}, []
    for stem in stems:
        files = {end: folder.path / "figures" / f"{stem}.{end}" for end in formats}
        drawn[stem] = _read(files["svg"]) if files["svg"].exists() else ""
        differences += [
            f"figures/{file.name} is missing." for file in files.values() if not file.exists()
        ]
    page = path.read_bytes().decode("utf-8", errors="replace")
    expected = format_page(report, drawn)
    differences += _text_differences("report.html", page, expected, "the finished units give")
    n = page.count("\n") + len(formats) * len(stems)
    return _Check("report.html and figures", n, tuple(differences))


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8")


def _read_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(_read(path), newline=""), restval=""))


def _write_rows(header: Sequence[str], rows: Iterable[Mapping[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def verify_command(request: Request) -> int:
    """Compute every number of a study again, audit it, and describe each difference."""
    checks, audit = _verify_study(request.arguments["folder"])
    differences = [sentence for check in checks for sentence in check.differences]
    code = 2 if differences else 0
    if request.as_json:
        print_json({"checks": [asdict(check) for check in checks], "audit": audit})
        return code
    groups: dict[str, list[_Check]] = {}
    for check in checks:
        folder, slash, _ = check.name.partition("/")
        groups.setdefault(f"{folder}/" if slash else check.name, []).append(check)
    for name, members in groups.items():
        faults = [sentence for check in members for sentence in check.differences]
        n = sum(check.n for check in members)
        if faults or not is_quiet():
            print(f"{'differs' if faults else 'OK':7}  {name} ({n:,} compared)")  # noqa: T201
        for sentence in faults:
            print(f"  {sentence}")  # noqa: T201
    if differences or not is_quiet():
        brought = audit.get("outside", ())
        print(  # noqa: T201
            f"{len(differences)} differences."
            if differences
            else f"OK: all numbers are the same when computed again; {audit['verdict']} in "
            f"{audit['n_folds']} folds by {audit['held_out_unit']}."
            + (f" Not audited: {', '.join(brought)}." if brought else "")
        )
    return code
