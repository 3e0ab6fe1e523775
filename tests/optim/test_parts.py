"""A part of the parameters learns as it would alone, the others stay."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latebloom.core.training import trainable
from latebloom.nn import ViT
from latebloom.optim import trained
from latebloom.optim.parts import PART

MODEL = ViT(1, 3, key=jax.random.key(0), patch=2, size=8, heads=2, hidden=4, layers=2)
WHERE = {
    "probe": lambda m: m.readout,
    "attention": lambda m: [m.readout, *(b.query_key_value for b in m.blocks)],
}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("rate", [0.1, jnp.float32(0.1)])
def test_it_is_the_rule_on_its_part(where, rate):
    params = trainable(MODEL)
    slopes = jax.tree.map(jnp.cos, params)
    part, rule = WHERE[where], optax.adam(rate)
    both = trained(rule, part)
    updates, _ = both.update(slopes, both.init(params), params)
    wanted, _ = rule.update(slopes, rule.init(params), params)
    for one, other in zip(jax.tree.leaves(part(updates)), jax.tree.leaves(part(wanted)), strict=True):  # fmt: skip
        np.testing.assert_array_equal(one, other)
    rest = eqx.tree_at(part, updates, replace_fn=lambda p: jax.tree.map(jnp.zeros_like, p))
    assert not any(leaf.any() for leaf in jax.tree.leaves(rest))
    assert len(jax.tree.leaves(rest)) == len(jax.tree.leaves(params))


@pytest.mark.parametrize("where", WHERE)
def test_others_may_have_a_rule_of_their_own(where):
    """The same for both is the rule itself; moments are apart."""
    params = trainable(MODEL)
    slopes, part = jax.tree.map(jnp.cos, params), WHERE[where]
    rule = optax.adamw(0.1)
    both = trained(rule, part, others=rule)
    state, wanted = both.init(params), rule.init(params)
    for _ in range(2):
        updates, state = both.update(slopes, state, params)
        plain, wanted = rule.update(slopes, wanted, params)
        for one, other in zip(jax.tree.leaves(updates), jax.tree.leaves(plain), strict=True):
            np.testing.assert_array_equal(one, other)
    own = jax.tree.leaves(state.inner_states[PART])
    assert len(own) == 1 + 2 * len(
        jax.tree.leaves(part(params))
    )  # a count, and two moments of each


def test_a_part_has_to_be_named():
    with pytest.raises(ValueError, match="names no parameter"):
        trained(optax.sgd(0.1), lambda m: m.readout.missing).init(
            eqx.tree_at(lambda m: m.readout, trainable(MODEL), Nothing())
        )


class Nothing(eqx.Module):
    missing: None = None
