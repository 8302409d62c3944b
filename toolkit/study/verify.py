"""Verification of a finished study: every number is computed again and compared with the files.

Two ways lead to the numbers, and both are taken: from the predictions on disk to scores,
comparisons and fusion ledger, without any unit; and from the finished units to the predictions
and every file that is made of them.
"""

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import SequenceMatcher
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from toolkit.files import (
    CHECKSUMS,
    FolderError,
    format_json,
    hash_file,
    hash_folder,
    read_checksums,
    read_json,
)
from toolkit.fusion import FusionRecord, fusion_records
from toolkit.report import Report, format_page
from toolkit.report.document import Figure, Matrix
from toolkit.study.config import ConfigError
from toolkit.study.folder import (
    Study,
    StudyFolder,
    check_sums,
    format_records,
)
from toolkit.study.options import Request
from toolkit.study.results import (
    Collected,
    audit_study,
    derive_study,
    derive_units,
)
from toolkit.study.terminal import print_json
from toolkit.study.units import describe_rows
from toolkit.systems import BEST_SINGLE
from toolkit.validation import (
    Comparison,
    LeakageError,
    Predictions,
    Score,
    compare_families,
    final_fold,
    parse_predictions,
    score_predictions,
)

_NUMBER: Final = re.compile(r"([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
#: Other versions of numpy may sum in another order; a real difference is far larger.
_RELATIVE: Final = 1e-9
_ABSOLUTE: Final = 1e-12
_MOST_NAMED: Final = 10
#: Files whose numbers come from the predictions on disk.
_SCORED: Final = ("scores.csv", "scores.json", "comparisons.csv", "fusion.csv")


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
    if name.endswith((".csv", ".json")) and name != "table.csv":
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


def _verify_study(path: Path) -> list[_Check]:
    """Compute every number of a study again and compare it with the files."""
    folder = StudyFolder(path)
    folder.check_exists()
    study = folder.read_study()
    predictions, unreadable = _read_predictions(folder)
    checks = [
        _check_identity(study),
        _check_units(folder),
        _check_origins(study),
        _check_models(folder),
        _Check("predictions can be read", len(predictions) + len(unreadable), unreadable),
        *_check_numbers(study, predictions),
    ]
    try:  # nothing is written into a folder that is checked
        collected = derive_study(folder, write_audit=False)
    except (FolderError, LeakageError, ConfigError) as error:
        return [*checks, _Check("files against finished units", 0, (str(error),))]
    return [*checks, *_check_derived(folder, collected)]


def _check_identity(study: Study) -> _Check:
    """Compare rows and options with those that the folder's provenance names."""
    known = study.folder.read_provenance()
    if known is None:
        return _Check("rows and options", 0, ("provenance.json is missing.",))
    differences = []
    if known["data"]["rows"] != study.manifest.digest():
        differences.append("rows.csv and data.json hold other rows than provenance.json names.")
    differences += [
        f"study.toml: {name} is {value!r}; provenance.json says "
        f"{known['identity'].get(name)!r}."
        for name, value in study.config.identity().items()
        if known["identity"].get(name) != value
    ]
    return _Check("rows and options", 1 + len(known["identity"]), tuple(differences))


def _check_units(folder: StudyFolder) -> _Check:
    units = sorted((folder.path / "units").glob("*/[0-9]*"))
    units += sorted((folder.path / "explain" / "contributions").glob("[a-z]*"))
    differences = []
    for unit in units:
        try:
            check_sums(unit)
        except FolderError as error:
            differences.append(str(error))
    return _Check("checksums of finished units", len(units), tuple(differences))


def _check_origins(study: Study) -> _Check:
    """Compare what each unit states of its rows, features and code with the study's."""
    known = study.folder.read_provenance() or {"data": {"modalities": {}}}
    features = {"features": known["data"]["modalities"]}
    folds = {fold.name: fold for fold in (*study.folds, final_fold(study.manifest))}
    differences, n = [], 0
    for unit in sorted((study.folder.path / "units").glob("*/*/unit.json")):
        system, name = unit.parent.parent.name, unit.parent.name
        if name not in folds:
            continue
        n += 1
        origin = describe_rows(study.manifest, folds[name]) | features
        try:
            study.folder.read_unit(system, folds[name].number, origin)
            code = read_json(unit).get("origin", {}).get("code")
        except ValueError as error:
            differences.append(str(error))
            continue
        if code is not None and code != known.get("code", code):
            differences.append(
                f"units/{system}/{name} was made by other code of modality-toolkit than "
                "provenance.json names; toolkit study --fresh makes all units by one."
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
        for name, value in sorted(sums.items()):
            fold, _, end = name.removeprefix("fold-").partition(".")
            unit = folder.path / "units" / models.name / fold / f"model.{end}"
            copied = name.startswith(("fold-", "final.")) and unit.exists()
            if copied and hash_file(unit) != value:
                differences.append(f"{stem}/{name} is not the model of {models.name}/{fold}.")
    return _Check("checksums of models", n, tuple(differences))


def _read_predictions(folder: StudyFolder) -> tuple[dict[str, Predictions], tuple[str, ...]]:
    tables, problems = {}, []
    for path in sorted((folder.path / "predictions").glob("*.csv")):
        name = f"predictions/{path.name}"
        try:
            tables[path.stem] = parse_predictions(_read(path), path.stem, path.name)
        except ValueError as error:
            problems.append(f"{name} cannot be read: {error}")
    return tables, tuple(problems)


def _check_numbers(study: Study, predictions: dict[str, Predictions]) -> Iterator[_Check]:
    """Compare scores, comparisons and fusion ledger with those of the predictions on disk."""
    path, config = study.folder.path, study.config
    scored: list[Score] = []

    def scores() -> str:
        named = _column_values(path / "scores.csv", "system")
        order = [*named, *(name for name in predictions if name not in named)]
        scored.extend(s for name in order for s in score_predictions(predictions[name]))
        return format_records(Score, scored)

    def comparisons() -> str:
        rows = [
            r for r in _read_rows(path / "comparisons.csv") if r.get("family") == "all pairs"
        ]
        named = dict.fromkeys(name for end in ("a", "b") for name in (r[end] for r in rows))
        tables = [predictions[name] for name in named]
        modalities = study.manifest.available
        if not tables:
            return format_records(Comparison, ())
        pairs = compare_families(tables, modalities, config.metric, config.seed)
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

    yield _check_table(path / "scores.csv", scores)
    yield _check_table(path / "comparisons.csv", comparisons)
    yield _check_table(path / "fusion.csv", fusion)
    # After the other three: a score is written once more there, and counted as one.
    again = _check_table(
        path / "scores.json", lambda: format_json([asdict(score) for score in scored])
    )
    yield replace(again, n=len(scored))


def _check_table(path: Path, make: Callable[[], str]) -> _Check:
    name = path.name
    try:
        text, expected = _read(path), make()
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
        path = folder.path / name
        if path.exists():
            text = path.read_bytes().decode("utf-8", errors="replace")
            found = _text_differences(name, text, expected, "the finished units give")
        else:
            found = (f"{name} is missing.",)
        yield _Check(name, max(expected.count("\n") - 1, 1), found)
    systems = collected.facts.predictions
    names = {path.stem for path in (folder.path / "predictions").glob("*.csv")}
    further = sorted(names - {*systems})
    strays = (f"predictions/{name}.csv comes from no finished unit." for name in further)
    yield _Check("no other predictions", len(systems), tuple(strays))
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


def _column_values(path: Path, *columns: str) -> list[str]:
    rows = _read_rows(path)
    return list(dict.fromkeys(row[column] for column in columns for row in rows))


def _audit_folder(path: Path) -> dict[str, Any]:
    """Derive the leakage verdict again; nothing is written, and the data are not needed.

    The held-out groups come from the rows and options that were kept, the rows of every fit
    from the ledgers of the finished units, and the scored rows from the saved predictions;
    ``audit.json`` is only compared in the end.
    """
    folder = StudyFolder(path)
    folder.check_exists()
    derived = derive_units(folder.read_study())
    predictions, unreadable = _read_predictions(folder)
    audit = audit_study(
        derived.study,
        derived.ledgers,
        final_ledgers=derived.final_ledgers,
        predictions=predictions,
    )
    problems = [*derived.leaks, *unreadable]
    folds, verdict = path / "folds.csv", path / "audit.json"
    if not folds.exists():
        problems.append("folds.csv is missing.")
    elif folds.read_bytes().decode("utf-8", "replace") != derived.format_folds():
        problems.append("folds.csv names other folds than the rows and options give.")
    if not verdict.exists():
        problems.append("audit.json is missing.")
    elif not problems and verdict.read_text(encoding="utf-8") != format_json(audit):
        problems.append("audit.json is not the verdict that the other files give.")
    audit["problems"] += problems
    if audit["problems"]:
        audit["verdict"] = "leakage found"
    return audit


def verify_command(request: Request) -> int:
    """Compute every number of a study again and describe each difference."""
    checks = _verify_study(request.arguments["folder"])
    differences = [sentence for check in checks for sentence in check.differences]
    if request.as_json:
        print_json([asdict(check) for check in checks])
        return 2 if differences else 0
    for check in checks:
        verdict = "differs" if check.differences else "as computed again"
        print(f"{check.name}: {verdict} ({check.n:,} compared)")  # noqa: T201
        for sentence in check.differences:
            print(f"  {sentence}")  # noqa: T201
    print(  # noqa: T201
        f"{len(differences)} differences."
        if differences
        else "Every number is what the saved predictions and units give."
    )
    return 2 if differences else 0


def audit_command(request: Request) -> int:
    """Derive the leakage verdict again and print it."""
    audit = _audit_folder(request.arguments["folder"])
    code = 2 if audit["problems"] else 0
    if request.as_json:
        print_json(audit)
        return code
    n_fits = sum(system["fits_and_choices"] for system in audit["systems"].values())
    print(  # noqa: T201
        f"{n_fits:,} fits and choices of {len(audit['systems'])} systems in "
        f"{audit['n_folds']} folds that hold out one {audit['held_out_unit']} or more; "
        f"{audit['n_tested']:,} of {audit['n_utterances']:,} utterances tested, each once."
        if not audit["problems"]
        else f"{len(audit['problems'])} problems:"
    )
    by_role = Counter[str]()
    for system in (*audit["systems"].values(), *audit["final_models"].values()):
        by_role.update(system["by_role"])
    for role, n in by_role.items():
        print(f"  {role}: {n:,}")  # noqa: T201
    for sentence in audit["problems"]:
        print(f"  {sentence}")  # noqa: T201
    print(f"Verdict: {audit['verdict']}.")  # noqa: T201
    return code
