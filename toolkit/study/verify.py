"""Whether a study's files say what its predictions say: every number computed again.

Two ways lead to the numbers, and both are taken: from the predictions on disk to scores,
comparisons and fusion ledger, which needs no unit at all; and from the finished units to the
predictions and every file that is made of them. Whatever differs is named with its place.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from toolkit.files import FolderError, format_json, hash_file
from toolkit.fusion import FusionRecord, fuse_systems, fusion_records
from toolkit.report import format_page
from toolkit.report.document import Figure, Matrix
from toolkit.study.attribution import derive_evidence
from toolkit.study.config import ConfigError
from toolkit.study.final_models import learn_finals, read_finals
from toolkit.study.folder import check_sums, read_data, read_provenance
from toolkit.study.options import load_config
from toolkit.study.results import (
    audit_study,
    derive_study,
    format_folds,
    format_records,
    read_units,
)
from toolkit.study.terminal import print_json
from toolkit.validation import (
    Comparison,
    LeakageError,
    Score,
    compare_systems,
    gather_predictions,
    majority_ledgers,
    majority_predictions,
    make_folds,
    outer_grouping,
    parse_predictions,
    score_predictions,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from toolkit.data import Manifest
    from toolkit.report import Report
    from toolkit.study.config import StudyConfig
    from toolkit.study.options import Request
    from toolkit.study.results import Collected
    from toolkit.validation import Fold, Predictions

#: Other versions of numpy may sum in another order; a real difference is far larger.
_RELATIVE: Final = 1e-9
_ABSOLUTE: Final = 1e-12
_MOST_NAMED: Final = 10


def table_differences(name: str, text: str, expected: str, source: str) -> Iterator[str]:
    """Name the cells in which two tables differ."""
    if text == expected:
        return
    header, rows = read_rows(text)
    wanted_header, wanted = read_rows(expected)
    if header != wanted_header:
        yield f"{name}: its columns are {header}; expected {wanted_header}."
        return
    if len(rows) != len(wanted):
        yield f"{name} has {len(rows):,} rows; expected {len(wanted):,}."
        return
    n = 0
    for number, (row, right) in enumerate(zip(rows, wanted, strict=True), start=2):
        for column in header:
            if _alike(row[column], right[column]):
                continue
            n += 1
            if n <= _MOST_NAMED:
                place = ", ".join(value for value in list(row.values())[:4] if value)
                yield (
                    f"{name}, row {number} ({place}): {column} is {row[column]!r}; {source} "
                    f"{right[column]!r}."
                )
    if n > _MOST_NAMED:
        yield f"{name}: {n - _MOST_NAMED:,} further cells differ."


def line_differences(name: str, text: str, expected: str) -> Iterator[str]:
    """Name the lines in which two texts differ."""
    lines, wanted = text.split("\n"), expected.split("\n")
    pairs = zip(lines, wanted, strict=False)
    differing = [number for number, (a, b) in enumerate(pairs, start=1) if a != b]
    for number in differing[:_MOST_NAMED]:
        found, right = _cut(lines[number - 1]), _cut(wanted[number - 1])
        yield f"{name}, line {number} is {found}; expected {right}."
    if len(differing) > _MOST_NAMED:
        yield f"{name}: {len(differing) - _MOST_NAMED:,} further lines differ."
    if len(lines) != len(wanted):
        yield f"{name} has {len(lines):,} lines; expected {len(wanted):,}."


def json_differences(path: Path, expected: str) -> tuple[str, ...]:
    """Name the values in which a JSON file differs from what it should be."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return (f"{path.name} cannot be compared: {error}",)
    places = list(_walk(found, json.loads(expected), ""))
    named = [f"{path.name}, {place}." for place in places[:_MOST_NAMED]]
    if len(places) > _MOST_NAMED:
        named.append(f"{path.name}: {len(places) - _MOST_NAMED:,} further values differ.")
    return tuple(named)


