"""How long does a step of experience replay take, with and without an exam after each, against PyTorch and Avalanche?

An MLP 784-400-400-10, a small one (784-100-100-10) or a LeNet (convolutions of 10 and 20 channels, 50 hidden
units) on made-up images, five tasks of two classes, as many replayed examples as new ones, SGD with momentum;
an exam is 500 test examples of each task so far. One and five seeds, in turns in one run, the median of three.
Seeds of ours are spread over a device for each core, as the command line does; PyTorch runs one seed after another,
and so does Avalanche, for a fifth of the steps. For the MLPs there are also the matrix products alone.

    pip install torch avalanche-lib
    python benchmarks/continual_step.py [--network lenet] [--batch 128] [--steps 100]

Avalanche is left out where it is not installed.
"""

import argparse
import contextlib
import io
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import latebloom.cli  # noqa: F401, shows JAX a device for each core
from latebloom import nn, unfold
from latebloom.core.dataset import Dataset
from latebloom.core.stream import class_incremental
from latebloom.methods.forgetting.continual import Continual, Replay
from latebloom.methods.forgetting.replay import ER

try:
    import torch
except ImportError:
    sys.exit("PyTorch is not installed here; see the head of this file")

TASKS, MEMORY, EXAM, RATE = 5, 500, 500, 0.03


