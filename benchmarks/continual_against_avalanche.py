"""Do ER, EWC and LwF leave what Avalanche's leave, task by task?

Split digits: five tasks of two classes, MLP 64-100-10, plain gradient descent, one pass over each task in
batches of 10, five seeds. Both sides start at the same weights and are given the same batches in the same
order, as arrays. EWC (online, Fisher of batches) and LwF (probabilities of the classes seen) are then the
same computation. ER (200 examples, evenly by task, 10 replayed a step) draws its memory and its batches
by chance, Avalanche also the order of the new batches; the learning rate of Avalanche's first task
is halved, as ours weighs the new loss by 1/2 there too. `tests/methods/forgetting/test_against_avalanche.py`
holds ours against the file that this writes: test accuracy and cross-entropy [seed, after task, on task].

    python -m venv peer && peer/bin/pip install avalanche-lib==0.6.0
    python benchmarks/continual_against_avalanche.py --peer peer/bin/python \
        --json tests/methods/forgetting/avalanche_methods.json
"""

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

SEEDS, TASKS, STEPS, BATCH, HIDDEN, RATE = 5, 5, 28, 10, 100, 0.1
MEMORY, EWC_STRENGTH, EWC_DECAY, LWF_STRENGTH = 200, 50.0, 0.9, 3.0
METHODS = ("fine-tuning", "er", "ewc", "lwf")


def process(method: str):
    """Ours; the cross-entropy of exams is observed too."""
    import jax
    import jax.numpy as jnp
    import optax

    from latebloom import data
    from latebloom.core.memory import Policy
    from latebloom.core.stream import class_incremental
    from latebloom.methods.forgetting.continual import Continual, Replay
    from latebloom.methods.forgetting.distillation import LwF
    from latebloom.methods.forgetting.method import Method
    from latebloom.methods.forgetting.penalties import EWC
    from latebloom.methods.forgetting.replay import ER
    from latebloom.nn import MLP

    class Watched(Continual):
        def observe(self, state):
            def entropy(rows):
                z = self.apply(state.model, self.data.x_test[rows], None, False)
                return optax.softmax_cross_entropy_with_integer_labels(
                    z, self.data.y_test[rows]
                ).mean()

            return {**super().observe(state), "entropy": jax.vmap(entropy)(state.stream.exams.rows)}

    digits = data.load("digits")
    x, x_test = (jnp.asarray(a.reshape(len(a), -1) / 255, jnp.float32) for a in (digits.x_train, digits.x_test))  # fmt: skip
    y, y_test = (jnp.asarray(a, jnp.int32) for a in (digits.y_train, digits.y_test))
    methods = {
        "fine-tuning": Method(), "er": ER(0.5), "lwf": LwF(LWF_STRENGTH, 2.0, over="seen"),
        "ewc": EWC(EWC_STRENGTH, EWC_DECAY, batches=STEPS, fisher="batch"),
    }  # fmt: skip
    replay = Replay(MEMORY, BATCH, Policy("task"), at="task") if method == "er" else None
    return Watched(
        model=lambda key: MLP(64, (HIDDEN,), 10, key=key), data=data.Dataset(x, y, x_test, y_test),
        stream=lambda key: class_incremental(
            digits.y_train, digits.y_test, key=key, tasks=TASKS, steps=STEPS, batch_size=BATCH, exam_size=60
        ),
        method=methods[method], optimiser=optax.sgd, hyper={"learning_rate": RATE}, replay=replay,
    )  # fmt: skip


def ours(method: str, seeds: int = SEEDS) -> dict[str, np.ndarray]:
    """Accuracy and cross-entropy, each [seed, after task, on task]; NaN for tasks to come."""
    from latebloom import unfold

    at = [STEPS * (k + 1) for k in range(TASKS)]
    found = unfold(process(method), seeds=seeds, at=[0, *at], progress=False)
    past = np.arange(TASKS) <= np.arange(TASKS)[:, None]
    return {
        name: np.where(past, found[name].values[:, 1:], np.nan) for name in ("accuracy", "entropy")
    }


def write_arrays(folder: Path) -> None:
    """What both sides share: first weights, batches, exams."""
    import jax

    from latebloom.core.runs.program import Program

    mine = process("fine-tuning")
    parts = {name: np.asarray(getattr(mine.data, name)) for name in ("x_train", "y_train", "x_test", "y_test")}  # fmt: skip
    np.savez(folder / "data.npz", **parts)
    for seed in range(SEEDS):
        program = Program(mine)
        key = jax.random.key(np.uint32(seed))
        state = program._whole(program.init(program.arrays, key))
        layers = state.model.layers
        np.savez(
            folder / f"{seed}.npz", rows=state.stream.rows, exams=state.stream.exams.rows,
            **{f"w{i}": layer.weight for i, layer in enumerate(layers)},
            **{f"b{i}": layer.bias for i, layer in enumerate(layers)},
        )  # fmt: skip


