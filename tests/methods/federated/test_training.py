"""Training along a schedule against plain NumPy, closed forms, and FedAvg written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latebloom import nn, unfold
from latebloom.methods.federated.clock import (
    Schedule,
    buffer,
    everyone,
    exponential,
    first,
    fixed,
    scenario,
    schedule,
    window,
)
from latebloom.methods.federated.problems import Classification, Quadratics
from latebloom.methods.federated.split import DirichletSplit
from latebloom.methods.federated.training import Federated, replay
from latebloom.methods.federated.weights import (
    asynchronous_weights,
    fednova_weights,
    polynomial_discount,
    uniform,
    weights_from_participation,
)

RNG = np.random.default_rng(0)
OPTIMA = RNG.normal(size=(4, 3))
RULES = {"sync": everyone, "async": first, "fedbuff": buffer(2), "fedfix": window(0.5)}


def eager(plan, weights, eta, steps, momentum=0.9, server=1.0, mix=False, discount=None):
    """Every client trains when it gets a model and keeps the result; models kept one by one."""
    discount = np.ones(len(plan.client)) if discount is None else discount

    def work(client, start):
        theta, velocity = start.copy(), np.zeros(3)
        for _ in range(steps[client]):
            velocity = momentum * velocity + theta - OPTIMA[client]
            theta = theta - eta * velocity
        return start, theta

    models = [np.zeros(3)]
    ready = {i: work(i, models[0]) for i in range(plan.clients)}
    for n, row in enumerate(plan.matrix()):
        new = models[-1].copy()
        for i in np.flatnonzero(row >= 0):
            start, trained = ready[i]
            visit = np.flatnonzero((plan.aggregation == n) & (plan.client == i))[0]
            base = models[-1] if mix else start
            new += server * weights[i] * discount[visit] * (trained - base)
        models.append(new)
        for i in np.flatnonzero(row >= 0):
            ready[i] = work(i, new)
    return np.array(models)


def run(plan, weights, moments, problem=None, **options):
    problem = problem or Quadratics(4, 3, OPTIMA)
    options = {"learning_rate": 0.1, "x64": True} | options
    process = Federated(
        problem, replay(plan, weights, moments, **options.pop("replay", {})), **options
    )
    return unfold(process, seeds=1, steps=len(moments) - 1, every=1, progress=False)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("random", [False, True])
def test_replay_is_eager_training(name, random):
    kind = exponential if random else fixed
    plan = schedule(RULES[name], kind(scenario(4, 70)), 4, 6, seed=1)
    weights = weights_from_participation(plan.participation, uniform(4))
    steps = np.array([1, 3, 2, 1])
    found = run(plan, weights, np.arange(7.0), local_steps=steps, server_rate=0.7)
    models = eager(plan, weights, 0.1, steps, server=0.7)
    expected = models[np.searchsorted(plan.times, np.arange(7.0) + 1e-6)]
    np.testing.assert_allclose(found.model.values[0], expected, atol=1e-12)


def test_fedasync_mixes_with_discounted_staleness():
    plan = schedule(first, fixed(scenario(4, 70)), 4, 6)
    discount = polynomial_discount(plan.staleness, 0.5)
    found = run(
        plan, np.full(4, 0.6), np.arange(7.0), update="mix", replay={"discount": discount},
    )  # fmt: skip
    models = eager(plan, np.full(4, 0.6), 0.1, np.ones(4, int), mix=True, discount=discount)
    np.testing.assert_allclose(found.model.values[0, -1], models[-1], atol=1e-12)
    assert (discount < 1).any()


def test_synchronous_is_fedavg_on_quadratics_in_closed_form():
    plan = schedule(everyone, fixed([1, 2, 3, 4]), 4, 40)
    found = run(plan, uniform(4), np.arange(0, 41, 4.0), local_steps=5, momentum=0.0)
    phi = 1 - 0.9**5
    rounds = np.arange(11)[:, None]
    np.testing.assert_allclose(found.model.values[0], (1 - (1 - phi) ** rounds) * OPTIMA.mean(0))
    losses = ((found.model.values[0, -1] - OPTIMA) ** 2).sum(1) / 2
    np.testing.assert_allclose(found.train_loss.values[0, -1], losses.mean())
    np.testing.assert_allclose(found.train_loss_spread.values[0, -1], losses.std())
    np.testing.assert_allclose(found.client_train_loss.values[0, -1], losses)


def alternating(members, rounds):
    """Clients of the given groups in turn; each began at its own last aggregation."""
    client = np.concatenate([members[n % len(members)] for n in range(rounds)])
    aggregation = np.repeat(
        np.arange(rounds), [len(members[n % len(members)]) for n in range(rounds)]
    )
    started = np.maximum(aggregation - len(members) + 1, 0)
    times = np.arange(1.0, rounds + 1)
    count = sum(map(len, members))
    return Schedule(
        count, times, client, aggregation, started, 0.0 * aggregation, times[aggregation]
    )


def test_example_1_fair_to_distributions_is_enough():
    """Clients 0, 2 and 1, 3 in turn; 0, 1 and 2, 3 have the same optimum."""
    plan = alternating([np.array([0, 2]), np.array([1, 3])], 400)
    optima = np.repeat(RNG.normal(size=(2, 3)), 2, axis=0)
    problem = Quadratics(4, 3, optima)
    found = run(plan, np.full(4, 0.5), np.arange(0, 401, 100.0), problem)
    np.testing.assert_allclose(found.model.values[0, -1], optima.mean(0), atol=1e-10)


def test_example_2_two_clients_in_turn():
    """theta tends to (q1 theta1* + q2 theta2*) / (q1 + q2) as the learning rate falls."""
    q = np.array([0.9, 0.3])
    problem = Quadratics(2, 3, OPTIMA[:2])
    plan = alternating([np.array([0]), np.array([1])], 20_000)
    for eta, tolerance in ((1e-2, 2e-2), (1e-3, 2e-3)):
        found = run(plan, q, np.array([0, 20_000.0]), problem, learning_rate=eta)
        np.testing.assert_allclose(
            found.model.values[0, -1], q @ OPTIMA[:2] / q.sum(), atol=tolerance
        )


def test_unequal_local_work_is_undone_by_fednova():
    steps, plan = np.array([1, 2, 4, 8]), schedule(everyone, fixed(np.ones(4)), 4, 3000)
    for weights, target in (
        (uniform(4), steps / steps.sum()), (fednova_weights(uniform(4), steps), uniform(4)),
    ):  # fmt: skip
        found = run(
            plan, weights, np.array([0, 3000.0]), local_steps=steps, momentum=0.0,
            learning_rate=1e-3,
        )  # fmt: skip
        np.testing.assert_allclose(found.model.values[0, -1], target @ OPTIMA, atol=5e-3)


def test_the_gradient_is_clipped_in_norm_and_learning_rates_may_differ():
    plan = schedule(everyone, fixed(np.ones(4)), 4, 1)
    rates = np.array([0.1, 0.2, 0.3, 0.4])
    found = run(plan, uniform(4), np.array([0, 1.0]), learning_rate=rates, clip=0.5)
    size = np.linalg.norm(OPTIMA, axis=1, keepdims=True)
    expected = (rates[:, None] * OPTIMA * np.minimum(1, 0.5 / size)).mean(0)
    np.testing.assert_allclose(found.model.values[0, -1], expected)


def test_surrogate_weights_are_observed_only():
    plan = schedule(first, fixed(scenario(4, 70)), 4, 6)
    surrogate = np.array([0.1, 0.2, 0.3, 0.4])
    found = run(plan, np.ones(4), np.arange(7.0), surrogate=surrogate)
    plain = run(plan, np.ones(4), np.arange(7.0))
    np.testing.assert_array_equal(found.model, plain.model)
    losses = found.client_train_loss.values[0]
    np.testing.assert_allclose(found.surrogate_train_loss.values[0], losses @ surrogate)
    spread = np.sqrt(((losses - losses @ surrogate[:, None]) ** 2) @ surrogate)
    np.testing.assert_allclose(found.surrogate_train_loss_spread.values[0], spread)
    np.testing.assert_allclose(found.surrogate_optimum.values[0, 0], surrogate @ OPTIMA)


def test_a_network_s_local_work_is_optax_sgd():
    """One client, one round: SGD with momentum on the batches that the process draws."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(40, 5)).astype(np.float32), np.arange(40) % 3
    problem = Classification(
        lambda key: nn.MLP(5, (4,), 3, key=key), DirichletSplit(y, y, 1, np.inf), x, y, x, y, 16,
    )  # fmt: skip
    plan = schedule(everyone, fixed([1.0]), 1, 1)
    process = Federated(
        problem, replay(plan, np.ones(1), np.array([0, 1.0])), learning_rate=0.3, local_steps=4
    )
    process = jax.tree.map(lambda a: jnp.asarray(a) if isinstance(a, np.ndarray) else a, process)
    state = process.init(jax.random.key(0))
    after = process.step(state).model
    key = jax.random.fold_in(state.key, 0)
    optimiser = optax.sgd(0.3, momentum=0.9)
    model, memory = state.model, optimiser.init(state.model)
    for k in range(4):
        gradient = problem.gradient(state.data, model, jnp.int32(0), jax.random.fold_in(key, k))
        updates, memory = optimiser.update(gradient, memory)
        model = optax.apply_updates(model, updates)
    for ours, theirs in zip(jax.tree.leaves(after), jax.tree.leaves(model), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6)


