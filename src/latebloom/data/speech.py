"""Sound as spikes: mel bands, and a spike whenever the level of a band has moved by so much."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Shaped


def mel_levels(
    wave: Shaped[np.ndarray, " samples"], rate: float, bands: int = 20, *, hop: float = 0.01,
    window: float = 0.025, low: float = 100.0, high: float = 3800.0, floor: float = 50.0,
) -> Float[np.ndarray, "steps bands"]:  # fmt: skip
    """Levels in decibels, each `hop` seconds, of triangular bands that are evenly spaced in mel = 2595 log10(1 + f / 700).

    From 0 for what is `floor` decibels or more below the loudest band of the whole sound, to `floor`. Windows of
    `window` seconds are Hann's; the first is around the first sample.

    Unsigned samples, as 8-bit WAV files have them, are silent in the middle of their range.

    Raises `ValueError` for an empty or a silent sound, for one that is not finite or has several channels, for bands that
    do not lie between 0 and half of `rate`, for fewer than one, and for a hop or a window that is not above 0.
    """
    wave = samples(wave)
    if not len(wave):
        raise ValueError("the sound is empty")
    if not (np.isfinite(rate) and rate > 0 and hop > 0 and window > 0):
        raise ValueError(f"rate must be above 0 samples a second, hop and window above 0 seconds, not {rate}, {hop} and {window}")  # fmt: skip
    if bands < 1 or not 0 <= low < high <= rate / 2:
        raise ValueError(f"there must be bands between 0 and {rate / 2:g} Hz, not {bands} from {low:g} to {high:g}")  # fmt: skip
    size, stride = max(round(window * rate), 1), max(round(hop * rate), 1)
    padded = np.pad(wave, (size // 2, size))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[: len(wave) : stride]
    length = 1 << (size - 1).bit_length()
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(size + 2)[1:-1], length)))
    energy = power @ mel_filters(bands, length, rate, low, high).T
    loudest = energy.max()
    if loudest <= 0:
        raise ValueError("the sound is silent")
    return np.maximum(10 * np.log10(np.maximum(energy / loudest, 1e-12)) + floor, 0.0)


def samples(wave: Shaped[np.ndarray, " samples"]) -> Float[np.ndarray, " samples"]:
    """The sound around 0: unsigned samples lose the middle of their range.

    Raises `ValueError` for one that is not finite numbers, and for several channels.
    """
    wave = np.asarray(wave)
    if wave.ndim == 2:
        raise ValueError(f"a sound must be [samples], not {list(wave.shape)}: take one channel, or their mean")  # fmt: skip
    if wave.ndim != 1 or wave.dtype.kind not in "fiu" or not np.isfinite(wave).all():
        raise ValueError(f"a sound must be finite numbers, [samples], not {wave.dtype} {list(wave.shape)}")  # fmt: skip
    middle = (np.iinfo(wave.dtype).max + 1) // 2 if wave.dtype.kind == "u" else 0
    return wave.astype(np.float64) - middle


def mel_filters(
    bands: int, length: int, rate: float, low: float, high: float
) -> Float[np.ndarray, "bands frequencies"]:
    """Triangles over the frequencies of a real Fourier transform of `length` samples, each 1 at its centre.

    A band too narrow to hold a frequency has the one nearest to its centre.
    """
    first, last = 2595 * np.log10(1 + np.array([low, high]) / 700)
    edges = 700 * (10 ** (np.linspace(first, last, bands + 2) / 2595) - 1)
    at = np.arange(length // 2 + 1) * rate / length
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    found = np.maximum(np.minimum((at - left) / (centre - left), (right - at) / (right - centre)), 0)  # fmt: skip
    empty = found.sum(axis=1) == 0
    found[empty, np.abs(at - centre).argmin(axis=1)[empty]] = 1
    return found


def level_crossings(
    levels: Float[np.ndarray, "steps bands"], delta: float
) -> Int[np.ndarray, "steps twice"]:
    """Spikes of each step: how often each level has since its last spike moved `delta` up (first half), or down.

    A level's first value counts as if it rose from 0. Raises `ValueError` for a delta that is not above 0, and for levels
    that are not finite numbers.
    """
    levels = np.asarray(levels)
    if not delta > 0:
        raise ValueError(f"delta must be above 0, not {delta}")
    if levels.ndim != 2 or not np.isfinite(levels).all():
        raise ValueError("levels must be finite numbers, [steps, bands]")
    last = np.zeros(levels.shape[1], np.int64)
    found = np.zeros((len(levels), 2 * levels.shape[1]), np.int64)
    for t, level in enumerate(levels / delta):
        moved = np.where(level > last, np.floor(level - last + 1e-9), np.ceil(level - last - 1e-9)).astype(np.int64)  # fmt: skip
        found[t] = np.concatenate([np.maximum(moved, 0), np.maximum(-moved, 0)])
        last += moved
    return found


def trimmed(wave: Shaped[np.ndarray, " samples"], rate: float, below: float = 40.0) -> np.ndarray:
    """Without what comes before and after the sound: stretches of 10 ms that are `below` decibels under the loudest."""
    around, wave = samples(wave), np.asarray(wave)
    if not (np.isfinite(rate) and rate > 0):
        raise ValueError(f"rate must be above 0 samples a second, not {rate}")
    size = max(round(0.01 * rate), 1)
    parts = -(-len(wave) // size)
    power = np.square(np.pad(around, (0, parts * size - len(wave)))).reshape(parts, size).sum(axis=1)  # fmt: skip
    loud = np.flatnonzero(power > power.max(initial=0) * 10 ** (-below / 10))
    return wave[loud[0] * size : (loud[-1] + 1) * size] if len(loud) else wave[:0]
