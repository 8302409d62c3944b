"""Compiled functions are kept on disk where that is possible."""

import gc

import numba
import numpy as np
import pytest
from numba.core import caching

from toolkit import jit


def test_without_a_folder_for_compiled_code_there_is_a_warning(monkeypatch):
    def double(values):
        values[0] *= 2
        return values

    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    with pytest.warns(RuntimeWarning, match="NUMBA_CACHE_DIR"):
        doubled = jit.jit_cached(double)

    assert doubled(np.array([21])).tolist() == [42]


def test_a_folder_that_can_no_longer_be_written_gives_a_warning(monkeypatch, tmp_path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    def triple(values):
        values[0] *= 3
        return values

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", refuse)
    tripled = jit.jit_cached(triple)

    with pytest.warns(RuntimeWarning, match="NUMBA_CACHE_DIR"):
        assert tripled(np.array([14])).tolist() == [42]
    assert tripled(np.array([15])).tolist() == [45]


def test_where_nothing_can_be_locked_it_is_compiled_all_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))

    def refuse(*_, **__):
        raise OSError(37, "No locks available")

    def halve(values):
        values[0] /= 2
        return values

    monkeypatch.setattr(jit.FileLock, "acquire", refuse)

    assert jit.jit_cached(halve)(np.array([3.0])).tolist() == [1.5]


def test_of_other_code_nothing_is_taken_from_disk(monkeypatch, tmp_path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))

    for code, n_kept in (("one", 1), ("one", 1), ("other", 2)):

        def fourfold(values):
            values[0] *= 4
            return values

        monkeypatch.setattr(jit, "_hash_sources", lambda _, code=code: code)
        assert jit.jit_cached(fourfold)(np.array([1])).tolist() == [4]
        assert len(list(tmp_path.rglob("*fourfold*.nbi"))) == n_kept


def test_compiling_leaves_the_collector_as_it_was():
    assert gc.isenabled()
    jit.jit_cached(lambda values: values)(np.zeros(1))

    assert gc.isenabled()
