"""How much faster are deep linear experiments than in their authors' code, with what outcome?

Two of the published experiments, one seed each, by

- `reference`: the authors' functions (PyTorch), in a process of its own, on one thread;
- `stripped`: their model, loss and optimiser alone, without what they record;
- `ours`: the same under `unfold`, recorded as often; compile time is apart.

Pathways: depth 4, width 100, 1,000 steps, gated for the first 150, strengths recorded at every step.
Completion: depth 3, 100 x 100, rank 10 then 5, 2,000 entries, step size 0.2, singular values every
tenth step; ours with the same matrices, entries and initial factors. `--long` also compares the final
errors after 0 and 20,000 steps of the first task, ours with 40 times the step size and a fortieth of
the steps, and with the very same steps.

    git clone https://github.com/mjkleinman/CriticalPeriodDeepLinearNets CHECKOUT
    pip install torch numpy matplotlib  # in a venv
    python benchmarks/critical_periods_step.py --reference CHECKOUT --python VENV/bin/python
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

cores = len(os.sched_getaffinity(0))
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={cores}")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import numpy as np

from latebloom import unfold
from latebloom.methods.critical_periods import DeficitSweep, GivenTasks, TwoPathways, hierarchy

PATHWAYS = """
import contextlib, io, json, sys, time
sys.path.insert(0, sys.argv[1] + "/multipath")
import torch
torch.set_num_threads(1)
with contextlib.redirect_stdout(io.StringIO()):
    from analysis_diag import MPNAnalysis, Y_default
    from multichannel_net_diag import MultipathwayNet
    torch.manual_seed(0)
    u, s, v = torch.svd(Y_default.T / 8, some=False)
    def network():
        k = torch.sort(0.01 * (1 + 0.1 * torch.randn(100)), descending=True)[0]
        return MultipathwayNet(8, 15, depth=4, width=100, U=u, V=v, kDiagInit=k)
    start = time.perf_counter()
    net = network()
    _, history = MPNAnalysis(net, device="cpu").train_mcn(
        1000, 0.01, 0, 150, True, ["gate_path"])
    full = time.perf_counter() - start
    net = network()
    sgd = torch.optim.SGD(net.parameters(), lr=0.01)
    start = time.perf_counter()
    for t in range(1000):
        sgd.zero_grad()
        loss = 0.5 * (net(None, ["gate_path"] if t < 150 else []) - Y_default).pow(2).sum()
        loss.backward()
        sgd.step()
    stripped = time.perf_counter() - start
ends = [[float(k[i, i]) for i in range(8)] for k in (path[-1] for path in history)]
print(json.dumps([full, stripped, ends]))
"""
COMPLETION = """
import contextlib, io, json, sys, time
sys.path.insert(0, sys.argv[1] + "/matrixcompletion")
import numpy as np, torch
from model_utils import create_matrix, get_e2e, get_test_loss, get_train_loss, init_model, set_seed
torch.set_num_threads(1)
post, record, removals = int(sys.argv[3]), sys.argv[4] == "record", json.loads(sys.argv[5])
set_seed(1)
one, two = create_matrix(100, 10), create_matrix(100, 5)
places = torch.multinomial(torch.ones(10_000), 2000, replacement=False)
us, vs = places // 100, places % 100
model = torch.nn.Sequential(*[torch.nn.Linear(100, 100, bias=False) for _ in range(3)])
errors, start = [], time.perf_counter()
for switch in removals:
    with contextlib.redirect_stdout(io.StringIO()):
        init_model(model, 3, "gaussian", 1e-3, [100], seed=1)
        factors = [p.detach().numpy().T.copy() for p in model.parameters()]
        sgd = torch.optim.SGD(model.parameters(), lr=0.2)
        for t in range(switch + post):
            w = get_e2e(model)
            if record:  # what the published loop does at every step
                losses = [get_train_loss(w, y[us, vs], us, vs) for y in (one, two)]
                loss = losses[t > switch]
                norm = sum(p.pow(2).sum() for p in model.parameters())
            else:
                loss = get_train_loss(w, (two if t > switch else one)[us, vs], us, vs)
            sgd.zero_grad()
            loss.backward()
            if record:
                with torch.no_grad():
                    get_test_loss(w, two if t > switch else one)
            sgd.step()
            if record and t % 10 == 0:
                print(loss, norm, w.svd()[1][:10])
    errors.append(float(get_test_loss(get_e2e(model), two)))
