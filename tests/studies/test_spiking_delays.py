"""What the arms are made of, and effects on traces worked by hand."""

from dataclasses import replace

import equinox as eqx
import jax
import numpy as np
import pytest
import xarray as xr

from latebloom.methods.recurrence.spiking import delays_of, parameters
from latebloom.studies.recurrence import spiking_delays as module
from latebloom.studies.recurrence.spiking_delays import ARMS, CLAIMS, TAPS, WIDTHS, study

BY_ID = {claim.id: claim for claim in CLAIMS}


def trace(test, real=None, valid=None, people=0.0):
    """Two seeds; accuracy by observation, a number or a list."""
    rows = [
        np.broadcast_to(np.asarray(v, float), 3)
        for v in (test if valid is None else valid, test, people)
    ]
    accuracy = np.stack([np.stack(rows, -1)] * 2)
    other = accuracy if real is None else np.full_like(accuracy, real)
    dims = ("seed", "step", "exam")
    return xr.Dataset(
        {"accuracy": (dims, accuracy), "accuracy_real": (dims, other)},
        {"seed": [0, 1], "step": [0, 10, 20], "exam": ["valid", "test", "people"]},
    )  # fmt: skip


def test_gaps_are_of_the_last_observation_with_whole_delays():
    traces = {"learned": trace([0.1, 0.95, 0.9]), "fixed": trace(0.7), "none": trace(0.4), "none-again": trace(0.45)}  # fmt: skip
    assert BY_ID["C2.learned"].effect(traces) == pytest.approx([0.2, 0.2])
    assert BY_ID["C1.fixed"].effect(traces) == pytest.approx([0.3, 0.3])
    assert BY_ID["C1.fixed"].null(traces) == pytest.approx([0.05, 0.05])


def test_rounding_and_selection_by_hand():
    traces = {"learned": trace(0.9, real=0.88), "spoken/learned": trace([0.5, 0.8, 0.7], valid=[0.1, 0.2, 0.3], people=0.4)}  # fmt: skip
    assert BY_ID["C5.rounding"].effect(traces) == pytest.approx([0.02, 0.02])
    assert BY_ID["S.selection"].effect(traces) == pytest.approx(
        [0.1, 0.1]
    )  # by the valid one: the last
    assert BY_ID["C2.people"].effect(traces) == pytest.approx([0.033, 0.033])  # above 0.367, counts
    assert BY_ID["C2.counts"].effect(traces) == pytest.approx([-0.132, -0.132])


def test_what_learning_adds_is_ranked_by_width():
    traces = {}
    for place, w in enumerate(WIDTHS):
        arms = ("learned", "fixed") if w == 16 else (f"learned/width-{w}", f"fixed/width-{w}")
        traces |= {arms[0]: trace(0.9), arms[1]: trace(0.3 + 0.1 * place)}
    assert BY_ID["C2.width"].effect(traces) == pytest.approx([-1, -1])
    sparse = {"learned/sparse": trace(0.8), "fixed/sparse": trace(0.3), "learned/width-32": trace(0.9), "fixed/width-32": trace(0.7)}  # fmt: skip
    assert BY_ID["C2.sparse"].effect(sparse) == pytest.approx([0.3, 0.3])


def test_rivals_have_as_many_parameters():
    wanted = parameters(module.sizes(ARMS["learned"]), True)
    for arm in ("none", "recurrent", "gated"):
        model = module._network(ARMS[arm], jax.random.key(0))
        count = sum(x.size for x in jax.tree.leaves(model) if np.issubdtype(x.dtype, np.floating))
        count -= sum(d.delay.size for d in delays_of(model)) + 2 * model.norms[0].mean.size if arm == "none" else 0  # fmt: skip
        count -= 2 * model.norm.mean.size if arm == "recurrent" else 0
        assert wanted <= count < 1.2 * wanted, arm
    large = module._network(ARMS["recurrent-large"], jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(large)) > 4.5 * wanted


def test_arms_differ_in_what_they_say():
    plain = replace(ARMS["learned"], show=False)
    assert (
        replace(ARMS["shuffled"], shuffled=False) == plain == replace(ARMS["wide"], annealed=True)
    )
    assert replace(ARMS["cut"], trailing=True) == plain and ARMS["fixed-again"].redraw == 1
    assert replace(ARMS["fixed-again"], redraw=0) == ARMS["fixed"]
    assert replace(ARMS["taps-5"], taps=21) == plain and set(TAPS) == {5, 11, 21, 31}
    assert ARMS["one-rate"].delay_rate == ARMS["one-rate"].rate
    assert ARMS["learned"].delay_rate != ARMS["learned"].rate
    one, two = (module._network(ARMS[a], jax.random.key(0)) for a in ("fixed", "fixed-again"))
    assert not np.allclose(one.layers[0].delay, two.layers[0].delay)
    assert module._network(ARMS["none"], jax.random.key(0)).layers[0].taps == 1
    assert module.make_process(ARMS["constant"]).sigma(jax.numpy.int32(0)) == pytest.approx(ARMS["constant"].sigma)  # fmt: skip
    assert module.make_process(ARMS["fixed"]).sigma(jax.numpy.int32(0)) is None


def test_observations_are_at_epochs():
    at = module.schedule(ARMS["learned"])
    assert at[0] == 0 and at[-1] == 600 and (at % 20 == 0).all() and len(at) == 13


def test_shuffled_examples_keep_their_counts():
    config = replace(ARMS["shuffled"], train=40, exam=20)
    x = module._timed(config, jax.random.key(0)).x
    same = module._timed(replace(config, shuffled=False), jax.random.key(0)).x
    np.testing.assert_array_equal(x.sum(1), same.sum(1))
    assert (np.asarray(x) != np.asarray(same)).any((1, 2)).mean() > 0.9


def test_the_full_budget_is_of_the_papers_sizes():
    full = study.configs("full")
    assert module.sizes(full["learned"]) == [40, 256, 256, 20] and full["learned"].epochs == 150
    assert full["recurrent"].layers == 1 and full["teacher"].width == 6
    assert [full[f"taps-{t}"].taps for t in TAPS if t != 21] == [5, 11, 31]
    assert full["learned/width-8"].width < full["learned"].width < full["learned/width-32"].width


def test_every_network_of_the_short_budget_takes_a_step():
    for arm, config in study.configs("smoke").items():
        if config.data == "timed":
            process = module.make_process(config)
            eqx.filter_eval_shape(
                lambda k, p=process: p.observe(p.step(p.init(k))), jax.random.key(0)
            )
            assert module.schedule(config)[-1] == 12, arm
