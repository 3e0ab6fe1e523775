"""How fast are EE-Net, NeuralUCB and NeuralTS here, against the EE-Net authors' PyTorch code?

Run: git clone https://github.com/banyikun/EE-Net-ICLR-2022 REFERENCE
     pip install torch pandas scikit-image
     python benchmarks/neural_bandits_against_eenet.py REFERENCE
Both play the same digits in the same order under the same protocol: one hidden layer, disjoint arms,
passes of up to 2000 single-example steps over all that was seen, every tenth round. The reference
runs with its own settings (step size 0.01) and with the best of three step sizes on an order of its
own (`--rates`); latebloom
with the study's. In turns, one thread for PyTorch; prints seconds per 1000 rounds (ours without
compile time, which is given apart) and mistakes, means over the orders.
"""

import argparse
import sys
import time
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from latebloom import unfold
from latebloom.core.interaction import Interaction
from latebloom.methods.bandits.neural import ClassificationBandit, load_contexts
from latebloom.studies.bandits.neural_bandits import make_policy, tuned


def make(name: str, k: int, d: int, hidden: int, rate: float):
    """The reference's `select(contexts, t)`, `update(contexts, arm, reward, t)` and `train(t)`."""
    if name == "ee-net":
        from EENet import EE_Net  # pyright: ignore

        model = EE_Net(k * d, k, 50, lr_1=rate, lr_2=0.001, lr_3=0.001, hidden=hidden)
        return model.predict, lambda x, arm, reward, t: model.update(x, reward, t), model.train
    if name == "neural-ucb":
        from NeuralUCB import NeuralUCBDiag  # pyright: ignore

        model = NeuralUCBDiag(k * d, lamdba=0.1, nu=0.001, hidden=hidden)
        model.lr = rate
    else:
        from NeuralTS import NeuralTS  # pyright: ignore

        model = NeuralTS(k * d, k, m=hidden, sigma=0.1, nu=0.001)
        model.optimizer.param_groups[0]["lr"] = rate
    return (
        lambda x, t: model.select(x), lambda x, arm, reward, t: model.update(x[arm], reward),
        model.train,
    )  # fmt: skip


def theirs(name: str, x: np.ndarray, label: np.ndarray, hidden: int, rate: float):
    """Seconds and mistakes of the reference on a stream."""
    k, d = int(label.max()) + 1, x.shape[1]
    select, update, train = make(name, k, d, hidden, rate)
    mistakes, start = 0, time.perf_counter()
    for t, (row, y) in enumerate(zip(x, label, strict=True)):
        contexts = np.zeros((k, k * d), np.float32)
        for a in range(k):
            contexts[a, a * d : (a + 1) * d] = row
        arm = int(select(contexts, t))
        mistakes += arm != y
        update(contexts, arm, float(arm == y), t)
        if t % 10 == 0 if t < 1000 else t % 100 == 0:
            train(t)
    return time.perf_counter() - start, mistakes


def ours(name, x, label, hidden: int, limit: int) -> tuple[float, int, float]:
    """Seconds, mistakes, and compile seconds on a stream."""
    n, k = len(x), int(label.max()) + 1
    config = tuned(name, "digits-8x8", hidden=hidden, rounds=n, limit=limit)
    world = ClassificationBandit(
        k, jnp.asarray(x), jnp.asarray(label), jnp.zeros(n, jnp.int32), shuffle=False
    )
    play = Interaction(world, make_policy(config), seeds_by="map")
    trace = unfold(play, seeds=[0], steps=n, progress=False)
    return trace.attrs["run_seconds"], int(trace.regret[0, -1]), trace.attrs["compile_seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--hidden", type=int, default=100)
    parser.add_argument("--orders", type=int, default=3)
    parser.add_argument("--rates", nargs="*", type=float, default=[0.01, 0.03, 0.1])
    args = parser.parse_args()
    import torch  # pyright: ignore

    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  the reference shuffles by it
    sys.modules["torchvision"] = types.ModuleType("torchvision")  # imported there, and not used
    sys.path[:0] = [str(args.reference), str(args.reference / "baselines")]
    x, label, _ = load_contexts("digits-8x8")

    def order(seed: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.random.default_rng(seed).permutation(len(x))[: args.rounds]
        return x[rows], label[rows]

    print("| method | PyTorch, step size | s per 1000 rounds | mistakes | latebloom, s per 1000 "
          "rounds | mistakes | compile s |\n|---|---|---|---|---|---|---|")  # fmt: skip
    scale = 1000 / args.rounds
    for name in ("ee-net", "neural-ucb", "neural-ts"):
        trial = order(100)
        best = min(args.rates, key=lambda rate: theirs(name, *trial, args.hidden, rate)[1])
        for rate in dict.fromkeys((args.rates[0], best)):
            rows = []
            for seed in range(args.orders):
                a = theirs(name, *order(seed), args.hidden, rate)
                rows.append((*a, *ours(name, *order(seed), args.hidden, 2000)))
            their_s, their_m, our_s, our_m, compiling = np.mean(np.array(rows, float), axis=0)
            print(f"| {name} | {rate:g} | {their_s * scale:.0f} | {their_m:.0f} | "
                  f"{our_s * scale:.2f} | {our_m:.0f} | {compiling:.1f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
