"""Refresh and its controls: displacements against NumPy, and hosts that run as without where nothing moves."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
import zoo
from small_world import (
    CLASSES,
    DATA,
    RATE,
    STREAM,
    X,
    Y,
    arrays,
    batch,
    continual,
    entropy,
    flat,
    leaves,
    network,
    plus,
    sgd,
    times,
    walk,
)

from latebloom import unfold
from latebloom.core.calling import call
from latebloom.core.dataset import Dataset
from latebloom.core.runs.program import Program
from latebloom.core.statistics import trainable_leaves
from latebloom.core.stream import Exams, Stream
from latebloom.methods.forgetting.around import Around
from latebloom.methods.forgetting.confidence import CPR
from latebloom.methods.forgetting.continual import Continual, Replay
from latebloom.methods.forgetting.method import Batch, Lesson, Method
from latebloom.methods.forgetting.objective import Objective, Output, Weight
from latebloom.methods.forgetting.penalties import EWC, SI
from latebloom.methods.forgetting.perturbed import SAM, ExtraStep, RandomStep, WeightNoise
from latebloom.methods.forgetting.projections import AGEM
from latebloom.methods.forgetting.refresh import (
    Refresh,
    ReleasedRefresh,
    perturbation_alert,
    preconditioner,
)
from latebloom.methods.forgetting.replay import DER, ER, SCR

ROWS = np.arange(5)
KEY = jax.random.key(7)


def lesson(model_of=call, rows=ROWS, batches=None):
    """The first rows as a step's batch, or `batches` of as many as those of a task that is over."""
    allowed = jnp.ones((len(rows), CLASSES), bool)
    x, y = DATA.x_train[rows], DATA.y_train[rows]
    new = Batch(x, y, jnp.zeros_like(y), allowed, jnp.ones(len(rows), bool))
    if batches is not None:
        new = jax.tree.map(lambda a: a.reshape(batches, -1, *a.shape[1:]), new)
    return Lesson(
        lambda m, x: model_of(m, x, KEY, True), lambda m, x: model_of(m, x), new, None, None,
        jnp.int32(0), jnp.array(False), jnp.ones(CLASSES, bool), None, lambda *_: new,
    )  # fmt: skip


def fisher(params, rows, by_probability=False):
    """Mean square of each example's gradient, in NumPy."""
    found = [np.zeros_like(p) for p in params]
    for row in rows:
        loss, g = entropy(params, X[row : row + 1].astype(float), Y[row : row + 1])
        share = np.exp(-loss) if by_probability else 1.0
        found = plus(found, [share * x**2 / len(rows) for x in g])
    return found


@eqx.filter_jit
def place(method, model, own, key=KEY, batch_rows=ROWS):
    found = method.displaced(model, own, lesson(rows=batch_rows), key)
    return found.start, found.at, found.own, dict(found.told)


def moved(method, own=None, key=KEY, model=None):
    """Where a network of NumPy's gradients is moved: before, at, own, what is told."""
    model = network(jax.random.key(3)) if model is None else model
    own = method.init(model, STREAM) if own is None else own
    start, at, own, told = place(method, model, own, key)
    return arrays(model), arrays(start), arrays(at), own, told


def up(params, rows=ROWS):
    return entropy(params, X[rows].astype(float), Y[rows])[1]


@pytest.mark.parametrize("gamma", [0.2, jnp.float32(0.2)], ids=["number", "array"])
def test_two_steps_up_and_the_loss_rises(gamma):
    method = Refresh(Method(), gamma, 2, fisher="none", temperature=0.0, every=1)
    before, start, at, _, told = moved(method)
    expected = before
    for _ in range(2):
        expected = plus(expected, times(0.2, up(expected)))
    np.testing.assert_allclose(flat(at), flat(expected), atol=1e-6)
    assert flat(start).tolist() == flat(at).tolist()
    ratio = np.linalg.norm(flat(at) - flat(before)) / np.linalg.norm(flat(before))
    np.testing.assert_allclose(told["perturbation"], ratio, rtol=1e-4)
    rise = entropy(at, X[ROWS], Y[ROWS])[0] - entropy(before, X[ROWS], Y[ROWS])[0]
    np.testing.assert_allclose(told["unlearned"], rise, rtol=1e-3)
    assert rise > 0