def _walk(found: Any, wanted: Any, place: str) -> Iterator[str]:
    """Name the places in which two trees of plain data differ."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            if key not in found or key not in wanted:
                yield f"{place}/{key} is {'missing' if key in wanted else 'not expected'}"
            else:
                yield from _walk(found[key], wanted[key], f"{place}/{key}")
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for position, (one, other) in enumerate(zip(found, wanted, strict=True)):
            yield from _walk(one, other, f"{place}/{position}")
    elif not _alike(json.dumps(found), json.dumps(wanted)):
        yield f"{place} is {_cut(json.dumps(found))}; expected {_cut(json.dumps(wanted))}"


def _alike(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        return math.isclose(float(one), float(other), rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
    except ValueError:
        return False


def _cut(text: str) -> str:
    return repr(text if len(text) <= 120 else text[:119] + "…")


def read_rows(text: str) -> tuple[list[str], list[dict[str, str]]]:
    """Read a table as text."""
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="", restkey="")
    rows = [{key: str(value) for key, value in row.items()} for row in reader]
    return list(reader.fieldnames or []), rows


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    - name: What it is.
    - n: How many files or numbers were compared.
    - differences: Sentences; none if all is as it should be.
    """

    name: str
    n: int
    differences: tuple[str, ...]


def verify_study(folder: Path) -> list[Check]:
    """Compute every number of a study again and compare it with the files."""
    if not folder.is_dir():
        raise FolderError(f"There is no folder {folder}.")
    manifest, data = read_data(folder)
    predictions, unreadable = _read_predictions(folder)
    checks = [
        _check_identity(folder, manifest.digest()),
        _check_units(folder),
        _check_models(folder),
        Check("predictions can be read", len(predictions) + len(unreadable), unreadable),
        *_check_numbers(folder, predictions, data),
    ]
    try:
        derived = derive_study(folder, write_audit=False)
    except (FolderError, LeakageError, ConfigError) as error:
        return [*checks, Check("files against finished units", 0, (str(error),))]
    return [*checks, *_check_derived(folder, derived)]


def _check_identity(folder: Path, rows: str) -> Check:
    """Compare rows and options with those that the folder's provenance names."""
    known = read_provenance(folder)
    if known is None:
        return Check("rows and options", 0, ("provenance.json is missing.",))
    differences = []
    if known["data"]["rows"] != rows:
        differences.append("rows.csv and data.json hold other rows than provenance.json names.")
    config = load_config(folder / "study.toml", {})
    differences += [
        f"study.toml: {name} is {value!r}; provenance.json says "
        f"{known['identity'].get(name)!r}."
        for name, value in config.identity().items()
        if known["identity"].get(name) != value
    ]
    return Check("rows and options", 1 + len(known["identity"]), tuple(differences))


def _check_units(folder: Path) -> Check:
    units = sorted((folder / "units").glob("*/[0-9]*"))
    units += sorted((folder / "explain" / "contributions").glob("[a-z]*"))
    differences = []
    for unit in units:
        try:
            check_sums(unit)
        except FolderError as error:
            differences.append(str(error))
    return Check("checksums of finished units", len(units), tuple(differences))


