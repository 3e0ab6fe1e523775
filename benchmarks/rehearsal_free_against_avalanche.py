"""Do EWC and LwF on the study's stream and pre-trained network leave what Avalanche's leave, and how long is an update?

Fifty glyph classes, ten a task, 60 updates of 32 examples, plain gradient descent, softmax over all fifty outputs
(Avalanche's `Naive` knows no other head). Both sides start at the same weights and are given the same batches in the
same order. EWC is online with the Fisher matrix of batches and holds all parameters. In turns, in one run. Prints what each
side leaves and ours less theirs, each with a 95 % interval over seeds (Student's t); ends with an error where a method is at chance.

    python -m venv peer && peer/bin/pip install avalanche-lib==0.6.0
    python benchmarks/rehearsal_free_against_avalanche.py --peer peer/bin/python
"""

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from peers import asked

SEEDS, TASKS, STEPS, BATCH, RATE, CLASSES = 5, 5, 60, 32, 0.1, 50
EWC_STRENGTH, EWC_DECAY, LWF_STRENGTH = 0.3, 0.9, 3.0
METHODS = ("fine-tuning", "ewc", "lwf")


def process(method: str):
    import optax

    from latebloom.methods.forgetting.continual import Continual
    from latebloom.methods.forgetting.distillation import LwF
    from latebloom.methods.forgetting.method import Method
    from latebloom.methods.forgetting.penalties import EWC
    from latebloom.studies.forgetting import rehearsal_free as study

    like = study.make_process(study.Config(pretrained=True, steps=STEPS, batch=BATCH, tasks=TASKS))
    methods = {
        "fine-tuning": Method(), "lwf": LwF(LWF_STRENGTH, 2.0, over="seen"),
        "ewc": EWC(EWC_STRENGTH, EWC_DECAY, batches=STEPS, fisher="batch"),
    }  # fmt: skip
    return Continual(
        model=like.model, data=like.data, stream=like.stream, method=methods[method], optimiser=optax.sgd,
        hyper={"learning_rate": RATE}, seeds_by="map",
    )  # fmt: skip


def ours(method: str) -> tuple[np.ndarray, float]:
    """Accuracy by seed and task at the end, ms an update and seed without compiling."""
    from latebloom import unfold

    trace = unfold(process(method), seeds=SEEDS, at=[TASKS * STEPS], progress=False)
    ms = 1e3 * trace.attrs["run_seconds"] / (SEEDS * TASKS * STEPS)
    return trace.accuracy.values[:, -1], ms


def write_arrays(folder: Path) -> None:
    """What both sides share: first weights, batches, exams."""
    import jax

    from latebloom.core.runs.program import Program

    mine = process("fine-tuning")
    parts = {name: np.asarray(getattr(mine.data, name)) for name in ("x_train", "y_train", "x_test", "y_test")}  # fmt: skip
    np.savez(folder / "data.npz", **parts)
    for seed in range(SEEDS):
        program = Program(mine)
        state = program._whole(program.init(program.arrays, jax.random.key(np.uint32(seed))))
        layers = (*state.model.layers, state.model.readout)
        np.savez(
            folder / f"{seed}.npz", rows=state.stream.rows, exams=state.stream.exams.rows,
            **{f"w{i}": layer.weight for i, layer in enumerate(layers)},
            **{f"b{i}": layer.bias for i, layer in enumerate(layers)},
        )  # fmt: skip


