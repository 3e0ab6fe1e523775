"""Spoken digits in English and Italian: by voices of a speech synthesiser to learn from, by people to be tested on.

The synthesiser is eSpeak NG with the voices it comes with; none who tests was heard in training. The people are those
who recorded the digits for the Asterisk telephone exchange: Allison Smith, Carlo, and Paola Dal Zot.
"""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from scipy.io import wavfile
from scipy.signal import resample_poly

from latebloom.core.checkpoint import write_atomically
from latebloom.data import espeak
from latebloom.data.sources import DataError, cache_folder, from_debian, from_pypi
from latebloom.data.speech import level_crossings, mel_levels, samples, trimmed

NAME = "spoken-digits"
RATE = 8000  # samples a second, of all sounds
_PYPI = "espeakng-loader==0.2.4"
_FILE = "voices.npz"
WORDS = {
    "en": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "it": ("zero", "uno", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove"),
}
CLASSES = tuple(f"{language}-{word}" for language, words in WORDS.items() for word in words)
_PEOPLE = {  # Debian package -> (its voice's folder, language)
    "asterisk-core-sounds-en-wav": ("en_US_f_Allison", "en"),
    "asterisk-core-sounds-it-wav": ("it_IT_m_Carlo", "it"),
    "asterisk-prompt-it-menardi-wav": ("it_IT_f_Menardi", "it"),
}
_PEOPLE_SHA256 = "a5a3cff886c3ec8d64fa6688c4a8f00cb0aaebf69e908c3d64151fff273f9fa0"  # of the recordings' samples, in order
# Voices that do not whisper, croak or play a machine.
_VOICES = """Alex Alicia Andrea Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco Mario Michael Mike Nguyen
Reed RicishayMax RicishayMax2 RicishayMax3 Storm adam anika announcer antonio aunty belinda benjamin boris david ed
edward edward2 f1 f2 f3 f4 f5 grandma grandpa gustave ian iven iven2 iven3 iven4 john kaukovalta klatt klatt2 klatt3 klatt4
klatt5 klatt6 linda m1 m2 m3 m4 m5 m6 m7 m8 marcelo max michel miguel mike2 norbert pablo paul pedro quincy rob robert
sandro shelby steph steph2 steph3 travis victor zac""".split()  # fmt: skip
# Of one family are voices that differ in a number alone, and those below: of one kind of synthesis, with the first four
# formants within 2 % of another's, or, of the last line, heard as alike.
_KIN = (
    ("max", "ricishaymax", "grandpa", "john", "m6", "m7"), ("diogo", "henrique", "hugo", "michel", "miguel"),
    ("m1", "m3", "m8", "nguyen"), ("f4", "aunty"), ("f2", "f5"), ("rob", "robert", "quincy"), ("mike", "pedro"),
    ("gustave", "marcelo"), ("klatt", "adam", "benjamin", "edward"),
)  # fmt: skip
PARTS = ("train", "valid", "test", "people")
_TAKES = {"train": 2, "valid": 2, "test": 2}
_VALID, _TEST = 10, 16  # families of voices


@dataclass(frozen=True, eq=False)
class SpokenDigits:
    """Spikes and labels of each part of `PARTS`. Equal only to itself.

    - `x`: uint8 counts [examples, steps, channels], half of the channels for levels that rise, half for those that fall.
    - `y`: [examples], into `CLASSES`. `speakers`: [examples], numbers of voices, none of which is in two parts.
    """

    x: dict[str, UInt8[np.ndarray, "examples steps channels"]]
    y: dict[str, Int[np.ndarray, " examples"]]
    speakers: dict[str, Int[np.ndarray, " examples"]]


def spoken_names() -> dict[str, dict[str, str]]:
    """The catalogue's entry."""
    about = "20 classes: digits in English and Italian by synthetic voices; 30 recordings of people to test on"
    licence = "recordings CC-BY-SA-3.0; the synthesiser GPL-3.0"
    return {NAME: {"about": about, "licence": licence, "where": str(find_spoken() or "")}}


def find_spoken() -> Path | None:
    """The folder of the sounds, or None."""
    folder = cache_folder() / NAME
    return folder if (folder / _FILE).is_file() else None


def load_spoken_digits(
    *, bands: int = 20, hop: float = 0.016, steps: int = 40, delta: float = 6.0
) -> SpokenDigits:
    """The sounds as spikes: `bands` mel bands each `hop` seconds, a spike for each `delta` decibels that one has moved.

    A sound is `steps` steps from its first loud 10 ms on: what is longer is cut, what is shorter stays silent. With
    the defaults that is 0.64 s. Raises `DataError` if the sounds have to be fetched first.
    """
    folder = find_spoken()
    if folder is None:
        raise DataError(f"{NAME} is not here: run `latebloom data fetch {NAME}`")
    return _encoded(folder, bands, hop, steps, delta)


@functools.lru_cache(maxsize=4)
def _encoded(folder: Path, bands: int, hop: float, steps: int, delta: float) -> SpokenDigits:
    try:
        with np.load(folder / _FILE) as file:
            waves, starts, part, label, speaker = (file[n] for n in ("waves", "starts", "part", "label", "speaker"))  # fmt: skip
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{folder / _FILE} is damaged ({error}): fetch {NAME} again") from None
    sounds = (waves[a:b] for a, b in itertools.pairwise(starts))
    x = np.stack([as_spikes(wave, RATE, bands=bands, hop=hop, steps=steps, delta=delta) for wave in sounds])  # fmt: skip
    rows = {name: part == i for i, name in enumerate(PARTS)}
    return SpokenDigits(*({n: values[of] for n, of in rows.items()} for values in (x, label, speaker)))  # fmt: skip


def as_spikes(
    wave: np.ndarray, rate: float, *, bands: int = 20, hop: float = 0.016, steps: int = 40, delta: float = 6.0
) -> UInt8[np.ndarray, "steps channels"]:  # fmt: skip
    """One sound of one's own as `load_spoken_digits` has them: at 8,000 samples a second, mel levels of what is not silent,
    and their crossings.

    Raises `ValueError` for a sound that `mel_levels` refuses, for a rate that is not whole or cannot hold the 3,800 Hz of the
    highest band, and for no steps.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    if not (rate == np.floor(rate) and 7600 <= rate < np.inf):
        raise ValueError(f"rate must be a whole number of samples a second, from 7600 on, not {rate}")  # fmt: skip
    if rate != RATE:
        ratio = np.gcd(int(rate), RATE)
        wave = resample_poly(samples(wave), RATE // ratio, int(rate) // ratio)
    wave = trimmed(wave, RATE)
    if not len(wave):
        raise ValueError("the sound is empty or silent")
    levels = mel_levels(wave, RATE, bands, hop=hop)
    found = level_crossings(levels, delta)[:steps]
    return np.minimum(np.pad(found, ((0, steps - len(found)), (0, 0))), 255).astype(np.uint8)


def fetch_spoken(say: Callable[[str], None] = lambda text: None) -> Path:
    """Speak the digits and get the recordings into the user's cache; returns the folder.

    Raises `DataError` if a package cannot be had, does not run here, or is not the original.
    """
    target = cache_folder() / NAME
    with tempfile.TemporaryDirectory() as scratch:
        try:
            people = _people(Path(scratch), say)
            spoken = _spoken(Path(scratch), say)
        except (OSError, subprocess.SubprocessError, zipfile.BadZipFile, StopIteration) as error:
            raise DataError(f"{NAME} could not be had: {error}") from None
    sounds = [*spoken, *people]
    waves = [np.round(wave).astype(np.int16) for wave, *_ in sounds]
    part, label, speaker = (np.array([s[i] for s in sounds], np.int32) for i in (1, 2, 3))
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, waves=np.concatenate(waves), starts=np.cumsum([0, *map(len, waves)]), part=part, label=label, speaker=speaker,
    )  # fmt: skip
    write_atomically(target / _FILE, buffer.getvalue())
    return target


Sound = tuple[np.ndarray, int, int, int]  # samples, part, label, speaker


def _people(scratch: Path, say: Callable[[str], None]) -> list[Sound]:
    found, digest = [], hashlib.sha256()
    for number, (package, (voice, language)) in enumerate(_PEOPLE.items()):
        say(f"{NAME}: Debian package {package}")
        folder = scratch / package
        folder.mkdir()
        from_debian(package, folder)
        for digit in range(10):
            rate, wave = wavfile.read(next(folder.rglob(f"{voice}/digits/{digit}.wav")))
            digest.update(wave.tobytes())
            if rate != RATE or wave.dtype != np.int16 or wave.ndim != 1:
                raise DataError(f"{package} has recordings of another kind than 16 bits at {RATE} Hz")  # fmt: skip
            label = list(WORDS).index(language) * 10 + digit
            found.append((wave, PARTS.index("people"), label, 10_000 + number))
    if digest.hexdigest() != _PEOPLE_SHA256:
        raise DataError(f"the recordings of {', '.join(_PEOPLE)} are not the original ones")
    return found


def _spoken(scratch: Path, say: Callable[[str], None]) -> list[Sound]:
    say(f"{NAME}: PyPI package {_PYPI}")
    folder = scratch / "espeak"
    folder.mkdir()
    from_pypi(_PYPI, folder)
    library = next(p for p in sorted(folder.rglob("*espeak-ng*")) if re.search(r"\.(so|dylib|dll)$", p.name))  # fmt: skip
    jobs, about = _jobs()
    (folder / "jobs.json").write_text(json.dumps(jobs))
    say(f"{NAME}: {len(jobs):,} words are spoken")
    done = subprocess.run(
        [sys.executable, espeak.__file__, library, next(folder.rglob("espeak-ng-data")), folder / "jobs.json", folder / "out.npz"],
        capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    if done.returncode:
        raise DataError(f"{NAME}: the synthesiser failed: {(done.stderr.strip().splitlines() or [f'exit status {done.returncode}'])[-1]}")  # fmt: skip
    with np.load(folder / "out.npz") as file:
        waves, starts, rate = file["waves"], file["starts"], int(file["rate"])
    ratio = np.gcd(rate, RATE)
    found = []
    for (part, label, speaker), a, b in zip(about, starts[:-1], starts[1:], strict=True):
        wave = resample_poly(waves[a:b].astype(np.float64), RATE // ratio, rate // ratio)
        found.append((np.clip(trimmed(wave, RATE), -32768, 32767), part, label, speaker))
        if not len(found[-1][0]):
            raise DataError(f"{NAME}: the synthesiser is silent for {CLASSES[label]}, {_VOICES[speaker]}")  # fmt: skip
    return found


def _jobs() -> tuple[list[tuple[str, str, int, int]], list[tuple[int, int, int]]]:
    """What is spoken, [voice, text, words a minute, pitch], and of which part, class and voice it is."""
    rng = np.random.default_rng(0)
    families = sorted({family(voice) for voice in _VOICES})
    order = [families[i] for i in rng.permutation(len(families))]
    parts = dict.fromkeys(order, "train")
    parts |= dict.fromkeys(order[:_TEST], "test") | dict.fromkeys(order[_TEST : _TEST + _VALID], "valid")  # fmt: skip
    jobs, about = [], []
    for number, voice in enumerate(_VOICES):
        part = parts[family(voice)]
        for language, words in WORDS.items():
            for digit, word in enumerate(words):
                for _ in range(_TAKES[part]):
                    pace, pitch = int(rng.integers(130, 200)), int(rng.integers(30, 71))
                    jobs.append((f"{language}+{voice}", word, pace, pitch))
                    about.append((PARTS.index(part), list(WORDS).index(language) * 10 + digit, number))  # fmt: skip
    return jobs, about


def family(voice: str) -> str:
    """The voice without its number, and of kin the first, so that what sounds alike is in one part. Those of a name of one
    letter differ by their number.

    >>> family("klatt3"), family("Mike"), family("mike2"), family("edward"), family("f3"), family("m8")
    ('klatt', 'mike', 'mike', 'klatt', 'f3', 'm1')
    """
    name = re.sub(r"(?<=..)\d+$", "", voice.lower())
    return next((kin[0] for kin in _KIN if name in kin), name)