def _check_models(folder: Path) -> Check:
    """Compare models with their checksums, and with the units that they come from."""
    differences, n = [], 0
    for models in sorted((folder / "models").glob("*/")):
        where = models.relative_to(folder).as_posix()
        try:
            sums = json.loads((models / "checksums.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            differences.append(f"{where}/checksums.json cannot be read.")
            continue
        found = {p.name: hash_file(p) for p in models.iterdir() if p.name != "checksums.json"}
        n += len(sums)
        differences += [
            f"{where}/{name} is not what was written."
            for name in sorted(sums.keys() | found.keys())
            if sums.get(name) != found.get(name)
        ]
        for name, value in sorted(sums.items()):
            fold, _, end = name.removeprefix("fold-").partition(".")
            unit = folder / "units" / models.name / fold / f"model.{end}"
            made = name.startswith(("fold-", "final.")) and unit.exists()
            if made and hash_file(unit) != value:
                differences.append(f"{where}/{name} is not the model of {models.name}/{fold}.")
    return Check("checksums of models", n, tuple(differences))


def _read_predictions(folder: Path) -> tuple[dict[str, Predictions], tuple[str, ...]]:
    tables, problems = {}, []
    for path in sorted((folder / "predictions").glob("*.csv")):
        try:
            text = path.read_bytes().decode("utf-8")
            tables[path.stem] = parse_predictions(text, path.stem, f"predictions/{path.name}")
        except ValueError as error:
            problems.append(str(error))
    return tables, tuple(problems)


def _check_numbers(
    folder: Path, predictions: dict[str, Predictions], data: dict[str, Any]
) -> list[Check]:
    """Compare scores, comparisons and fusion ledger with what the predictions on disk give."""
    config = load_config(folder / "study.toml", {})

    def scores() -> str:
        named = _named_systems(folder / "scores.csv", ["system"])
        order = [*named, *(name for name in predictions if name not in named)]
        found = [s for name in order for s in score_predictions(predictions[name])]
        scored.extend(found)
        return format_records(Score, found)

    def comparisons() -> str:
        named = _named_systems(folder / "comparisons.csv", ["a", "b"])
        tables = [predictions[name] for name in named]
        pairs = compare_systems(tables, config.metric, config.seed) if tables else []
        return format_records(Comparison, pairs)

    def fusion() -> str:
        path = folder / "fusion.csv"
        rows = read_rows(path.read_bytes().decode("utf-8"))[1]
        fused = list(dict.fromkeys(r["system"] for r in rows if r["quantity"] == "fixed"))
        if not rows:
            return format_records(FusionRecord, ())
        singles = [predictions[name] for name in data["available"] if name in predictions]
        tables = [predictions[name] for name in fused]
        records = fusion_records(singles, tables, predictions["best-single"])
        return format_records(FusionRecord, records)

    scored: list[Score] = []
    checks = [
        _check_table(folder, "scores.csv", scores, "the predictions give"),
        _check_table(folder, "comparisons.csv", comparisons, "the predictions give"),
        _check_table(folder, "fusion.csv", fusion, "the predictions give"),
    ]
    expected = format_json([asdict(score) for score in scored])
    differences = json_differences(folder / "scores.json", expected)
    return [*checks, Check("scores.json", len(scored), differences)]


def _check_table(folder: Path, name: str, make: Callable[[], str], source: str) -> Check:
    try:
        text = (folder / name).read_bytes().decode("utf-8")
        expected = make()
    except KeyError as error:
        return Check(name, 0, (f"{name} names {error}, of which there are no predictions.",))
    except (OSError, ValueError) as error:
        return Check(name, 0, (f"{name} cannot be compared: {error}",))
    return Check(
        name, expected.count("\n") - 1, tuple(table_differences(name, text, expected, source))
    )


def _check_derived(folder: Path, derived: Collected) -> Iterator[Check]:
    """Compare every derived file with what the finished units give."""
    for name, expected in derived.tables.items():
        if name in {"scores.csv", "scores.json", "comparisons.csv", "fusion.csv"}:
            continue
        path = folder / name
        if not path.exists():
            yield Check(name, 1, (f"{name} is missing.",))
            continue
        text = path.read_bytes().decode("utf-8", errors="replace")
        if name.endswith(".csv") and name != "table.csv":
            found = tuple(table_differences(name, text, expected, "the finished units give"))
        elif name.endswith(".json"):
            found = json_differences(path, expected)
        else:
            found = tuple(line_differences(name, text, expected))
        yield Check(name, max(expected.count("\n") - 1, 1), found)
    further = {path.stem for path in (folder / "predictions").glob("*.csv")} - set(
        derived.facts.predictions
    )
    yield Check(
        "no other predictions",
        len(derived.facts.predictions),
        tuple(
            f"predictions/{name}.csv comes from no finished unit." for name in sorted(further)
        ),
    )
    yield _check_page(folder, derived.report)


def _check_page(folder: Path, report: Report) -> Check:
    """Compare the page with the numbers, and its drawings with the figures' files."""
    path = folder / "report.html"
    if not path.exists():
        return Check("report.html", 1, ("report.html is missing.",))
    stems = [
        part.stem if isinstance(part, Figure) else part.name
        for section in report.sections
        for part in section.parts
        if isinstance(part, Figure | Matrix)
    ]
    formats = load_config(folder / "study.toml", {}).figures
    drawn, differences = {}, []
    for stem in stems:
        files = {end: folder / "figures" / f"{stem}.{end}" for end in formats}
        drawn[stem] = files["svg"].read_bytes().decode() if files["svg"].exists() else ""
        differences += [
            f"figures/{file.name} is missing." for file in files.values() if not file.exists()
        ]
    page = path.read_bytes().decode("utf-8", errors="replace")
    differences += line_differences("report.html", page, format_page(report, drawn))
    n = page.count("\n") + len(formats) * len(stems)
    return Check("report.html and figures", n, tuple(differences))


def _named_systems(path: Path, columns: list[str]) -> list[str]:
    rows = read_rows(path.read_bytes().decode("utf-8"))[1]
    return list(dict.fromkeys(row[column] for column in columns for row in rows))


def audit_folder(folder: Path) -> dict[str, Any]:
    """Derive the leakage verdict again; nothing is written, and the data are not needed.

    Who is held out is worked out from the rows and options that were kept, who took part in
    which fit from the ledgers of the finished units, and who was scored from the saved
    predictions, not from ``audit.json``, which is only compared in the end.
    """
    if not folder.is_dir():
        raise FolderError(f"There is no folder {folder}.")
    manifest, _ = read_data(folder)
    config = load_config(folder / "study.toml", {})
    folds = make_folds(manifest, config.outer, seed=config.seed)
    units, _ = read_units(folder, manifest, folds)
    fitted = {
        system: gather_predictions(
            manifest, folds, system, [u.proba for u in found], [u.present for u in found]
        )
        for system, found in units.items()
    }
    ledgers: dict[str, Mapping[int, list[dict[str, Any]]]] = {
        system: {unit.fold: unit.ledger for unit in found} for system, found in units.items()
    }
    problems: list[str] = []
    predictions: dict[str, Predictions] = {}
    try:
        fused = fuse_systems(
            manifest,
            folds,
            units,
            fitted,
            methods=config.fusion,
            metric=config.metric,
            outer=config.outer,
        )
        ledgers |= dict(fused.ledgers if fused else {})
    except LeakageError as error:
        problems.append(str(error))
    tested = {"majority": majority_predictions(manifest, folds)} | fitted
    games = config.shapley != "none"
    _, refits, _ = derive_evidence(
        folder, manifest, folds, tested, metric=config.metric, games=games
    )
    unit = outer_grouping(config.outer)
    ledgers = {"majority": majority_ledgers(manifest, folds, unit)} | ledgers | refits
    finals, of_finals = read_finals(folder, units), {}
    try:
        of_finals = learn_finals(manifest, finals, config)[1] if finals else {}
    except LeakageError as error:
        problems.append(str(error))
    for path in sorted((folder / "predictions").glob("*.csv")):
        try:
            text = path.read_bytes().decode("utf-8")
            predictions[path.stem] = parse_predictions(text, path.stem, path.name)
        except ValueError as error:
            problems.append(f"predictions/{path.name} cannot be read: {error}")
    audit = audit_study(
        manifest, folds, ledgers, unit=unit, finals=of_finals, predictions=predictions
    )
    problems += _compare_folds(folder, manifest, folds, config)
    verdict = folder / "audit.json"
    if not verdict.exists():
        problems.append("audit.json is missing.")
    elif not problems and verdict.read_text(encoding="utf-8") != format_json(audit):
        problems.append("audit.json is not the verdict that the other files give.")
    audit["problems"] += problems
    if audit["problems"]:
        audit["verdict"] = "leakage found"
    return audit


def _compare_folds(
    folder: Path, manifest: Manifest, folds: tuple[Fold, ...], config: StudyConfig
) -> list[str]:
    path = folder / "folds.csv"
    if not path.exists():
        return ["folds.csv is missing."]
    if path.read_bytes().decode("utf-8", "replace") != format_folds(manifest, folds, config):
        return ["folds.csv names other folds than the rows and options give."]
    return []


def verify_command(request: Request) -> int:
    """Compute every number of a study again and describe each difference."""
    checks = verify_study(request.arguments["folder"])
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
    audit = audit_folder(request.arguments["folder"])
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
