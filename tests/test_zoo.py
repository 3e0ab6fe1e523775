"""Every entry that takes a network takes each of the zoo, or says what to do instead."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from zoo import CLASSES, FEATURES, LABELS, ZOO, Stateful

from latebloom import optim, probes, unfold
from latebloom.core.calling import call, how_to_call
from latebloom.core.memory import Policy
from latebloom.core.runs.program import Program
from latebloom.core.stream import Exams, Stream
from latebloom.core.training import Dataset, Supervised, gradients, trainable, update
from latebloom.losses import cross_entropy
from latebloom.methods.compression.tickets import find_ticket
from latebloom.methods.continuous.neural_ode import NeuralODE, NeuralODELearner, TanhField
from latebloom.methods.continuous.neural_sde import NeuralSDE, NeuralSDELearner
from latebloom.methods.federated.clock import everyone, fixed, schedule
from latebloom.methods.federated.training import Federated, replay
from latebloom.methods.forgetting.continual import Continual, Replay
from latebloom.methods.forgetting.distillation import FeatureDistillation, LwF
from latebloom.methods.forgetting.episodes import Episode
from latebloom.methods.forgetting.few_shot import Learner, Tuning, answers, tuned
from latebloom.methods.forgetting.few_shot import Replay as Shown
from latebloom.methods.forgetting.head_losses import HeadLoss, Together
from latebloom.methods.forgetting.method import Method
from latebloom.methods.forgetting.online_learner import OnlineLearner, _stepped
from latebloom.methods.forgetting.penalties import EWC, L2
from latebloom.methods.forgetting.projections import GEM
from latebloom.methods.forgetting.prototypes import OnPro
from latebloom.methods.forgetting.replay import ER
from latebloom.methods.forgetting.sparse_learner import SparseContinualNet
from latebloom.methods.forgetting.topology import Topology
from latebloom.methods.grokking import diagnose
from latebloom.methods.noisy_labels import (
    CoTeaching,
    EarlyLearning,
    EarlyLearningLoss,
    LabelNoise,
    NoisyData,
    find_label_errors,
)
from latebloom.methods.random_teachers import distil_features
from latebloom.methods.schedules.schedule_sweep import Problem, ScheduleSweep
from latebloom.nn import Hypernetwork
from latebloom.nn.masks import dense_masks, density, masked, prune_by_magnitude
from latebloom.probes.paths import linear_path

every = pytest.mark.parametrize("name", ZOO)
Y = jnp.asarray(LABELS)


def animal(name, seed=0):
    build, x = ZOO[name]
    return build(jax.random.key(seed)), jnp.asarray(x)


def dataset(name):
    x = jnp.asarray(ZOO[name].x)
    return Dataset(x[:30], Y[:30], x[30:], Y[30:])


def sgd(rate):
    return optax.sgd(rate)


def adam(rate):
    return optax.adam(rate, eps=1e-4)  # float16 knows no 1e-8


def dtypes(model):
    return [a.dtype for a in jax.tree.leaves(eqx.filter(model, eqx.is_array))]


def same(one, other):
    return all(
        np.array_equal(a, b)
        for a, b in zip(*(jax.tree.leaves(eqx.filter(m, eqx.is_array)) for m in (one, other)), strict=True)
    )  # fmt: skip


@every
def test_calling(name):
    model, x = animal(name)
    out = call(model, x)
    assert out.shape == (40, CLASSES)
    way = how_to_call(model, x)
    assert eqx.filter_eval_shape(way, eqx.filter_eval_shape(lambda: model), x, None, False).shape == out.shape  # fmt: skip
    one = call(model, x[:1])
    np.testing.assert_allclose(
        np.asarray(one, float), np.asarray(out[:1], float), rtol=1e-2, atol=1e-3
    )
    trained = call(model, x, jax.random.key(0), True)
    assert np.isfinite(np.asarray(trained, float)).all()
    differs = not np.allclose(np.asarray(trained, float), np.asarray(out, float), atol=1e-2)
    assert differs == (name in ("dropout", "batch norm"))


@every
def test_supervised(name):
    def movement(model, data, seen):
        return optax.tree.norm(seen.gradients).astype(jnp.float32)

    process = Supervised(
        model=ZOO[name].build, data=dataset(name), optimiser=adam, hyper={"rate": 0.03},
        loss=cross_entropy, batch_size=10, probes={"gradient": movement},
    )  # fmt: skip
    trace = unfold(process, seeds=2, steps=60, every=30, progress=False)
    loss = trace.train_loss.values
    assert (loss[:, -1] < 0.9 * loss[:, 0]).all()
    assert (trace.diverged_at == -1).all() and (trace.gradient > 0).all()


@every
def test_updates_keep_precisions_and_what_is_not_trained(name):
    model, x = animal(name)
    slopes, seen = gradients(lambda m: cross_entropy(call(m, x), Y).mean(), model)
    rule = optax.chain(optim.perp_grad(), optax.sgd(0.1))
    moved, _ = update(rule, slopes, rule.init(trainable(model)), model, seen)
    assert dtypes(moved) == dtypes(model) and not same(moved, model)
    if name == "frozen":
        for leaf in ("projection", "order", "mask", "count"):
            np.testing.assert_array_equal(getattr(moved, leaf), getattr(model, leaf))


@every
@pytest.mark.parametrize("make", [
    lambda: optim.perp_grad(), lambda: optim.perp_grad("network"),
    lambda: optim.last_iterate(optax.sgd(0.1), jnp.ones(4)),
], ids=["perp_grad", "perp_grad of the network", "last_iterate"])  # fmt: skip
def test_transformations_in_a_loop_of_ones_own(name, make):
    """As Equinox's documentation has it: the whole model's arrays, frozen and integer ones too."""
    model, x = animal(name)
    rule = make()
    state = rule.init(eqx.filter(model, eqx.is_array))

    @eqx.filter_jit
    def step(model, state):
        slopes = eqx.filter_grad(lambda m: cross_entropy(call(m, x), Y).mean())(model)
        updates, state = rule.update(slopes, state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), state

    after = model
    for _ in range(3):
        after, state = step(after, state)
    assert dtypes(after) == dtypes(model) and not same(after, model)
    assert np.isfinite(np.asarray(call(after, x), float)).all()


@every
def test_diagnose_and_the_kernel(name):
    model, x = animal(name)
    found = diagnose(model, dataset(name), initial=model, kernel_points=5)
    assert found.findings[0].name == "softmax collapse" and found.causes == ("laziness",)
    assert found.findings[2].evidence["kernel_movement"] == 0
    kernel = probes.empirical_ntk(model, x[:5])
    assert kernel.shape == (5, 5) and np.isfinite(np.asarray(kernel, float)).all()
    assert float(jnp.trace(kernel)) > 0
    assert float(probes.parameter_movement(model, model)) == 0


@every
def test_linearised(name):
    model, x = animal(name)
    for twin in (probes.Linearised(model), probes.Centred(model)):
        out = call(twin, x)
        expected = 0 if isinstance(twin, probes.Centred) else call(model, x)
        np.testing.assert_allclose(
            np.asarray(out, float),
            np.broadcast_to(np.asarray(expected, float), out.shape),
            atol=1e-2,
        )


@every
def test_paths_and_attacks(name):
    (one, x), (other, _) = animal(name), animal(name, 1)
    path = linear_path(one, other, x, Y, points=3, statistics_of=x)
    ends = [float((call(m, x).argmax(-1) != Y).mean()) for m in (one, other)]
    if name != "batch norm":
        np.testing.assert_allclose(path.errors[::2], ends, atol=1e-6)
    if name != "tokens":
        share = probes.robust_accuracy(one, x, Y, jax.random.key(0), 0.0, domain=None, steps=1)
        np.testing.assert_allclose(float(share), 1 - ends[0], atol=1e-2)


UNPRUNABLE = {"bound function"}


@every
def test_masks(name):
    model, x = animal(name)
    if name in UNPRUNABLE:
        with pytest.raises(ValueError, match="nothing to prune"):
            dense_masks(model)
        return
    masks = prune_by_magnitude(model, dense_masks(model), 0.5)
    assert 0.3 < float(density(masks)) < 0.6
    sparse = masked(model, masks)
    assert dtypes(sparse) == dtypes(model)
    assert np.isfinite(np.asarray(call(sparse, x), float)).all()


@every
def test_find_ticket(name):
    build, x = ZOO[name]
    if name in UNPRUNABLE:
        with pytest.raises(ValueError, match="nothing to prune"):
            find_ticket(build, x, LABELS, epochs=2, rounds=1, batch_size=8)
        return
    ticket = find_ticket(
        build, x, LABELS, x_test=x, y_test=LABELS, epochs=40, rounds=2, batch_size=8, optimiser=adam, rate=0.03, tolerance=1.0,
        progress=False,
    )  # fmt: skip
    assert dtypes(ticket.model) == dtypes(build(jax.random.key(0)))
    assert ticket.density < 0.7
    assert np.isfinite(np.asarray(call(ticket.model, jnp.asarray(x)), float)).all()


class Shared(eqx.Module):
    """Clients that hold the same examples."""

    build: object = eqx.field(static=True)
    x: jax.Array

    def draw(self, key):
        return ()

    def start(self, key):
        return self.build(key)

    def gradient(self, data, params, client, key):
        return eqx.filter_grad(lambda m: cross_entropy(call(m, self.x), Y).mean())(params)

    def observe(self, data, params, by):
        return {"loss": cross_entropy(call(params, self.x), Y).mean().astype(jnp.float32)}

    def quantities(self):
        return {}


@every
def test_federated(name):
    build, x = ZOO[name]
    clock = schedule(everyone, fixed([1.0, 1.0]), 2, 20.0)
    process = Federated(
        Shared(build, jnp.asarray(x)), replay(clock, np.full(2, 0.5), np.arange(21.0)),
        learning_rate=0.1, momentum=0.0,
    )  # fmt: skip
    loss = unfold(process, seeds=1, steps=20, every=10, progress=False).loss.values[0]
    assert loss[-1] < loss[0]


@every
def test_hypernetwork(name):
    model, x = animal(name)
    hyper = Hypernetwork(model, 2, (8,), key=jax.random.key(1))
    settings = jnp.full((3, 2), 0.5)
    weights = hyper.weights(settings)
    primary = hyper.primary(settings[0])
    assert dtypes(primary) == dtypes(model)
    assert np.isfinite(np.asarray(call(primary, x), float)).all()
    assert all(len(w) == 3 for w in jax.tree.leaves(weights))


@every
def test_early_learning(name):
    x = jnp.asarray(ZOO[name].x)
    data = NoisyData(x[:24], Y[:24], x[32:], Y[32:], x[24:32], Y[24:32], LabelNoise(0.2, CLASSES))
    process = EarlyLearning(
        model=ZOO[name].build, data=data, optimiser=adam, hyper={"rate": 0.03}, batch_size=8,
        loss=EarlyLearningLoss(jnp.float32(1.0)),
    )  # fmt: skip
    trace = unfold(process, seeds=1, steps=40, progress=False)
    loss = trace.train_loss.values[0]
    assert loss[-1] < loss[0]


@every
def test_co_teaching(name):
    x = jnp.asarray(ZOO[name].x)
    data = NoisyData(x[:24], Y[:24], x[32:], Y[32:], x[24:32], Y[24:32], LabelNoise(0.2, CLASSES))
    process = CoTeaching(
        model=ZOO[name].build, data=data, optimiser=adam, hyper={"rate": 0.03}, batch_size=8, forget=0.2
    )  # fmt: skip
    loss = unfold(process, seeds=1, steps=40, progress=False).train_loss.values[0]
    assert loss[-1] < loss[0]


def two_tasks(key):
    """Classes 0 and 1, then class 2, in batches of 6."""
    first, second = (np.flatnonzero(np.isin(LABELS[:30], of)) for of in ([0, 1], [2]))
    rows = np.concatenate([np.resize(first, (20, 6)), np.resize(second, (20, 6))])
    asked = np.stack([np.resize(np.flatnonzero(np.isin(LABELS[30:], of)), 6) for of in ([0, 1], [2])])  # fmt: skip
    return Stream(
        rows=jnp.asarray(rows), task=jnp.repeat(jnp.arange(2), 20),
        classes=jnp.array([[True, True, False], [False, False, True]]),
        exams=Exams(jnp.asarray(asked), jnp.arange(2), jnp.array([0, 20])), starts=(0, 20),
    )  # fmt: skip


FORGETTING = {
    "fine-tuning": Method(), "er": ER(), "ewc": EWC(1.0, batches=2), "gem": GEM(2, 6, 0.1), "lwf": LwF(),
    "together": HeadLoss(Together((LwF(1.0, 1.0, "each"), L2(0.1), EWC(1.0, batches=2))), "bce"),
}  # fmt: skip


def continual(name, method):
    return Continual(
        model=ZOO[name].build, data=dataset(name), stream=two_tasks, method=FORGETTING[method],
        optimiser=adam, hyper={"rate": 0.03}, replay=Replay(12, 6, Policy("task", "first", 6), at="task"),
        tell=True,
    )  # fmt: skip


LEARNED = dict(zip(ZOO, list(FORGETTING) * 3, strict=False))  # by turns
TRACED = [
    (name, method) for name in ("frozen", "batch norm", "dropout", "bfloat16", "float16")
    for method in FORGETTING if method != LEARNED[name]
]  # fmt: skip


def traced(name, method):
    program = Program(continual(name, method))  # steps and turns that change a type are refused
    before = map(str, dtypes(program.process.model(jax.random.key(0))))
    state = zip(program.paths, program.state, strict=True)
    assert sorted(str(x.dtype) for path, x in state if path.startswith(".model")) == sorted(before)


@every
def test_continual(name):
    process = continual(name, LEARNED[name])
    trace = unfold(process, steps=40, every=20, progress=False)
    assert (trace.diverged_at == -1).all() and np.isfinite(trace.accuracy.values[:, -1]).all()
    # After the first task, against the loss of one that knows nothing: softmax, or three sigmoids summed.
    ignorant = 3 * np.log(2) if LEARNED[name] == "together" else np.log(3)
    assert trace.new_loss[0, 1] < 0.91 * ignorant
    traced(name, LEARNED[name])


@every
def test_few_shot_tuning(name):
    model, x = animal(name)
    rows = jnp.asarray([np.flatnonzero(LABELS == c)[:6] for c in range(CLASSES)])
    episode = Episode(rows, Y[rows], rows.ravel(), Y[rows].ravel(), Y[rows].ravel())
    learner, tuning = Learner(model, eqx.nn.Identity()), Tuning(0.05, 4, Shown(6, 2))
    after = eqx.filter_jit(tuned)(learner, x, episode, tuning, jax.random.key(0))
    assert jax.tree.structure(after) == jax.tree.structure(learner)
    assert list(map(str, dtypes(after))) == list(map(str, dtypes(learner)))
    for statistics in ("batch", "running"):
        logits = answers(after, x[episode.target_rows], statistics)
        assert logits.shape == (18, CLASSES) and np.isfinite(logits.astype(jnp.float32)).all()
    assert (answers(after, x) != answers(learner, x)).any()


@pytest.mark.parametrize(("name", "method"), TRACED)
def test_continual_keeps_precisions(name, method):
    traced(name, method)


def head_of(model):
    return model.readout if hasattr(model, "readout") else model.layers[-1]


@pytest.mark.parametrize("name", [name for name in ZOO if name != "bound function"])
def test_features_and_a_free_head(name):
    """Steps and turns keep precisions."""
    weighted = bool(list(ZOO).index(name) % 2)
    held = L2(0.1, head=head_of), EWC(1.0, batches=2, head=head_of)
    method = Together((FeatureDistillation(0.1, head=head_of, weighted=weighted), *held))
    process = Continual(
        model=ZOO[name].build, data=dataset(name), stream=two_tasks, method=HeadLoss(method),
        optimiser=adam, hyper={"rate": 0.03}, head="seen",
    )  # fmt: skip
    program = Program(process)
    before = map(str, dtypes(process.model(jax.random.key(0))))
    state = zip(program.paths, program.state, strict=True)
    assert sorted(str(x.dtype) for path, x in state if path.startswith(".model")) == sorted(before)


@every
def test_online_learner(name):
    learner = OnlineLearner(
        ZOO[name].build, CLASSES, memory=12, replay=6, batch_size=5, projected=2, watch=0,
        optimiser=adam(0.03), method=OnPro(lambda x, key: x, copies=1),
    )  # fmt: skip
    x = np.asarray(ZOO[name].x)
    if name == "tokens":
        with pytest.raises(ValueError, match="floating-point numbers"):
            learner.observe(x, LABELS)
        return
    state = learner._started(x.shape[1:], x.dtype)
    asked = learner.method, learner._rule, 6, state, jnp.asarray(x[:5]), Y[:5], jnp.ones(5, bool)
    more = jnp.int32(1), jnp.array(False), jnp.ones(CLASSES, bool)
    after = eqx.filter_eval_shape(_stepped, *asked, *more)
    told = [x.dtype for x in jax.tree.leaves(after.model) if isinstance(x, jax.ShapeDtypeStruct)]
    assert told == dtypes(state.model)
    if name in ("batch norm", "bfloat16"):
        learner.observe(x, LABELS)
        assert not same(learner.model, state.model) and np.isfinite(learner.scores(x)).all()
        assert dtypes(learner.model) == dtypes(state.model)


@every
def test_sparse_continual_net(name):
    build, x = ZOO[name]
    if name in UNPRUNABLE:
        with pytest.raises(ValueError, match="nothing to prune"):
            SparseContinualNet(build(jax.random.key(0)))
        return
    model = build(jax.random.key(0))
    net = SparseContinualNet(model, Topology(0.6, updates=0), optimiser=adam(0.03))
    parts = {"two": np.flatnonzero(LABELS < 2)[:12], "one": np.flatnonzero(LABELS == 2)[:12]}
    net.learn("two", x[parts["two"]], LABELS[parts["two"]], epochs=2, batch_size=6)
    before = net.scores("two", x)
    net.learn("one", x[parts["one"]], LABELS[parts["one"]], epochs=2, batch_size=6)
    np.testing.assert_array_equal(net.scores("two", x), before)
    assert dtypes(net.model) == dtypes(model) and not same(net.model, model)
    assert np.isfinite(before.astype(np.float32)).all()


@every
def test_suspect_labels(name):
    build, x = ZOO[name]
    if x.dtype != np.float32:  # what goes in is standardised, in single precision
        return
    x, given = np.tile(x, (4, 1)), np.tile(LABELS, 4)
    given[:3] = (given[:3] + 1) % CLASSES
    found = find_label_errors(x, given, network=build, epochs=40, rate=0.1, seeds=1, progress=False)
    assert type(found.networks[0]) is type(build(jax.random.key(0)))
    if name != "recurrent":  # it has not told the classes apart after so few epochs
        assert set(found.table["id"][:10]) & {0, 1, 2}


@every
def test_distilled_features(name):
    build, x = ZOO[name]
    if x.dtype != np.float32:
        return
    found = distil_features(
        x, encoder=build, steps=20, alpha=1.0, hidden=8, bottleneck=4, outputs=16, progress=False
    )
    assert found.features(x).shape == (40, CLASSES) and found.divergence[1] < found.divergence[0]


@every
def test_schedule_sweeps(name):
    build, x = ZOO[name]
    if name in ("tokens", "batch norm"):  # it takes features, and moves no running statistics
        return
    problem = Problem(jnp.asarray(x), Y, build, CLASSES, 30, 10, optax.identity(), "l2")
    sweep = ScheduleSweep(problem, jnp.full((30, 2), 0.2), ("one", "two"))
    trace = unfold(sweep, seeds=1, steps=30, progress=False)
    loss = trace[next(str(name) for name in trace if "loss" in str(name) and "train" in str(name))]
    assert (loss.isel(step=-1) < loss.isel(step=0)).all()


STATE = "bind the rest"


@pytest.mark.parametrize("entry", [
    lambda m: call(m, FEATURES), lambda m: diagnose(m, dataset("one example")),
    lambda m: probes.empirical_ntk(m, jnp.asarray(FEATURES)),
    lambda m: unfold(Supervised(model=lambda key: m, data=dataset("one example"), optimiser=sgd,
                                hyper={"rate": 0.1}, loss=cross_entropy), steps=1),
], ids=["call", "diagnose", "empirical_ntk", "Supervised"])  # fmt: skip
def test_a_network_with_a_state_is_told_what_to_do(entry):
    model, state = eqx.nn.make_with_state(Stateful)(jax.random.key(0))
    with pytest.raises(ValueError, match=STATE):
        entry(model)
    found = diagnose(jax.tree_util.Partial(lambda m, x: m(x, state)[0], eqx.nn.inference_mode(model)), dataset("one example"))  # fmt: skip
    assert 0 <= found.test_accuracy <= 1


def test_what_takes_neither_a_batch_nor_an_example_is_told_so():
    model = eqx.nn.MLP(5, 3, 8, 1, key=jax.random.key(0))
    with pytest.raises(
        ValueError, match=r"neither a batch \[n, 6\] of float32: .*; nor one example \[6\]:"
    ):
        call(model, FEATURES)
    with pytest.raises(ValueError, match="no floating-point arrays"):
        diagnose(lambda x: x[:, :3], dataset("one example"))


@every
def test_neural_equations(name):
    """As the readout of an ordinary equation, of features alone, and as what stands before a stochastic one."""
    build, x = ZOO[name]

    class Slope(eqx.Module):
        weight: jax.Array

        def __call__(self, t, z):
            return jnp.tanh(z @ self.weight)

    def ordinary(key):
        return NeuralODE(TanhField(6, 4, key=key), build(key), rtol=1e-2, atol=1e-2, max_steps=64)

    def stochastic(key):
        slope = Slope(jax.random.normal(key, (CLASSES, CLASSES)))
        after = eqx.nn.Linear(CLASSES, CLASSES, key=key)
        return NeuralSDE(
            build(key), slope, slope, after, rtol=0.1, atol=0.1, max_steps=256, trajectories=1
        )

    for kind, model in ((NeuralODELearner, ordinary), (NeuralSDELearner, stochastic)):
        if kind is NeuralODELearner and name == "tokens":
            with pytest.raises(TypeError, match="real floating-point"):
                ordinary(jax.random.key(0))(jnp.asarray(x))
            continue
        process = kind(model=model, data=dataset(name), optimiser=adam, hyper={"rate": 0.03}, loss=cross_entropy,
                       penalty="error", strengths=0.1)  # fmt: skip
        state = process.init(jax.random.key(0))
        after, info = eqx.filter_jit(process.step)(state)
        assert dtypes(after.model) == dtypes(state.model) and not same(after.model, state.model)
        assert all(np.isfinite(np.asarray(v, float)).all() for v in info.values())
        for leaf in jax.tree.leaves(eqx.filter(after.model, eqx.is_inexact_array)):
            assert np.isfinite(np.asarray(leaf, float)).all()
