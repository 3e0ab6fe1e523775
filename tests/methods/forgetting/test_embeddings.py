"""Forgetting of embeddings in anybody's loop: what moves, what is drawn, whose moments start anew."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latebloom.methods.forgetting.embeddings import (
    Forgetting,
    chance_of_occurring,
    forgetting,
    noised,
)

RATE = 0.1


class Tiny(eqx.Module):
    embedding: jax.Array
    body: jax.Array
    empty: None = None


def tiny(dtype=jnp.float32) -> Tiny:
    return Tiny(jnp.arange(6.0, dtype=dtype).reshape(3, 2), jnp.array([1.0, -2.0], dtype))


def slopes(params: Tiny, step: int) -> Tiny:
    """Gradients that depend on the step alone."""
    return jax.tree.map(lambda x: jnp.full_like(x, (-1.0) ** step * (step + 1)), params)


def walk(rule, params, steps):
    state, path = rule.init(params), []
    update = jax.jit(rule.update)
    for step in range(steps):
        updates, state = update(slopes(params, step), state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path, state


def adam(gradients: list[float]) -> float:
    """The sum of Adam's updates by its formula (Kingma and Ba 2015, algorithm 1)."""
    first = second = moved = 0.0
    for t, g in enumerate(gradients, 1):
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        moved -= RATE * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    return moved


def told(first: int, last: int) -> list[float]:
    return [(-1.0) ** s * (s + 1) for s in range(first, last)]


@pytest.mark.parametrize("moments", [True, False])
def test_embeddings_are_drawn_anew_and_the_body_never(moments):
    how = Forgetting(every=3, until=7, spread=2.0, moments=moments)
    rule = forgetting(optax.adam(RATE), lambda m: m.embedding, how, key=jax.random.key(0))
    path, _ = walk(rule, tiny(), 9)
    for t in range(9):
        assert np.allclose(path[t].body - tiny().body, adam(told(0, t + 1)), atol=1e-5)
    # Before the first reset, between them, and after the last (7 is none: it ends before 7).
    assert np.allclose(path[1].embedding - tiny().embedding, adam(told(0, 2)), atol=1e-5)
    for reset in (3, 6):
        jump = np.asarray(path[reset - 1].embedding - path[reset - 2].embedding)
        assert np.std(jump - jump.mean()) > 0.3  # an update of Adam's would move all alike
    after = path[8].embedding - path[5].embedding
    whole = adam(told(0, 9)) - adam(told(0, 6))
    assert np.allclose(after, adam(told(6, 9)) if moments else whole, atol=1e-5)


@pytest.mark.parametrize("moments", [True, False])
def test_a_schedule_of_the_embeddings_starts_anew_and_that_of_the_rest_goes_on(moments):
    """With slopes of 1 plain descent moves by the rate of that update."""
    body, own = optax.linear_schedule(0.0, 9.0, 9), optax.linear_schedule(0.0, -20.0, 2)
    how = Forgetting(every=3, until=7, moments=moments)
    for embeddings, rate in ((None, body), (optax.sgd(own), own)):
        rule = forgetting(optax.sgd(body), lambda m: m.embedding, how, key=jax.random.key(0), embeddings=embeddings)  # fmt: skip
        params, ones = tiny(), jax.tree.map(jnp.ones_like, tiny())
        state, update = rule.init(params), jax.jit(rule.update)
        for step in range(9):
            updates, state = update(ones, state, params)
            assert np.allclose(updates.body, -body(step), atol=1e-5)
            if step + 1 not in (3, 6):
                since = step % 3 if moments and step < 6 else step - 6 if moments else step
                assert np.allclose(updates.embedding, -rate(since), atol=1e-5)
            params = optax.apply_updates(params, updates)


def test_what_is_drawn_has_the_deviation_and_differs():
    how = Forgetting(every=1, spread=0.5)
    params = Tiny(jnp.ones((400, 50)), jnp.zeros(2))
    rule = forgetting(optax.sgd(RATE), lambda m: m.embedding, how, key=jax.random.key(1))
    path, _ = walk(rule, params, 2)
    for at in path:
        assert np.mean(at.embedding) == pytest.approx(0, abs=0.02)
        assert np.std(at.embedding) == pytest.approx(0.5, rel=0.02)
    assert abs(np.corrcoef(*(np.ravel(p.embedding) for p in path))[0, 1]) < 0.05


