from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from toolkit.validation.predictions import Predictions


def _make(
    seed: int = 1, *, n: int = 120, n_speakers: int = 6, n_classes: int = 3, **fields: Any
) -> Predictions:
    shared = np.random.default_rng(0)
    speakers = np.arange(n) % n_speakers
    labels = shared.integers(0, n_classes, n)
    proba = np.random.default_rng(seed).dirichlet(np.ones(n_classes), n)
    proba[np.arange(n), labels] += 0.4
    table = {
        "system": f"system{seed}",
        "classes": ("anger", "joy", "neutral", "sadness", "surprise")[:n_classes],
        "utterances": np.array([f"u{row:04d}" for row in range(n)]),
        "speakers": np.array([f"P{speaker:02d}" for speaker in speakers]),
        "sessions": np.array([f"S{speaker // 2}" for speaker in speakers]),
        "folds": speakers,
        "present": np.arange(n) % 7 != 0,
        "labels": labels,
        "proba": proba / proba.sum(axis=1, keepdims=True),
    }
    return Predictions(**(table | fields))


@pytest.fixture(scope="session")
def make_predictions() -> Callable[..., Predictions]:
    """Make predictions of one data set (seed: whose); fields given replace the made ones."""
    return _make
