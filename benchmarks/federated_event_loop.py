"""How long does asynchronous federated training take against an event simulator in NumPy and the
authors' PyTorch code, on the same clock?

Ten clients, times from 1 down to 0.2 (scenario F80), multinomial logistic regression on MNIST-5k
dealt out with Dirichlet(0.1), batches of 64, one or ten local steps, time-based weights. Every run
plays the same schedule, on the same split; evaluation and compilation are left out. In turns in one
process:

    python benchmarks/federated_event_loop.py [--reference CHECKOUT] [--json FILE]

`--reference` is a checkout of Accenture/Labs-Federated-Learning, branch asynchronous_FL, and needs
torch and torchvision; without it the authors' code is left out.
"""

import argparse
import contextlib
import heapq
import io
import json
import os
import pickle
import statistics
import sys
import tempfile
import time
from pathlib import Path

cores = len(os.sched_getaffinity(0))
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={cores}")

import jax
import numpy as np

from latebloom import data, nn, unfold
from latebloom.methods.federated import clock
from latebloom.methods.federated.problems import Classification
from latebloom.methods.federated.split import DirichletSplit, Split
from latebloom.methods.federated.training import Federated, replay
from latebloom.methods.federated.weights import asynchronous_weights, uniform

CLIENTS, BATCH, RATE = 10, 64, 0.01  # the rate is divided by the local steps
TAU = clock.scenario(CLIENTS, 80)
WEIGHTS = asynchronous_weights(TAU, uniform(CLIENTS))


def examples():
    images = data.load("mnist-5k")
    x = [a.reshape(len(a), -1).astype(np.float32) / 255 for a in (images.x_train, images.x_test)]
    return [(a - 0.1307) / 0.3081 for a in x], [images.y_train, images.y_test]


def ours(split, x, y, horizon, steps, seeds):
    plan = clock.schedule(clock.first, clock.fixed(TAU), CLIENTS, horizon)
    problem = Classification(
        lambda key: nn.MLP(784, (), 10, key=key), lambda key: split, x[0], y[0], x[1], y[1], BATCH
    )
    process = Federated(
        problem, replay(plan, WEIGHTS, np.array([0.0, horizon])), learning_rate=RATE / steps,
        local_steps=steps,
    )  # fmt: skip
    trace = unfold(process, seeds=seeds, steps=1, progress=False)
    return trace.attrs["run_seconds"] / seeds, float(trace.train_loss[:, -1].mean())


def plain_numpy(split, x, y, horizon, steps):
    """An event queue of arrivals; local training when a client begins, as a real one would."""
    rng = np.random.default_rng(0)
    rows = np.asarray(split.train)
    x_train, targets = x[0], np.eye(10, dtype=np.float32)[y[0]]

    def work(client, weight, bias):
        weight, bias = weight.copy(), bias.copy()
        speed, shift = np.zeros_like(weight), np.zeros_like(bias)
        for _ in range(steps):
            batch = rows[client, rng.permutation(rows.shape[1])[:BATCH]]
            features = x_train[batch]
            logits = features @ weight + bias
            logits -= logits.max(axis=1, keepdims=True)
            p = np.exp(logits)
            error = (p / p.sum(axis=1, keepdims=True) - targets[batch]) / BATCH
            speed = 0.9 * speed + features.T @ error
            shift = 0.9 * shift + error.sum(axis=0)
            weight -= RATE / steps * speed
            bias -= RATE / steps * shift
        return weight, bias

    bound = 1 / np.sqrt(784)
    weight = rng.uniform(-bound, bound, (784, 10)).astype(np.float32)
    bias = rng.uniform(-bound, bound, 10).astype(np.float32)
    start = time.perf_counter()
    sent = [(weight.copy(), bias.copy()) for _ in range(CLIENTS)]
    done = [work(i, *sent[i]) for i in range(CLIENTS)]
    queue = [(TAU[i], i) for i in range(CLIENTS)]
    heapq.heapify(queue)
    while queue[0][0] <= horizon * (1 + 1e-9):
        now, i = heapq.heappop(queue)
        d = np.float32(WEIGHTS[i])
        weight = weight + d * (done[i][0] - sent[i][0])
        bias = bias + d * (done[i][1] - sent[i][1])
        sent[i] = (weight, bias)
        done[i] = work(i, weight, bias)
        heapq.heappush(queue, (now + TAU[i], i))
    seconds = time.perf_counter() - start
    logits = x_train @ weight + bias
    logits -= logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(logits).sum(axis=1)) - (logits * targets).sum(axis=1)
    return seconds, float(losses[rows].mean())


