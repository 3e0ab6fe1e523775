"""Claims, needs and budgets."""

import pytest
from lines import Config, claim, height, lead, make_study

from latebloom.lab import Budget, Claim, Need
from latebloom.lab.study import bound

ARMS = {"steep": Config(2.0), "flat": Config(0.0), "null": Config(1.0), "long": Config(steps=9)}
CLAIMS = (
    claim("> 5"),
    Claim("C2", "long lines rise", "", height["long"], "> 1", budget="thorough",
          null=height["null"], needs=(Need(height["flat"], "> 0", "it is flat"),)),
    Claim("C3", "as high as that", "", height["null"], "< 9", budget="full"),
)  # fmt: skip
BUDGETS = {"smoke": Budget(2), "quick": Budget(5, also=("long",)), "thorough": Budget(5), "full": Budget(9)}  # fmt: skip


def test_a_claim_knows_the_arms_of_its_effect_null_and_needs():
    assert claim("> 5").arms == ("steep", "flat")
    assert CLAIMS[1].arms == ("long", "null", "flat")
    assert claim("> 5", null=0.5).arms == ("steep", "flat")


def test_a_budget_runs_what_its_claims_read_and_judges_those_of_smaller_ones():
    study = make_study(*CLAIMS, arms=ARMS, budgets=BUDGETS)
    judged = {b: [c.id for c in study.claims_of(b)] for b in study.budgets}
    assert judged == {
        "smoke": ["C1", "C2", "C3"], "quick": ["C1"], "thorough": ["C1", "C2"],
        "full": ["C1", "C2", "C3"],
    }  # fmt: skip
    assert study.arms_of("quick") == ("steep", "flat", "long")
    assert study.arms_of("thorough") == study.arms_of("full") == tuple(ARMS)
    assert list(study.configs("quick")) == ["steep", "flat", "long"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: claim("5"), "claim C1: holds must read"),
        (lambda: claim("> five"), "holds must read '> x' or '< x', not '> five'"),
        (lambda: claim(">= 5"), "holds must read"),
        (lambda: claim("= 3"), "holds must read"),
        (lambda: claim("> 5", budget="huge"), "one of quick, thorough, full, not 'huge'"),
        (lambda: Need(lead, "3", "it is short"), "the need 'it is short': holds must read"),
        (lambda: make_study(claim("> 1", height["round"])), "there is no arm 'round'"),
        (lambda: make_study(claim("> 1", null=height["round"])), "there is no arm 'round'"),
        (lambda: make_study(claim("> 1", budget="full")), "claim C1: there is no budget 'full'"),
        (lambda: make_study(budgets={"quick": Budget(5, also=("round",))}), "there is no arm 'round'"),
        (lambda: make_study(budgets={"quick": Budget(5, ("steep",))}), "its arms are those that its claims read"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_thresholds_are_read():
    assert bound("> 0.5") == (1, 0.5) and bound("< -2e-3") == (-1, -0.002)
