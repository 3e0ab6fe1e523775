"""Our solver and torchdiffeq's, DOPRI5 at the same tolerances: equal states, evaluations, and milliseconds, in turns.

The paper's classifier field over 196 features, 64 hidden units, batches of 256, float32 and float64, from the same weights. A
prediction is a solution; a gradient is of the sum of squares at the end in all weights, through the steps for both
(torchdiffeq's `odeint` differentiates through its operations, lengths of steps constant) and by the adjoint equation for both.
Ours with `through_steps=True` and the error penalty is timed as well: what the method costs. PyTorch and XLA have one core.

    python -m venv peer && peer/bin/pip install torch torchdiffeq
    python benchmarks/neural_ode_against_torchdiffeq.py --peer peer/bin/python
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peers import asked

SIZE, HIDDEN, BATCH = 196, 64, 256
CASES = (("float32", 1e-3), ("float32", 1e-5), ("float64", 1e-6), ("float64", 1e-8))


def weights(dtype: str) -> dict[str, np.ndarray]:
    """Twice as large as at the start of training, so that steps are many."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (SIZE + 1, HIDDEN), "b1": (HIDDEN,), "w2": (HIDDEN + 1, SIZE), "b2": (SIZE,)}
    own = {name: rng.normal(size=shape) * 2 / np.sqrt(shape[0]) for name, shape in shapes.items()}
    return {n: a.astype(dtype) for n, a in own.items()} | {"x": rng.random((BATCH, SIZE)).astype(dtype)}  # fmt: skip


def timed(run: Callable[[], Any], least: int = 5, seconds: float = 3.0) -> float:
    """Median milliseconds, after one run that does not count."""
    run()
    took: list[float] = []
    while len(took) < least or sum(took) < seconds:
        began = time.perf_counter()
        run()
        took.append(time.perf_counter() - began)
    return 1000 * float(np.median(took))


def theirs(file: str, tolerance: float) -> dict[str, Any]:
    import torch
    from torchdiffeq import odeint, odeint_adjoint

    torch.set_num_threads(1)
    given = {name: torch.tensor(a) for name, a in np.load(file).items()}
    x = given.pop("x")

    class Field(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, value in given.items():
                setattr(self, name, torch.nn.Parameter(value))
            self.calls = 0

        def forward(self, t: Any, z: Any) -> Any:
            self.calls += 1
            column = t.to(z.dtype).expand(len(z), 1)
            inner = torch.tanh(torch.cat([z, column], 1) @ self.w1 + self.b1)
            return torch.tanh(torch.cat([inner, column], 1) @ self.w2 + self.b2)

    field, span = Field(), torch.tensor([0.0, 1.0], dtype=x.dtype)
    options = {"rtol": tolerance, "atol": tolerance, "method": "dopri5"}

    def predict() -> Any:
        with torch.no_grad():
            return odeint(field, x, span, **options)[-1]

    def gradient(way: Any) -> None:
        field.zero_grad()
        (way(field, x, span, **options)[-1] ** 2).sum().backward()

    field.calls = 0
    end = predict()
    calls = field.calls
    gradient(odeint)
    slope = field.w1.grad.numpy()
    np.savez(file.replace("given", "found"), end=end.numpy(), slope=slope)
    return {
        "evaluations": calls, "prediction": timed(predict), "gradient": timed(lambda: gradient(odeint)),
        "adjoint": timed(lambda: gradient(odeint_adjoint)),
    }  # fmt: skip


def ours(file: str, tolerance: float) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    import jax
    import jax.numpy as jnp

    from latebloom.core.odes import DOPRI5, solve, solve_by_adjoint
    from latebloom.methods.continuous.regularisers import solver_penalty

    given = {name: jnp.asarray(a) for name, a in np.load(file).items()}
    x = given.pop("x")
    options: dict[str, Any] = {"rtol": tolerance, "atol": tolerance, "tableau": DOPRI5, "max_steps": 512}  # fmt: skip

    def solved(p: Any, x: Any, way: Any, **more: Any) -> Any:
        def field(t: Any, z: Any) -> Any:
            column = jnp.full((len(z), 1), t, z.dtype)
            inner = jnp.tanh(jnp.concatenate([z, column], 1) @ p["w1"] + p["b1"])
            return jnp.tanh(jnp.concatenate([inner, column], 1) @ p["w2"] + p["b2"])

        return way(field, 0.0, 1.0, x, **options, **more)

    def loss(p: Any, x: Any, way: Any, penalty: bool, **more: Any) -> Any:
        found = solved(p, x, way, **more)
        return (found.y**2).sum() + (solver_penalty(found, "error") if penalty else 0.0)

    predict = jax.jit(lambda p, x: (lambda f: (f.y, f.evaluations))(solved(p, x, solve, loop="forward")))  # fmt: skip
    ways = {
        "gradient": jax.jit(jax.grad(lambda p, x: loss(p, x, solve, False, through_steps=False))),
        "adjoint": jax.jit(jax.grad(lambda p, x: loss(p, x, solve_by_adjoint, False))),
        "penalty": jax.jit(jax.grad(lambda p, x: loss(p, x, solve, True))),
    }
    end, evaluations = predict(given, x)
    took = {name: timed(lambda f=f: jax.block_until_ready(f(given, x))) for name, f in ways.items()}
    took["prediction"] = timed(lambda: jax.block_until_ready(predict(given, x)))
    return took | {"evaluations": int(evaluations)}, np.asarray(end), np.asarray(ways["gradient"](given, x)["w1"])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--peer", required=True, help="a Python that has torch and torchdiffeq")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    parser.add_argument("--tolerance", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.file:
        print(json.dumps(theirs(args.file, args.tolerance)))
        return
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"  # fmt: skip
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import jax

    for dtype, tolerance in CASES:
        with tempfile.TemporaryDirectory() as folder, jax.enable_x64(dtype == "float64"):
            file = Path(folder) / "given.npz"
            np.savez(file, **weights(dtype))  # pyright: ignore
            for turn in range(args.turns):
                own, end, slope = ours(str(file), tolerance)
                peer = asked(args.peer, __file__, "--peer", "-", "--file", str(file), "--tolerance", str(tolerance))  # fmt: skip
                found = np.load(Path(folder) / "found.npz")
                apart = np.abs(end - found["end"]).max()
                off = np.abs(slope - found["slope"]).max() / np.abs(found["slope"]).max()
                print(f"{dtype}, tolerance {tolerance:g}, turn {turn}: states differ by {apart:.1e}, gradients by {off:.1e} of the largest; ms, ours and theirs:", flush=True)  # fmt: skip
                for name in ("evaluations", "prediction", "gradient", "adjoint"):
                    print(f"  {name}: {own[name]:.1f}, {peer[name]:.1f}", flush=True)
                print(f"  gradient with the error penalty, through the steps: {own['penalty']:.1f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