def authors(folder, split, horizon, steps):
    """Their `simu_async` as it is, on our split in their file format, evaluation left out."""
    from FL.client import Clients
    from FL.experiment import Experiment
    from FL.server import Server
    from FL.simu import simu_async

    images = data.load("mnist-5k")
    here = os.getcwd()
    os.chdir(folder)
    try:
        os.makedirs("data", exist_ok=True)
        for part, rows in (("train", split.train), ("test", split.test)):
            x, y = (getattr(images, f"{n}_{part}") for n in "xy")
            pair = ([x[r] for r in np.asarray(rows)], [y[r] for r in np.asarray(rows)])
            Path(f"data/MNIST_0.1_M{CLIENTS}_{part}.pkl").write_bytes(pickle.dumps(pair))
        arguments = {
            "dataset_name": "MNIST_0.1", "opt_scheme": "Async_weight", "time_scenario": "F-80",
            "P_type": "uniform", "T": horizon, "n_SGD": steps, "B": BATCH, "lr_g": 1.0,
            "lr_l": RATE / steps, "M": CLIENTS, "seed": 0, "device": "cpu",
        }  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()):
            experiment = Experiment(arguments)
            clients = Clients("MNIST_0.1", CLIENTS, BATCH)
            server = Server(arguments)
            server.clients_importances(clients)
            measure, server.loss_acc_global = server.loss_acc_global, lambda clients: (0.0, 0.0)
            start = time.perf_counter()
            simu_async(experiment, server, clients)
            seconds = time.perf_counter() - start
            measure(clients)
        return seconds, float(server.loss[0, 0]), len(server.schedule_global)
    finally:
        os.chdir(here)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--reference", type=Path, help="a checkout of the authors' branch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    x, y = examples()
    split = Split(*map(np.asarray, DirichletSplit(*y, CLIENTS, 0.1)(jax.random.key(0))))
    if options.reference:
        import torch

        torch.set_num_threads(cores)
        sys.path.insert(0, str(options.reference))
    micro, loss = {}, {}

    def note(name, seconds, final, visits):
        micro.setdefault(name, []).append(1e6 * seconds / visits)
        loss.setdefault(name, []).append(final)

    # Long runs for the fast ones, a short one for the authors' code.
    for steps, horizon, short in ((1, 100, 5), (10, 30, 2)):
        visits = len(clock.schedule(clock.first, clock.fixed(TAU), CLIENTS, horizon).client)
        for _ in range(options.repeats):
            for seeds in (1, 8):
                name = f"{steps} steps, ours, {seeds} seeds"
                note(name, *ours(split, x, y, float(horizon), steps, seeds), visits)
            note(f"{steps} steps, NumPy", *plain_numpy(split, x, y, horizon, steps), visits)
            if options.reference:
                with tempfile.TemporaryDirectory() as folder:
                    seconds, final, done = authors(folder, split, short, steps)
                note(f"{steps} steps, authors (PyTorch), time {short}", seconds, final, done)
    print(
        f"{cores} cores; microseconds for each client update and seed, median of {options.repeats}"
    )
    for name, values in micro.items():
        print(
            f"{name:42} {statistics.median(values):9.0f}   [{min(values):.0f}, {max(values):.0f}]"
            f"   federated loss {statistics.median(loss[name]):.4f}"
        )
    if options.json:
        options.json.write_text(json.dumps({"microseconds": micro, "loss": loss}))


if __name__ == "__main__":
    main()
