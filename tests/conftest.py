"""Fixtures that the rooms share: one small generated corpus a test session."""

import os

# Before numpy is there: two processes of two spinning threads each take ten times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from toolkit.data import make_corpus, read_manifest


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Folder of a generated corpus of 150 utterances with few dimensions."""
    folder = tmp_path_factory.mktemp("data") / "corpus"
    make_corpus(folder, n_utterances=150, dims={"visual": 8, "audio": 10, "text": 24})
    return folder


@pytest.fixture(scope="session")
def manifest(corpus):
    """What the corpus' dataset.csv says."""
    return read_manifest(corpus / "dataset.csv")