def theirs(folder: Path) -> None:
    """Avalanche's accuracy by method: runs in an environment that has it."""
    import torch
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils.classification_dataset import (
        _make_taskaware_tensor_classification_dataset as examples,
    )
    from avalanche.training.plugins import EvaluationPlugin, EWCPlugin, LwFPlugin, ReplayPlugin
    from avalanche.training.supervised import Naive

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    data = np.load(folder / "data.npz")
    plugins = {
        "fine-tuning": lambda: [],
        "er": lambda: [ReplayPlugin(MEMORY, batch_size=BATCH, batch_size_mem=BATCH)],
        "ewc": lambda: [EWCPlugin(EWC_STRENGTH, mode="online", decay_factor=EWC_DECAY)],
        "lwf": lambda: [LwFPlugin(LWF_STRENGTH, 2.0)],
    }
    found = {}
    for method in METHODS:
        found[method] = {
            name: np.full((SEEDS, TASKS, TASKS), np.nan) for name in ("accuracy", "entropy")
        }
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            shared = np.load(folder / f"{seed}.npz")
            model = torch.nn.Sequential(
                torch.nn.Linear(64, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 10)
            )
            with torch.no_grad():
                for i, layer in enumerate((model[0], model[2])):
                    layer.weight.copy_(torch.tensor(shared[f"w{i}"].T))
                    layer.bias.copy_(torch.tensor(shared[f"b{i}"]))
            rows = shared["rows"].reshape(TASKS, -1)
            sets = [
                examples(torch.tensor(data["x_train"][of]), torch.tensor(data["y_train"][of]).long(),
                         task_labels=0, targets=1)
                for of in rows
            ]  # fmt: skip
            stream = benchmark_from_datasets(train=sets).train_stream
            strategy = Naive(
                model=model, optimizer=torch.optim.SGD(model.parameters(), RATE),
                criterion=torch.nn.CrossEntropyLoss(), train_mb_size=BATCH, train_epochs=1,
                plugins=plugins[method](), evaluator=EvaluationPlugin(),
            )  # fmt: skip
            for k, experience in enumerate(stream):
                slow = method == "er" and k == 0
                for group in strategy.optimizer.param_groups:
                    group["lr"] = RATE / 2 if slow else RATE
                # Its replay goes through the memory in order unless both are shuffled.
                strategy.train(experience, shuffle=method == "er" and k > 0)
                model.eval()
                with torch.no_grad():
                    for task in range(k + 1):
                        asked = shared["exams"][task]
                        z = model(torch.tensor(data["x_test"][asked]))
                        y = torch.tensor(data["y_test"][asked]).long()
                        place = seed, k, task
                        found[method]["accuracy"][place] = (z.argmax(1) == y).double().mean()
                        found[method]["entropy"][place] = torch.nn.functional.cross_entropy(z, y)
    written = {
        method: {name: np.round(of, 5).tolist() for name, of in parts.items()}
        for method, parts in found.items()
    }
    (folder / "theirs.json").write_text(json.dumps(written))


def interval(x: np.ndarray) -> tuple[float, float]:
    """Mean over seeds and the half-width of its 95 % t interval."""
    from scipy.stats import t

    return float(x.mean()), float(t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / len(x) ** 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--peer", help="a Python that has avalanche-lib")
    parser.add_argument("--json", type=Path, help="write Avalanche's accuracies to this file")
    parser.add_argument("--theirs", type=Path, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.theirs is not None:
        return theirs(settings.theirs)
    if settings.peer is None:
        sys.exit("this comparison needs Avalanche: give --peer, see the head of this file")
    with tempfile.TemporaryDirectory() as folder:
        write_arrays(Path(folder))
        run = [settings.peer, __file__, "--theirs", folder]
        done = subprocess.run(run, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads((Path(folder) / "theirs.json").read_text())
    for method in METHODS:
        mine = ours(method)
        other = {name: np.array(of, float) for name, of in found[method].items()}
        for name in mine:
            most = np.nanmax(np.abs(mine[name] - other[name]))
            print(f"{method}: largest difference in {name} {most:.5f}")
        mine, other = mine["accuracy"], other["accuracy"]
        for task in range(TASKS):
            a, b = mine[:, -1, task], other[:, -1, task]
            (m, w), (n, v), (d, e) = interval(a), interval(b), interval(a - b)
            print(f"  task {task}: ours {m:.3f} ±{w:.3f}, theirs {n:.3f} ±{v:.3f}, apart {d:+.3f} ±{e:.3f}")  # fmt: skip
    if settings.json is not None:
        text = json.dumps({"avalanche-lib": "0.6.0"} | found, separators=(",", ":"))
        settings.json.write_text(text.replace("NaN", "null") + "\n")


if __name__ == "__main__":
    main()
