"""Trained networks with delays for hardware and other simulators: whole delays in milliseconds, and NIR graphs.

NIR, the neuromorphic intermediate representation (Pedersen et al. 2024), is an HDF5 file of nodes and edges. It has
delays of neurons, not of connections, so a layer becomes a `Delay` and a `Linear` for each delay that it uses, side by
side into its neurons; batch normalisation goes into the weights and a bias.
"""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from latebloom.methods.recurrence.spiking import SpikingDelays, delays_of, whole
from latebloom.nn.recurrent import LIF

VERSION = "1.0.8"  # of the nir package whose files these are like


def whole_delays(model: SpikingDelays) -> list[Int[np.ndarray, "inputs outputs"]]:
    """The delays of each layer in steps, rounded.

    Raises `TypeError` for another network, whose delays are `delays_of(whole(model))`, and `ValueError` for weights or delays
    that are not finite; so do all that write.
    """
    if not isinstance(model, SpikingDelays):
        raise TypeError(f"the network must be SpikingDelays, not {type(model).__name__}: delays_of(whole(model)) has the layers of any other")  # fmt: skip
    for i, layer in enumerate(model.layers):
        if not (np.isfinite(layer.weight).all() and np.isfinite(layer.delay).all()):
            raise ValueError(f"layer {i} has a weight or a delay that is not finite: learning has diverged")  # fmt: skip
    return [np.asarray(layer.delay).astype(np.int64) for layer in delays_of(whole(model))]


def folded(
    model: SpikingDelays,
) -> list[tuple[Float[np.ndarray, "inputs outputs"], Float[np.ndarray, " outputs"]]]:
    """Weights and biases of each layer, with the running statistics of its normalisation in them; the last has bias 0."""
    found = []
    for i, weight in enumerate(model.weights()):
        weight = np.asarray(weight, np.float64)
        if i == len(model.norms):
            found.append((weight, np.zeros(weight.shape[1])))
            continue
        norm = model.norms[i]
        scale, shift, mean, variance = (np.asarray(v, np.float64) for v in (norm.scale, norm.shift, norm.mean, norm.variance))  # fmt: skip
        gain = scale / np.sqrt(variance + norm.eps)
        found.append((weight * gain, shift - mean * gain))
    return found


def delay_table(model: SpikingDelays, step_ms: float = 10.0) -> pd.DataFrame:
    """A row for each connection: layer, input, output, weight (see `folded`), delay in steps and in milliseconds.

    Raises `ValueError` for a step that is not above 0.
    """
    _check(step_ms)
    parts = []
    delays = whole_delays(model)
    kept = model.masks if model.masks is not None else [np.ones(layer.weight.shape, bool) for layer in model.layers]  # fmt: skip
    for i, (delay, (weight, _), mask) in enumerate(zip(delays, folded(model), kept, strict=True)):  # fmt: skip
        source, target = np.nonzero(np.asarray(mask))
        steps = delay[source, target]
        parts.append(pd.DataFrame({
            "layer": i, "input": source, "output": target, "weight": weight[source, target], "steps": steps,
            "milliseconds": steps * step_ms,
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def write_delays(model: SpikingDelays, path: str | os.PathLike[str], step_ms: float = 10.0) -> None:
    """An .npz of `weight_0`, `bias_0`, `delay_0` (whole steps), `milliseconds_0`, ... [inputs, outputs], and `step_ms`."""
    _check(step_ms)
    arrays = {"step_ms": np.array(step_ms)}
    for i, (delay, (weight, bias)) in enumerate(zip(whole_delays(model), folded(model), strict=True)):  # fmt: skip
        arrays |= {f"weight_{i}": weight, f"bias_{i}": bias, f"delay_{i}": delay, f"milliseconds_{i}": delay * step_ms}  # fmt: skip
    path = Path(path)
    aside = path.with_name(path.name + ".part")
    with open(aside, "wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore
    aside.replace(path)


def write_nir(model: SpikingDelays, path: str | os.PathLike[str], step_ms: float = 10.0) -> None:
    """The network as a NIR graph; times are in seconds.

    Stepped by Euler's rule at `step_ms` it does what the network does (tau dv/dt = -v + R I with R = tau / step, and a
    reset to 0) until (taps - 1) // 2 steps after its
    input's end, where the network cuts its hidden layers off. Raises `ValueError` for a step that is not above 0, and
    for neurons whose reset is soft, which NIR does not have.
    """
    _check(step_ms)
    delays = whole_delays(model)
    seconds = step_ms / 1e3
    nodes: dict[str, dict[str, object]] = {}
    edges: list[tuple[str, str]] = []
    inputs = model.layers[0].weight.shape[0]
    nodes["input"] = {"type": "Input", "shape": np.array([inputs])}
    before = "input"
    for i, (delay, (weight, bias)) in enumerate(zip(delays, folded(model), strict=True)):
        last = i == len(model.norms)
        neurons = "readout" if last else f"neurons_{i}"
        nodes[neurons] = _neurons(model.readout if last else model.neuron, weight.shape[1], seconds)
        used = np.unique(delay[weight != 0]) if (weight != 0).any() else np.array([0])
        for d in used:
            part = np.where(delay == d, weight, 0.0).T
            if d == used[0] and not last:
                nodes[f"weights_{i}_{d}"] = {"type": "Affine", "weight": part, "bias": bias}
            else:
                nodes[f"weights_{i}_{d}"] = {"type": "Linear", "weight": part}
            if d == 0:
                edges.append((before, f"weights_{i}_{d}"))
            else:
                nodes[f"delay_{i}_{d}"] = {"type": "Delay", "delay": np.full(len(weight), d * seconds)}  # fmt: skip
                edges += [(before, f"delay_{i}_{d}"), (f"delay_{i}_{d}", f"weights_{i}_{d}")]
            edges.append((f"weights_{i}_{d}", neurons))
        before = neurons
    nodes["output"] = {"type": "Output", "shape": np.array([model.layers[-1].weight.shape[1]])}
    edges.append((before, "output"))
    _write(nodes, edges, Path(path))


def _neurons(neuron: LIF, size: int, seconds: float) -> dict[str, object]:
    full = lambda value: np.full(size, float(value))  # noqa: E731
    gain = 1.0 if neuron.decay_input else neuron.tau
    same = {"tau": full(neuron.tau * seconds), "r": full(gain), "v_leak": full(neuron.rest)}
    if neuron.threshold is None:
        return {"type": "LI", **same}
    if neuron.reset != "hard":
        raise ValueError("NIR resets neurons to a potential: there is none for a soft reset")
    return {"type": "LIF", **same, "v_threshold": full(neuron.threshold), "v_reset": full(neuron.rest)}  # fmt: skip


def _write(nodes: dict[str, dict[str, object]], edges: list[tuple[str, str]], path: Path) -> None:
    aside = path.with_name(path.name + ".part")
    text = h5py.string_dtype()
    with h5py.File(aside, "w") as file:
        file.create_dataset("version", data=VERSION, dtype=text)
        graph = file.create_group("node")
        graph.create_dataset("type", data="NIRGraph", dtype=text)
        for name, node in nodes.items():
            for part, value in node.items():
                at = f"nodes/{name}/{part}"
                if isinstance(value, str):
                    graph.create_dataset(at, data=value, dtype=text)
                else:
                    graph.create_dataset(at, data=value)
        graph.create_dataset("edges", data=np.array(edges, dtype=object), dtype=text)
    aside.replace(path)


def _check(step_ms: float) -> None:
    if not 0 < step_ms < np.inf:
        raise ValueError(f"step_ms must be above 0 milliseconds, not {step_ms}")