@pytest.mark.parametrize(("objective", "shares"), [("all", (0.3, 0.7)), ("new", (1.0, 0.0))])
def test_it_goes_up_all_that_the_host_minimises_or_the_new_batch_alone(objective, shares):
    new = lesson()
    there = np.array([True, True, False, True, True])
    old = np.arange(20, 25)
    held = new.new._replace(x=DATA.x_train[old], y=DATA.y_train[old], there=jnp.asarray(there))
    method = Refresh(ER(0.3), 0.2, objective=objective, fisher="none", every=1)
    model = network(jax.random.key(3))
    own = method.init(model, STREAM)
    at = eqx.filter_jit(lambda m, k: method.displaced(m, own, new._replace(old=held), k).at)(
        model, KEY
    )
    params = arrays(model)
    expected = plus(
        params, times(0.2 * shares[0], up(params)), times(0.2 * shares[1], up(params, old[there]))
    )
    np.testing.assert_allclose(flat(arrays(at)), flat(expected), atol=1e-6)


def test_the_preconditioner_is_a_damped_inverse_of_the_fisher_matrix():
    method = Refresh(Method(), 0.2, temperature=0.0, damping=0.5, decay=0.3, every=1, batches=2)
    model = network(jax.random.key(3))
    rows = np.arange(8)
    first = method.init(model, STREAM)
    assert (
        method.looks_back == 2
        and method.does("turn")
        and not Refresh(ER(), fisher="none").does("turn")
    )
    own = eqx.filter_jit(lambda m, o: method.turn(m, o, lesson(rows=rows, batches=2)))(model, first)
    params = arrays(model)
    found = fisher(params, rows)
    np.testing.assert_allclose(flat(leaves(own.mine.fisher)), flat(found), rtol=1e-4, atol=1e-8)
    floor = 0.5 * flat(found).mean()
    share = [floor / (f + floor) for f in found]
    _, _, at, _, _ = moved(method, own)
    expected = plus(params, [0.2 * s * g for s, g in zip(share, up(params), strict=True)])
    np.testing.assert_allclose(flat(at), flat(expected), atol=1e-6)
    np.testing.assert_array_equal(preconditioner({"w": jnp.zeros(3)}, 1.0)["w"], np.ones(3))


def test_a_running_fisher_matrix_is_of_the_gradients_on_the_way():
    method = Refresh(Method(), 0.2, 2, fisher="step", temperature=0.0, decay=0.75, every=1)
    before, _, at, own, _ = moved(method)
    expected, f = before, [np.zeros_like(p) for p in before]
    for _ in range(2):
        g = up(expected)
        f = plus(times(0.75, f), [0.25 * x**2 for x in g])
        floor = flat(f).mean()
        expected = plus(
            expected, [0.2 * x * floor / (y + floor) for x, y in zip(g, f, strict=True)]
        )
    np.testing.assert_allclose(flat(at), flat(expected), atol=1e-6)
    np.testing.assert_allclose(flat(leaves(own.mine.fisher)), flat(f), rtol=1e-3, atol=1e-9)


def test_the_noise_has_the_variance_of_a_langevin_step():
    gamma, temperature = 0.05, 0.4
    noisy = Refresh(Method(), gamma, fisher="none", temperature=temperature, every=1)
    plain = Refresh(Method(), gamma, fisher="none", temperature=0.0, every=1)
    still = flat(moved(plain)[2])
    draws = np.stack([flat(moved(noisy, key=jax.random.key(i))[2]) - still for i in range(60)])
    spread = 2 * gamma * temperature
    assert abs(draws.mean()) < 4 * np.sqrt(spread / draws.size)
    assert abs((draws**2).mean() / spread - 1) < 4 * np.sqrt(2 / draws.size)
    assert np.abs(np.corrcoef(draws[:, 0], draws[:, 1])[0, 1]) < 0.5


