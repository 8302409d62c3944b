"""Small data that the tests of this room share."""

import numpy as np
import pytest

NAMES = tuple(f"text__mean__{k:02d}" for k in range(12))


@pytest.fixture(scope="session")
def sample():
    """Features of 240 rows that tell three classes apart, and their labels."""
    rng = np.random.default_rng(7)
    y = rng.integers(0, 3, 240)
    X = rng.normal(size=(240, 12)).astype(np.float32)
    X[np.arange(240), y] += 1.5
    X[::17, 5] = np.nan
    return X, y


@pytest.fixture(scope="session")
def names():
    """Names of the twelve features."""
    return NAMES