seconds = time.perf_counter() - start
seen = torch.zeros(100, 100)
seen[us, vs] = 1
np.savez(sys.argv[2], one=one, two=two, seen=seen, factors=factors)
print(json.dumps([seconds, errors]))
"""


def reference(arguments: argparse.Namespace, code: str, *more: object) -> list:
    call = [arguments.python, "-c", code, arguments.reference, *more]
    done = subprocess.run(list(map(str, call)), capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def timed(process: object, seeds: int, **steps: int) -> tuple[float, float, object]:
    trace = unfold(process, seeds=seeds, progress=False, **steps)
    return trace.attrs["run_seconds"], trace.attrs["compile_seconds"], trace


def pathways(arguments: argparse.Namespace) -> None:
    rounds = []
    for _ in range(arguments.rounds):
        full, stripped, ends = reference(arguments, PATHWAYS)
        process = TwoPathways(hierarchy(), depth=4, length=150)
        ours, compiling, trace = timed(process, 1, steps=1000, every=1)
        many, _, _ = timed(process, 8, steps=1000, every=1)
        rounds.append((full, stripped, ours, many))
    full, stripped, ours, many = np.median(rounds, axis=0)
    found = trace.strength.isel(seed=0, step=-1).transpose("path", "mode").values
    print(f"pathways: reference {full:.2f} s, stripped {stripped:.2f} s, ours {ours:.3f} s "
          f"(compiling {compiling:.1f} s apart), eight seeds {many:.3f} s")  # fmt: skip
    print(f"  ratio {full / ours:.0f}, to stripped {stripped / ours:.0f}")
    print(f"  final K of b by mode: reference {np.round(ends[1], 3)}, ours {found[1].round(3)}")


def completion(arguments: argparse.Namespace, folder: Path) -> None:
    post, rounds = arguments.steps, []
    for _ in range(arguments.rounds):
        seconds = [
            reference(arguments, COMPLETION, folder / "task.npz", post, how, "[0]")[0]
            for how in ("record", "plain")
        ]
        process = sweep(folder, [0], post, 1)
        ours, compiling, _ = timed(process, 1, steps=post, every=10)
        two, _, _ = timed(process, cores, steps=post, every=10)
        fast = sweep(folder, [0], post // 40, 40)
        forty, _, _ = timed(fast, 1, steps=fast.total_steps, every=10)
        rounds.append((*seconds, ours, two, forty))
    full, stripped, ours, two, forty = np.median(rounds, axis=0) / post * 1e3
    print(f"completion, ms a step: reference {full:.2f}, stripped {stripped:.2f}, ours {ours:.3f} "
          f"(compiling {compiling:.1f} s apart), {cores} seeds {two:.3f}, "
          f"40 times the step size {forty:.4f}")  # fmt: skip
    print(f"  ratio {full / ours:.1f}, to stripped {stripped / ours:.1f}, with {cores} seeds "
          f"{cores * full / two:.1f}, with larger steps {full / forty:.0f}")  # fmt: skip


def outcome(arguments: argparse.Namespace, folder: Path) -> None:
    removals = [0, 20_000]
    seconds, errors = reference(
        arguments, COMPLETION, folder / "task.npz", 30_000, "plain", removals
    )
    print(f"final errors after {removals}: reference {np.round(errors, 5)} ({seconds:.0f} s)")
    for speedup in (40, 1):
        process = sweep(folder, [t // speedup for t in removals], 30_000 // speedup, speedup)
        seconds, _, trace = timed(process, 1, steps=process.total_steps)
        found = trace.final_error.values[0, -1].round(5)
        print(f"  ours, step size times {speedup}: {found} ({seconds:.1f} s)")


class Started(DeficitSweep):
    """A sweep from given factors."""

    factors: tuple

    def __init__(self, factors: np.ndarray, *arguments: object, **more: object):
        super().__init__(*arguments, **more)
        self.factors = tuple(map(jnp.asarray, factors))

    def init(self, key: jax.Array) -> object:
        return super().init(key)._replace(factors=self.factors, trunk=self.factors)


def sweep(folder: Path, removals: list[int], post: int, speedup: int) -> DeficitSweep:
    task = np.load(folder / "task.npz")
    given = GivenTasks(task["one"], task["seen"], task["two"], task["seen"], np.ones((100, 100)))
    return Started(task["factors"], given, removals, post, rate=0.2 * speedup)


def main() -> None:
    parser = argparse.ArgumentParser(description="Deep linear experiments against their authors'.")
    parser.add_argument("--reference", required=True, help="checkout of the authors' repository")
    parser.add_argument("--python", required=True, help="interpreter that has PyTorch")
    parser.add_argument(
        "--steps", type=int, default=2000, help="steps of completion that are timed"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long", action="store_true", help="compare final errors too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pathways(arguments)
        completion(arguments, Path(folder))
        if arguments.long:
            outcome(arguments, Path(folder))


if __name__ == "__main__":
    main()
