"""Uniform rehearsal here and Avalanche's Replay: final accuracy and seconds, in turns.

Ten permuted tasks of MNIST-5k at 14 x 14, an MLP of 2 x 100 units, Adam at 0.004, one pass over 4,000
examples a task in batches of 64, each with 64 old ones beside them, which a memory of all that came gives.
Ours is `rehearsed(..., when="mixed")` with uniform shares; where the first task has nothing to rehearse it sees 64
more of its own. Avalanche's `Replay` draws its memory by experience. Both examine once, at the end.

    python -m venv peer && peer/bin/pip install torch avalanche-lib==0.6.0
    python benchmarks/power_law_against_avalanche.py --peer peer/bin/python
"""

import time

import numpy as np
from peers import in_turns

TASKS, BATCH, UNITS, RATE = 10, 64, 100, 0.004


def theirs(file: str, seed: int) -> dict[str, float]:
    """Avalanche's Replay on the arrays of a file."""
    import torch
    from avalanche.benchmarks import tensors_benchmark
    from avalanche.training import Replay
    from avalanche.training.plugins import EvaluationPlugin

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    part = {name: torch.as_tensor(values) for name, values in np.load(file).items()}
    rng = np.random.default_rng(seed)
    pixels = part["x_train"].shape[1]
    orders = [torch.as_tensor(rng.permutation(pixels)) for _ in range(TASKS)]

    def tasks(which: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
        x, y = part[f"x_{which}"], part[f"y_{which}"].long()
        return [(x[:, order], y) for order in orders]

    world = tensors_benchmark(
        train_tensors=tasks("train"), test_tensors=tasks("test"), task_labels=[0] * TASKS,
        complete_test_set_only=False,
    )  # fmt: skip
    net = torch.nn.Sequential(
        torch.nn.Linear(pixels, UNITS), torch.nn.ReLU(), torch.nn.Linear(UNITS, UNITS),
        torch.nn.ReLU(), torch.nn.Linear(UNITS, 10),
    )  # fmt: skip
    learner = Replay(
        model=net, optimizer=torch.optim.Adam(net.parameters(), RATE), criterion=torch.nn.CrossEntropyLoss(),
        mem_size=TASKS * len(part["x_train"]), train_mb_size=BATCH, train_epochs=1, eval_every=-1,
        evaluator=EvaluationPlugin(loggers=[]),
    )  # fmt: skip
    start = time.perf_counter()
    for experience in world.train_stream:
        learner.train(experience)
    seconds = time.perf_counter() - start
    with torch.no_grad():
        right = [(net(x).argmax(1) == y).float().mean().item() for x, y in tasks("test")]
    return {"accuracy": 100 * float(np.mean(right)), "seconds": seconds}


def ours(seeds: int) -> tuple[list[float], float, float]:
    """Final accuracies, seconds a seed, and seconds of compiling."""
    from latebloom import unfold
    from latebloom.studies.forgetting.power_law_rehearsal import Config, make_process

    config = Config("uniform", rate=RATE, tasks=TASKS, rehearsal=1.0, batch=2 * BATCH, when="mixed", exam=1000)  # fmt: skip
    process, end = make_process(config), np.array([TASKS * config.task_steps])
    times = []
    for first in (0, seeds, 2 * seeds):
        start = time.perf_counter()
        trace = unfold(process, seeds=range(first, first + seeds), at=end, progress=False)
        found = (100 * trace.accuracy.values[:, -1].mean(axis=1)).tolist()
        times.append(time.perf_counter() - start)
    return found, min(times[1:]) / seeds, times[0] - min(times[1:])


if __name__ == "__main__":
    in_turns(__file__, __doc__, "Avalanche", theirs, ours, seeds=(1, 8), unit="s")
