"""Pool sequences into rows: statistics over the frames of each dimension.

This room holds the definitions of the statistics, their computation for one sequence or a whole
corpus, and the resulting table. None of it sees a label or a fold, and only the optional
standardisation within speakers sees the speakers, so pooling can never leak. Reading a feature
file belongs to :mod:`toolkit.data`; choosing among features belongs to :mod:`toolkit.models`.
"""

from toolkit.pooling.corpus import pool_manifest
from toolkit.pooling.pooler import SequencePooler, pool_frames
from toolkit.pooling.statistics import (
    PRESETS,
    FeatureName,
    register_statistic,
    unregister_statistic,
)
from toolkit.pooling.table import FeatureTable, write_table

__all__ = [
    "PRESETS",
    "FeatureName",
    "FeatureTable",
    "SequencePooler",
    "pool_frames",
    "pool_manifest",
    "register_statistic",
    "unregister_statistic",
    "write_table",
]