def test_batches_are_the_client_s_own_without_repeats():
    y = np.repeat(np.arange(4), 25)
    x = np.eye(100, dtype=np.float32)
    # A linear model's weight gradient is zero in the rows of examples outside the batch.
    problem = Classification(
        lambda key: nn.MLP(100, (), 4, key=key), DirichletSplit(y, y, 4, 0.0), x, y, x, y, 8,
    )  # fmt: skip
    data = problem.draw(jax.random.key(3))
    model = problem.start(jax.random.key(4))
    for client in range(4):
        gradient = problem.gradient(data, model, jnp.int32(client), jax.random.key(client))
        touched = np.flatnonzero(np.abs(gradient.layers[0].weight).sum(1))
        assert set(touched) <= set(np.asarray(data.train[client])) and 0 < len(touched) <= 8
        assert set(y[touched]) == {client}


def test_a_classification_run_learns_and_reports_its_clients():
    rng = np.random.default_rng(2)
    y = np.arange(300) % 3
    x = (rng.normal(size=(300, 4)) + 3 * np.eye(4)[y]).astype(np.float32)
    problem = Classification(
        lambda key: nn.MLP(4, (), 3, key=key), DirichletSplit(y, y, 5, 0.5), x, y, x, y, 16,
    )  # fmt: skip
    tau = scenario(5, 80)
    plan = schedule(first, fixed(tau), 5, 40)
    moments = np.arange(0, 41, 10.0)
    process = Federated(
        problem, replay(plan, asynchronous_weights(tau, uniform(5)), moments), learning_rate=0.05
    )
    found = unfold(process, seeds=2, steps=4, every=1, progress=False)
    assert (found.train_loss[:, -1] < 0.5 * found.train_loss[:, 0]).all()
    assert (found.test_accuracy[:, -1] > 0.8).all()
    np.testing.assert_allclose(
        found.client_test_accuracy.mean("client"), found.test_accuracy, rtol=1e-5
    )
    assert found.client_train_loss.dims == ("seed", "step", "client")


