"""One harness for comparisons with a library that has a Python of its own: both sides in turns, in one run.

A benchmark is run by this project's Python, and runs itself by the peer's for the other side; what is imported
here is there on both.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Found = tuple[list[float], float, float]  # accuracies in %, time a seed, seconds of compiling


def asked(python: str, script: str, *arguments: str) -> Any:
    """What a benchmark prints last under the peer's Python, as JSON; ends with what it complains of."""
    said = subprocess.run([python, script, *arguments], capture_output=True, text=True, check=False)
    if said.returncode:
        sys.exit(said.stderr)
    return json.loads(said.stdout.splitlines()[-1])


def in_turns(
    script: str, about: str | None, peer: str, theirs: Callable[[str, int], dict[str, float]],
    ours: Callable[[int], Found], *, seeds: Sequence[int], unit: str,
) -> None:  # fmt: skip
    """Both sides on MNIST-5k at 14 x 14, as often as `--turns` says.

    - `theirs(file, seed)`: by the peer, on the arrays in an .npz; `ours(seeds)`, so many at once.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--peer", required=True, help=f"a Python that has {peer}")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.file:
        print(json.dumps(theirs(args.file, args.seed)))
        return
    from latebloom.data import load_scaled

    data = load_scaled("mnist-5k", side=14, flat=True)
    parts = {name: np.asarray(getattr(data, name)) for name in ("x_train", "y_train", "x_test", "y_test")}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "images.npz"
        np.savez(file, **parts)
        for turn in range(args.turns):
            for count in seeds:
                found, took, compiling = ours(count)
                print(f"latebloom, {count} at once: {np.mean(found):.1f} %, {took:.2f} {unit} a seed (compiling {compiling:.1f} s)", flush=True)  # fmt: skip
            got = asked(args.peer, script, "--peer", "-", "--file", str(file), "--seed", str(turn))
            said = ", ".join(f"{name} {value:.3g}" for name, value in got.items())
            print(f"{peer}, seed {turn}: {said}", flush=True)
