"""How large do refresh and its controls want their perturbation, and which rate and weights does each host want?

Run: python benchmarks/refresh_learning_tuning.py [HOST ...]
On seeds 100 and 101, which the study does not use, at the scale of its quick budget. First the host, over a
grid; then each variant around it, over as many sizes as every other. Prints the final accuracy of each
setting, says where the best lies on an edge (the lower edge of a size leads to the host itself), and puts the
winners into the table that the study reads.
"""

import argparse
import itertools
import json
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from tables import put

from latebloom import unfold
from latebloom.methods.forgetting.continual import Continual
from latebloom.studies.forgetting import refresh_learning as study

TABLE = Path(study.__file__).with_suffix(".json")
SEEDS = (100, 101)
RATES = (0.1, 0.3, 1.0)
HOSTS = {  # rate, first weight, second weight
    "er": (RATES, (0.1, 0.3, 0.5, 0.7), (0.0,)),
    "der": (RATES, (0.3, 1.0, 3.0), (0.25, 0.5, 1.0)),
    "ewc": (RATES, (0.1, 0.3, 1.0, 3.0, 10.0), (0.0,)),
    "lwf": (RATES, (0.3, 1.0, 3.0, 10.0), (0.0,)),
    "cpr": (None, None, (0.01, 0.03, 0.1, 0.3, 1.0)),  # around EWC as it was tuned
}
SIZES = {
    "paper": (1e-8, 1e-7, 1e-6, 1e-5, 1e-4),
    "ascent": (0.001, 0.003, 0.01, 0.03, 0.1),
    "scaled": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "extra": (0.01, 0.03, 0.1, 0.3, 1.0),
    "sam": (0.01, 0.03, 0.1, 0.3, 1.0),
    "random": (0.01, 0.03, 0.1, 0.3, 1.0),
    "noise": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
}


def final(config: study.Config) -> float:
    """Mean final accuracy; 0 where a seed diverged."""
    process = study.make_process(replace(config, flat=False))
    plain = {f: getattr(process, f) for f in ("model", "data", "stream", "method", "optimiser", "replay")}  # fmt: skip
    quiet = Continual(**plain, hyper={"rate": config.rate})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace = unfold(quiet, seeds=SEEDS, at=study.schedule(config)[-1:], progress=False)
    return float(np.nan_to_num(trace.accuracy.values[:, -1].mean(axis=1)).mean())


def best(found: dict, grid: list) -> tuple:
    chosen = max(found, key=lambda key: found[key])
    keys = chosen if isinstance(chosen, tuple) else (chosen,)
    edges = [
        f"{value:g}"
        for values, value in zip(grid, keys, strict=True)
        if len(values) > 1 and value in (values[0], values[-1])
    ]
    print(f"  best {chosen}" + "".join(f", {e} on an edge" for e in edges), flush=True)
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(HOSTS))
    parser.add_argument("--variants", nargs="*", default=list(SIZES))
    parser.add_argument("--keep-host", action="store_true", help="do not tune the hosts again")
    given = parser.parse_args()
    for host in given.names:
        table, start = json.loads(TABLE.read_text()), time.perf_counter()
        if not given.keep_host:
            rates, ones, twos = HOSTS[host]
            if host == "cpr":
                ewc = table["ewc"]["host"]
                rates, ones = (ewc["rate"],), (ewc["one"],)
            found = {
                (r, a, b): final(study.tuned(host, rate=r, one=a, two=b))
                for r, a, b in itertools.product(rates, ones, twos)
            }
            print(f"{host}: " + "  ".join(f"({r:g}, {a:g}, {b:g}) {100 * v:.1f}" for (r, a, b), v in found.items()))  # fmt: skip
            rate, one, two = best(found, [rates, ones, twos])
            table[host] = {"host": {"rate": rate, "one": one, "two": two}, "size": {}}
            put(TABLE, table)
        study.TUNED.clear()
        study.TUNED.update(table)
        for variant in given.variants:
            sizes = SIZES[variant]
            found = {size: final(study.tuned(host, variant, size=size)) for size in sizes}
            print(f"{host} {variant} ({time.perf_counter() - start:.0f} s): "
                  + "  ".join(f"{s:g} {100 * v:.1f}" for s, v in found.items()))  # fmt: skip
            table[host]["size"][variant] = best(found, [sizes])
            put(TABLE, table)


if __name__ == "__main__":
    main()
