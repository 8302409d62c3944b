"""Recordings: the table of utterances and its feature files, read, checked and generated.

Code belongs here if it reads, checks or makes a data set: the table and its columns, one
feature file at a time, the summary, the generated corpus. Statistics over frames belong in
``pooling``.
"""

from toolkit.data.containers import split_member
from toolkit.data.corpora import make_corpus
from toolkit.data.csv_table import ManifestError
from toolkit.data.headers import SequenceError
from toolkit.data.manifest import Manifest, read_manifest
from toolkit.data.sequences import read_header, read_sequence
from toolkit.data.summary import DatasetSummary, summarise_manifest

__all__ = [
    "DatasetSummary",
    "Manifest",
    "ManifestError",
    "SequenceError",
    "make_corpus",
    "read_header",
    "read_manifest",
    "read_sequence",
    "split_member",
    "summarise_manifest",
]
