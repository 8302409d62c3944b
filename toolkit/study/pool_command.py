"""``toolkit pool``: only the pooled features, for whoever models them with something else."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from toolkit.study.config import StudyConfig
from toolkit.study.options import load_config, read_options, read_table
from toolkit.study.progress import format_seconds, make_bar

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from types import TracebackType

    from rich.progress import Progress

    from toolkit.data import Manifest
    from toolkit.pooling import FeatureTable

logger = logging.getLogger(__name__)

OPTIONS = (
    *("column", "label", "classes", "merge", "outer", "missing", "frames", "modality"),
    *("statistics", "workers"),
)
"""Options of a study that this command has too."""

FORMS = ("npy", "parquet")
_QUIET_SECONDS = 10.0  # between two lines where there is no terminal
_MOST_THREADS = 8


def add_pool_options(parser: argparse.ArgumentParser) -> None:
    """Add what only this command has."""
    parser.add_argument("data", type=Path, metavar="DATASET.csv")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the tables"
    )
    parser.add_argument(
        "--form",
        choices=FORMS,
        default=FORMS[0],
        help="npy, or parquet (needs the extra formats) (default: npy)",
    )


def pool(said: dict[str, Any]) -> int:
    """Pool every modality of a data set and write one table each."""
    as_json, data, out, form = (said.pop(name) for name in ("json", "data", "out", "form"))
    config = load_config(None, read_options(said))
    from toolkit.data.containers import missing_dependency  # noqa: PLC0415  (keeps --help instant)
    from toolkit.pooling import resolve_statistics, write_table  # noqa: PLC0415

    lacking = missing_dependency("table.parquet") if form == "parquet" else None
    if lacking:
        raise ValueError(f"{lacking} Or write the tables with --form npy.")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder.")
    resolve_statistics(config.statistics)
    manifest = read_table(config, data)
    written = []
    for modality in manifest.modalities:
        table = _pool(manifest, modality, config)
        path = write_table(table, manifest.utterances.tolist(), out, form=form)
        written.append(_describe(table, path))
        if not as_json:
            _show(table, path)
    if as_json:
        said_of_all = {"data": str(data), "folder": str(out), "tables": written}
        print(json.dumps(said_of_all, indent=1, ensure_ascii=False))  # noqa: T201
    return 0


def _pool(manifest: Manifest, modality: str, config: StudyConfig) -> FeatureTable:
    from toolkit.pooling import pool_manifest  # noqa: PLC0415  (keeps --help instant)
    from toolkit.study.plan import cache_folder  # noqa: PLC0415

    with _Progress(modality, manifest.paths[modality]) as progress:
        return pool_manifest(
            manifest,
            modality,
            statistics=config.statistics,
            cache=cache_folder() / "features",
            missing=config.missing,
            frames=config.frames,
            progress=progress.update,
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


class _Progress:
    """Say how far a modality is, how fast it goes and what is left."""

    def __init__(self, modality: str, paths: Sequence[Path | None]) -> None:
        self._modality = modality
        self._paths = paths
        self._megabytes, self._seen = 0.0, 0
        self._bar: Progress | None = None
        self._begun = self._said = time.monotonic()

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and logger.isEnabledFor(logging.INFO):
            self._bar = make_bar()
            self._bar.start()
            self._task = self._bar.add_task(f"pooling {self._modality}", total=None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int) -> None:
        """Take note of the files that are done."""
        now = time.monotonic()
        for path in self._paths[self._seen : done]:
            self._megabytes += 0 if path is None else _measure(path)
        self._seen = done
        rate = self._megabytes / max(now - self._begun, 1e-9)
        if self._bar is not None:
            text = f"pooling {self._modality}, {rate:,.0f} MB/s"
            self._bar.update(self._task, completed=done, total=total, description=text)
        elif now - self._said > _QUIET_SECONDS:
            self._said = now
            left = (now - self._begun) / max(done, 1) * (total - done)
            logger.info(
                "%s: %d of %d files, %.0f MB/s, about %s left",
                self._modality,
                done,
                total,
                rate,
                format_seconds(left),
            )


def _measure(path: Path) -> float:
    try:
        return path.stat().st_size / 1e6
    except OSError:  # one array of a file of many, or no file: counted as nothing
        return 0.0