def images(network: str) -> Dataset:
    rng = np.random.default_rng(0)
    means = rng.normal(size=(10, 784)).astype(np.float32)

    def part(n: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.repeat(np.arange(10, dtype=np.int32), n // 10)
        x = means[y] + rng.normal(size=(len(y), 784)).astype(np.float32)
        return x.reshape(-1, 28, 28, 1) if network == "lenet" else x, y

    (x, y), (x_test, y_test) = part(10_000), part(5_000)
    return Dataset(*map(jnp.asarray, (x, y, x_test, y_test)))


def ours(data: Dataset, network: str, batch: int, seeds: int, steps: int, exams: bool) -> float:
    """Seconds of a run, without compiling."""

    def stream(key: jax.Array):
        return class_incremental(
            data.y_train,
            data.y_test,
            key=key,
            tasks=TASKS,
            steps=steps,
            batch_size=batch,
            exam_size=EXAM,
        )

    process = Continual(
        model=lambda key: (
            nn.LeNet(28, 10, key=key)
            if network == "lenet"
            else nn.MLP(784, (units(network),) * 2, 10, key=key)
        ), data=data, stream=stream, method=ER(),
        optimiser=lambda rate: optax.sgd(rate, momentum=0.9), hyper={"rate": RATE},
        replay=Replay(MEMORY, batch), seeds_by="map" if network == "lenet" else "vmap",
    )  # fmt: skip
    # Exams of all tasks so far, as a stream has them: three on average.
    trace = unfold(
        process, seeds=seeds, steps=TASKS * steps, every=1 if exams else steps, progress=False
    )
    return trace.attrs["run_seconds"]


def units(network: str) -> int:
    return 100 if network == "small" else 400


def built(network: str) -> torch.nn.Module:
    if network == "lenet":
        return torch.nn.Sequential(
            torch.nn.Conv2d(1, 10, 5), torch.nn.MaxPool2d(2), torch.nn.ReLU(),
            torch.nn.Conv2d(10, 20, 5), torch.nn.MaxPool2d(2), torch.nn.ReLU(), torch.nn.Flatten(),
            torch.nn.Linear(320, 50), torch.nn.ReLU(), torch.nn.Linear(50, 10),
        )  # fmt: skip
    n = units(network)
    return torch.nn.Sequential(
        torch.nn.Linear(784, n), torch.nn.ReLU(), torch.nn.Linear(n, n), torch.nn.ReLU(), torch.nn.Linear(n, 10)
    )  # fmt: skip


def as_tensors(data: Dataset) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images with their channel first."""
    x, x_test = (
        torch.from_numpy(np.moveaxis(np.array(a), -1, 1) if a.ndim == 4 else np.array(a))
        for a in (data.x_train, data.x_test)
    )
    y, y_test = (torch.from_numpy(np.array(a)).long() for a in (data.y_train, data.y_test))
    return x, y, x_test, y_test


def plain_torch(
    data: Dataset, network: str, batch: int, seeds: int, steps: int, exams: bool
) -> float:
    x, y, x_test, y_test = as_tensors(data)
    start = time.perf_counter()
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        model, loss = built(network), torch.nn.CrossEntropyLoss()
        rule = torch.optim.SGD(model.parameters(), RATE, momentum=0.9)
        memory, met = np.zeros(MEMORY, int), 0
        order = rng.permutation(10)
        tests = []
        for task in range(TASKS):
            classes = order[2 * task : 2 * task + 2]
            mine = np.flatnonzero(np.isin(y.numpy(), classes))
            tests.append(rng.permutation(np.flatnonzero(np.isin(y_test.numpy(), classes)))[:EXAM])
            for step in range(steps):
                if step % (len(mine) // batch) == 0:
                    rng.shuffle(mine)
                at = step % (len(mine) // batch) * batch
                rows = mine[at : at + batch]
                rule.zero_grad()
                if met:
                    old = memory[rng.choice(min(met, MEMORY), min(met, batch), replace=False)]
                    both = np.concatenate([rows, old])
                    out = model(x[both])
                    value = loss(out[:batch], y[rows]) / 2 + loss(out[batch:], y[old]) / 2
                else:
                    value = loss(model(x[rows]), y[rows]) / 2
                value.backward()
                rule.step()
                for row in rows:  # a reservoir
                    place = met if met < MEMORY else int(rng.integers(0, met + 1))
                    if place < MEMORY:
                        memory[place] = row
                    met += 1
                if exams:
                    with torch.no_grad():
                        for held in tests:
                            (model(x_test[held]).argmax(1) == y_test[held]).float().mean().item()
    return time.perf_counter() - start


def avalanche(
    data: Dataset, network: str, batch: int, seeds: int, steps: int, exams: bool
) -> float | None:
    try:
        from avalanche.benchmarks import tensors_benchmark
        from avalanche.evaluation.metrics import accuracy_metrics
        from avalanche.training import Replay as AvalancheReplay
        from avalanche.training.plugins import EvaluationPlugin
    except ImportError:
        return None
    x, y, x_test, y_test = as_tensors(data)
    seconds = 0.0
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(10)
        mine = [np.flatnonzero(np.isin(y.numpy(), order[2 * t : 2 * t + 2])) for t in range(TASKS)]
        parts = [rows[: max(1, steps // 5) * batch] for rows in mine]
        tests = [
            np.flatnonzero(np.isin(y_test.numpy(), order[2 * t : 2 * t + 2]))[:EXAM]
            for t in range(TASKS)
        ]
        bench = tensors_benchmark(
            train_tensors=[(x[p], y[p]) for p in parts], test_tensors=[(x_test[t], y_test[t]) for t in tests],
            task_labels=[0] * TASKS, complete_test_set_only=False,
        )  # fmt: skip
        model = built(network)
        learner = AvalancheReplay(
            model=model, optimizer=torch.optim.SGD(model.parameters(), RATE, momentum=0.9),
            criterion=torch.nn.CrossEntropyLoss(), mem_size=MEMORY, train_mb_size=batch, train_epochs=1,
            eval_mb_size=EXAM, eval_every=1 if exams else -1, peval_mode="iteration" if exams else "epoch",
            evaluator=EvaluationPlugin(accuracy_metrics(experience=True), loggers=[]),
        )  # fmt: skip
        start, done = time.perf_counter(), 0
        for task, experience in enumerate(bench.train_stream):
            learner.train(experience, eval_streams=[bench.test_stream[: task + 1]] if exams else [])
            done += -(-len(parts[task]) // batch)
        seconds += (time.perf_counter() - start) * TASKS * steps / done
    return seconds


def products(
    data: Dataset, network: str, batch: int, seeds: int, steps: int, exams: bool
) -> float | None:
    """The matrix products of an MLP's step alone, by PyTorch: what no implementation can be faster than."""
    if network == "lenet":
        return None
    n, rows = units(network), 2 * batch
    sizes = [(784, n), (n, n), (n, 10)]
    weights = [torch.randn(size) for size in sizes]
    inputs, slopes = [torch.randn(rows, a) for a, _ in sizes], [torch.randn(rows, b) for _, b in sizes]  # fmt: skip
    asked = [torch.randn(EXAM, a) for a, _ in sizes]
    start = time.perf_counter()
    for step in range(TASKS * steps):
        for i, (x, w, d) in enumerate(zip(inputs, weights, slopes, strict=True)):
            x @ w, x.T @ d
            if i:
                d @ w.T
        for _ in range(step // steps + 1 if exams else 0):
            for x, w in zip(asked, weights, strict=True):
                x @ w
    return (time.perf_counter() - start) * seeds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100, help="of each of the five tasks")
    parser.add_argument("--network", choices=("mlp", "small", "lenet"), default="mlp")
    parser.add_argument("--batch", type=int, default=128, help="new examples, and replayed ones")
    told = parser.parse_args()
    network, batch, steps = told.network, told.batch, told.steps
    data = images(network)
    print("ms a step and seed, median of three turns [least to most]")
    for exams in (False, True):
        for seeds in (1, 5):
            taken: dict[str, list[float]] = {}
            for _ in range(3):
                for run in (ours, plain_torch, products, avalanche):
                    with contextlib.redirect_stderr(io.StringIO()):  # Avalanche warns at each task
                        found = run(data, network, batch, seeds, steps, exams)
                    if found is not None:
                        taken.setdefault(run.__name__, []).append(
                            1e3 * found / (TASKS * steps * seeds)
                        )
            said = ", ".join(
                f"{name} {statistics.median(t):.1f} [{min(t):.1f} to {max(t):.1f}]"
                for name, t in taken.items()
            )
            print(
                f"{seeds} seed(s), {'an exam after each step' if exams else 'exams at borders'}: {said}",
                flush=True,
            )


if __name__ == "__main__":
    main()
