"""The learning process: what a step trains on, and what is asked and read at an observation."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom import unfold
from latebloom.methods.grokking.concept_space import (
    ConceptSpace,
    MLPDenoiser,
    VectorReader,
    Vectors,
)

WORLD = Vectors((0.2, 0.8), nuisance=1)
SMALL = {"samples": 4, "sampler_steps": 3, "per_class": 16, "batch_size": 8}
NETWORK = partial(MLPDenoiser, 3, (8,), time_size=4)


def process(**settings):
    return ConceptSpace(WORLD, VectorReader(WORLD), **{"denoiser": NETWORK, **SMALL, **settings})


@pytest.fixture(scope="module")
def trace():
    asked = process(
        interventions=True, over_prompts=(0.2, 0.4), scales=(0.0, 2.0), samples=16, sampler_steps=20,
        denoiser=partial(MLPDenoiser, 3, (64,), time_size=16), per_class=256, batch_size=64,
        learning_rate=3e-3, gamma_range=(-9.0, 5.0), data_noise=0.02,
    )  # fmt: skip
    return unfold(asked, seeds=2, at=[0, 3, 1000], progress=False)


def test_trace_holds_all_that_is_asked(trace):
    assert trace.probability.dims == ("seed", "step", "class", "concept")
    assert trace["class"].values.tolist() == ["00", "01", "10", "11"]
    assert trace.over_prompt_accuracy.dims[2:] == ("half",)
    assert trace.placebo_linear_accuracy.sizes["scale"] == 2
    for name in ("probability", "accuracy", "concept_accuracy", "quality"):
        assert ((trace[name] >= 0) & (trace[name] <= 1)).all()
    assert (trace.accuracy <= trace.concept_accuracy.min("concept") + 1e-6).all()


def test_the_donor_is_the_run_itself_at_a_later_step():
    patched = process(interventions=True, patch_from=3)
    state = jax.jit(patched.init)(jax.random.key(0))
    donor, step = state.donor, jax.jit(patched.step)
    for _ in range(3):
        state = step(state)
    own = jax.tree.leaves(state.generator.denoiser.condition)
    assert all(
        np.allclose(a, b, atol=1e-6) for a, b in zip(jax.tree.leaves(donor), own, strict=True)
    )
    plain, late = (patched.prompts(state)[name] for name in ("class", "patched"))
    assert all(np.allclose(a[-1:], b, atol=1e-6) for a, b in zip(plain, late, strict=True))


def test_prompts_are_what_they_should_be():
    asked = process(interventions=True, over_prompts=(0.1, 0.4), scales=(0.0, 1.0))
    state = asked.init(jax.random.key(0))
    found, embed = asked.prompts(state), state.generator.denoiser.embed
    target = jnp.array([[1, 1]])
    # Half of sep_colour is 0.1: over-prompting with it is the plain prompt, and so is its placebo.
    plain = embed(WORLD.prompt(target))[0]
    assert np.allclose(found["over_prompt"][0][:1], plain, atol=1e-6)
    assert np.allclose(found["placebo_prompt"][0][:1], plain, atol=1e-6)
    over = embed(WORLD.prompt(target, jnp.float32(0.4)))[0]
    assert np.allclose(found["over_prompt"][0][1:], over, atol=1e-6)
    assert np.allclose(found["linear"][0][:1], plain, atol=1e-6)  # scale 0
    red, blue = (embed(WORLD.prompt(jnp.array([[bit, 0]])))[0] for bit in (0, 1))
    assert np.allclose(found["linear"][0][1:], plain + blue - red, atol=1e-6)


@eqx.filter_jit
def first_update(process):
    """Change of the first condition weights in one step."""
    state = process.init(jax.random.key(0))
    before, after = (
        s.generator.denoiser.condition[0].first.weight for s in (state, process.step(state))
    )
    return after - before


def test_masking_and_dropping_change_what_is_trained_on():
    def update(**settings):
        arrays = {"p_cfg": 0.0, "mask": 0.0, "weight_decay": 0.0} | settings
        return np.asarray(first_update(process(**{k: jnp.float32(v) for k, v in arrays.items()})))

    plain, masked, dropped = update(), update(mask=1.0), update(p_cfg=1.0)
    assert (plain[:, [0, 8]] == 0).all()  # entries that are zero for two concepts
    assert (plain[:, [4, 6, 7]] != 0).any(0).all()
    assert (dropped[:, [0, 8]] != 0).any(0).all()  # -1 in every entry
    assert np.allclose(dropped[:, :1], dropped, atol=1e-6)
    assert (masked[:, [0, 8]] == 0).all() and not np.allclose(masked, plain)


def test_regression_learns_the_mean():
    """Without diffusion the best answer to a prompt is the mean of its samples."""
    p = process(deterministic=True, learning_rate=1e-2, clip_norm=1.0, batch_size=32, per_class=200)

    @jax.jit
    def trained(key):
        return jax.lax.fori_loop(0, 500, lambda _, s: p.step(s), p.init(key))

    state = trained(jax.random.key(0))
    asked = p.prompts(state)["class"]
    made = p.generate(state.generator, jax.random.key(1), asked)
    means = [[-0.1, -0.4], [-0.1, 0.4], [0.1, -0.4]]
    assert np.allclose(made[:3, :2], means, atol=0.08)
    assert np.array_equal(made, p.generate(state.generator, jax.random.key(2), asked))


def test_guidance_of_weight_one_is_the_plain_generator():
    plain, one, none = (
        process(),
        process(guidance=True, w_cfg=1.0),
        process(guidance=True, w_cfg=0.0),
    )
    state = plain.init(jax.random.key(0))
    key, asked = jax.random.key(1), plain.prompts(state)["class"]
    made = [np.asarray(p.generate(state.generator, key, asked)) for p in (plain, one, none)]
    assert np.allclose(made[0], made[1], atol=1e-5)
    assert not np.allclose(made[0], made[2], atol=1e-3)


def test_training_teaches_the_seen_classes(trace):
    assert (trace.accuracy.isel(step=-1)[:, :3].mean("seed") > 0.7).all()
    assert (trace.train_loss[:, -1] < trace.train_loss[:, 0]).all()
