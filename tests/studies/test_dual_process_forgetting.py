"""What the arms are made of, and effects on traces worked by hand."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
import xarray as xr

from latebloom.core.runs.program import Program
from latebloom.studies.forgetting import dual_process_forgetting as module
from latebloom.studies.forgetting.dual_process_forgetting import ARMS, CLAIMS, DUAL, SEVERAL, study

BY_ID = {claim.id: claim for claim in CLAIMS}


def trace(steps=3, **exams):
    """Two seeds, `steps` observations: exam -> (in context, in weights, chosen), each [observation] or a number."""
    names = [name.replace("_", "/") for name in exams]
    shares = np.array(
        [[np.broadcast_to(v, steps) for v in values] for values in exams.values()], float
    )
    told = {
        name: (("seed", "step", "exam"), np.stack([shares[:, i].T] * 2))
        for i, name in enumerate(("in_context", "in_weights", "chosen"))
    }
    return xr.Dataset(
        told | {"diverged_at": ("seed", [np.nan, np.nan])},
        {"step": 10 * np.arange(steps), "seed": [0, 1], "exam": names}, {"config": json.dumps({})},
    )  # fmt: skip


def test_what_is_lost_is_the_best_less_the_last():
    seen = trace(novel=([0.1, 0.7, 0.3], 0, [0.2, 1.0, 0.9]), seen=(1, 1, 1))
    traces = {"zipf/vanilla": seen}
    assert BY_ID["C1.transient"].effect(traces) == pytest.approx([0.4, 0.4])
    assert BY_ID["C1.known"].effect(traces) == pytest.approx([0.1, 0.1])
    assert BY_ID["C1.transient"].needs[0].effect(traces) == pytest.approx([0.7, 0.7])


def test_preferences_are_those_of_switched_words_in_the_end():
    words = {"head_switched": ([1, 1, 0.1], [0, 0, 0.8], 0), "tail_switched": ([0, 0, 0.6], [1, 1, 0.3], 0)}  # fmt: skip
    traces = {"zipf/vanilla": trace(**words)}
    assert BY_ID["C2.preference"].effect(traces) == pytest.approx([0.5, 0.5])
    assert BY_ID["C2.head"].effect(traces) == pytest.approx([0.8, 0.8])
    assert BY_ID["C2.tail"].effect(traces) == pytest.approx([0.3, 0.3])


def test_the_end_of_forgetting_is_ranked_against_what_it_brings():
    traces = {
        f"temporary-{n}": trace(novel=(n / 5000, 0, 0), head_switched=(0, 1 - n / 5000, 0))
        for n in SEVERAL
    }
    assert BY_ID["C4.more"].effect(traces) == pytest.approx([1, 1])
    assert BY_ID["C4.less"].effect(traces) == pytest.approx([-1, -1])


def test_a_cycle_is_the_last_two_hundred_updates():
    plain = ARMS["zipf/vanilla"]
    at, every = module.schedule(plain), ARMS["zipf/active"].every
    last = plain.steps - plain.steps % every if plain.steps % every else plain.steps - every
    assert every == 200 and (at[-3:] > last).all() and at[-4] < last
    values = np.arange(49) / 100
    traces = {"zipf/active": trace(49, novel=(values, 0, 0))}
    assert BY_ID["C3.cycle"].effect(traces) == pytest.approx([values[-3:].mean()] * 2)


def test_rivals_forget_nothing_and_differ_in_their_start_alone():
    plain = ARMS["zipf/vanilla"]
    assert (
        replace(ARMS["unit"], start=plain.start)
        == replace(ARMS["start"], start=plain.start)
        == plain
    )
    for arm in ("vanilla", "unit", "temporary"):
        short = {"vanilla": "zipf/vanilla", "unit": "unit", "temporary": DUAL}[arm]
        assert replace(ARMS[f"long/{arm}"], steps=plain.steps) == ARMS[short]


def test_arms_differ_in_what_they_say():
    plain = ARMS["zipf/vanilla"]
    assert DUAL in ARMS and module.CHOSEN in SEVERAL and plain.every == 0
    forgets = {arm: module.make_process(config) for arm, config in ARMS.items()}
    assert [len(forgets[f"temporary-{n}"].turns()) for n in SEVERAL] == [
        -(-n // module.FORGET) - 1 for n in SEVERAL
    ]
    assert list(forgets["zipf/active"].turns())[-1] >= plain.steps - ARMS["zipf/active"].every
    assert forgets["frozen"].embeddings == "frozen" and forgets["noise-always"].noise_until is None
    for arm, spread in {"zipf/vanilla": 0.02, "unit": 1.0, "frozen": 1.0}.items():
        model = forgets[arm].network(50, jax.random.key(0))
        assert np.std(model.embedding) == pytest.approx(spread, rel=0.05)
    assert forgets["untied"].network(50, jax.random.key(0)).output is not None


def test_every_arm_has_its_own_size_at_full_and_is_traced():
    configs = study.configs("full")
    assert configs["words-100"].words < configs["zipf/vanilla"].words < configs["words-1000"].words
    assert configs["one-layer"].layers == 1 and configs["zipf/vanilla"].layers == 6
    assert [configs[f"temporary-{n}"].until for n in SEVERAL] == [500, 1000, 1500, 2000]
    assert configs["zipf/active"].every == 1000 and configs[DUAL].every == 10
    assert Program(study.process(configs[DUAL])).turn is not None
