"""Speech by the eSpeak NG library, in a process of its own: `python espeak.py LIBRARY DATA JOBS OUT`.

JOBS is a JSON list of [voice, text, words a minute, pitch]; OUT an .npz with `waves` (int16, one after the other),
`starts` and `rate`. Nothing of this package is imported: a crash of the library ends this process alone.
"""

import ctypes
import json
import sys
from pathlib import Path

import numpy as np

RETRIEVAL, UTF8, RATE, PITCH = 1, 1, 1, 3  # of its speak_lib.h


def main(library: str, data: str, jobs: str, out: str) -> None:
    speak = ctypes.CDLL(library)
    rate = speak.espeak_Initialize(RETRIEVAL, 0, data.encode(), 0)
    if rate <= 0:
        sys.exit(f"eSpeak NG does not start with {data}")
    heard: list[np.ndarray] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def hear(wave, count, events):
        if wave and count > 0:
            heard.append(np.ctypeslib.as_array(wave, (count,)).copy())
        return 0

    speak.espeak_SetSynthCallback(hear)
    waves, starts = [], [0]
    for voice, text, words, pitch in json.loads(Path(jobs).read_text()):
        if speak.espeak_SetVoiceByName(voice.encode()):
            sys.exit(f"eSpeak NG has no voice {voice}")
        speak.espeak_SetParameter(RATE, int(words), 0)
        speak.espeak_SetParameter(PITCH, int(pitch), 0)
        heard.clear()
        said = text.encode()
        speak.espeak_Synth(said, ctypes.c_size_t(len(said) + 1), 0, 1, 0, UTF8, None, None)
        speak.espeak_Synchronize()
        waves.append(np.concatenate([np.zeros(0, np.int16), *heard]))
        starts.append(starts[-1] + len(waves[-1]))
    np.savez(out, waves=np.concatenate(waves), starts=np.array(starts), rate=rate)


if __name__ == "__main__":
    main(*sys.argv[1:])
