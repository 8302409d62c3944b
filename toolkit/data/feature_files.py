"""Columns of feature files: their modalities and files."""

import re
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from toolkit.data.audio import RECORDINGS, find_sources, is_recording, name_clips
from toolkit.data.containers import is_table, missing_dependency, split_member
from toolkit.data.csv_table import CONTROL, Problems
from toolkit.data.feature_folder import (
    OTHER_FILE,
    FeatureFolder,
    MissingFileError,
    advise,
    locate_rows,
)
from toolkit.data.headers import SequenceError
from toolkit.data.roles import TEXT_EXTRACTORS, Columns, suggest
from toolkit.data.sequences import SEQUENCE_EXTENSIONS
from toolkit.data.tables import NumberTable
from toolkit.systems import RESERVED

NAMED_MODALITIES: Mapping[str, str] = MappingProxyType(
    {"visual_features": "visual", "acoustic_features": "audio", "lexical_features": "text"}
)
"""Headers whose modality has another name than its column."""

TEXT_NAMES = frozenset({"text", "lexical", "language"})
"""Modalities of words, which people may share."""

# Synonyms that users type.
_ALIASES: tuple[frozenset[str], ...] = (
    TEXT_NAMES,
    frozenset({"audio", "acoustic", "speech"}),
    frozenset({"visual", "vision", "video", "face"}),
)
_MODALITY_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def _name_modality(header: str) -> str:
    """Name the modality of a column of feature files."""
    folded = header.casefold()
    name = NAMED_MODALITIES.get(folded, folded.removesuffix("_features"))
    words = "_".join(re.findall(r"[a-z0-9]+", name)).lstrip("0123456789_") or "features"
    if not _MODALITY_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name a modality; expected letters a-z, digits and single "
            "underscores, a letter first: rename the column, or name the modality with "
            f"--column {words}={shlex.quote(header)}."
        )
    if name in RESERVED:
        raise ValueError(
            f"{name!r} is the name of a fusion or baseline and cannot name a modality; "
            f"rename the column, or name the modality with --column NAME={shlex.quote(header)}."
        )
    return name


def _resolve_modality(name: str, known: Sequence[str], problems: Problems) -> str | None:
    """Find the modality that a user names, by its name or a synonym; None after a problem."""
    key = name.strip().casefold()
    if key not in known:
        key = NAMED_MODALITIES.get(key, key).removesuffix("_features")
    if key in known:
        return key
    matches = [other for other in known if any({key, other} <= names for names in _ALIASES)]
    if len(matches) == 1:
        problems.warnings.append(
            f"There is no modality {name!r}: {matches[0]!r}, of like meaning, is taken for it."
        )
        return matches[0]
    if matches:
        listed = ", ".join(map(repr, matches))
        problems.add(f"Modality {name!r} could mean {listed}; name one of these.")
    else:
        problems.add(
            f"There is no modality {name!r};{suggest(key, known)} the modalities are "
            f"{', '.join(map(repr, known))}."
        )
    return None


class Sources(NamedTuple):
    """Options of the sources of features, as in :func:`toolkit.data.read_manifest`."""

    tables: Mapping[str, Path]
    extract: Mapping[str, str]
    frames_columns: Mapping[str, str]
    roots: Sequence[Path]
    allow_missing: bool


def find_modalities(
    table: Columns, sources: Sources, *, needed: Sequence[str] | None = None
) -> dict[str, int]:
    """Find the columns whose non-empty cells all name feature files, by their modality.

    - needed: Modalities to find, even if all of their cells are empty; None for all that have
      files.
    """
    tables, extract = sources.tables, sources.extract
    others = [*tables, *extract]
    made = find_sources(table, extract, lists_files)
    if needed is None:
        found = _find_listed(table, required=not others, taken=made.values())
    else:
        needed = [name for name in needed if name not in others]
        found = _find_needed(table, needed, taken=made.values())
    problems = table.rows.problems
    for option, names in (("--table", tables), ("--extract", extract)):
        for name in names:
            if not _MODALITY_NAME.fullmatch(name) or name in RESERVED:
                problems.add(
                    f"{option} {name}: this cannot name a modality; expected letters a-z, "
                    "digits and single underscores, a letter first, and no name of a fusion."
                )
            if name in found:
                problems.add(
                    f"Modality {name!r} has both a column of files and {option}; leave one out."
                )
    if twice := {*tables} & {*extract}:
        problems.add(f"Modality {min(twice)!r} has --table and --extract; leave one out.")
    return found | made


