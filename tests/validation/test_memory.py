"""What is kept stays below its bound; what is estimated grows with what is allocated."""

import pytest

from toolkit.validation.fits import CACHE_BYTES, SizedCache, estimate_memory


def test_what_was_used_longest_ago_goes_first():
    cache, made = SizedCache(10), []

    def look_up(key):
        return cache.get(key, lambda: (made.append(key) or key, 4))

    for key in "abacab":
        assert look_up(key) == key

    # c drives b out, since a was used after b; then b drives c out.
    assert made == ["a", "b", "c", "b"]
    assert cache.n_bytes == 8


def test_what_was_made_last_is_kept_however_large():
    cache = SizedCache(10)
    cache.get("small", lambda: (1, 4))
    cache.get("large", lambda: (2, 50))

    assert cache.get("large", lambda: pytest.fail("made again")) == 2
    assert cache.n_bytes == 50


def test_a_boosted_unit_needs_its_rows_its_bins_and_histograms():
    n_rows, n_columns = 5000, 10_000
    rows, leaf = 4 * n_rows * n_columns, n_columns * 64 * 16

    need = estimate_memory(n_rows, n_columns, resampled=False)

    assert need == pytest.approx(250 * 2**20 + rows + CACHE_BYTES + 24 * leaf)


def test_each_further_thing_needs_more():
    plain = estimate_memory(1000, 5000, resampled=False)

    assert estimate_memory(1000, 5000) > plain
    assert estimate_memory(1000, 5000, resampled=False, side_by_side=5000) - plain == 2e7
    assert estimate_memory(1000, 5000, logistic=True) < plain
