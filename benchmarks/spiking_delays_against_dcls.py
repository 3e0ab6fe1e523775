"""A network with learned delays and the same of DCLS and SpikingJelly: equal outputs, loss and gradients, and milliseconds an update, in turns.

Two hidden layers of 128 (or 256) neurons on 140 channels, 20 classes, 25 taps, 100 steps, batches of 64 (256: of 32). An update is
a gradient of all weights and delays, both Adams and the clamp; batch normalisation in training. For equality weights and delays are
theirs, with batches of 8. PyTorch has both cores. With --nir a graph that is written here is read by the nir package as well.

    python -m venv peer && peer/bin/pip install torch && peer/bin/pip install --no-deps spikingjelly loguru dcls nir && peer/bin/pip install numpy scipy tqdm h5py
    python benchmarks/spiking_delays_against_dcls.py --peer peer/bin/python
"""

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from peers import asked

CHANNELS, CLASSES, TAPS, STEPS, TAU = 140, 20, 25, 100, 1.5
CASES = {128: 64, 256: 32}  # width -> batch
SIGMA, ALPHA = 3.0, 5.0


def theirs(width: int, batch: int, updates: int, file: Path | None) -> dict[str, float]:
    """Milliseconds an update; into the file weights, delays, an input, and what comes of it."""
    import torch
    from DCLS.construct.modules import Dcls1d
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    torch.manual_seed(0)
    widths = [CHANNELS, width, width, CLASSES]
    convs, norms, nodes = torch.nn.ModuleList(), torch.nn.ModuleList(), torch.nn.ModuleList()
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        conv = Dcls1d(a, b, kernel_count=1, groups=1, dilated_kernel_size=TAPS, bias=False, version="gauss")  # fmt: skip
        torch.nn.init.kaiming_uniform_(conv.weight, nonlinearity="relu")
        torch.nn.init.uniform_(conv.P, -(TAPS // 2), TAPS // 2)
        torch.nn.init.constant_(conv.SIG, SIGMA)
        conv.SIG.requires_grad = False
        convs.append(conv)
        last = i == 2
        if not last:
            norms.append(layer.BatchNorm1d(b, step_mode="m"))
        nodes.append(neuron.LIFNode(TAU, False, v_threshold=1e9 if last else 1.0, detach_reset=True,
                                    surrogate_function=surrogate.ATan(ALPHA), step_mode="m", store_v_seq=last))  # fmt: skip

    def forward(x: Any) -> Any:  # [time, batch, channels]
        for i, conv in enumerate(convs):
            padded = torch.nn.functional.pad(x.permute(1, 2, 0), (TAPS - 1, (TAPS - 1) // 2))
            x = conv(padded).permute(2, 0, 1)
            if i < 2:
                x = norms[i](x.unsqueeze(3)).squeeze(3)
                x = nodes[i](x)
        nodes[2](x)
        return nodes[2].v_seq

    def loss(x: Any, y: Any) -> Any:
        functional.reset_net(nodes)
        v = forward(x)
        return torch.nn.functional.cross_entropy(torch.softmax(v, 2).sum(0), y), v

    if file is not None:
        x = (torch.rand(STEPS, 8, CHANNELS) < 0.05).float()
        y = torch.arange(8)
        value, v = loss(x, y)
        value.backward()
        found = {"x": x, "y": y, "v": v, "loss": value}
        for i, conv in enumerate(convs):
            found |= {f"weight_{i}": conv.weight[..., 0].T, f"position_{i}": conv.P[0, ..., 0].T,
                      f"weight_slope_{i}": conv.weight.grad[..., 0].T, f"position_slope_{i}": conv.P.grad[0, ..., 0].T}  # fmt: skip
        np.savez(file, **{name: t.detach().numpy() for name, t in found.items()})
    weights = [c.weight for c in convs] + [p for n in norms for p in n.parameters()]
    rules = (torch.optim.Adam(weights, 1e-3), torch.optim.Adam([c.P for c in convs], 0.1))
    x, y = (torch.rand(STEPS, batch, CHANNELS) < 0.05).float(), torch.randint(0, CLASSES, (batch,))

    def one() -> None:
        for rule in rules:
            rule.zero_grad()
        loss(x, y)[0].backward()
        for rule in rules:
            rule.step()
        for conv in convs:
            conv.clamp_parameters()

    one()
    start = time.perf_counter()
    for _ in range(updates):
        one()
    return {"milliseconds": 1e3 * (time.perf_counter() - start) / updates}


def network(width: int) -> Any:
    import jax

    from latebloom.methods.recurrence.spiking import SpikingDelays

    return SpikingDelays((CHANNELS, width, width, CLASSES), TAPS, key=jax.random.key(0), tau=TAU, alpha=ALPHA)  # fmt: skip


def apart(width: int, file: Path) -> dict[str, float]:
    """How far we are from them: the largest difference over the largest value."""
    import equinox as eqx
    import jax.numpy as jnp

    from latebloom.methods.recurrence.spiking import vote_loss

    with np.load(file) as part:
        given = dict(part.items())
    model = network(width)
    weights = [jnp.asarray(given[f"weight_{i}"]) for i in range(3)]
    # Their kernel's last place is now, ours is delay 0.
    delays = [jnp.asarray(TAPS - 1 - (given[f"position_{i}"] + TAPS // 2)) for i in range(3)]
    model = eqx.tree_at(lambda m: [x for d in m.layers for x in (d.weight, d.delay)], model,
                        [x for pair in zip(weights, delays, strict=True) for x in pair])  # fmt: skip
    x, y = jnp.asarray(given["x"]).swapaxes(0, 1), jnp.asarray(given["y"])

    def loss(model: Any) -> Any:
        v = model(x, SIGMA, train=True)
        return vote_loss(v, y).mean(), v

    (value, v), slopes = eqx.filter_value_and_grad(loss, has_aux=True)(model)
    found = {"v": (v.swapaxes(0, 1), given["v"]), "loss": (value, given["loss"])}
    for i, layer in enumerate(slopes.layers):
        found |= {f"weight slope {i}": (layer.weight, given[f"weight_slope_{i}"]),
                  f"delay slope {i}": (-layer.delay, given[f"position_slope_{i}"])}  # fmt: skip
    return {name: float(np.abs(np.asarray(a) - b).max() / np.abs(b).max()) for name, (a, b) in found.items()}  # fmt: skip


def ours(width: int, batch: int, updates: int) -> float:
    import equinox as eqx
    import jax

    from latebloom.core.training import gradients, trainable, update
    from latebloom.methods.recurrence.spiking import clipped, delay_rule, vote_loss

    model, rule = network(width), delay_rule(150, 10)
    one, two = jax.random.split(jax.random.key(1))
    x = jax.random.bernoulli(one, 0.05, (batch, STEPS, CHANNELS)).astype("uint8")
    y = jax.random.randint(two, (batch,), 0, CLASSES)

    @eqx.filter_jit
    def step(model: Any, moments: Any) -> Any:
        slopes, seen = gradients(lambda m: vote_loss(m(x, SIGMA, train=True), y).mean(), model)
        model, moments = update(rule, slopes, moments, model, seen)
        return clipped(model), moments

    state = step(model, rule.init(trainable(model)))
    jax.block_until_ready(jax.tree.leaves(state[1]))
    start = time.perf_counter()
    for _ in range(updates):
        state = step(*state)
    jax.block_until_ready(jax.tree.leaves(state[1]))
    return 1e3 * (time.perf_counter() - start) / updates


def read_nir(file: Path) -> dict[str, int]:
    import nir

    graph = nir.read(file)
    nir.write(file.with_name("again.nir"), graph)
    kinds = [type(node).__name__ for node in graph.nodes.values()]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--peer", required=True, help="a Python that has torch, spikingjelly, dcls")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--nir", action="store_true", help="the peer has nir, too")
    parser.add_argument("--theirs", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.theirs == "nir":
        print(json.dumps(read_nir(told.file)))
        return
    if told.theirs:
        width = int(told.theirs)
        print(json.dumps(theirs(width, CASES[width], told.updates, told.file)))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "theirs.npz"
        same = (told.peer, __file__, "--peer", "-", "--updates", str(told.updates))
        for turn in range(told.turns):
            for width, batch in CASES.items():
                more = ("--file", str(file)) if turn == 0 else ()
                said = asked(*same, "--theirs", str(width), *more)["milliseconds"]
                took = ours(width, batch, told.updates)
                print(f"width {width}: {took:.0f} ms an update, theirs {said:.0f}, {said / took:.1f} times", flush=True)  # fmt: skip
                if more:
                    print(", ".join(f"{name} {off:.1e}" for name, off in apart(width, file).items()), flush=True)  # fmt: skip
        if told.nir:
            from latebloom.methods.recurrence.delay_export import write_nir

            write_nir(network(128), Path(folder) / "net.nir", 10.0)
            print(asked(*same, "--theirs", "nir", "--file", str(Path(folder) / "net.nir")))


if __name__ == "__main__":
    main()