def test_the_released_form_scales_each_tensor_to_its_length():
    method = ReleasedRefresh(Method(), 0.01, tau=0.5, noise=0.0, weight=3.0, batches=2)
    model = network(jax.random.key(3))
    model = eqx.tree_at(lambda m: m.layers[0].bias, model, jnp.zeros(5))
    rows = np.arange(8)
    one = method.init(model, STREAM)
    turn = eqx.filter_jit(lambda m, o: method.turn(m, o, lesson(rows=rows, batches=2)))
    own = turn(model, turn(model, one))
    params = arrays(model)
    found = times(1.5, fisher(params, rows, by_probability=True))
    np.testing.assert_allclose(flat(leaves(own.mine.fisher)), flat(found), rtol=1e-4, atol=1e-8)
    before, start, at, _, _ = moved(method, own, model=model)
    expected = [
        p + 0.01 * g * np.linalg.norm(p) / np.linalg.norm(g) / (1 + 3 * f)
        for p, g, f in zip(params, up(params), found, strict=True)
    ]
    np.testing.assert_allclose(flat(at), flat(expected), atol=1e-6)
    np.testing.assert_array_equal(at[1], before[1])  # a tensor of zeros stays


def test_as_shipped_it_moves_by_a_hundred_thousandth_and_the_noise_is_small():
    told = moved(ReleasedRefresh(Method()))[4]
    assert 0.9e-5 < told["perturbation"] < 1.1e-5


def test_controls_move_as_they_say():
    before, start, at, _, _ = moved(ExtraStep(Method(), 0.2))
    np.testing.assert_allclose(flat(at), flat(plus(before, times(-0.2, up(before)))), atol=1e-6)
    assert flat(start).tolist() == flat(at).tolist()
    before, start, at, _, _ = moved(SAM(Method(), 0.3))
    g = flat(up(before))
    np.testing.assert_allclose(flat(at), flat(before) + 0.3 * g / np.linalg.norm(g), atol=1e-6)
    assert flat(start).tolist() == flat(before).tolist()
    before, _, at, _, _ = moved(RandomStep(Method(), 0.3))
    move = flat(at) - flat(before)
    np.testing.assert_allclose(np.linalg.norm(move), 0.3 * np.linalg.norm(g), rtol=1e-4)
    assert abs(move @ g) < 0.7 * np.linalg.norm(move) * np.linalg.norm(g)
    before, _, at, _, _ = moved(WeightNoise(Method(), 0.1))
    for a, b in zip(at, before, strict=True):
        np.testing.assert_allclose(np.linalg.norm(a - b), 0.1 * np.linalg.norm(b), rtol=1e-4)


def test_every_second_update_is_refreshed_and_sam_comes_back():
    for wrapper in (Refresh(Method(), 0.2, fisher="none", temperature=0.0), SAM(Method(), 0.2, 2)):
        walked = [w for w in walk(continual(wrapper), steps=4) if w[0] == "step"]
        for i, (_, before, after, _) in enumerate(walked):
            params, (x, y) = arrays(before.model), batch(before)
            g = entropy(params, x, y)[1]
            at = params
            if i % 2 == 0:
                by = 0.2 if isinstance(wrapper, Refresh) else 0.2 / np.linalg.norm(flat(g))
                at = plus(params, times(by, g))
            slope = times(RATE, entropy(at, x, y)[1])
            start = at if isinstance(wrapper, Refresh) else params
            np.testing.assert_allclose(
                flat(arrays(after.model)), flat(plus(start, times(-1, slope))), atol=3e-6
            )


