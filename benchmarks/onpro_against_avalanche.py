"""Online ER and SCR, here and by Avalanche: outcome and time of an update.

Five tasks of two classes of MNIST-5k at 14 x 14, seen once in batches of 10, with 20 replayed from a memory of 100, an
MLP of 128 units to 64 features, Adam. Avalanche meets each batch as an experience of its own, as in its online examples, so that
its memory is filled at every step; no views on either side. It has no OnPro. In turns in one run.

    python -m venv peer && peer/bin/pip install torch avalanche-lib
    python benchmarks/onpro_against_avalanche.py --peer peer/bin/python
"""

import time
import warnings

import numpy as np
from peers import Found, in_turns

TASKS, STEPS, NEW, OLD, MEMORY, UNITS, FEATURES, HEAD = 5, 80, 10, 20, 100, 128, 64, 32
RATES, HEAT = {"er": 0.003, "scr": 0.001}, 0.15


def theirs(file: str, seed: int) -> dict[str, float]:
    import torch
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils.classification_dataset import (
        _make_taskaware_tensor_classification_dataset as examples,
    )
    from avalanche.models import SCRModel
    from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
    from avalanche.training.storage_policy import ReservoirSamplingBuffer
    from avalanche.training.supervised import Naive
    from avalanche.training.supervised.supervised_contrastive_replay import SCR

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    part = np.load(file)
    x, y, x_test, y_test = (part[n] for n in ("x_train", "y_train", "x_test", "y_test"))
    order = rng.permutation(10)
    rows = [rng.permutation(np.flatnonzero(np.isin(y, order[2 * k : 2 * k + 2])))[: STEPS * NEW] for k in range(TASKS)]  # fmt: skip
    sets = [
        examples(torch.tensor(x[of]), torch.tensor(y[of]).long(), task_labels=0, targets=1)
        for of in np.concatenate(rows).reshape(-1, NEW)
    ]
    stream = benchmark_from_datasets(train=sets).train_stream
    found = {}
    for method, rate in RATES.items():
        encoder = torch.nn.Sequential(
            torch.nn.Linear(x.shape[1], UNITS), torch.nn.ReLU(), torch.nn.Linear(UNITS, FEATURES), torch.nn.ReLU(),
        )  # fmt: skip
        common = {"train_mb_size": NEW, "train_epochs": 1, "evaluator": EvaluationPlugin()}
        if method == "er":
            model = torch.nn.Sequential(encoder, torch.nn.Linear(FEATURES, 10))
            memory = ReservoirSamplingBuffer(MEMORY)
            plugin = ReplayPlugin(MEMORY, batch_size=NEW, batch_size_mem=OLD, storage_policy=memory)
            strategy = Naive(
                model=model, optimizer=torch.optim.Adam(model.parameters(), rate), plugins=[plugin],
                criterion=torch.nn.CrossEntropyLoss(), **common,
            )  # fmt: skip
        else:
            model = SCRModel(encoder, torch.nn.Linear(FEATURES, HEAD))
            rule = torch.optim.Adam(model.parameters(), rate)
            strategy = SCR(
                model=model, optimizer=rule, mem_size=MEMORY, temperature=HEAT, batch_size_mem=OLD, **common
            )  # fmt: skip
        start = time.perf_counter()
        for experience in stream:
            strategy.train(experience)
        seconds = time.perf_counter() - start
        model.eval()
        with torch.no_grad():
            told = model(torch.tensor(x_test))[:, :10].argmax(1).numpy()
        found[f"{method} accuracy in %"] = 100 * float((told == y_test).mean())
        found[f"{method} ms an update"] = 1e3 * seconds / (TASKS * STEPS)
    return found


def ours(method: str):
    def run(seeds: int) -> Found:
        import equinox as eqx
        import jax
        import optax

        from latebloom import nn, unfold
        from latebloom.core.calling import call
        from latebloom.core.stream import class_incremental
        from latebloom.data import load_scaled
        from latebloom.methods.forgetting.continual import Continual, Replay
        from latebloom.methods.forgetting.replay import ER, SCR

        class Features(eqx.Module):
            net: nn.MLP

            def __call__(self, x):
                return jax.nn.relu(self.net(x))

        data = load_scaled("mnist-5k", side=14, flat=True)

        def model(key):
            one, two = jax.random.split(key)
            encoder = Features(nn.MLP(196, (UNITS,), FEATURES, key=one))
            return nn.Projected.around(encoder, data.x_train[:2], 10, HEAD, key=two)

        kinds = {"er": ER(1 / 3), "scr": SCR(lambda m, x: m.projection(call(m.encoder, x)), HEAT)}
        process = Continual(
            model=model, data=data, method=kinds[method], replay=Replay(MEMORY, OLD), optimiser=optax.adam,
            stream=lambda key: class_incremental(data.y_train, data.y_test, key=key, tasks=TASKS, steps=STEPS,
                                                 batch_size=NEW, exam_size=150),
            hyper={"learning_rate": RATES[method]},
        )  # fmt: skip
        trace = unfold(process, seeds=seeds, steps=TASKS * STEPS, every=TASKS * STEPS, progress=False)  # fmt: skip
        took = 1e3 * trace.attrs["run_seconds"] / (seeds * TASKS * STEPS)
        found = (100 * trace.accuracy.values[:, -1].mean(axis=1)).tolist()
        return found, took, trace.attrs["compile_seconds"]

    return run


def both(seeds: int) -> Found:
    """ER here, and SCR on a line of its own."""
    found, took, compiling = ours("scr")(seeds)
    print(f"SCR here, {seeds} at once: {np.mean(found):.1f} %, {took:.2f} ms an update a seed (compiling {compiling:.1f} s); ER:", flush=True)  # fmt: skip
    return ours("er")(seeds)


if __name__ == "__main__":
    in_turns(__file__, __doc__, "avalanche-lib", theirs, both, seeds=(1, 5), unit="ms an update")