def theirs(folder: Path, method: str, seed: int) -> dict[str, object]:
    """Avalanche's accuracy by task at the end, and ms an update: runs in an environment that has it."""
    import torch
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils.classification_dataset import (
        _make_taskaware_tensor_classification_dataset as examples,
    )
    from avalanche.training.plugins import EvaluationPlugin, EWCPlugin, LwFPlugin
    from avalanche.training.supervised import Naive
    from torch import nn
    from torch.nn import functional as F

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    data, shared = np.load(folder / "data.npz"), np.load(folder / f"{seed}.npz")

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            sizes = [shared[f"w{i}"].shape for i in range(3)]
            self.layers = nn.ModuleList(nn.Conv2d(s[2], s[3], 3, stride=1 if i == 0 else 2) for i, s in enumerate(sizes))  # fmt: skip
            self.readout = nn.Linear(sizes[2][3], CLASSES)

        def forward(self, x):
            for i, layer in enumerate(self.layers):
                x = F.leaky_relu(layer(F.pad(x, (1, 1, 1, 1) if i == 0 else (0, 1, 0, 1))))
            return self.readout(x.mean((2, 3)))

    model = Net()
    with torch.no_grad():
        for i, layer in enumerate(model.layers):
            layer.weight.copy_(torch.tensor(shared[f"w{i}"].transpose(3, 2, 0, 1)))
            layer.bias.copy_(torch.tensor(shared[f"b{i}"]))
        model.readout.weight.copy_(torch.tensor(shared["w3"].T))
        model.readout.bias.copy_(torch.tensor(shared["b3"]))
    x, x_test = (torch.tensor(data[n].transpose(0, 3, 1, 2)) for n in ("x_train", "x_test"))
    y, y_test = (torch.tensor(data[n]).long() for n in ("y_train", "y_test"))
    plugins = {
        "fine-tuning": lambda: [], "lwf": lambda: [LwFPlugin(LWF_STRENGTH, 2.0)],
        "ewc": lambda: [EWCPlugin(EWC_STRENGTH, mode="online", decay_factor=EWC_DECAY)],
    }  # fmt: skip
    sets = [
        examples(x[of], y[of], task_labels=0, targets=1) for of in shared["rows"].reshape(TASKS, -1)
    ]
    strategy = Naive(
        model=model, optimizer=torch.optim.SGD(model.parameters(), RATE), criterion=nn.CrossEntropyLoss(),
        train_mb_size=BATCH, train_epochs=1, plugins=plugins[method](), evaluator=EvaluationPlugin(),
    )  # fmt: skip
    start = time.perf_counter()
    for experience in benchmark_from_datasets(train=sets).train_stream:
        strategy.train(experience, shuffle=False)
    seconds = time.perf_counter() - start
    model.eval()
    with torch.no_grad():
        found = [
            float((model(x_test[of]).argmax(1) == y_test[of]).double().mean())
            for of in shared["exams"]
        ]
    return {"accuracy": found, "ms": 1e3 * seconds / (TASKS * STEPS)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--peer", required=True, help="a Python that has avalanche-lib")
    parser.add_argument("--methods", nargs="*", default=METHODS, choices=METHODS)
    parser.add_argument("--theirs", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.theirs:
        folder, method, seed = args.theirs
        print(json.dumps(theirs(Path(folder), method, int(seed))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_arrays(folder)
        for method in args.methods:
            mine, my_ms = ours(method)
            got = [asked(args.peer, __file__, "--peer", "-", "--theirs", name, method, str(seed)) for seed in range(SEEDS)]  # fmt: skip
            if not min(mine.mean(), *(np.mean(g["accuracy"]) for g in got)) > 1.5 / CLASSES:
                raise SystemExit(
                    f"{method} is at chance or diverged: equal accuracies would say nothing"
                )
            other, ms = np.array([g["accuracy"] for g in got]), [g["ms"] for g in got]
            print(f"{method}: accuracy in % {told(mine)}, Avalanche {told(other)}, ours less theirs {told(mine - other)}, by task and seed at "
                  f"most {100 * np.abs(mine - other).max():.2f} apart; ms an update {my_ms:.1f}, Avalanche {min(ms):.1f} to {max(ms):.1f}", flush=True)  # fmt: skip


def told(shares: np.ndarray) -> str:
    """Of shares [seed, task]: the mean in % and its interval over seeds."""
    from latebloom.lab.verdict import interval

    by_seed = 100 * shares.mean(axis=1)
    low, high = interval(by_seed)
    return f"{by_seed.mean():.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