def _find_needed(
    table: Columns, needed: Sequence[str], *, taken: Collection[int]
) -> dict[str, int]:
    rows, roles = table.rows, table.roles
    unread = Problems(rows.problems.source)
    silent = replace(table, rows=replace(rows, problems=unread))
    found = _find_listed(silent, required=bool(needed), taken=taken)
    rows.problems.warnings += unread.warnings
    for position, header in enumerate(rows.header):
        if position not in roles.values() and not any(rows.column(position)):
            try:
                found.setdefault(_name_modality(header), position)
            except ValueError:  # an empty column whose header cannot name a modality
                continue
    for name in needed:
        if name not in found:
            names = ", ".join(found) or "none"
            rows.problems.add(
                f"No column lists the files of modality {name!r}, which the models were "
                f"trained on (found: {names}). Add the column; its cells may be empty where "
                "an utterance lacks the modality."
            )
    if all(name in found for name in needed):
        unread.raise_any()
    return {name: found[name] for name in needed if name in found}


def _find_listed(
    table: Columns, *, required: bool = True, taken: Collection[int]
) -> dict[str, int]:
    """Find the columns of feature files; those in ``taken`` are of recordings or words."""
    rows, named = table.rows, {at: name for name, at in table.modalities.items()}
    problems, endings = rows.problems, " or ".join(SEQUENCE_EXTENSIONS)
    found: dict[str, int] = {}
    ignored: list[str] = []
    for position, header in enumerate(rows.header):
        cells = [cell for cell in rows.column(position) if cell]
        if position in table.roles.values() or position in taken:
            continue
        if not lists_files(cells):
            if reason := _explain_ignored(header, cells):
                ignored.append(f"Column {header!r} is ignored: {reason}")
            continue
        # A wrong cell among paths is a mistake, such as "nan" for an empty one.
        for number, cell in zip(rows.numbers, rows.column(position), strict=True):
            if cell and not _is_file_name(cell):
                problems.add(
                    f"{cell!r} does not end in {endings}; name a feature file, or leave the "
                    "cell empty where there is none.",
                    row=number,
                    column=header,
                )
        if not header:
            problems.add(f"Column {position + 1} lists feature files but has no name; name it.")
            continue
        try:
            name = _name_modality(named.get(position, header))
        except ValueError as error:
            problems.add(str(error), column=header)
            continue
        if name in found:
            problems.add(
                f"Columns {rows.header[found[name]]!r} and {header!r} are both modality "
                f"{name!r}; rename one, or name it with --column NAME={shlex.quote(header)}."
            )
        found.setdefault(name, position)
    if required and not found and not rows.n_broken and not len(problems):
        problems.add(
            f"No column lists feature files ending in {endings}; the columns are "
            f"{', '.join(map(repr, rows.header))}. Give each modality a column, with the path "
            "of one file in each row."
        )
        for reason in ignored:
            problems.add(reason)
    problems.warnings += ignored
    return found


def _explain_ignored(header: str, cells: Sequence[str]) -> str:
    """Explain why a column of paths, or with the header of a modality, is no modality."""
    n_files = sum(map(_is_file_name, cells))
    if n_files:
        return (
            f"{n_files:,} of {len(cells):,} cells end in {' or '.join(SEQUENCE_EXTENSIONS)}, "
            "and most do in a column that lists features."
        )
    matches = [match for cell in cells if (match := OTHER_FILE.fullmatch(cell))]
    if cells and 2 * len(matches) > len(cells):
        ending = Counter(match[1].casefold() for match in matches).most_common(1)[0][0]
        return f"it lists .{ending} files. {advise(ending)}"
    if cells and all("/" in cell or "\\" in cell for cell in cells):
        return "its cells look like paths without an ending. Name one feature file in each."
    words = header.casefold()
    if words in NAMED_MODALITIES or any(words in names for names in _ALIASES):
        return (
            "its cells are not file names. Write the path of one feature file per row "
            f"({', '.join(SEQUENCE_EXTENSIONS)}); for words use --extract {words}=tfidf."
        )
    return ""


