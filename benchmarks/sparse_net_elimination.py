"""What do lazy supports save? Net elimination against the same rule with every support laid out.

    python benchmarks/sparse_net_elimination.py

Both query the same actions. The eager version evaluates all parameters of the net at all actions,
as one writes it down first; ours lays out a support only if its bound says that it may promise most.
"""

import itertools
import statistics
import time

import numpy as np

from latebloom.methods.bandits.sparse_misspecified import NetElimination, ball_net, problem

ACTIONS, TURNS = 1000, 5


def lazily(features, rewards, epsilon, s):
    net = NetElimination(features, epsilon, s, 2 * epsilon)
    asked = []
    while True:
        promise = net.propose()
        asked.append(promise.action)
        if abs(rewards[promise.action] - promise.value) <= 2 * epsilon:
            return asked, len(net.supports)
        net.observe(promise.action, rewards[promise.action])


def eagerly(features, rewards, epsilon, s):
    points = ball_net(s, epsilon)
    supports = np.array(list(itertools.combinations(range(features.shape[1]), s)))
    best = [(features[:, support] @ points.T) for support in supports]
    promises, actions = np.stack([p.max(0) for p in best]), np.stack([p.argmax(0) for p in best])
    alive, asked = np.ones(promises.shape, bool), []
    while True:
        i, j = np.unravel_index(np.where(alive, promises, -np.inf).argmax(), alive.shape)
        action = int(actions[i, j])
        asked.append(action)
        if abs(rewards[action] - promises[i, j]) <= 2 * epsilon:
            return asked, len(supports)
        predicted = features[action, supports] @ points.T
        alive &= np.abs(predicted - rewards[action]) <= 2 * epsilon


def seconds(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


if __name__ == "__main__":
    print("d    s  epsilon  queries  supports laid out  lazy ms  eager ms  ratio")
    for d, s, epsilon in ((24, 2, 0.2), (24, 2, 0.1), (64, 2, 0.2), (20, 3, 0.3)):
        times, sizes = [], []
        for seed in range(TURNS):
            rng = np.random.default_rng(seed)
            features = problem.sphere(rng, ACTIONS, d)
            instance = problem.adversarial_problem(rng, features, s, epsilon)
            lazy, (asked, laid_out) = seconds(lazily, features, instance.rewards, epsilon, s)
            eager, (also_asked, all_of_them) = seconds(
                eagerly, features, instance.rewards, epsilon, s
            )
            assert asked == also_asked
            times.append((lazy, eager))
            sizes.append((len(asked), laid_out))
        lazy, eager = (1000 * statistics.median(t) for t in zip(*times, strict=True))
        queries, laid_out = (statistics.median(n) for n in zip(*sizes, strict=True))
        print(f"{d:<4} {s}  {epsilon:<7}  {queries:<7}  {laid_out:>5} of {all_of_them:<8}  "
              f"{lazy:7.1f}  {eager:8.1f}  {eager / lazy:5.1f}")  # fmt: skip
