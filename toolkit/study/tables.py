"""The pooled features of a study: from the shared cache, or pooled into it."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from toolkit.data import ManifestError, find_recordings
from toolkit.pooling import normalise_speakers, pool_manifest, resolve_statistics
from toolkit.study.cluster import map_on_cluster
from toolkit.study.progress import PoolingProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from toolkit.data import Manifest
    from toolkit.pooling import FeatureTable
    from toolkit.study.config import StudyConfig

logger = logging.getLogger(__name__)

OUTPUTS: Final = Path("outputs")


def cache_folder() -> Path:
    """Name the folder that studies share for pooled features and the generated corpus."""
    return Path(os.environ.get("TOOLKIT_CACHE") or OUTPUTS / ".cache")


def pool_all(
    config: StudyConfig, manifest: Manifest, modalities: Sequence[str], client: Any
) -> dict[str, FeatureTable]:
    """Pool modalities here, or each on a worker of a cluster into the shared cache."""
    if client is not None and len(modalities) > 1:
        cache = cache_folder().absolute()
        map_on_cluster(
            client, pool_remotely, [(manifest, name, config, cache) for name in modalities]
        )
    return {name: pool_modality(manifest, name, config) for name in modalities}


def pool_modality(manifest: Manifest, modality: str, config: StudyConfig) -> FeatureTable:
    """Pool one modality as a study asks, from the shared cache where it is there already."""
    with PoolingProgress(modality) as progress:
        return _pool(manifest, modality, config, cache_folder(), progress.update)


def pool_remotely(manifest: Manifest, modality: str, config: StudyConfig, cache: Path) -> str:
    """Pool one modality on a worker of a cluster; whoever asked finds it in the cache."""
    return _pool(manifest, modality, config, cache, None).digest


def _pool(
    manifest: Manifest,
    modality: str,
    config: StudyConfig,
    cache: Path,
    progress: Callable[[int, int], None] | None,
) -> FeatureTable:
    wanted = dict.fromkeys(
        name for spec in config.searched_statistics for name in resolve_statistics(spec)
    )
    return pool_manifest(
        manifest,
        modality,
        statistics=tuple(wanted),
        cache=cache / "features",
        missing=config.missing,
        frames=config.frames,
        progress=progress,
    )


def normalise_modality(
    manifest: Manifest, table: FeatureTable, config: StudyConfig
) -> FeatureTable:
    """Standardise features within speakers, where a study asks for it."""
    if config.normalise == "none":
        return table
    return normalise_speakers(
        table,
        manifest.speakers,
        cache=cache_folder() / "features",
        missing=config.missing,
        frames=config.frames,
    )


def check_recordings(manifest: Manifest, *, allow: bool) -> None:
    """Refuse the same recording under two speakers."""
    recordings = find_recordings(manifest)
    if recordings and not allow:
        raise ManifestError(recordings, source=manifest.source)
    for sentence in recordings:
        logger.warning("%s", sentence)