def lists_files(cells: Sequence[str]) -> bool:
    """Whether most cells that are not empty name feature files."""
    n_filled = sum(map(bool, cells))
    return n_filled > 0 and 2 * sum(map(_is_file_name, cells)) > n_filled


def _is_file_name(cell: str) -> bool:
    if cell.casefold().endswith(SEQUENCE_EXTENSIONS):
        return True
    member = split_member(cell)
    # Features of a recording have such paths, but only --extract makes them.
    return member is not None and not is_recording(member.file)


def _choose_modalities(
    names: Sequence[str], found: Mapping[str, int], problems: Problems
) -> dict[str, int]:
    """Keep the modalities that a user names; all if none is named."""
    if not names or not found:
        return dict(found)
    chosen = {_resolve_modality(name, tuple(found), problems) for name in names}
    return {name: position for name, position in found.items() if name in chosen}


def locate_files(
    table: Columns,
    kept: Sequence[int],
    found: Mapping[str, int],
    root: Path,
    sources: Sources,
    *,
    select: Sequence[str] = (),
) -> tuple[dict[str, tuple[Path | None, ...]], dict[str, int]]:
    """Find the feature files of the kept rows below `root`, and count absent ones by modality.

    - found: Column of each modality.
    - select: Modalities to read, by any of their names; all if empty.
    """
    tables, extract, frames_columns, roots, allow_missing = sources
    rows, folder = table.rows, FeatureFolder(root, roots)
    for name in frames_columns:
        if name not in found and name not in tables:
            rows.problems.add(
                f"--frames-columns {name}: there is no such modality;"
                f"{suggest(name, [*found, *tables])} the modalities are "
                f"{', '.join(map(repr, [*found, *tables]))}."
            )
    paths: dict[str, tuple[Path | None, ...]] = {}
    absent: dict[str, int] = {}
    known = {**found, **dict.fromkeys(tables, -1)}
    for modality, position in _choose_modalities(select, known, rows.problems).items():
        if modality in tables and not tables[modality].is_file():
            rows.problems.add(f"--table {modality}={tables[modality]} does not exist.")
            continue
        if modality in tables:
            n_absent = 0
            file = _write_choice(tables[modality], frames_columns.get(modality, ""))
            paths[modality] = locate_rows(
                table, kept, modality, file, allow_missing=allow_missing
            )
        elif extract.get(modality) in TEXT_EXTRACTORS:
            source = root / rows.problems.source
            empty = [i for i in kept if not rows.cells[i][position]]
            text = "the cell is empty; write the words, or choose --missing allow."
            for i in () if allow_missing else empty:
                rows.problems.add(text, row=rows.numbers[i], column=rows.header[position])
            paths[modality] = tuple(source if rows.cells[i][position] else None for i in kept)
            continue
        else:
            is_sound = modality in extract
            paths[modality], n_absent = _locate_column(
                table, kept, position, folder, is_sound=is_sound, allow_missing=allow_missing
            )
            if is_sound:
                clips = name_clips(table, kept, modality, extract[modality], paths[modality])
                paths[modality] = clips
            if modality in frames_columns:
                paths[modality] = _choose_columns(
                    modality, paths[modality], frames_columns[modality], rows.problems
                )
        _warn_of_files(modality, paths[modality], n_absent, rows.problems.warnings)
        if n_absent:
            absent[modality] = n_absent
    return paths, absent


def _write_choice(path: Path, columns: str) -> Path:
    """Write a choice of columns into the path of a table, as in ``u1.csv[2-40]#u1``."""
    member = split_member(path)
    if member is None or not columns:
        return path
    # What a path or the parts of this one give another meaning.
    chosen = re.sub(r"[%/\\\[\]#]", lambda sign: f"%{ord(sign[0]):02X}", columns)
    return Path(f"{member.file}[{chosen}]" + (f"#{member.name}" if member.name else ""))


def _choose_columns(
    modality: str, paths: Sequence[Path | None], chosen: str, problems: Problems
) -> tuple[Path | None, ...]:
    """Choose the columns of the files of a modality, each of which must have some."""
    for path in paths:
        if path is not None and not is_table(path):
            problems.add(
                f"--frames-columns {modality}={chosen}: {path} is no table with a column per "
                "dimension, which CSV, ARFF and Parquet files may be; leave the option out."
            )
            break
    return tuple(path and _write_choice(path, chosen) for path in paths)


