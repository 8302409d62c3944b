"""``toolkit pool``: the pooled features alone, for models of other software."""

import os
from pathlib import Path
from typing import Any

from toolkit.data import Manifest
from toolkit.data.containers import missing_dependency
from toolkit.data.dimension_names import name_dimensions
from toolkit.files import cache_folder
from toolkit.pooling import FeatureTable, resolve_statistics, write_table
from toolkit.pooling.corpus import pool_modality
from toolkit.pooling.statistics import HASHING, TFIDF
from toolkit.study.config import ConfigError, StudyConfig
from toolkit.study.inventory import Inventory
from toolkit.study.options import Request, print_json
from toolkit.study.progress import show_files
from toolkit.study.terminal import is_quiet

_MOST_THREADS = 8


def pool_command(request: Request) -> int:
    """Pool every modality of a data set and write one table per modality."""
    config, manifest = request.config, request.require_table()
    out, form = request.arguments["out"], request.arguments["form"]
    missing = missing_dependency("table.parquet") if form == "parquet" else None
    if missing:
        raise ValueError(f"{missing} Or write the tables with --form npy.")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder.")
    resolve_statistics(config.statistics)
    inventory = Inventory(out)
    inventory.claim("feature table")
    written = []
    for modality in manifest.modalities:
        table = _pool(manifest, modality, config)
        inventory.reserve(f"{modality}.{end}" for end in (form, "schema.json"))
        named = name_dimensions(manifest, {modality: table.n_dims}, config.names)
        ids = manifest.utterances.tolist()
        path = write_table(table, ids, out, form=form, dimensions=named.get(modality, ()))
        written.append(_describe(table, path))
        if not (request.as_json or is_quiet()):
            _show(table, path)
    if request.as_json:
        print_json({"data": str(config.data), "folder": str(out), "tables": written})
    return 0


def _pool(manifest: Manifest, modality: str, config: StudyConfig) -> FeatureTable:
    extractor = config.extract.get(modality, "")
    if extractor == TFIDF:
        raise ConfigError(
            f"--extract {modality}={TFIDF}: these features are fitted on training rows "
            f"alone, so there is no table of all utterances; {HASHING} has one."
        )
    with show_files(f"pooling {modality}", manifest.paths[modality]) as update:
        return pool_modality(
            manifest,
            modality,
            extractor,
            statistics=config.statistics,
            cache=cache_folder() / "features",
            missing=config.missing,
            frames=config.frames,
            progress=update,
            n_threads=config.workers or min(os.cpu_count() or 1, _MOST_THREADS),
        )


def _describe(table: FeatureTable, path: Path) -> dict[str, Any]:
    return {
        "modality": table.modality,
        "file": path.name,
        "schema": f"{table.modality}.schema.json",
        "utterances": len(table.present),
        "present": int(table.present.sum()),
        "statistics": list(table.statistics),
        "features": len(table.names),
        "counts": dict(table.counts),
    }


def _show(table: FeatureTable, path: Path) -> None:
    odd = "".join(
        f", {count:,} {name.replace('_', ' ')}" for name, count in table.counts.items()
    )
    print(  # noqa: T201
        f"{table.modality}: {len(table.present):,} utterances x {len(table.names):,} features "
        f"({len(table.statistics)} statistics of {table.n_dims:,} dimensions){odd}: {path}"
    )
