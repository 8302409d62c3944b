"""Make a corpus of recordings: tones of each person, or speech where espeak-ng is installed."""

import csv
import subprocess

import numpy as np
import soundfile

RATE = 16_000
SENTENCES = ("The book is on the table.", "We will see each other tomorrow.")


def make_tone(pitch, rise, seconds, *, rate=RATE, seed=0):
    """Three harmonics of a pitch that rises by a share of itself, with little noise."""
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(pitch * (1 + rise * time / seconds)) / rate
    tone = sum(np.sin(k * phase) / k for k in (1, 2, 3))
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return (0.2 * tone + 0.002 * noise).astype(np.float32)


def make_recordings(folder, *, n_speakers=5, n_each=6, seconds=0.4):
    """Write tones as wav, flac and ogg files, and their table; pitch rises in class 1."""
    rng = np.random.default_rng(1)
    rows = []
    for speaker in range(n_speakers):
        for number in range(n_each):
            label, ending = number % 2, ("wav", "flac", "wav", "ogg")[number % 4]
            name = f"s{speaker}_{number}"
            path = folder / "wav" / f"{name}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            pitch = 110 + 20 * speaker + 4 * rng.random()
            tone = make_tone(
                pitch, 0.3 * label, seconds + 0.1 * rng.random(), seed=10 * speaker + number
            )
            soundfile.write(path, tone, RATE)
            rows.append((name, f"s{speaker}", label, f"wav/{path.name}"))
    return write_rows(folder, ("utterance", "speaker", "label", "audio"), rows)


def make_speech(folder):
    """Have espeak-ng speak sentences by four voices, slowly and fast."""
    rows = []
    for speaker, voice in enumerate(("en+m1", "en+m3", "en+f1", "en+f3")):
        for number, sentence in enumerate(SENTENCES):
            for label, words in (("calm", 120), ("hasty", 240)):
                name = f"s{speaker}_{number}_{label}"
                path = folder / "wav" / f"{name}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                options = ["-v", voice, "-s", str(words), "-w", str(path)]
                subprocess.run(["espeak-ng", *options, sentence], check=True, timeout=60)
                rows.append((name, f"s{speaker}", label, f"wav/{path.name}"))
    return write_rows(folder, ("utterance", "speaker", "label", "audio"), rows)


def write_rows(folder, header, rows):
    """Write a table of utterances."""
    path = folder / "dataset.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path