def weighed(plan, learning_rate=0.1, **more):
    return Federated(
        Quadratics(4, 2), replay(plan, np.ones(4), np.array([0, 1.0])), learning_rate=learning_rate, **more
    )  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda plan: replay(plan, np.ones(3), np.array([0, 1.0])), "one weight for each of the 4"),
        (lambda plan: replay(plan, np.ones(4), np.array([0, 1.0, 1.0])), "increase"),
        (lambda plan: replay(plan, np.ones(4), np.array([1.0, 2.0])), "increase"),
        (
            lambda plan: replay(plan, np.ones(4), np.array([0, 1.0]), discount=np.ones(2)),
            "each of the",
        ),
        (lambda plan: run(plan, np.ones(4), np.array([0, 1.0]), local_steps=0), "at least 1"),
        (lambda plan: run(plan, np.ones(4), np.array([0, 1.0]), update="add"), "difference"),
        (lambda plan: replay(plan, -np.ones(4), np.array([0, 1.0])), "weights must be finite and none below 0"),
        (lambda plan: replay(plan, np.full(4, np.nan), np.array([0, 1.0])), "weights must be finite"),
        (
            lambda plan: replay(plan, np.ones(4), np.array([0, 1.0]), discount=-np.ones(len(plan.client))),
            "discount must be finite and none below 0",
        ),
        (lambda plan: replay(plan, np.ones(4), np.array([0, 1.0, 7.0])), "7, is beyond the schedule's horizon 6"),
        (lambda plan: weighed(plan, importance=np.ones(4)), "importance must be one share .*divide by the sum"),
        (lambda plan: weighed(plan, importance=np.ones(5) / 5), "one share for each of the 4 clients"),
        (lambda plan: weighed(plan, surrogate=np.array([2, -1, 0, 0.0])), "surrogate must be one share"),
        (lambda plan: weighed(plan, importance=np.full(4, np.nan)), "importance must be one share"),
        (lambda plan: weighed(plan, learning_rate=np.array([1, 1, -1, 1.0])), "learning_rate must be finite and not below 0"),
        (lambda plan: weighed(plan, server_rate=np.nan), "server_rate must be finite"),
        (lambda plan: weighed(plan, momentum=1.0), "momentum must be at least 0 and below 1, not 1"),
        (lambda plan: weighed(plan, clip=0.0), "clip must be positive"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(schedule(first, fixed(scenario(4, 70)), 4, 6))
