"""Utterances that nobody has labelled: what finished models are applied to."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from toolkit.data.cells import check_cells
from toolkit.data.corpora import GENERATED_MARKER
from toolkit.data.manifest import NOTHING, Manifest
from toolkit.data.modalities import find_modalities, locate_files
from toolkit.data.paths import FeatureFolder
from toolkit.data.problems import Problems
from toolkit.data.roles import check_header, check_required, find_roles, name_modality
from toolkit.data.rows import Rows, read_rows
from toolkit.data.speakers import read_people

UNLABELLED = -1
"""Label of an utterance whose class is not known."""


def read_newcomers(
    path: Path | str,
    modalities: Sequence[str],
    *,
    columns: Mapping[str, str] = NOTHING,
    missing: Literal["refuse", "allow"] = "refuse",
) -> Manifest:
    """Read and check a table of utterances without labels.

    Parameters
    ----------
    path : Path or str
        CSV file as :func:`toolkit.data.read_manifest` takes it. A label column is not read,
        and a speaker column may be lacking.
    modalities : sequence of str
        Modalities that must each have a column; its cells may be empty.
    columns : mapping of str to str, default={}
        Header of the column that plays a role, where it cannot be told from its name.
    missing : {"refuse", "allow"}, default="refuse"
        Whether a file that does not exist may be taken for a missing modality.

    Returns
    -------
    Manifest
        The utterances sorted by id, without classes; every label is ``-1``, and the speaker
        is empty where none is told.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ManifestError
        With everything that is wrong with the table, modalities without a column included.
    """
    path = Path(path)
    problems, warnings = Problems(path.name), list[str]()
    rows = read_rows(path, problems)
    check_header(rows.header, problems)
    roles = find_roles(rows.header, problems, columns=columns, label=None)
    found = _find_needed(rows, roles, modalities, problems, warnings)
    told = {role: roles[role] for role in roles if role in {"utterance", "speaker"}}
    check_required(rows.header, told, problems, excused={*columns, "label", "speaker"})
    cells = {role: rows.column(position) for role, position in told.items()}
    kept = list(range(len(rows.cells)))
    if "utterance" in cells:
        kept.sort(key=cells["utterance"].__getitem__)
    check_cells(rows, told, kept, problems, needed="utterance")
    # Sessions and dialogues play no part here, so nothing is said of where they come from.
    people = read_people(cells, kept, [], needed="speaker")
    folder = FeatureFolder(path.absolute().parent.resolve())
    paths, absent = locate_files(
        rows,
        kept,
        found,
        folder,
        problems,
        utterance=told.get("utterance"),
        allow_missing=missing == "allow",
        warnings=warnings,
    )
    problems.raise_any()
    if not people.speakers:
        warnings.append(
            "No column tells the speaker: whether somebody was in training cannot be said."
        )
    elif "speaker" not in cells:
        warnings.append("No column tells the speaker: read from the utterance ids.")
    return Manifest(
        source=path.name,
        root=folder.root,
        modalities=tuple(paths),
        classes=(),
        codes=(),
        utterances=np.array([cells["utterance"][i] for i in kept]),
        labels=np.full(len(kept), UNLABELLED, dtype=np.int64),
        speakers=np.array(people.speakers or [""] * len(kept)),
        sessions=None,
        dialogues=None,
        splits=None,
        paths=paths,
        warnings=tuple(warnings),
        generated=(folder.root / GENERATED_MARKER).is_file(),
        absent=absent,
        available=tuple(found),
    )


def _find_needed(
    rows: Rows,
    roles: Mapping[str, int],
    needed: Sequence[str],
    problems: Problems,
    warnings: list[str],
) -> dict[str, int]:
    """Find the column of every modality, one without a single file included."""
    unread = Problems(problems.source)
    found = find_modalities(rows, roles, unread, warnings)
    for position, header in enumerate(rows.header):
        if position not in roles.values() and not any(rows.column(position)):
            try:
                found.setdefault(name_modality(header), position)
            except ValueError:  # a column of nothing that could name no modality
                continue
    for name in needed:
        if name not in found:
            there = ", ".join(found) or "none"
            problems.add(
                f"No column lists the files of modality {name!r}, which the models were "
                f"trained on (found: {there}). Add the column; its cells may be empty where "
                "an utterance lacks the modality."
            )
    if all(name in found for name in needed) and len(unread):
        unread.raise_any()
    return {name: found[name] for name in needed if name in found}
