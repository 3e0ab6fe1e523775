"""DER++ with and without the refresh of the authors' code, here and in PyTorch as it is written there: outcome and time.

Five tasks of two classes of MNIST-5k at 14 x 14, an MLP of 2 x 100 units, 150 updates a task with 16 new and twice
32 old examples, a memory of 200. PyTorch's loop has a second network that takes the step up, a reservoir that is
filled example by example, and the Fisher matrix of single examples at the ends of tasks, here as there of
the task's first 20 batches; it runs on one thread, one seed after another. In turns in one run.

    python -m venv peer && peer/bin/pip install torch numpy
    python benchmarks/refresh_against_pytorch.py --peer peer/bin/python
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from peers import asked

TASKS, STEPS, NEW, OLD, MEMORY, UNITS, LOOKS = 5, 150, 16, 32, 200, 100, 20
RATE, ALPHA, BETA = 0.3, 1.0, 0.5
DELTAS = {"DER++": None, "as shipped, delta 1e-5": 1e-5, "delta 1e-3": 1e-3}


def theirs(file: str, seed: int, delta: float | None) -> dict[str, float]:
    """One run in PyTorch on the arrays of a file."""
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    part = {name: torch.as_tensor(values) for name, values in np.load(file).items()}
    x, y, x_test, y_test = (part[n] for n in ("x_train", "y_train", "x_test", "y_test"))
    y, y_test = y.long(), y_test.long()

    def network() -> torch.nn.Module:
        made = torch.nn.Sequential(
            torch.nn.Linear(x.shape[1], UNITS), torch.nn.ReLU(), torch.nn.Linear(UNITS, UNITS),
            torch.nn.ReLU(), torch.nn.Linear(UNITS, 10),
        )  # fmt: skip
        for layer in (made[0], made[2], made[4]):
            torch.nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            torch.nn.init.zeros_(layer.bias)
        return made

    net, other = network(), network()
    rule = torch.optim.SGD(net.parameters(), RATE)
    climber = torch.optim.SGD(other.parameters(), 0.01)
    fisher = [torch.zeros_like(p) for p in net.parameters()]
    kept_x, kept_y = torch.zeros(MEMORY, x.shape[1]), torch.zeros(MEMORY, dtype=torch.long)
    kept_z, met = torch.zeros(MEMORY, 10), 0
    order = rng.permutation(10)
    start = time.perf_counter()
    for task in range(TASKS):
        mine = np.flatnonzero(np.isin(y.numpy(), order[2 * task : 2 * task + 2]))
        rows = np.concatenate([rng.permutation(mine) for _ in range(1 + STEPS * NEW // len(mine))])
        for step in range(STEPS):
            at = torch.as_tensor(rows[step * NEW : (step + 1) * NEW])
            if delta is not None:
                other.load_state_dict(net.state_dict())
                climber.zero_grad()
                (-F.cross_entropy(other(x[at]), y[at])).backward()
                climber.step()
                with torch.no_grad():
                    for p, q, f in zip(net.parameters(), other.parameters(), fisher, strict=True):
                        move = q - p
                        move = p.norm() / (move.norm() + 1e-20) * move
                        noise = 0.001 * torch.randn_like(move)
                        p.add_(delta / (1 + 0.001 * f) * (move + noise))
            rule.zero_grad()
            out = net(x[at])
            loss = F.cross_entropy(out, y[at])
            if met:
                held = min(met, MEMORY)
                one, two = (
                    torch.as_tensor(rng.choice(held, min(held, OLD), replace=False)) for _ in "12"
                )
                loss = loss + ALPHA * F.mse_loss(net(kept_x[one]), kept_z[one])
                loss = loss + BETA * F.cross_entropy(net(kept_x[two]), kept_y[two])
            loss.backward()
            rule.step()
            for i in range(NEW):
                place = met if met < MEMORY else int(rng.integers(0, met + 1))
                if place < MEMORY:
                    kept_x[place], kept_y[place] = x[at[i]], y[at[i]]
                    kept_z[place] = out[i].detach()
                met += 1
        if delta is not None:
            found = [torch.zeros_like(p) for p in net.parameters()]
            looked = torch.as_tensor(rows[: LOOKS * NEW])
            for row in looked:
                net.zero_grad()
                said = F.log_softmax(net(x[row : row + 1]), dim=1)[0, y[row]]
                said.backward()
                share = float(said.detach().exp())
                for f, p in zip(found, net.parameters(), strict=True):
                    f += share * p.grad**2 / len(looked)
            fisher = [1e-5 * f + new for f, new in zip(fisher, found, strict=True)]
    seconds = time.perf_counter() - start
    with torch.no_grad():
        right = (net(x_test).argmax(1) == y_test).float()
    return {"accuracy": float(right.mean()), "seconds": seconds}


def ours(seeds: int, delta: float | None) -> tuple[np.ndarray, float]:
    """Accuracies by seed and seconds of a run, without compiling."""
    from latebloom import unfold
    from latebloom.methods.forgetting.continual import Continual
    from latebloom.methods.forgetting.refresh import ReleasedRefresh
    from latebloom.methods.forgetting.replay import DER
    from latebloom.studies.forgetting import refresh_learning as study

    config = study.Config("class", "der", steps=STEPS, batch=NEW, replay=OLD, memory=MEMORY)
    like = study.make_process(config)
    host = DER(ALPHA, BETA)
    method = host if delta is None else ReleasedRefresh(host, delta, batches=LOOKS)
    process = Continual(
        model=like.model, data=like.data, stream=like.stream, method=method, replay=like.replay,
        optimiser=like.optimiser, hyper={"rate": RATE},
    )  # fmt: skip
    trace = unfold(process, seeds=seeds, at=[TASKS * STEPS], progress=False)
    return trace.accuracy.values[:, -1].mean(axis=1), trace.attrs["run_seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", default=sys.executable, help="a Python that has PyTorch")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--theirs", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.theirs:
        file, seed, delta = given.theirs
        print(json.dumps(theirs(file, int(seed), None if delta == "None" else float(delta))))
        return
    from latebloom.data import load_scaled

    data = load_scaled("mnist-5k", side=14, flat=True)
    updates = TASKS * STEPS
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "data.npz")
        np.savez(file, **{n: np.asarray(getattr(data, n)) for n in ("x_train", "y_train", "x_test", "y_test")})  # fmt: skip
        found: dict[str, dict[str, list[float]]] = {
            name: {"torch": [], "torch ms": [], "ours": [], "one ms": [], "all ms": []}
            for name in DELTAS
        }
        for turn in range(given.turns):
            for name, delta in DELTAS.items():
                row = found[name]
                for seed in range(turn, given.seeds, given.turns):
                    done = asked(given.peer, __file__, "--theirs", file, str(seed), str(delta))
                    row["torch"].append(done["accuracy"])
                    row["torch ms"].append(1e3 * done["seconds"] / updates)
                row["one ms"].append(1e3 * ours(1, delta)[1] / updates)
                accuracy, seconds = ours(given.seeds, delta)
                row["ours"] = accuracy.tolist()
                row["all ms"].append(1e3 * seconds / updates / given.seeds)
    print(
        f"accuracy in %, mean (standard deviation) of {given.seeds} seeds; ms an update, lowest to highest"
    )
    for name, row in found.items():
        said = {
            "PyTorch": (row["torch"], row["torch ms"]), "latebloom, one seed": (row["ours"], row["one ms"]),
            "latebloom, all at once, a seed": (row["ours"], row["all ms"]),
        }  # fmt: skip
        for who, (accuracy, ms) in said.items():
            print(f"{name:24} {who:32} {100 * np.mean(accuracy):5.1f} ({100 * np.std(accuracy, ddof=1):.1f})  "
                  f"{min(ms):.2f} to {max(ms):.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
