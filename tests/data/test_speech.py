"""Mel bands of pure tones, level crossings by hand, and the spoken digits' layout."""

import json

import numpy as np
import pytest

from latebloom.data import spoken_digits
from latebloom.data.sources import DataError
from latebloom.data.speech import level_crossings, mel_filters, mel_levels, trimmed
from latebloom.data.spoken_digits import CLASSES, PARTS, as_spikes, family, load_spoken_digits

RATE = 8000


def tone(hertz, seconds=0.5):
    return np.sin(2 * np.pi * hertz * np.arange(int(RATE * seconds)) / RATE)


def test_a_tone_is_loudest_in_its_own_band():
    edges = 700 * (10 ** (np.linspace(*(2595 * np.log10(1 + np.array([100, 3800]) / 700)), 22) / 2595) - 1)  # fmt: skip
    for band in (1, 7, 12, 18):
        levels = mel_levels(tone(edges[band + 1]), RATE)
        assert levels.shape == (50, 20) and (levels[5:-5].argmax(1) == band).all()
        assert levels.max() == pytest.approx(50)
    filters = mel_filters(20, 256, RATE, 100, 3800)
    assert filters.max() <= 1 and (filters.sum(1) > 0).all()
    assert (mel_filters(90, 64, RATE, 100, 3800).sum(1) > 0).all()  # more bands than frequencies


def test_levels_are_decibels():
    loud = np.concatenate([tone(1000), 0.1 * tone(1000)])
    levels = mel_levels(loud, RATE)
    band = levels[10].argmax()
    assert levels[10, band] - levels[75, band] == pytest.approx(20, abs=0.1)
    np.testing.assert_allclose(mel_levels(1e-3 * loud, RATE), levels, atol=1e-6)
    for wrong, said in ((np.zeros(100), "silent"), (np.zeros(0), "empty"), (np.array([1, np.nan]), "finite")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            mel_levels(wrong, RATE)
    with pytest.raises(ValueError, match="between 0 and 4000 Hz"):
        mel_levels(loud, RATE, high=5000)


def test_spikes_tell_the_level_within_a_delta():
    levels = np.array([[0.0, 13.0], [5.9, 12.0], [6.0, 0.0], [19.0, 0.5], [12.5, 6.4]])
    found = level_crossings(levels, 6.0)
    assert found[:, :2].tolist() == [[0, 2], [0, 0], [1, 0], [2, 0], [0, 1]]
    assert found[:, 2:].tolist() == [[0, 0], [0, 0], [0, 2], [0, 0], [0, 0]]
    rng = np.random.default_rng(0)
    many = 50 * rng.random((40, 7))
    spikes = level_crossings(many, 3.0)
    kept = 3.0 * np.cumsum(spikes[:, :7] - spikes[:, 7:], axis=0)
    assert np.abs(kept - many).max() < 3.0 and (spikes[:, :7] * spikes[:, 7:]).sum() == 0
    with pytest.raises(ValueError, match="delta"):
        level_crossings(many, 0.0)


def test_silence_around_a_sound_is_cut():
    wave = np.concatenate([np.zeros(800), tone(500, 0.2), np.zeros(1234)])
    assert len(trimmed(wave, RATE)) == pytest.approx(1600, abs=80)
    assert len(trimmed(np.zeros(500), RATE)) == 0 and len(trimmed(np.zeros(0), RATE)) == 0
    assert as_spikes(wave, RATE, steps=30).shape == (30, 40)
    for wave in (np.zeros(100), np.zeros(0), np.full(800, 128, np.uint8)):
        with pytest.raises(ValueError, match="the sound is empty or silent"):
            as_spikes(wave, RATE)


def said(rate):
    """A word of two glides between silences."""
    t = np.arange(int(0.6 * rate)) / rate
    word = np.exp(-np.square((t - 0.3) / 0.1)) * (np.sin(2 * np.pi * (300 + 900 * t) * t) + 0.5 * np.sin(2 * np.pi * (1500 - 800 * t) * t))  # fmt: skip
    return np.concatenate([np.zeros(int(0.2 * rate)), word, np.zeros(int(0.1 * rate))])


@pytest.mark.parametrize("rate", [11025, 16000, 22050, 44100, 48000])
def test_a_sound_has_the_same_spikes_at_any_rate(rate):
    here, there = as_spikes(said(RATE), RATE).astype(int), as_spikes(said(rate), rate).astype(int)
    assert np.abs(here - there).sum() <= 0.1 * here.sum()


def test_samples_of_any_kind_are_one_sound():
    wave = said(RATE)
    spikes = as_spikes(wave, RATE)
    for same in ((15_000 * wave).astype(np.int16), wave.astype(np.float32), list(wave)):
        assert np.abs(as_spikes(same, RATE).astype(int) - spikes).sum() <= 4
    # An 8-bit WAV file is silent at 128; eight bits are coarse, so it is compared with eight bits around 0.
    coarse = np.round(60 * wave)
    np.testing.assert_array_equal(as_spikes((coarse + 128).astype(np.uint8), RATE), as_spikes(coarse, RATE))  # fmt: skip
    assert len(trimmed((coarse + 128).astype(np.uint8), RATE)) == len(trimmed(coarse, RATE))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"wave": np.ones((800, 2))}, "take one channel, or their mean"),
        ({"wave": np.ones(800, complex)}, "finite numbers"),
        ({"wave": np.where(np.arange(800) == 5, np.nan, 1.0)}, "finite numbers"),
        ({"rate": 4000}, "from 7600 on"),
        ({"rate": np.nan}, "from 7600 on"),
        ({"steps": 0}, "steps must"),
        ({"hop": 0.0}, "hop and window above 0"),
    ],
)
def test_a_sound_that_cannot_be_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        as_spikes(**{"wave": said(RATE), "rate": RATE} | wrong)