def test_a_tied_output_forgets_with_its_embedding_and_precision_is_kept():
    class Tied(eqx.Module):
        shared: eqx.nn.Shared

        def __init__(self, key):
            one = eqx.nn.Embedding(5, 4, key=key)
            two = eqx.nn.Linear(4, 5, use_bias=False, key=key)
            self.shared = eqx.nn.Shared((one, two), lambda p: p[1].weight, lambda p: p[0].weight)

    tied = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16) if eqx.is_array(x) else x, Tied(jax.random.key(2))
    )
    params = eqx.filter(tied, eqx.is_inexact_array)
    rule = forgetting(
        optax.adam(RATE), lambda m: m.shared.pytree[0].weight, Forgetting(1), key=jax.random.key(3)
    )
    updates, _ = rule.update(jax.tree.map(jnp.ones_like, params), rule.init(params), params)
    moved = eqx.apply_updates(tied, updates)
    one, two = moved.shared()
    assert one.weight.dtype == jnp.bfloat16 and (one.weight == two.weight).all()
    assert jnp.std(one.weight.astype(jnp.float32)) > 0.5


def test_rows_of_noise_have_no_gradient_and_the_others_do():
    model = Tiny(jnp.ones((6, 2)), jnp.zeros(2))
    chance = jnp.array([0.0, 1.0, 0.0, 1.0, 0.0, 0.0])

    def loss(model):
        return jnp.square(noised(jax.random.key(4), model, lambda m: m.embedding, chance).embedding).sum()  # fmt: skip

    found = jax.grad(loss)(model).embedding
    assert np.array_equal(found, 2 * np.array([1, 0, 1, 0, 1, 1])[:, None] * np.ones((6, 2)))
    seen = noised(jax.random.key(4), model, lambda m: m.embedding, chance, 3.0).embedding
    assert (seen[::2] == 1).all() and (np.abs(seen[1:4:2] - 1) > 1e-3).all()


def test_common_tokens_are_noise_more_often():
    tokens = jnp.array([[0, 1, 1], [1, 3, 0]])
    found = np.asarray(chance_of_occurring(tokens, 5, 0.3))
    assert np.allclose(found, [1 - 0.7**2, 1 - 0.7**3, 0, 0.3, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (Forgetting(0), "every"),
        (Forgetting(5, 0), "until"),
        (Forgetting(5, spread=float("nan")), "spread"),
        (Forgetting(5, spread=-1.0), "spread"),
    ],
)
def test_bad_settings_are_named(how, said):
    with pytest.raises(ValueError, match=said):
        forgetting(optax.sgd(RATE), lambda m: m.embedding, how, key=jax.random.key(0))


def test_a_wrong_place_is_named():
    rule = forgetting(optax.sgd(RATE), lambda m: m.empty, Forgetting(5), key=jax.random.key(0))
    with pytest.raises(ValueError, match="names no parameter"):
        rule.init(tiny())
    rule = forgetting(optax.sgd(RATE), lambda m: m.embedding, Forgetting(5), key=jax.random.key(0))
    with pytest.raises(ValueError, match="update\\(grads, state, params\\)"):
        rule.update(tiny(), rule.init(tiny()))
    with pytest.raises(ValueError, match="one matrix"):
        noised(jax.random.key(0), tiny(), lambda m: m.body, 0.5)


def test_forgetting_ends_where_it_says():
    assert list(Forgetting(10).updates(35)) == [10, 20, 30]
    assert list(Forgetting(10, 30).updates(100)) == [10, 20]
    assert list(Forgetting(10, 31).updates(100)) == [10, 20, 30]
    assert list(Forgetting(10).updates(5)) == []


def test_half_precision_with_a_rate_that_is_an_array():
    params = {"embedding": jnp.ones((4, 3), jnp.bfloat16), "rest": jnp.ones(2, jnp.bfloat16)}
    how = Forgetting(every=2)
    rule = forgetting(optax.adamw(jnp.float32(1e-3)), lambda p: p["embedding"], how, key=jax.random.key(0))  # fmt: skip
    state = rule.init(params)
    for step in range(1, 5):
        updates, state = rule.update(jax.tree.map(jnp.ones_like, params), state, params)
        params = eqx.apply_updates(params, updates)  # which widens them
        assert (float(jnp.std(params["embedding"])) > 0.3) == (step >= 2)