SIX = Replay(6, 6)
HOSTS = {
    "DER++": (DER(), SIX), "SI": (SI(), None), "A-GEM": (AGEM(), SIX), "SCR": (SCR(call), SIX),
    "CPR of EWC": (CPR(EWC(2.0, batches=2), 0.3), None),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_runs_as_without_where_nothing_moves(name):
    host, replay = HOSTS[name]
    wrapped = Refresh(host, 0.0, temperature=0.0, batches=3, every=1)
    plain, around = (
        unfold(continual(m, replay=replay, tell=True), seeds=1, steps=10, every=1, progress=False)
        for m in (host, wrapped)
    )
    for what in ("accuracy", "plasticity", "stability", "new_loss", "old_loss"):
        np.testing.assert_allclose(plain[what], around[what], rtol=2e-3, atol=2e-5)
    assert (around.perturbation[:, 1:] == 0).all() and "perturbation" not in plain


def test_entropy_is_taken_off_the_hosts_loss():
    for _, before, after, _ in walk(continual(CPR(Method(), 0.7)), steps=2):
        params, (x, y) = arrays(before.model), batch(before)
        h = 1e-5

        def objective(v, like=params, x=x, y=y):
            parts, at = [], 0
            for p in like:
                parts.append(v[at : at + p.size].reshape(p.shape))
                at += p.size
            z = np.tanh(x @ parts[0] + parts[1]) @ parts[2] + parts[3]
            p = np.exp(z - z.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            return (-np.log(p[np.arange(len(y)), y]) + 0.7 * (p * np.log(p)).sum(1)).mean()

        v = flat(params)
        g = [(objective(v + h * e) - objective(v - h * e)) / (2 * h) for e in np.eye(len(v))]
        np.testing.assert_allclose(v - flat(arrays(after.model)), RATE * np.array(g), atol=3e-6)


def test_statistics_are_those_of_the_pass_that_trains():
    from latebloom.nn.norm import BatchNorm

    class Net(eqx.Module):
        norm: BatchNorm
        out: eqx.nn.Linear

        def __call__(self, x, *, key=None, train=False):
            return jax.vmap(self.out)(self.norm(x, train=train))

    def net(key):
        return Net(BatchNorm(X.shape[1]), eqx.nn.Linear(X.shape[1], CLASSES, key=key))

    ends = [
        walk(continual(method, replay=SIX, model=net), steps=2)[-1][2].model.norm
        for method in (ER(), CPR(Refresh(ER(), 0.0, fisher="none", temperature=0.0, every=1), 0.0))
    ]
    np.testing.assert_allclose(ends[0].mean, ends[1].mean, atol=1e-6)
    np.testing.assert_allclose(ends[0].variance, ends[1].variance, atol=1e-6)
    assert not np.allclose(ends[0].mean, 0)


def test_half_precision_stays_and_a_tiny_push_is_told_to_be_none():
    def net(key):
        params, rest = eqx.partition(network(key), trainable_leaves(network(key)))
        return eqx.combine(jax.tree.map(lambda p: p.astype(jnp.bfloat16), params), rest)

    process = continual(ReleasedRefresh(Method(), batches=2), model=net, tell=True)
    after = eqx.filter_jit(type(process).step)(process, process.init(jax.random.key(0)))
    assert {
        p.dtype for p in jax.tree.leaves(eqx.filter(after.state.model, eqx.is_inexact_array))
    } == {jnp.dtype(jnp.bfloat16)}
    assert float(after.info["perturbation"]) < 1e-5


@pytest.mark.parametrize(
    ("values", "said"),
    [([np.nan, 2e-5], "host without"), ([np.nan, 0.01], None), ([0.01, 0.3], "30% of the parameters")],
)  # fmt: skip
def test_the_alert(values, said):
    found = perturbation_alert(xr.Dataset({"perturbation": (("seed", "step"), [values])}))
    assert found is None if said is None else said in found


@pytest.mark.parametrize(
    ("rise", "said"), [(2e-4, "nothing is unlearned"), (-2e-4, "nothing is"), (5e-3, None), (-0.1, None)]
)  # fmt: skip
def test_noise_that_leaves_the_loss_as_it_was_is_told(rise, said):
    values = {"perturbation": 0.03, "unlearned": rise, "new_loss": 0.4, "old_loss": 0.1}
    found = perturbation_alert(
        xr.Dataset({k: (("seed", "step"), [[np.nan, v]]) for k, v in values.items()})
    )
    assert found is None if said is None else said in found


@pytest.mark.filterwarnings("ignore:seed 0 diverged")
def test_a_run_that_diverged_is_told_whatever_is_left_of_it():
    for values in ([[np.nan, 0.03], [np.nan, np.nan]], [[np.nan] * 2] * 2):
        trace = xr.Dataset(
            {"perturbation": (("seed", "step"), values)}, {"diverged_at": ("seed", [-1, 30])}
        )
        assert "1 of 2 seeds diverged, the first after 30 updates" in perturbation_alert(trace)
    for gamma, said in ((1e38, "1 of 1 seeds diverged"), (1e30, "reach inf% of the parameters")):
        wild = Refresh(Method(), jnp.float32(gamma), fisher="none", temperature=1.0, every=1)
        run = unfold(continual(wild, tell=True), seeds=1, steps=4, every=1, progress=False)
        assert said in perturbation_alert(run)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Refresh("er"), "must be a Method"),
        (lambda: Refresh(SAM(ER(), 0.1)), "SAM moves the parameters"),
        (lambda: SAM(CPR(Refresh(ER())), 0.1), "CPR moves the parameters"),
        (lambda: Refresh(ER(), -1.0), "gamma of Refresh"),
        (lambda: Refresh(ER(), float("nan")), "gamma of Refresh"),
        (lambda: Refresh(ER(), damping=0.0), "damping of Refresh"),
        (lambda: Refresh(ER(), decay=1.5), "decay of Refresh"),
        (lambda: Refresh(ER(), steps=0), "steps of Refresh"),
        (lambda: Refresh(ER(), every=0), "every of Refresh"),
        (lambda: Refresh(ER(), objective="old"), "objective of Refresh"),
        (lambda: Refresh(ER(), fisher="on"), "fisher of Refresh"),
        (lambda: ReleasedRefresh(ER(), -1e-5), "delta of ReleasedRefresh"),
        (lambda: WeightNoise(ER(), np.array([0.1, -0.1])), "size of WeightNoise"),
        (lambda: CPR(ER(), -0.1), "strength of CPR"),
        (lambda: perturbation_alert(xr.Dataset()), "tell=True"),
        (lambda: perturbation_alert(xr.Dataset({"perturbation": ("step", [np.nan])})), "no update"),
        (lambda: continual(Refresh(Method(), batches=4)), "looks back on 4 batches"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_a_method_around_another_asks_it_what_it_does():
    assert not Around(Method()).does("moved") and Around(SI()).does("moved")
    assert CPR(ER()).replays and not CPR(EWC()).replays


def two_tasks(key):
    rows = np.random.default_rng(1).permutation(30)[:24].reshape(4, 6)
    return Stream(
        rows=jnp.asarray(rows, jnp.int32), task=jnp.array([0, 0, 1, 1], jnp.int32),
        classes=jnp.ones((2, zoo.CLASSES), bool),
        exams=Exams(jnp.arange(10, dtype=jnp.int32).reshape(2, 5), jnp.arange(2), jnp.array([0, 2])), starts=(0, 2),
    )  # fmt: skip


AROUND = {
    "refresh": lambda: Refresh(ER(), jnp.float32(0.01), 2, batches=2, every=2),
    "running": lambda: Refresh(EWC(batches=1), fisher="step", every=1),
    "released": lambda: ReleasedRefresh(CPR(ER()), batches=2),
    "SAM": lambda: SAM(SI(), jnp.float32(0.1), 2),
    "step": lambda: ExtraStep(ER(), 0.1),
    "noise": lambda: WeightNoise(DER(), 0.1),
    "random": lambda: RandomStep(ER(), 0.1),
    "objective": lambda: Objective(
        (Output(1.0, "square", "stored"), Output(1.0, "entropy", "teacher", "other")),
        (Weight(1.0, "path"), Weight(jnp.float32(1.0), "fisher", batches=2)),
    ),
}
ODD = ("tied", "frozen", "bound function", "batch norm", "dropout", "bfloat16", "float16", "tokens")


ANIMALS = [*zip(ODD, AROUND, strict=True), ("float16", "refresh"), ("bfloat16", "released")]


@pytest.mark.parametrize(("name", "method"), ANIMALS)
def test_awkward_networks_keep_what_they_are(name, method):
    build, x = zoo.ZOO[name]
    x, y = jnp.asarray(x), jnp.asarray(zoo.LABELS)
    process = Continual(
        model=build, data=Dataset(x[:30], y[:30], x[30:], y[30:]), stream=two_tasks, method=AROUND[method](),
        optimiser=sgd, hyper={"rate": 0.1}, replay=Replay(12, 6), tell=True,
    )  # fmt: skip
    program = Program(process)  # steps and turns that change a type are refused
    before = jax.tree.leaves(eqx.filter(build(jax.random.key(0)), eqx.is_array))
    state = zip(program.paths, program.state, strict=True)
    kinds = sorted(str(a.dtype) for path, a in state if path.startswith(".model"))
    assert kinds == sorted(str(a.dtype) for a in before)


def test_by_default_there_is_no_noise():
    """With the paper's, a gamma at which the step up is worth anything destroys what was learned."""
    assert Refresh(Method()).temperature == 0
