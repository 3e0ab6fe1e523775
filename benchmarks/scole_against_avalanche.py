"""Classes that come back: plain SGD here and Avalanche's Naive on the same stream, outcomes and seconds a step, in turns.

MNIST-5k at 14 x 14, 100 tasks of two digits, 20 updates of 32 examples each, an MLP of 2 x 50 units, SGD at 0.1. Both sides
start at the same weights and see the same batches in the same order, so they are the same computation up to rounding.
Avalanche 0.6 has no generator of repeating classes of its own: its benchmark is made of a data set a task
(`benchmark_from_datasets`, `with_classes_timeline`). Times are of training alone, ours without compiling. The full test set is asked
at the end of each tenth task. Beside it: the time of a step of ours with masking, and with replay of as many examples.

    python -m venv peer && peer/bin/pip install torch avalanche-lib==0.6.0
    python benchmarks/scole_against_avalanche.py --peer peer/bin/python
"""

import argparse
import itertools
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from peers import asked

TASKS, STEPS, BATCH, RATE, EVERY = 100, 20, 32, 0.1, 10


def theirs(folder: Path, seed: int) -> dict[str, object]:
    """Avalanche's accuracies and seconds: runs in an environment that has it."""
    import torch
    from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline
    from avalanche.benchmarks.utils.classification_dataset import (
        _make_taskaware_tensor_classification_dataset as examples,
    )
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.supervised import Naive

    torch.set_num_threads(1)
    data, shared = np.load(folder / "data.npz"), np.load(folder / f"{seed}.npz")
    x, y, x_test, y_test = (torch.as_tensor(data[k]) for k in ("x_train", "y_train", "x_test", "y_test"))  # fmt: skip
    sizes = [x.shape[1], 50, 50, 10]
    layers = [torch.nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    with torch.no_grad():
        for i, layer in enumerate(layers):
            layer.weight.copy_(torch.as_tensor(shared[f"w{i}"].T))
            layer.bias.copy_(torch.as_tensor(shared[f"b{i}"]))
    relu = torch.nn.ReLU()
    net = torch.nn.Sequential(layers[0], relu, layers[1], relu, layers[2])
    sets = [
        examples(x[torch.as_tensor(rows).long()], y[torch.as_tensor(rows).long()].long(), task_labels=0, targets=1)
        for rows in shared["rows"].reshape(TASKS, -1)
    ]  # fmt: skip
    world = with_classes_timeline(benchmark_from_datasets(train=sets))
    learner = Naive(
        model=net, optimizer=torch.optim.SGD(net.parameters(), RATE), criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=BATCH, train_epochs=1, evaluator=EvaluationPlugin(loggers=[]),
    )  # fmt: skip
    seconds, found = 0.0, []
    for task, experience in enumerate(world.train_stream):
        start = time.perf_counter()
        learner.train(experience, shuffle=False)
        seconds += time.perf_counter() - start
        if (task + 1) % EVERY == 0:
            net.eval()
            with torch.no_grad():
                found.append((net(x_test).argmax(1) == y_test).double().mean().item())
    return {"accuracy": found, "seconds": seconds}


def process(**more):
    import equinox as eqx
    import optax

    from latebloom.studies.forgetting import scole as study

    config = replace(study.ARMS["sgd"], tasks=TASKS, steps=STEPS, batch=BATCH, rate=RATE, **more)
    # Naive does not clip gradients.
    return eqx.tree_at(lambda p: p.optimiser, study.make_process(config), optax.sgd)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--peer", required=True, help="a Python that has torch and Avalanche")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        print(json.dumps(theirs(args.folder, args.seed)))
        return
    import jax

    from latebloom import unfold
    from latebloom.core.runs.program import Program

    plain = process()
    at = STEPS * np.arange(EVERY, TASKS + 1, EVERY)
    kinds = {
        "plain, 1 seed": (plain, 1), "plain, 8 seeds": (plain, 8), "masked, 8 seeds": (process(mask=True), 8),
        "replay, 8 seeds": (process(replay="er"), 8),
    }  # fmt: skip
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = {k: np.asarray(getattr(plain.data, k)) for k in ("x_train", "y_train", "x_test", "y_test")}  # fmt: skip
        np.savez(folder / "data.npz", **parts)
        program = Program(plain)
        for turn in range(args.turns):
            state = program._whole(program.init(program.arrays, jax.random.key(np.uint32(turn))))
            weights = {f"{n}{i}": w for i, layer in enumerate(state.model.layers)
                       for n, w in (("w", layer.weight), ("b", layer.bias))}  # fmt: skip
            np.savez(folder / f"{turn}.npz", rows=state.stream.rows, **weights)
            for kind, (of, seeds) in kinds.items():
                first = seeds * turn
                trace = unfold(of, seeds=range(first, first + seeds), at=at, progress=False)
                seconds = trace.attrs["run_seconds"] / (seeds * TASKS * STEPS)
                taken.setdefault(kind, []).append(1e3 * seconds)
                if kind == "plain, 1 seed":
                    mine = trace.accuracy.mean("task").values[0]
            other = asked(args.peer, __file__, "--peer", "-", "--folder", name, "--seed", str(turn))
            taken.setdefault("Avalanche, 1 seed", []).append(1e3 * other["seconds"] / (TASKS * STEPS))  # fmt: skip
            apart = np.abs(mine - np.array(other["accuracy"])).max()
            print(f"seed {turn}: final accuracy here {100 * mine[-1]:.1f} %, Avalanche {100 * other['accuracy'][-1]:.1f} %; "
                  f"at most {100 * apart:.1f} points apart at any exam", flush=True)  # fmt: skip
    for kind, times in taken.items():
        print(f"{kind}: {min(times):.3f} to {max(times):.3f} ms a step and seed")


if __name__ == "__main__":
    main()
