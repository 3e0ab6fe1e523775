"""The ledger checked against the code as it is now, without running studies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import xarray as xr

from latebloom.lab.effects import effect_hash
from latebloom.lab.identity import PROVEN, Arm, State, key, state_of, worst
from latebloom.lab.ledger import study_of
from latebloom.lab.runner import chunks_of, joined, source_of_units, steps_of
from latebloom.lab.store import Store, Unit, config_dict
from latebloom.lab.study import Claim, Study
from latebloom.lab.verdict import judge

Say = Callable[[str], None]


@dataclass(frozen=True)
class Checked:
    """What became of a study's record.

    - `arms`: by budget, the state of each of its arms.
    - `claims`: the state of each claim, that of its arms at worst; "stale" where its check changed.
    - `changed`: claims whose check (effect, null, needs, threshold) is another one now.
    - `notes`: why something could not be said.
    """

    entry: Mapping[str, Any]
    arms: Mapping[str, Mapping[str, State]]
    claims: Mapping[str, State]
    changed: frozenset[str]
    notes: tuple[str, ...] = field(default=())

    @property
    def state(self) -> State:
        return worst(self.claims.values())


def check(entry: Mapping[str, Any], say: Say = lambda text: None) -> Checked:
    """Whether a record still is what the code comes to.

    Arms whose sources and settings are those recorded are "fresh". Others are traced: "same program"
    is proof. Where the program is another but settings and observation steps are the same, the first
    observations are made again: "same prefix" if their bits are the same, which is a hint and no proof;
    else "stale". "unknown": the study cannot be built here, as where its data is missing.
    """
    with study_of(entry) as study:
        if study is None:
            gone: State = "unknown" if entry["file"] else "stale"
            note = f"{entry['study']} is not among the studies" + (
                f": {entry['file']} cannot be loaded" if entry["file"] else "")  # fmt: skip
            return Checked(
                entry, {}, {r["claim"]: gone for r in entry["claims"]}, frozenset(), (note,)
            )
        notes: list[str] = []
        arms = {
            budget: _arms(study, budget, made, notes, say)
            for budget, made in entry["passes"].items()
        }
        now = {claim.id: claim for claim in study.claims}
        changed = {
            row["claim"] for row in entry["claims"]
            if (claim := now.get(row["claim"])) is None or row["effect"] != effect_hash(study, claim)
        }  # fmt: skip
        claims: dict[str, State] = {}
        for row in entry["claims"]:
            states = arms[row["budget"]]
            read: list[State] = [states.get(arm, "stale") for arm in row["arms"]]
            claims[row["claim"]] = "stale" if row["claim"] in changed else worst(read)
        return Checked(entry, arms, claims, frozenset(changed), tuple(dict.fromkeys(notes)))


def _arms(
    study: Study, budget: str, made: Mapping[str, Any], notes: list[str], say: Say
) -> dict[str, State]:
    recorded = made["arms"]
    if budget not in study.budgets:
        notes.append(f"{study.slug} has no budget {budget!r} any more")
        return dict.fromkeys(recorded, "stale")
    now = study.configs(budget, tuple(arm for arm in recorded if arm in study.arms))
    same_source = made["source"] == source_of_units(study)
    if made["versions"]["jax"] != jax.__version__:
        notes.append(f"made with JAX {made['versions']['jax']}, which is {jax.__version__} here")
        return dict.fromkeys(recorded, "stale")
    found: dict[str, State] = {}
    seen: dict[Any, State] = {}  # arms of one config are one run
    for arm, record in recorded.items():
        if arm not in now:
            found[arm] = "stale"
            continue
        known = (repr(now[arm]), record["program"], record["prefix"])
        if known not in seen:
            say(f"{study.slug} · {budget} · {arm}")
            fresh = same_source and record["config"] == config_dict(now[arm])
            seen[known] = (
                "fresh" if fresh else _state(study, now[arm], made["seeds"], record, notes)
            )
        found[arm] = seen[known]
    return found


def _state(
    study: Study, config: Any, seeds: list[int], record: Mapping[str, Any], notes: list[str]
) -> State:
    same = record["config"] == config_dict(config)
    try:
        arm = Arm(
            config, chunks_of(seeds), steps_of(study, config),
            record["program"] or "", (record["prefix"] or "") if same else "",
        )  # fmt: skip
        return state_of(study.process, arm)
    except Exception as error:  # whatever building a study may raise; the others go on
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        notes.append(f"{kind}{error}")
        return "unknown"


def stamped(checked: Checked, store: Store) -> dict[str, Any]:
    """The record with what was proved written into it, so that the next check is fast.

    The source of a pass is stamped when all its arms are proven. Claims whose check changed are judged
    again where the store has the traces of their arms; where it has not, they stay as they are.
    """
    entry = {**checked.entry, "passes": dict(checked.entry["passes"])}
    with study_of(entry) as study:
        if study is None:
            return entry
        for budget, states in checked.arms.items():
            if all(state in PROVEN for state in states.values()):
                made = entry["passes"][budget]
                now = study.configs(budget, tuple(made["arms"]))
                arms = {a: r | {"config": config_dict(now[a])} for a, r in made["arms"].items()}
                entry["passes"][budget] = made | {"source": source_of_units(study), "arms": arms}
        now = {claim.id: claim for claim in study.claims}
        entry["claims"] = [
            _judged_again(study, now[row["claim"]], row, checked, store)
            if row["claim"] in checked.changed and row["claim"] in now else row
            for row in entry["claims"]
        ]  # fmt: skip
    return entry


def _judged_again(
    study: Study, claim: Claim, row: Mapping[str, Any], checked: Checked, store: Store
) -> Mapping[str, Any]:
    budget, made = row["budget"], checked.entry["passes"][row["budget"]]
    if any(checked.arms[budget].get(arm) not in PROVEN for arm in claim.arms):
        return row
    traces = {}
    for arm, config in study.configs(budget, claim.arms).items():
        if (trace := stored(study, arm, config, made["seeds"], store)) is None:
            return row
        traces[arm] = trace
    about = {"budget": budget, "arms": list(claim.arms), "effect": effect_hash(study, claim)}
    return judge(claim, traces).row() | about


def stored(
    study: Study, arm: str, config: Any, seeds: list[int], store: Store
) -> xr.Dataset | None:
    """The trace of an arm, if the store has all of it."""
    parts = []
    for chunk in chunks_of(seeds):
        at = steps_of(study, config)
        unit = Unit(study.slug, arm, config, chunk, at, source_of_units(study))
        part = store.read(unit)
        if part is None and (program := key(study.process(config), chunk, at)):
            part = store.find(unit, program)
        if part is None:
            return None
        parts.append(part)
    return joined(parts)
