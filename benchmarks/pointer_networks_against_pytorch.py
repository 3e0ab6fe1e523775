"""A pointer network and the same in PyTorch: equal scores, loss and gradients from the same weights; milliseconds an update and an answer, in turns.

Sets of 5 to 10 points, hulls, batches of 128, 64 (or 128) units; an update is a gradient of the sum over each sequence, on average
over the batch, clipped to a norm of 2, and Adam. The encoder of PyTorch is its own LSTM layer, its decoder an LSTM cell in a loop
that is taught. Drawing and labelling of problems is left out on both sides. Answers are greedy, 256 at once, to sets of 10, 20 and 50
points. PyTorch has both cores.

    python -m venv peer && peer/bin/pip install torch numpy
    python benchmarks/pointer_networks_against_pytorch.py --peer peer/bin/python
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peers import asked

SIZES, ASKED, BATCH, MANY = (64, 128), (10, 20, 50), 128, 256


def timed(one: Callable[[], Any], count: int) -> float:
    """Milliseconds of a call, after one that is not counted."""
    one()
    start = time.perf_counter()
    for _ in range(count):
        one()
    return 1e3 * (time.perf_counter() - start) / count


def theirs(file: Path, size: int, count: int) -> dict[str, float]:
    """Milliseconds; and into the file scores, loss and gradients of the weights that it holds."""
    import torch

    given = {name: torch.tensor(value) for name, value in np.load(file).items()}
    encoder, decoder = torch.nn.LSTM(2, size, batch_first=True), torch.nn.LSTMCell(2, size)
    mine = {}
    for part, names, layer in (("encoder", ("ih_l0", "hh_l0"), encoder), ("decoder", ("ih", "hh"), decoder)):  # fmt: skip
        for name, ours in zip(names, ("input", "hidden"), strict=True):
            weight, bias = getattr(layer, f"weight_{name}"), getattr(layer, f"bias_{name}")
            weight.data, bias.data = given[f"{part}.{ours}.weight"].T.contiguous(), given[f"{part}.{ours}.bias"]  # fmt: skip
            mine |= {f"{part}.{ours}.weight": weight, f"{part}.{ours}.bias": bias}
    for name in ("first", "end", "v", "w1", "w2"):
        mine[name] = torch.nn.Parameter(given[name])

    def remember(points: Any, counts: Any) -> tuple[Any, Any, Any]:
        packed = torch.nn.utils.rnn.pack_padded_sequence(points, counts, batch_first=True, enforce_sorted=False)  # fmt: skip
        out, (h, c) = encoder(packed)
        out, _ = torch.nn.utils.rnn.pad_packed_sequence(
            out, batch_first=True, total_length=points.shape[1]
        )
        memory = torch.cat([mine["end"].expand(len(points), 1, size), out], 1)
        return memory @ mine["w1"], h[0], c[0]

    def scored(prepared: Any, h: Any, shut: Any) -> Any:
        u = torch.tanh(prepared + (h @ mine["w2"])[:, None]) @ mine["v"]
        return u.masked_fill(shut, float("-inf"))

    def told(points: Any, counts: Any, targets: Any) -> Any:
        prepared, h, c = remember(points, counts)
        shut = torch.arange(points.shape[1] + 1) > counts[:, None]
        at = (targets - 1).clamp(min=0)
        fed, scores = mine["first"].expand(len(points), 2), []
        for t in range(targets.shape[1]):
            h, c = decoder(fed, (h, c))
            scores.append(scored(prepared, h, shut))
            fed = points[torch.arange(len(points)), at[:, t]]
        return torch.stack(scores, 1)

    def loss(points: Any, counts: Any, targets: Any, lengths: Any) -> tuple[Any, Any]:
        scores = told(points, counts, targets)
        on = torch.arange(targets.shape[1]) < lengths[:, None]
        cost = torch.nn.functional.cross_entropy(scores.flatten(0, 1), torch.where(on, targets, 0).flatten(), reduction="none")  # fmt: skip
        return torch.where(on, cost.view(on.shape), 0).sum() / len(points), scores

    problem = [given[name].long() if name != "points" else given[name] for name in ("points", "counts", "targets", "lengths")]  # fmt: skip
    value, scores = loss(*problem)
    value.backward()
    slopes = {name: w.grad.T if name[-13:] in (".input.weight", "hidden.weight") else w.grad for name, w in mine.items()}  # fmt: skip
    found = {"loss": value, "scores": scores, **{f"slope.{name}": a for name, a in slopes.items()}}
    np.savez(file.with_name("theirs.npz"), **{name: a.detach().numpy() for name, a in found.items()})  # fmt: skip
    rule = torch.optim.Adam(list(mine.values()), 1e-3)

    def update() -> None:
        rule.zero_grad()
        loss(*problem)[0].backward()
        torch.nn.utils.clip_grad_norm_(list(mine.values()), 2.0)
        rule.step()

    def answer(points: Any) -> None:
        with torch.no_grad():
            n = points.shape[1]
            counts = torch.full((len(points),), n)
            prepared, h, c = remember(points, counts)
            shut, fed = torch.zeros(len(points), n + 1, dtype=torch.bool), mine["first"].expand(len(points), 2)  # fmt: skip
            for _ in range(n + 1):
                h, c = decoder(fed, (h, c))
                token = scored(prepared, h, shut).argmax(1)
                fed = points[torch.arange(len(points)), (token - 1).clamp(min=0)]

    sets = {str(n): torch.rand(MANY, n, 2) for n in ASKED}
    took = {n: timed(partial(answer, points), max(count // 4, 2)) for n, points in sets.items()}
    return {"update": timed(update, count), **took}


def ours(file: Path, size: int, count: int) -> tuple[dict[str, float], Callable[[], dict[str, float]]]:  # fmt: skip
    """Milliseconds, and what says how far PyTorch's numbers are from ours: the largest difference over the largest value."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from latebloom.core.training import trainable, update
    from latebloom.data.planar import Hulls
    from latebloom.methods.recurrence.pointer import PointerNetwork, sequence_loss
    from latebloom.methods.recurrence.pointer_decoding import write
    from latebloom.methods.recurrence.pointer_learning import clipped_adam

    model = PointerNetwork(size, key=jax.random.key(0))
    problem = Hulls(5, 10).draw(jax.random.key(1), BATCH)

    def named(model: Any) -> dict[str, Any]:
        attention = model.attention
        found = {"first": model.first, "end": model.end, "v": attention.v, "w1": attention.memory.weight, "w2": attention.query.weight}  # fmt: skip
        for part in ("encoder", "decoder"):
            for name in ("input", "hidden"):
                layer = getattr(getattr(model, part), name)
                found |= {f"{part}.{name}.weight": layer.weight, f"{part}.{name}.bias": layer.bias}
        return {name: np.asarray(value) for name, value in found.items()}

    held: Any = named(model) | {name: np.asarray(a) for name, a in problem._asdict().items()}
    np.savez(file, **held)

    def loss(model: Any) -> tuple[Any, Any]:
        scores = model(problem.points, problem.counts, problem.targets)
        return sequence_loss(scores, problem.targets, problem.lengths), scores

    slopes = eqx.filter_jit(eqx.filter_value_and_grad(loss, has_aux=True))
    rule = clipped_adam(1e-3)

    @eqx.filter_jit
    def step(model: Any, moments: Any) -> Any:
        (_, _), steepest = eqx.filter_value_and_grad(loss, has_aux=True)(model)
        return update(rule, steepest, moments, model)

    state = [model, rule.init(trainable(model))]

    def one() -> None:
        state[:] = step(*state)
        jax.block_until_ready(jax.tree.leaves(state[1]))

    def answer(n: int) -> Callable[[], Any]:
        points = jax.random.uniform(jax.random.key(n), (MANY, n, 2))
        return lambda: jax.block_until_ready(write(model, points, jnp.full(MANY, n), steps=n + 1))

    took = {"update": timed(one, count), **{str(n): timed(answer(n), max(count // 4, 2)) for n in ASKED}}  # fmt: skip

    def apart() -> dict[str, float]:
        said = np.load(file.with_name("theirs.npz"))
        (value, scores), steepest = slopes(model)
        own = {"loss": value, "scores": scores, **{f"slope.{name}": a for name, a in named(steepest).items()}}  # fmt: skip
        off = {}
        for name, a in own.items():
            seen = np.isfinite(a := np.asarray(a))
            assert (seen == np.isfinite(said[name])).all(), name
            off[name] = float(np.abs(a[seen] - said[name][seen]).max() / np.abs(a[seen]).max())
        return {"loss": off.pop("loss"), "scores": off.pop("scores"), "gradients": max(off.values())}  # fmt: skip

    return took, apart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--peer", required=True, help="a Python that has torch")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--theirs", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.theirs:
        print(json.dumps(theirs(told.file, told.theirs, told.updates)))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ours.npz"
        for turn in range(told.turns):
            for size in SIZES:
                took, apart = ours(file, size, told.updates)
                said = asked(told.peer, __file__, "--peer", "-", "--theirs", str(size), "--file", str(file), "--updates", str(told.updates))  # fmt: skip
                for name, own in took.items():
                    what = "an update" if name == "update" else f"{MANY} answers of {name} points"
                    print(f"{size} units, {what}: {own:.1f} ms, theirs {said[name]:.1f}, {said[name] / own:.1f} times", flush=True)  # fmt: skip
                if turn == 0:
                    print(", ".join(f"{name} {off:.1e}" for name, off in apart().items()), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