def test_levels_must_be_numbers():
    with pytest.raises(ValueError, match="levels must be finite"):
        level_crossings(np.array([[np.nan, 1.0]]), 1.0)
    with pytest.raises(ValueError, match="rate must be above 0"):
        trimmed(np.ones(10), 0)


def test_no_voice_is_in_two_parts():
    jobs, about = spoken_digits._jobs()
    voices = [voice.split("+")[1] for voice, *_ in jobs]
    of = {part: {family(v) for v, (p, *_) in zip(voices, about, strict=True) if p == part} for part in range(3)}  # fmt: skip
    assert not (of[0] & of[1] or of[0] & of[2] or of[1] & of[2])
    assert (len(of[1]), len(of[2])) == (10, 16)
    words = {CLASSES[label]: text for (_, text, *_), (_, label, _) in zip(jobs, about, strict=True)}
    assert len(words) == 20 and words["it-sette"] == "sette" and words["en-seven"] == "seven"
    assert len(json.dumps(jobs)) > 1000


def test_sounds_are_kept_by_part(tmp_path, monkeypatch):
    monkeypatch.setenv("LATEBLOOM_DATA", str(tmp_path))
    with pytest.raises(DataError, match="latebloom data fetch spoken-digits"):
        load_spoken_digits()
    waves = [1000 * tone(200 + 300 * i, 0.2 + 0.1 * i) for i in range(4)]
    folder = tmp_path / "spoken-digits"
    folder.mkdir()
    np.savez(
        folder / spoken_digits._FILE, waves=np.concatenate(waves).astype(np.int16),
        starts=np.cumsum([0, *map(len, waves)]), part=np.arange(4), label=[3, 0, 19, 2], speaker=[5, 6, 7, 8],
    )  # fmt: skip
    found = load_spoken_digits(bands=10, steps=20)
    for i, part in enumerate(PARTS):
        assert found.x[part].shape == (1, 20, 20) and found.speakers[part].tolist() == [5 + i]
    assert found.y["test"].tolist() == [19] and found.x["people"].sum() > 0
    (folder / spoken_digits._FILE).write_bytes(b"PK no")
    with pytest.raises(DataError, match="damaged"):
        load_spoken_digits(bands=11)
