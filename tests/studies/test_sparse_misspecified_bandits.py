import numpy as np
import pytest
import xarray as xr

from latebloom.lab import style
from latebloom.lab.runner import run
from latebloom.lab.store import Store
from latebloom.studies.bandits import sparse_misspecified_bandits as this
from latebloom.studies.bandits.sparse_misspecified_bandits import study


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return run(study, "smoke", store=Store(tmp_path_factory.mktemp("store")))


def test_smoke_judges_every_claim_and_draws_every_figure(smoke):
    assert all(v.verdict != "not run" and v.estimate is not None for v in smoke.verdicts)
    guarantee = {v.claim: v for v in smoke.verdicts}
    assert guarantee["C1.guarantee"].verdict == guarantee["C1.violations"].verdict == "holds"
    for figure in study.figures:
        assert style.png(figure.draw(smoke.traces))[:4] == b"\x89PNG"


def test_methods_meet_the_same_instances(smoke):
    one = this.make_problem(0, this.HARD[0], 100)
    two = this.make_problem(0, this.HARD[0], 100)
    np.testing.assert_array_equal(one.rewards, two.rewards)
    assert (smoke.traces["all-actions"].gap == 0).all()
    assert (smoke.traces["all-actions"].queries == 100).all()


def fake(gap, d=(6, 10, 16, 24)):
    dims = ("seed", "step")
    settings = [(s, e, x) for s, e in this.PAIRS for x in d]
    s, e, x = (np.tile(column, (2, 1)) for column in np.array(settings).T)
    return xr.Dataset({"gap": (dims, gap(x)), "s": (dims, s), "setting_epsilon": (dims, e),
                       "d": (dims, x), "net": (dims, x**s)})  # fmt: skip


def test_slopes_are_exponents():
    trace = fake(lambda d: 0.7 * d**0.5)
    np.testing.assert_allclose(this.gap_slope("a")({"a": trace}), 0.5)
    flat = fake(lambda d: 0 * d)
    np.testing.assert_allclose(this.gap_slope("a")({"a": flat}), 0, atol=1e-12)
    np.testing.assert_allclose(this.net_growth_in_d({"net-search": trace}), 0, atol=1e-12)


def test_violations_are_counted_a_seed():
    trace = fake(lambda d: np.where(d > 20, 5.0, 4.0))
    np.testing.assert_allclose(this.violations("a", 4)({"a": trace}), 0.25)
    np.testing.assert_allclose(this.largest_gap("a", "a")({"a": trace}), 5)
