"""What the arms are made of, and effects on traces worked by hand."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
import xarray as xr

from latebloom.core.runs.program import Program
from latebloom.lab.verdict import judge
from latebloom.methods.forgetting.in_context import RoleLearner
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


def test_answers_in_weights_are_read_of_switched_words_alone():
    for claim in CLAIMS:
        null = [claim.null.text] if hasattr(claim.null, "text") else []
        for text in (claim.effect.text, *null, *(need.effect.text for need in claim.needs)):
            exams = [part.split("]")[0] for part in text.split("in_weights[exam=")[1:]]
            assert all(exam.endswith("/switched") for exam in exams), (claim.id, exams)


def test_what_repeating_the_query_would_pass_is_set_against_it():
    """It is a rival of what it would be above, and the null of a level that it has."""
    half = trace(2, **{name.replace("/", "_"): (0.5, 0.5, 0.5) for name in EXAMS})
    half.attrs["config"] = json.dumps({"steps": 3000, "batch": 64})
    low = trace(2, **{name.replace("/", "_"): (0.3, 0.3, 0.3) for name in EXAMS})
    low.attrs["config"] = half.attrs["config"]
    for id in ("C4.head", "C4.tuned-head", "C5.known", "C5.later-known"):
        one, other = BY_ID[id].effect.arms
        assert BY_ID[id].effect({one: half, other: low}) == pytest.approx([0, 0])
    assert BY_ID["C2.nonzero"].null == module.REPEATED == 0.5


EXAMS = RoleLearner.names()


def test_what_training_comes_to_in_the_end_is_not_contradicted_by_a_short_run():
    claim = BY_ID["C2.steepest"]
    for steps, left, verdict in (
        (3000, 0.2, "out of reach"),
        (3000, 0.01, "holds"),
        (62_500, 0.2, "contradicted"),
    ):
        found = trace(2, law_switched=(left, 0, 0), seen=(1, 1, 1))
        found.attrs["config"] = json.dumps({"steps": steps, "batch": 64})
        assert judge(replace(claim, null=None), {"steepest/vanilla": found}).verdict == verdict


def test_words_are_compared_in_a_part_of_them_that_is_as_large():
    traces = {arm: trace(2, **{"band-0_switched": (0, w, 0), "head_switched": (0, 1 - w, 0)})
              for arm, w in {"words-100": 0.2, "zipf/vanilla": 0.3, "words-1000": 0.4}.items()}  # fmt: skip
    assert BY_ID["S.words"].effect(traces) == pytest.approx([1, 1])


def test_ambiguity_is_judged_by_its_lesser_step():
    traces = {arm: trace(2, head_switched=(0, w, 0)) for arm, w in {"share-0": 1.0, "zipf/vanilla": 0.9, "share-0.5": 0.1, "share-0.01": 0.95}.items()}  # fmt: skip
    assert BY_ID["S.ambiguous"].effect(traces) == pytest.approx([0.1, 0.1])
    assert BY_ID["S.ambiguous"].null(traces) == pytest.approx([0.05, 0.05])
