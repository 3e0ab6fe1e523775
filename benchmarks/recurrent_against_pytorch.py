"""Recurrent layers and PyTorch's, SpikingJelly's: the same outputs and gradients from the same weights; milliseconds a gradient.

LSTM and GRU with PyTorch's weights, with and without `lengths`, against torch.nn; `LIF` against SpikingJelly's LIFNode
(2.0.0); LTC and CfC against ncps (1.0.1), kernels of delays against DCLS (0.1.1), without times; leaky units against the paper's loop, written in PyTorch. Timed in turns: 128 units, 49 steps of one input,
128 sequences, the gradient of all parameters; for LIF 100 steps of 128 neurons, 64 sequences. PyTorch has both cores.

    python -m venv peer && peer/bin/pip install torch && peer/bin/pip install --no-deps spikingjelly loguru ncps dcls && peer/bin/pip install numpy scipy tqdm
    python benchmarks/recurrent_against_pytorch.py --peer peer/bin/python --fixtures tests/nn/recurrent.npz
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from peers import asked

IN, SIZE, TIME, BATCH = 3, 4, 6, 3
LENGTHS = [6, 4, 1]
NEURONS = {
    "decay": {"tau": 2.0, "decay_input": True, "v_reset": 0.0, "detach_reset": False},
    "plain": {"tau": 1.5, "decay_input": False, "v_reset": 0.0, "detach_reset": True},
    "rest": {"tau": 3.0, "decay_input": True, "v_reset": -0.2, "detach_reset": True},
    "soft": {"tau": 2.5, "decay_input": False, "v_reset": None, "detach_reset": False},
}
TIMED = ("lstm", "gru", "leaky", "lif")


def fixtures(file: Path) -> None:
    """Written where torch and SpikingJelly are: weights, inputs, outputs, gradients of sum(outputs x weighing)."""
    import torch
    from spikingjelly.activation_based import neuron, surrogate
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    torch.manual_seed(0)
    found: dict[str, Any] = {"lengths": LENGTHS}
    x, weighing = torch.randn(BATCH, TIME, IN), torch.randn(BATCH, TIME, SIZE)
    found |= {"x": x.numpy(), "weighing": weighing.numpy()}
    for name, layer in {"lstm": torch.nn.LSTM(IN, SIZE, batch_first=True), "gru": torch.nn.GRU(IN, SIZE, batch_first=True)}.items():  # fmt: skip
        for weight, value in layer.named_parameters():
            found[f"{name}/{weight}"] = value.detach().numpy()
        for kind in ("whole", "lengths"):
            given = x.clone().requires_grad_()
            fed = given if kind == "whole" else pack_padded_sequence(given, torch.tensor(LENGTHS), batch_first=True)  # fmt: skip
            outputs, state = layer(fed)
            if kind == "lengths":
                outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=TIME)
            (outputs * weighing).sum().backward()
            last = state if name == "gru" else torch.stack(state)
            found |= {f"{name}/{kind}/outputs": outputs.detach().numpy(), f"{name}/{kind}/state": last.detach().numpy(),
                      f"{name}/{kind}/slopes": given.grad.numpy()}  # fmt: skip
    current, weighing = 2 * torch.rand(TIME, BATCH, SIZE), torch.randn(TIME, BATCH, SIZE)
    found |= {"current": current.numpy(), "current_weighing": weighing.numpy()}
    for name, settings in NEURONS.items():
        for kind, slope in {"atan": surrogate.ATan(3.0), "sigmoid": surrogate.Sigmoid(4.0)}.items():
            given = current.clone().requires_grad_()
            node = neuron.LIFNode(**settings, surrogate_function=slope, step_mode="m")
            spikes = node(given)
            (spikes * weighing).sum().backward()
            found |= {f"lif/{name}/{kind}/spikes": spikes.detach().numpy(), f"lif/{name}/{kind}/slopes": given.grad.numpy(),
                      f"lif/{name}/{kind}/v": node.v.detach().numpy()}  # fmt: skip
    np.savez_compressed(file, **found, **liquid(x), **kernels())


def liquid(x: Any) -> dict[str, Any]:
    """LTC and CfC of ncps, with the time of each step."""
    import torch
    from ncps.torch import CfCCell, LTCCell
    from ncps.wirings import FullyConnected

    elapsed, weighing = 0.2 + torch.rand(BATCH, TIME), torch.randn(BATCH, TIME, SIZE)
    found: dict[str, Any] = {"elapsed": elapsed.numpy(), "liquid_weighing": weighing.numpy()}
    cells = {
        "ltc": LTCCell(FullyConnected(SIZE), IN),
        "softplus": LTCCell(FullyConnected(SIZE), IN, implicit_param_constraints=True),
        "cfc": CfCCell(IN, SIZE, backbone_units=7),
    }
    for name, cell in cells.items():
        for weight, value in cell.named_parameters():
            if weight.startswith(("input_", "output_")):  # as first they are do-nothing
                value.data += 0.1 * torch.randn_like(value)
            found[f"{name}/{weight}"] = value.detach().numpy()
        given, state, outputs = x.clone().requires_grad_(), torch.zeros(BATCH, SIZE), []
        for t in range(TIME):
            output, state = cell(given[:, t], state, elapsed[:, t : t + 1])
            outputs.append(output)
        told = torch.stack(outputs, 1)
        (told * weighing).sum().backward()
        found |= {f"{name}/outputs": told.detach().numpy(), f"{name}/slopes": given.grad.numpy()}
    return found


def kernels() -> dict[str, Any]:
    """Those of DCLS, from weights and positions [outputs, inputs]."""
    import torch
    from DCLS.construct.modules import ConstructKernel1d

    weight, position = torch.randn(4, 3, 1), 24 * torch.rand(1, 4, 3, 1) - 12
    found = {"dcls/weight": weight[..., 0].numpy(), "dcls/position": position[0, ..., 0].numpy()}
    make = ConstructKernel1d(4, 3, 1, 1, [25], "gauss")
    for sigma in (12.0, 0.23):
        found[f"dcls/{sigma}"] = make(weight, position, torch.full_like(position, sigma)).numpy()
    return found


def theirs(kind: str, steps: int) -> dict[str, float]:
    import torch

    torch.manual_seed(0)
    if kind == "lif":
        from spikingjelly.activation_based import functional, neuron, surrogate

        x = torch.rand(100, 64, 128).requires_grad_()
        node = neuron.LIFNode(1.5, False, detach_reset=True, surrogate_function=surrogate.ATan(5.0), step_mode="m")  # fmt: skip

        def pass_back() -> None:
            functional.reset_net(node)
            node(x).square().sum().backward()
    else:
        x = torch.rand(128, 49, 1)
        if kind == "leaky":
            into, own, tau = torch.nn.Linear(1, 128), torch.nn.Linear(128, 128), torch.nn.Parameter(1 + torch.rand(128))  # fmt: skip
            diagonal = torch.eye(128).bool()

            def pass_back() -> None:
                h, rate = torch.zeros(128, 128), 1 / tau.clamp(min=1.0)
                weight = own.weight.masked_fill(diagonal, 0.0)
                entering = into(x)
                for t in range(x.shape[1]):
                    drive = entering[:, t] + torch.nn.functional.linear(h, weight, own.bias)
                    h = torch.nn.functional.leaky_relu((1 - rate) * h + drive * rate)
                h.square().sum().backward()
        else:
            layer = (torch.nn.LSTM if kind == "lstm" else torch.nn.GRU)(1, 128, batch_first=True)

            def pass_back() -> None:
                layer(x)[0][:, -1].square().sum().backward()

    pass_back()
    start = time.perf_counter()
    for _ in range(steps):
        pass_back()
    return {"milliseconds": 1e3 * (time.perf_counter() - start) / steps}


def ours(kind: str, steps: int) -> float:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from latebloom.nn import recurrent

    key = jax.random.key(0)
    if kind == "lif":
        layer: Any = recurrent.LIF(1.5, alpha=5.0)
        given = jax.random.uniform(key, (64, 100, 128))
        loss = lambda x: jnp.square(layer(x)[1]).sum()  # noqa: E731
    else:
        makers = {"lstm": recurrent.LSTM, "gru": recurrent.GRU, "leaky": recurrent.LeakyRNN}
        given = makers[kind](1, 128, key=key)
        x = jax.random.uniform(key, (128, 49, 1))
        loss = lambda layer: jnp.square(layer(x)[1][:, -1]).sum()  # noqa: E731
    slopes = eqx.filter_jit(eqx.filter_grad(loss))  # pyright: ignore
    jax.block_until_ready(jax.tree.leaves(slopes(given)))
    start = time.perf_counter()
    for _ in range(steps):
        jax.block_until_ready(jax.tree.leaves(slopes(given)))
    return 1e3 * (time.perf_counter() - start) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--peer", required=True, help="a Python that has torch and spikingjelly")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--fixtures", type=Path, help="write the numbers that tests compare with, and stop")  # fmt: skip
    parser.add_argument("--theirs", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.theirs == "fixtures":
        fixtures(told.fixtures)
        print("{}")
    elif told.theirs:
        print(json.dumps(theirs(told.theirs, told.steps)))
    elif told.fixtures:
        asked(told.peer, __file__, "--peer", "-", "--theirs", "fixtures", "--fixtures", str(told.fixtures))  # fmt: skip
    else:
        for _ in range(told.turns):
            for kind in TIMED:
                said = asked(told.peer, __file__, "--peer", "-", "--theirs", kind, "--steps", str(told.steps))  # fmt: skip
                print(f"{kind}: {ours(kind, told.steps):.1f} ms a gradient, theirs {said['milliseconds']:.1f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