def _locate_column(
    table: Columns,
    kept: Sequence[int],
    position: int,
    folder: FeatureFolder,
    *,
    is_sound: bool,
    allow_missing: bool,
) -> tuple[tuple[Path | None, ...], int]:
    """Find the feature files of one column, and count those that do not exist.

    Rows that share a container take the array named as the id.
    """
    rows, utterance = table.rows, table.roles.get("utterance")
    header, problems = rows.header[position], rows.problems
    n_rows = Counter(rows.column(position))  # of all rows, also of excluded classes
    for lacking in sorted({text for cell in n_rows if (text := missing_dependency(cell))}):
        problems.add(lacking, column=header)
    paths: list[Path | None] = []
    refused: list[tuple[int, str, str | None]] = []
    for i in kept:
        cell, path, fault = rows.cells[i][position], None, ""
        if CONTROL.search(cell):
            fault = f"{cell!r} holds a control character; write the path on one line."
        elif cell and is_sound and not is_recording(cell):
            fault = (
                f"{cell!r} does not end in {' or '.join(RECORDINGS)}; name a recording, or "
                "leave the cell empty where there is none."
            )
        elif cell and (is_sound or _is_file_name(cell)):
            array = None
            if utterance is not None and n_rows[cell] > 1:
                array = rows.cells[i][utterance]
            try:
                path = folder.find(cell) if is_sound else _locate(cell, folder, array)
            except MissingFileError as error:
                refused.append((rows.numbers[i], str(error), error.folder))
            except ValueError as error:
                fault = str(error)
        if fault:
            problems.add(fault, row=rows.numbers[i], column=header)
        paths.append(path)
    if refused and not allow_missing:
        _refuse_missing(refused, header, problems)
    elif refused and not any(paths):
        # A column without a single file is a mistake, not a missing modality.
        number, text, _ = min(refused)
        problems.add(
            f"{text}, nor does any other file of this column; paths are relative to the folder "
            "of the table.",
            row=number,
            column=header,
        )
    return tuple(paths), len(refused)


def _locate(cell: str, folder: FeatureFolder, array: str | None) -> Path:
    """Find the file of a cell; `array` is taken from a container where the cell names none."""
    member = split_member(cell)
    if member and member.name is not None:
        cell, array = cell.removesuffix(f"#{member.name}"), member.name
    file = folder.find(cell)
    return Path(f"{file}#{array}") if member and array is not None else file


def _refuse_missing(
    refused: Sequence[tuple[int, str, str | None]], header: str, problems: Problems
) -> None:
    remedy = "add it, empty the cell, or take it for a missing modality with --missing allow."
    # A folder that does not exist is one mistake, whatever the number of its rows.
    in_folder: dict[str, list[int]] = {}
    for number, text, folder in refused:
        if folder is None:
            problems.add(f"{text}; {remedy}", row=number, column=header)
        else:
            in_folder.setdefault(folder, []).append(number)
    for folder, numbers in in_folder.items():
        rows = "only row" if len(numbers) == 1 else f"first of {len(numbers):,} rows"
        problems.add(
            f"folder {folder!r} does not exist below the folder of the table ({rows} with "
            f"files there); {remedy}",
            row=min(numbers),
            column=header,
        )


def _warn_of_files(
    modality: str, paths: Sequence[Path | None], n_absent: int, warnings: list[str]
) -> None:
    """Warn of absent files, of a modality without files, and of files in several rows."""
    files = [path for path in paths if path is not None]
    if n_absent:
        warnings.append(
            f"Modality {modality!r}: {n_absent:,} files that the table names do not exist and "
            "count as missing."
        )
    with suppress(SequenceError, ImportError):  # reported where the file is examined
        member = split_member(files[0]) if files else None
        if member and is_table(member.file) and (names := NumberTable.load(files[0]).left_out):
            warnings.append(
                f"Modality {modality!r}: columns of {member.file.name} that are no dimensions: "
                f"{', '.join(map(repr, names))}."
            )
    if not files:
        warnings.append(f"Modality {modality!r} is missing from every utterance that is used.")
    if n_repeated := len(files) - len(set(files)):
        warnings.append(
            f"Modality {modality!r}: {n_repeated:,} rows name a file that another row names "
            "too."
        )
