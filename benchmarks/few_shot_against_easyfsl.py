"""Prototypical networks here and in easyfsl: the same embedding, the same episodes; answers and ms an episode, in turns.

Made-up characters at 28 x 28, 20 classes of one drawing each as four support sets of five, five targets of each; three
stages of 16, 32 and 48 filters, pretrained here for 100 steps and handed over; running statistics; one core.

    python -m venv peer && peer/bin/pip install torch torchvision && peer/bin/pip install --no-deps easyfsl==1.5.0
    python benchmarks/few_shot_against_easyfsl.py --peer peer/bin/python
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from peers import asked

EPISODES, SIDE, FILTERS, STAGES, CLASSES = 200, 28, 16, 3, 120


def theirs(file: str) -> dict[str, Any]:
    """easyfsl on the arrays of a file, one episode after the other: answers, and milliseconds an episode."""
    import torch
    from easyfsl.methods import PrototypicalNetworks

    torch.set_num_threads(1)
    part = {name: torch.as_tensor(values) for name, values in np.load(file).items()}
    layers, width = [], 1
    for i in range(STAGES):
        convolution = torch.nn.Conv2d(width, width := FILTERS * (i + 1), 3, padding=1)
        norm = torch.nn.BatchNorm2d(width)
        with torch.no_grad():
            convolution.weight.copy_(part[f"weight{i}"].permute(3, 2, 0, 1))
            for of, name in ((convolution, "bias"), (norm, "scale"), (norm, "shift"), (norm, "mean"), (norm, "variance")):  # fmt: skip
                kind = {"bias": "bias", "scale": "weight", "shift": "bias", "mean": "running_mean", "variance": "running_var"}[name]  # fmt: skip
                getattr(of, kind).copy_(part[f"{name}{i}"])
        layers += [convolution, norm, torch.nn.LeakyReLU(0.01), torch.nn.MaxPool2d(2)]
    model = PrototypicalNetworks(torch.nn.Sequential(*layers, torch.nn.Flatten())).eval()
    images, said, took = part["images"].permute(0, 3, 1, 2).contiguous(), [], []
    with torch.no_grad():
        for rows, labels, targets in zip(part["rows"].long(), part["labels"].long(), part["targets"].long(), strict=True):  # fmt: skip
            start = time.perf_counter()
            model.process_support_set(images[rows], labels)
            said.append(model(images[targets]).argmax(1).tolist())
            took.append(time.perf_counter() - start)
    return {"said": said, "milliseconds": 1e3 * float(np.median(took))}


def prepared(folder: Path) -> tuple[Path, Any, dict[str, np.ndarray]]:
    """A file for the peer; our answers as a function of nothing, all episodes at once or one by one."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from latebloom.data import glyphs
    from latebloom.methods.forgetting.episodes import Design, by_class, draw_many
    from latebloom.methods.forgetting.pretraining import Pretraining, by_prototypes, pretrained
    from latebloom.nn import StageNet

    drawn = glyphs(CLASSES, 10, seed=0, size=SIDE).reshape(-1, SIDE, SIDE, 1).astype(np.float32)
    images, shelf = jnp.asarray(drawn / 255), by_class(np.repeat(np.arange(CLASSES), 10))
    process = Pretraining(
        lambda key: StageNet((SIDE, SIDE), filters=FILTERS, stages=STAGES, key=key), images, shelf, "prototypes", "euclidean",
        Design(1, 20, queries=2), steps=100, rate=3e-3,
    )  # fmt: skip
    body = pretrained(process, jax.random.key(0)).learner.body
    design = Design(4, 5)
    many = draw_many(jax.random.key(1), design, shelf, EPISODES)
    parts = {"images": images, "rows": many.rows.reshape(EPISODES, -1), "labels": many.labels.reshape(EPISODES, -1), "targets": many.target_rows}  # fmt: skip
    for i, (convolution, norm) in enumerate(zip(body.convolutions, body.norms, strict=True)):
        parts |= {f"weight{i}": convolution.weight, f"bias{i}": convolution.bias, f"mean{i}": norm.mean,
                  f"variance{i}": norm.variance, f"scale{i}": norm.scale, f"shift{i}": norm.shift}  # fmt: skip
    np.savez(folder / "episodes.npz", **{name: np.asarray(value) for name, value in parts.items()})

    @eqx.filter_jit
    def one(episode: Any) -> jax.Array:
        x = images[episode.target_rows]
        return by_prototypes(body, images, episode, x, design.outputs, "euclidean", "running").argmax(axis=1)  # fmt: skip

    every = jax.jit(lambda episodes: jax.lax.map(one, episodes))
    singles = [jax.tree.map(lambda a, i=i: a[i], many) for i in range(EPISODES)]
    runs = {
        "in one program": lambda: np.asarray(every(many)),
        "one by one": lambda: np.stack([np.asarray(one(e)) for e in singles]),
    }
    return folder / "episodes.npz", runs, {"wanted": np.asarray(many.target_labels)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--peer", required=True, help="a Python that has easyfsl")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.file:
        print(json.dumps(theirs(args.file)))
        return
    with tempfile.TemporaryDirectory() as folder:
        file, runs, truth = prepared(Path(folder))
        for run in runs.values():
            run()  # compiles
        for turn in range(args.turns):
            found = {}
            for name, run in runs.items():
                start = time.perf_counter()
                found[name] = run()
                took = 1e3 * (time.perf_counter() - start) / EPISODES
                right = 100 * (found[name] == truth["wanted"]).mean()
                print(f"turn {turn}, latebloom, {name}: {right:.2f} %, {took:.2f} ms an episode", flush=True)  # fmt: skip
            got = asked(args.peer, __file__, "--peer", "-", "--file", str(file))
            said = np.array(got["said"])
            same = 100 * (said == found["in one program"]).mean()
            print(f"turn {turn}, easyfsl: {100 * (said == truth['wanted']).mean():.2f} %, {got['milliseconds']:.2f} ms an episode; {same:.2f} % of its answers are ours", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
