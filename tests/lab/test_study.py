"""Claims, needs and budgets."""

from dataclasses import dataclass

import pytest
from lines import Config, claim, height, lead, make_study

from latebloom.lab import Budget, Claim, Need, Paper
from latebloom.lab.study import bound, tuned_beside
from latebloom.measures import final

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
        (lambda: claim("> five"), "holds must read '> x' or '< x' with x finite, not '> five'"),
        (lambda: claim("> nan"), "with x finite, not '> nan'"),
        (lambda: claim("< -inf"), "with x finite, not '< -inf'"),
        (lambda: claim("> 1e999"), "with x finite, not '> 1e999'"),
        (lambda: claim(5), "with x finite, not 5"),
        (lambda: claim("> 5", final("height")), "claim C1: its effect must be an effect, as in .*, not a Measure"),
        (lambda: claim("> 5", null="0.9"), "claim C1: its null must be an effect, .* not a str"),
        (lambda: Need("height", "> 3", "it is short"), "its effect must be an effect, .* not a str"),
        (lambda: make_study(claim("> 1"), claim("> 2")), "lines: 2 claims are called 'C1'"),
        (lambda: make_study(arms={"steep": Config, "flat": Config()}), "arm steep: its config must be a dataclass"),
        (lambda: make_study(budgets={"quick": Budget(5, settings={"step": 3})}),
         "lines, budget quick: there is no setting 'step'; did you mean 'steps'?"),
        (lambda: make_study(budgets={"quick": Budget(5, arm_settings={"steep": {"slop": 3}})}),
         "lines, budget quick, arm steep: there is no setting 'slop'; did you mean 'slope'?"),
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


@pytest.mark.parametrize("slug", ["../evil", "Lines", "my_lines", "", "-lines", "a b", "lines\n"])
def test_a_slug_is_a_plain_name(slug):
    with pytest.raises(ValueError, match="lowercase letters, digits and hyphens, unlike"):
        make_study(paper=Paper(slug, "On Lines", "A. Euclid", "Elements", -300, ""))


@dataclass(frozen=True)
class Bent:
    bend: float = 0.5
    steps: int = 4


def test_settings_are_laid_over_the_configs_that_have_them():
    quick = Budget(3, settings={"bend": 2.0, "steps": 6}, arm_settings={"flat": {"slope": 0.5}})
    study = make_study(arms={"steep": Bent(), "flat": Config()}, budgets={"quick": quick})
    assert study.configs("quick") == {"steep": Bent(2.0, 6), "flat": Config(0.5, 6)}
    changed = study.configs("quick", None, {"slope": "3", "steps": "8"})
    assert changed == {"steep": Bent(2.0, 8), "flat": Config(3.0, 8)}
    with pytest.raises(ValueError, match="there is no setting 'bent'; did you mean 'bend'"):
        study.configs("quick", None, {"bent": "3"})


def test_thresholds_are_read():
    assert bound("> 0.5") == (1, 0.5) and bound("< -2e-3") == (-1, -0.002)


def test_a_figure_that_could_not_be_a_file_is_refused():
    from lines import make_study

    from latebloom.lab import Figure

    with pytest.raises(ValueError, match="a figure's name has letters.*'../evil'"):
        make_study(figures=(Figure("../evil", "c", lambda traces: None, ()),))


def test_what_tuning_found_lies_beside_the_study(tmp_path):
    (tmp_path / "rates.json").write_text('{"slow": 0.1}')
    assert tuned_beside(str(tmp_path / "rates.py")) == {"slow": 0.1}
    with pytest.raises(FileNotFoundError, match=r"others\.json"):
        tuned_beside(str(tmp_path / "others.py"))
