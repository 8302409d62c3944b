"""Features of recordings: the numbers of openSMILE, computed once per content."""

import numpy as np
import opensmile
import pytest
import soundfile

from toolkit.data import SequenceError, audio, read_header, read_sequence
from toolkit.data.audio import SOUND_EXTRACTORS, extract_features, name_features

RATE = 16_000


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tone(tmp_path, sounds):
    path = tmp_path / "tone.wav"
    soundfile.write(path, sounds.make_tone(150, 0.2, 0.5), RATE)
    return path


def kept(tmp_path):
    return sorted((tmp_path / "cache" / "extracted").iterdir())


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_the_numbers_are_those_of_opensmile_called_directly(tmp_path, sounds, rate):
    path = tmp_path / "a.wav"
    soundfile.write(path, sounds.make_tone(150, 0.2, 0.5, rate=rate), rate)
    for extractor, (feature_set, level) in SOUND_EXTRACTORS.items():
        smile = opensmile.Smile(
            feature_set=opensmile.FeatureSet[feature_set],
            feature_level=opensmile.FeatureLevel[level],
        )
        table = smile.process_file(path)
        if extractor == "mfcc":
            table = table[[f"mfcc_sma[{k}]" for k in range(1, 15)]]
        found = read_sequence(f"{path}#{extractor}@2.6.0")
        expected = table.to_numpy()
        np.testing.assert_array_equal(
            found, expected[0] if extractor == "egemaps-functionals" else expected
        )
        assert name_features(f"a.wav#{extractor}@1") == tuple(table.columns)
        assert read_header(f"{path}#{extractor}@2.6.0").shape == found.shape


def test_a_second_reading_computes_nothing_and_other_samples_do(tone, sounds, n_computed):
    path = f"{tone}#egemaps@2.6.0"
    first = extract_features(path)
    np.testing.assert_array_equal(extract_features(path), first)
    assert n_computed() == 1
    copy = tone.with_name("copy.flac")  # the same 16-bit samples in another format
    soundfile.write(copy, *soundfile.read(tone))
    np.testing.assert_array_equal(extract_features(f"{copy}#egemaps@2.6.0"), first)
    assert n_computed() == 1
    extract_features(f"{path}:0.1-")
    extract_features(f"{tone}#mfcc@2.6.0")
    soundfile.write(tone, sounds.make_tone(160, 0.2, 0.5), RATE)
    assert (extract_features(path) != first).any()
    assert n_computed() == 4


def test_another_rate_or_version_is_another_content(tone, n_computed, monkeypatch):
    path = f"{tone}#egemaps@2.6.0"
    extract_features(path)
    samples = soundfile.read(tone)[0]
    soundfile.write(tone, samples, 2 * RATE)
    extract_features(path)
    assert n_computed() == 2
    monkeypatch.setattr("opensmile.__version__", "9.9.9")
    audio._load_extractor.cache_clear()
    extract_features(path)
    audio._load_extractor.cache_clear()
    assert n_computed() == 3


def test_damaged_numbers_are_computed_again(tone, tmp_path, n_computed):
    path = f"{tone}#egemaps@2.6.0"
    first = extract_features(path)
    (file,) = kept(tmp_path)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    np.testing.assert_array_equal(extract_features(path), first)
    file.write_bytes(b"")
    np.testing.assert_array_equal(extract_features(path), first)
    assert n_computed() == 3


def test_nothing_is_written_beside_the_recordings(tone, tmp_path):
    extract_features(f"{tone}#egemaps@2.6.0")
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "tone.wav"}


@pytest.mark.parametrize("extractor", SOUND_EXTRACTORS)
def test_the_shortest_sound_has_a_frame_and_a_shorter_one_none(tmp_path, sounds, extractor):
    path = tmp_path / "a.wav"
    for rate in (8_000, 22_050, 48_000):
        shortest = -(-6 * rate // 100)
        soundfile.write(path, sounds.make_tone(150, 0, 1, rate=rate)[:shortest], rate)
        assert np.isfinite(extract_features(f"{path}#{extractor}@2.6.0")).all()
        soundfile.write(path, sounds.make_tone(150, 0, 1, rate=rate)[: shortest - 1], rate)
        with pytest.raises(SequenceError, match="give no frame"):
            extract_features(f"{path}#{extractor}@2.6.0")
