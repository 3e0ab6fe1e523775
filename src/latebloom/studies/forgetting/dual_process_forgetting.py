"""Dual process learning: controlling the use of in-context and in-weights strategies with weight forgetting.

Anand, Lepori, Merullo, Pavlick (ICLR 2025, arXiv 2406.00053).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import equinox as eqx
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray
from matplotlib.axes import Axes

from latebloom.data.roles import LENGTH, Roles
from latebloom.lab import Budget, Claim, Figure, Need, Paper, Study, pictures, style
from latebloom.lab.study import bound, thorough, tuned_beside
from latebloom.measures import (
    Effect,
    Measure,
    Traces,
    at,
    combined,
    curve,
    final,
    highest,
    lowest,
    measure,
    peak,
    setting,
    spearman,
)
from latebloom.measures import tail as tail_of
from latebloom.methods.forgetting.embeddings import Forgetting
from latebloom.methods.forgetting.in_context import BANDS, RoleLearner
from latebloom.nn.masked_lm import MaskedLM


@dataclass(frozen=True)
class Config:
    """A masked language model, its words, and how embeddings are forgotten.

    - `words`, half of them nouns, by a power law with exponent `alpha` (0: all as often), of which a `share` is
      ambiguous; exams on the `head` commonest words of each kind and on the rarest tenth.
    - Embeddings are forgotten every `every` updates (0: never) before update `until` (0: to the end), from a
      normal distribution of deviation `spread`; the optimiser's memory of them with them, or not (`moments`).
    - `start`: the deviation of first embeddings. `noise`: with which probability an occurrence makes a word noise,
      from update `noise_from` and before `noise_until` (0: to the end).
    - `decay` of embeddings, per update and rate; `embeddings` learn, or are frozen; the output is `tied`, or not.
    - `layers` blocks of `size` features; AdamW at `rate` with `batch` new sequences an update, `steps` updates.
    """

    words: int = 400
    alpha: float = 1.0001
    share: float = 0.1
    head: int = 20
    every: int = 0
    until: int = 0
    spread: float = 1.0
    moments: bool = True
    start: float = 0.02
    noise: float = 0.0
    noise_from: int = 0
    noise_until: int = 0
    decay: float = 0.0
    embeddings: Literal["learned", "frozen"] = "learned"
    tied: bool = True
    layers: int = 2
    size: int = 64
    hidden: int = 128
    rate: float = 2e-4
    batch: int = 64
    steps: int = 3000
    exam: int = 250


def make_process(config: Config) -> RoleLearner:
    forgetting = None
    if config.every:
        until = config.until if config.until else None
        forgetting = Forgetting(config.every, until, config.spread, config.moments)
    return RoleLearner(
        network=partial(_network, config), roles=partial(_roles, config), optimiser=_adamw, hyper={"rate": config.rate},
        steps=config.steps, batch=config.batch, forgetting=forgetting, noise=config.noise if config.noise else None, noise_from=config.noise_from,
        noise_until=config.noise_until if config.noise_until else None, embeddings=config.embeddings, decay=config.decay,
        exam=config.exam, head=config.head, tail=max(config.words // 20, 1), same_answers=True, seeds_by="map",
    )  # fmt: skip


def schedule(config: Config) -> np.ndarray:
    """Often at first, when all happens, then every fortieth of the run."""
    often = np.linspace(0, config.steps / 5, 17)
    return np.unique(np.concatenate([often, np.linspace(0, config.steps, 41)]).round().astype(int))


def _network(config: Config, vocabulary: int, key: PRNGKeyArray) -> MaskedLM:
    model = MaskedLM(
        vocabulary, LENGTH, key=key, size=config.size, hidden=config.hidden, layers=config.layers, tied=config.tied,
    )  # fmt: skip
    return eqx.tree_at(lambda m: m.embedding, model, model.embedding * (config.start / 0.02))


def _roles(config: Config, key: PRNGKeyArray) -> Roles:
    return Roles(config.words, key=key, alpha=config.alpha, share=config.share)


def _adamw(rate: Array) -> optax.GradientTransformation:
    return optax.adamw(rate, weight_decay=0.01)


# What won on seeds 100 and 101 (benchmarks/dual_process_forgetting_tuning.py), but for noise; the rate, ten times the paper's, is that of all.
TUNED: dict[str, Any] = tuned_beside(__file__)
LAWS = {"uniform": 0.0, "zipf": 1.0001, "steep": 1.2, "steepest": 1.5}
FORGET, SEVERAL = TUNED["every"], (250, 500, 1000, 2000)
CHOSEN = TUNED["until"]  # of SEVERAL, as tuning chose it
LONG = 12_000
LATER = 1000  # words of noise come when the strategies of vanilla training are settled
DUAL = f"temporary-{CHOSEN}"
plain = Config(rate=TUNED["rate"])
ACTIVE = {"every": TUNED["active"]}
ARMS: dict[str, Config] = {
    **{f"{law}/vanilla": replace(plain, alpha=a) for law, a in LAWS.items()},
    **{f"{law}/active": replace(plain, alpha=a, **ACTIVE) for law, a in LAWS.items()},
    **{f"temporary-{n}": replace(plain, every=FORGET, until=n) for n in SEVERAL},
    **{f"{law}/temporary": replace(plain, alpha=a, every=FORGET, until=CHOSEN) for law, a in LAWS.items() if law != "zipf"},
    **{f"{law}/start": replace(plain, alpha=a, start=TUNED["start"]) for law, a in LAWS.items() if law != "zipf"},
    "noise": replace(plain, noise=TUNED["noise"], noise_until=TUNED["noise_until"]), "noise-always": replace(plain, noise=TUNED["noise"]),
    "noise-later": replace(plain, noise=TUNED["noise"], noise_from=LATER, noise_until=2 * LATER),
    "frozen": replace(plain, embeddings="frozen", start=1.0), "unit": replace(plain, start=1.0), "start": replace(plain, start=TUNED["start"]),
    "decay": replace(plain, decay=TUNED["decay"]), "untied": replace(plain, tied=False),
    "kept-moments": replace(plain, moments=False, **ACTIVE), "small-resets": replace(plain, spread=0.02, **ACTIVE),
    **{f"share-{s:g}": replace(plain, share=s) for s in (0.0, 0.01, 0.5)},
    **{f"words-{w}": replace(plain, words=w, head=min(20, w // 10)) for w in (100, 1000)},
    "one-layer": replace(plain, layers=1),
    # Four times as long.
    "long/vanilla": replace(plain, steps=LONG), "long/unit": replace(plain, start=1.0, steps=LONG),
    "long/temporary": replace(plain, every=FORGET, until=CHOSEN, steps=LONG),
}  # fmt: skip


def exam(name: str, of: str = "in_context") -> Any:
    return curve(of, exam=name)


# Share of any exam that a network has right by repeating the query: in context, in weights if words are switched, of two words.
REPEATED = 0.5
kinds = curve("probe", layer=0)
novel, mended = exam("novel"), exam("novel/mended")
unit, unit_known, left = exam("novel/unit"), exam("novel/unit", "chosen"), exam("novel/left")
known, known_mended = exam("novel", "chosen"), exam("novel/mended", "chosen")
head, tail, lawful = (exam(f"{name}/switched") for name in ("head", "tail", "law"))
head_weights, tail_weights = exam("head/switched", "in_weights"), exam("tail/switched", "in_weights")  # fmt: skip
fifth_weights = exam("band-0/switched", "in_weights")  # of the commonest fifth of the words


def lost(of: Any) -> Measure:
    """From the best observation to the last."""
    return peak(of) - final(of)


def average_of_cycle(of: Any) -> Measure:
    """Over the last three of 49 observations: 50, 125 and 200 updates after embeddings were last forgotten, every 200."""
    return tail_of(of, 0.065)


def over(of: Any, one: str, other: str) -> Effect:
    return final(of)[one] - final(of)[other]


def over_repeating(of: Any, one: str, other: str) -> Effect:
    """By how much one arm is above another, and above a network that repeats the query: the better of the two."""
    return final(of)[one] - combined("highest", np.maximum, final(of)[other], REPEATED)


def over_words(arm: str) -> Effect:
    """By how much more switched words are answered in context in the tail than in the head."""
    return final(tail)[arm] - final(head)[arm]


def with_end(of: Any) -> Effect:
    """Rank correlation with the update at which forgetting ends."""
    return spearman(list(map(float, SEVERAL)), [final(of)[f"temporary-{n}"] for n in SEVERAL])


SHARE, RANKS = "share of sequences", "rank correlation"
TRANSIENT = "structural in-context learning appears early and then disappears: a transient (vanilla training)"
PREFERS = "conditional in-context learning: in weights on the head, in context on the tail"
ACTIVELY = "active forgetting maintains structural in-context learning and removes the preference for weights"
TEMPORARILY = (
    "temporary forgetting: in-weights on the head and structural in-context learning in one model"
)
ROSE = Need(peak(novel)["zipf/vanilla"], "> 0.3", "novel words were never answered in context by vanilla training, so nothing can be lost")  # fmt: skip
PAPER_SEQUENCES, PAPER_WORDS = 8_000_000, 10_000


@measure("sequences trained on")
def sequences(trace: Any) -> np.ndarray:
    return np.full(trace.sizes["seed"], setting(trace, "steps") * setting(trace, "batch"), float)


def reached(claim: Claim) -> Need:
    """Training is a tenth of the paper's, or what is claimed of longer training is there already."""
    sign, limit = bound(claim.holds)
    trained = lowest(sequences[arm] for arm in claim.effect.arms) / PAPER_SEQUENCES - 0.1
    return Need(
        highest([trained, sign * (claim.effect - limit)]),
        "> 0",
        "not seen within fewer than a tenth of the paper's sequences",
    )


# Of the paper's claims, those on what training comes to in the end.
IN_THE_END = ("C1.known", "C1.mended", "C1.left", "C1.sure", "C1.scale", "C1.start", "C2.head", "C2.steepest", "C3.structural", "C3.preference", "C4.structural", "C4.weights")  # fmt: skip
later = partial(Claim, added="after results")
later_thorough, later_full = (partial(later, budget=budget) for budget in ("thorough", "full"))
HOW = {"uniform": "with uniform words", "zipf": "with Zipf's law", "steep": "with exponent 1.2", "steepest": "with exponent 1.5"}  # fmt: skip
CLAIMS = (
    Claim("C1.transient", "Zipf: novel words are answered in context at best by 30 points more often than in the end",
          TRANSIENT, lost(novel)["zipf/vanilla"], "> 0.3", SHARE, null=lost(novel)["frozen"], needs=(ROSE,)),
    Claim("C1.never", "Zipf: in the end vanilla training answers fewer than a tenth of novel sequences", TRANSIENT,
          final(novel)["zipf/vanilla"], "< 0.1", SHARE, null=at(novel, 0)["zipf/vanilla"]),
    Claim("C1.known", "Asked for one of the two words of the context alone, it falls by more than 10 points (ours)", TRANSIENT,
          lost(known)["zipf/vanilla"], "> 0.1", SHARE, null=lost(known)["frozen"]),
    Claim("C1.mended", "With the length and bias of trained words, novel ones lose as much: more than 30 points (ours)", TRANSIENT,
          lost(mended)["zipf/vanilla"], "> 0.3", SHARE, null=lost(mended)["frozen"]),
    Claim("C1.prior", "With them vanilla training answers more than half of novel sequences in the end (ours)", "(is it the output's prior?)",
          final(mended)["zipf/vanilla"], "> 0.5", SHARE, null=at(mended, 0)["zipf/vanilla"]),
    *(thorough(f"C1.never.{law}", f"So vanilla training answers fewer than a tenth {HOW[law]}", TRANSIENT, final(novel)[f"{law}/vanilla"], "< 0.1",
               SHARE, null=at(novel, 0)[f"{law}/vanilla"]) for law in LAWS if law != "zipf"),
    *(later_thorough(f"C1.prior.{arm.split('/')[0]}", f"So it answers more than half {how}", "(is it the output's prior?)", final(mended)[arm], "> 0.5", SHARE, null=at(mended, 0)[arm])
      for arm, how in {**{f"{law}/vanilla": HOW[law] for law in LAWS if law != "zipf"}, "words-100": "with 100 words", "words-1000": "with 1,000 words",
                       "one-layer": "with one layer"}.items()),
    later_thorough("C1.length", "With the mean length of trained words alone vanilla training answers more than half", "(is it the length of embeddings?)",
                   final(exam("novel/scaled"))["zipf/vanilla"], "> 0.5", SHARE, null=at(exam("novel/scaled"), 0)["zipf/vanilla"]),
    later_thorough("C1.bias", "With their mean bias alone it answers more than half", "(is it the bias?)",
                   final(exam("novel/bias"))["zipf/vanilla"], "> 0.5", SHARE, null=at(exam("novel/bias"), 0)["zipf/vanilla"]),
    later_thorough("C1.sure", "Where no word is ambiguous, of two words it falls by more than 10 points", TRANSIENT, lost(known)["share-0"], "> 0.1", SHARE, null=lost(known)["frozen"]),
    later_thorough("C1.sure-mended", "And with length and bias of trained words", TRANSIENT, lost(known_mended)["share-0"], "> 0.1", SHARE, null=lost(known_mended)["frozen"]),
    *(thorough(f"C1.known.{law}", f"And it falls by more than 10 points {HOW[law]}, asked for one of two words", TRANSIENT, lost(known)[f"{law}/vanilla"], "> 0.1",
               SHARE, null=lost(known)["frozen"]) for law in LAWS if law != "zipf"),
    later("C1.known-mended", "And with the length and bias of trained words, of two words, more than 10 points (ours)", TRANSIENT,
          lost(known_mended)["zipf/vanilla"], "> 0.1", SHARE, null=lost(known_mended)["frozen"]),
    later("C1.left", "As training left their embeddings, which the released code examines, novel words lose more than 30 points", TRANSIENT,
          lost(left)["zipf/vanilla"], "> 0.3", SHARE, null=lost(left)["frozen"]),
    later_full("C1.long-known", "Four times as long: of two words it falls by more than 10 points", TRANSIENT, lost(known)["long/vanilla"], "> 0.1", SHARE,
           null=lost(known)["frozen"]),
    later_full("C1.long-mended", "And with length and bias mended by more than 30", TRANSIENT, lost(mended)["long/vanilla"], "> 0.3", SHARE, null=lost(mended)["frozen"]),
    later_full("C1.long-scale", "And from embeddings of deviation 1 fewer than a tenth are answered in the end", "(is it the scale of resets?)", final(novel)["long/unit"], "< 0.1", SHARE),
    later_thorough("C1.start", "Vanilla training from its best first deviation answers fewer than a tenth, too", "(is it the scale of resets?)", final(novel)["start"], "< 0.1", SHARE,
           null=final(novel)["frozen"]),
    Claim("C1.scale", "Vanilla training from embeddings of deviation 1 answers fewer than a tenth, too", "(is it the scale of resets?)",
          final(novel)["unit"], "< 0.1", SHARE, null=final(novel)["frozen"]),
    Claim("C2.preference", "Zipf: switched words are answered in context by 20 points more often in the tail than in the head", PREFERS,
          over_words("zipf/vanilla"), "> 0.2", SHARE, null=over_words("uniform/vanilla")),
    Claim("C2.head", "Zipf: in the head more than half are answered in weights", PREFERS, final(head_weights)["zipf/vanilla"], "> 0.5", SHARE,
          null=final(head_weights)["frozen"]),
    Claim("C2.tail", "Zipf: in the tail more are answered in context than in weights", PREFERS,
          final(tail)["zipf/vanilla"] - final(tail_weights)["zipf/vanilla"], "> 0", SHARE, null=final(tail)["frozen"] - final(tail_weights)["frozen"]),
    thorough("C2.preference.steep", "So it is with exponent 1.2, by 20 points", PREFERS, over_words("steep/vanilla"), "> 0.2", SHARE, null=over_words("uniform/vanilla")),
    thorough("C2.nonzero", "Over uniform words, Zipf's law and 1.2 more than a twentieth of switched words stay in context (least)", PREFERS,
             lowest(final(lawful)[f"{law}/vanilla"] for law in ("uniform", "zipf", "steep")), "> 0.05", SHARE, null=REPEATED),
    thorough("C2.steepest", "With exponent 1.5 fewer than a twentieth do", "except in the case of highly skewed distributions", final(lawful)["steepest/vanilla"], "< 0.05", SHARE,
             null=final(lawful)["steepest/active"]),
    Claim("C3.structural", "Zipf: active forgetting answers more than 80 % of novel sequences", ACTIVELY, final(novel)["zipf/active"], "> 0.8", SHARE,
          null=final(novel)["start"]),
    later("C3.cycle", "And so it does on average over the last cycle of forgetting and learning anew", ACTIVELY, average_of_cycle(novel)["zipf/active"], "> 0.8", SHARE,
          null=average_of_cycle(novel)["start"]),
    later("C3.start", "Active forgetting answers more novel sequences than training that starts with the deviation of resets and forgets nothing", ACTIVELY,
          over(novel, "zipf/active", "unit"), "> 0", SHARE, null=over(novel, "start", "unit")),
    later("C3.tuned-start", "And more than training from the best first deviation", ACTIVELY, over(novel, "zipf/active", "start"), "> 0", SHARE),
    Claim("C3.over", "Zipf: by more than 50 points more than vanilla training", ACTIVELY, over(novel, "zipf/active", "zipf/vanilla"), "> 0.5", SHARE,
          null=over(novel, "unit", "zipf/vanilla")),
    Claim("C3.preference", "Zipf: with it fewer than a tenth of switched words of the head are answered in weights", ACTIVELY,
          final(head_weights)["zipf/active"], "< 0.1", SHARE, null=final(head_weights)["zipf/vanilla"]),
    *(thorough(f"C3.structural.{law}", f"Active forgetting answers more than 80 % of novel sequences {HOW[law]}", ACTIVELY, final(novel)[f"{law}/active"], "> 0.8", SHARE,
               null=final(novel)[f"{law}/start"]) for law in LAWS if law != "zipf"),
    *(thorough(f"C3.preference.{law}", f"And fewer than a tenth of the head in weights {HOW[law]}", ACTIVELY, final(head_weights)[f"{law}/active"], "< 0.1", SHARE,
               null=final(head_weights)[f"{law}/vanilla"]) for law in LAWS if law != "zipf"),
    Claim("C4.structural", "Temporary forgetting answers more than 70 % of novel sequences", TEMPORARILY, final(novel)[DUAL], "> 0.7", SHARE, null=final(novel)["start"]),
    later("C4.start", "More than training that starts with the deviation of resets and forgets nothing", TEMPORARILY, over(novel, DUAL, "unit"), "> 0", SHARE),
    later("C4.tuned-head", "More of the switched head in weights than training from the best first deviation, and than a repeat of the query", TEMPORARILY,
          over_repeating(head_weights, DUAL, "start"), "> 0", SHARE),
    *(later_thorough(f"C4.{what}.{law}", f"{said} {HOW[law]}", TEMPORARILY, final(of)[f"{law}/temporary"], "> 0.7", SHARE, null=final(of)[f"{law}/{rival}"])
      for law in LAWS if law != "zipf"
      for what, said, of, rival in (("structural", "It answers more than 70 % of novel sequences", novel, "start"), ("weights", "And more than 70 % of the head in weights", head_weights, "active"))),
    later("C4.mended", "More than vanilla training does with length and bias of new words mended", TEMPORARILY, final(novel)[DUAL] - final(mended)["zipf/vanilla"], "> 0", SHARE),
    later("C4.head", "More of the switched head in weights than training that starts so, and than a repeat of the query", TEMPORARILY,
          over_repeating(head_weights, DUAL, "unit"), "> 0", SHARE),
    later_full("C4.long", "Four times as long: temporary forgetting answers more than 70 % of novel sequences", TEMPORARILY, final(novel)["long/temporary"], "> 0.7", SHARE,
           null=final(novel)["long/unit"]),
    later_full("C4.long-weights", "And more than 70 % of the head in weights, switched", TEMPORARILY, final(head_weights)["long/temporary"], "> 0.7", SHARE,
           null=final(head_weights)["long/unit"]),
    Claim("C4.known", "Asked for one of two words, it answers more of them than vanilla training (ours)", TEMPORARILY, over(known, DUAL, "zipf/vanilla"), "> 0", SHARE),
    Claim("C4.weights", "And more than 70 % of the head in weights, switched", TEMPORARILY, final(head_weights)[DUAL], "> 0.7", SHARE, null=final(head_weights)["zipf/active"]),
    Claim("C4.tail", "And more of the tail in context than vanilla training", TEMPORARILY, over(tail, DUAL, "zipf/vanilla"), "> 0", SHARE),
    Claim("C4.more", "The later forgetting ends, the more novel sequences are answered", "N tunes it", with_end(novel), "> 0.5", RANKS),
    Claim("C4.less", "And the fewer switched words of the head are answered in weights", "N tunes it", with_end(head_weights), "< -0.5", RANKS),
    thorough("C4.lasts", "After its end temporary forgetting loses less than 20 points of novel sequences", TEMPORARILY, peak(novel)[DUAL] - final(novel)[DUAL], "< 0.2", SHARE,
             needs=(Need(peak(novel)[DUAL], "> 0.7", "novel words were not answered, so that nothing can be lost"),)),
    thorough("C5.structural", "Words of noise for a while: more novel sequences are answered than by vanilla training", "probabilistic temporary forgetting",
             over(unit, "noise", "zipf/vanilla"), "> 0.2", SHARE),
    later_thorough("C5.known", "Asked for one of two words, more than by vanilla training, and than a repeat of the query has", "(same)",
                   over_repeating(unit_known, "noise", "zipf/vanilla"), "> 0", SHARE),
    thorough("C5.weights", "And more than 70 % of the head in weights, switched", "(same)", final(head_weights)["noise"], "> 0.7", SHARE, null=final(head_weights)["noise-always"]),
    thorough("C5.always", "Words of noise for ever answer more than 70 % of novel sequences", "(drift)", final(unit)["noise-always"], "> 0.7", SHARE),
    thorough("C5.later", "After training without, words of noise for a while: more novel sequences are answered than by vanilla training", "extends to pre-trained models",
             over(unit, "noise-later", "zipf/vanilla"), "> 0.2", SHARE),
    later_thorough("C5.later-known", "Asked for one of two words, more than by vanilla training, and than a repeat of the query has", "(same)",
                   over_repeating(unit_known, "noise-later", "zipf/vanilla"), "> 0", SHARE),
    thorough("C5.later-weights", "And more than 70 % of the head in weights, switched", "(same)", final(head_weights)["noise-later"], "> 0.7", SHARE,
             null=final(head_weights)["noise-always"]),
    thorough("S.probe", "A linear probe of embeddings tells nouns from adjectives: more than 70 % of words that it was not fitted to", "(ours: what weights hold)",
             final(kinds)["zipf/vanilla"], "> 0.7", SHARE, null=final(kinds)["frozen"]),
    thorough("S.probe-active", "With active forgetting it tells less than 60 %", "(ours)", final(kinds)["zipf/active"], "< 0.6", SHARE, null=final(kinds)["zipf/vanilla"]),
    thorough("S.frozen", "Embeddings that never learn answer more than 80 % of novel sequences", "(ours: a control)", final(novel)["frozen"], "> 0.8", SHARE,
             null=at(novel, 0)["frozen"]),
    thorough("S.decay", "Decay of embeddings does as well as temporary forgetting: at most 10 points fewer", "(ours: a control)", over(novel, "decay", DUAL), "> -0.1", SHARE),
    thorough("S.decay-known", "So it does, asked for one of two words", "(ours: a control)", over(known, "decay", DUAL), "> -0.1", SHARE),
    thorough("S.moments", "Active forgetting is no worse where moments are kept: at most 5 points", "(Chen et al. reset them)", over(novel, "kept-moments", "zipf/active"), "> -0.05", SHARE),
    thorough("S.spread", "Resets with BERT's deviation of 0.02 answer as many with length and bias mended: at most 10 points fewer", "(the code resets with 1)", over(mended, "small-resets", "zipf/active"), "> -0.1", SHARE),
    thorough("S.untied", "Without a tied output vanilla training answers fewer than a tenth", "(ours)", final(novel)["untied"], "< 0.1", SHARE, null=at(novel, 0)["untied"]),
    later_thorough("S.ambiguous", "A tenth of ambiguous words makes fewer of the others in the head be answered in weights, and a half fewer still (the lesser step)",
                   "ambiguity makes identity uninformative", lowest([over(head_weights, "share-0", "zipf/vanilla"), over(head_weights, "zipf/vanilla", "share-0.5")]), "> 0", SHARE,
                   null=over(head_weights, "share-0", "share-0.01")),
    later_thorough("S.words", "The more words, the more of the commonest fifth of them are answered in weights", "(vocabularies of 100 to 20,000)",
                   spearman([100.0, 400.0, 1000.0], [final(fifth_weights)[a] for a in ("words-100", "zipf/vanilla", "words-1000")]), "> 0.5", RANKS,
                   needs=(Need(sequences["words-1000"] / 1000, f"> {PAPER_SEQUENCES / PAPER_WORDS:g}", "of 1,000 words each was trained on in fewer sequences than the paper's 10,000"),)),
    thorough("S.layer", "One layer prefers weights in the head, too", "(1, 2 and 6 layers)", final(head_weights)["one-layer"], "> 0.5", SHARE, null=final(head_weights)["frozen"]),
)  # fmt: skip


# Nothing is said of an arm that has not learned its training sequences; and of longer training, nothing is contradicted here.
CLAIMS = tuple(
    replace(claim, needs=(
        *claim.needs, *([reached(claim)] if claim.id.startswith(IN_THE_END) else []),
        Need(lowest(final(exam("seen"))[arm] for arm in claim.effect.arms), "> 0.95", "training sequences were not learned"),
    ))
    for claim in CLAIMS
)  # fmt: skip


@pictures.by_hand(width=6.5, height=3.8, legend=True)
def draw_bands(traces: Traces, ax: Axes) -> None:
    looks = {"zipf/vanilla": "vanilla", DUAL: f"forgetting until {CHOSEN}", "zipf/active": "active forgetting", "noise": "words of noise", "frozen": "frozen embeddings"}  # fmt: skip
    shown = {arm: label for arm, label in looks.items() if arm in traces}
    for i, (arm, label) in enumerate(shown.items()):
        last = traces[arm].in_weights.isel(step=-1)
        values = np.stack([last.sel(exam=f"band-{b}/switched").values for b in range(BANDS)], axis=1)  # fmt: skip
        style.spread(ax, np.arange(BANDS), values, **pictures.nth_look(i), label=label)
    ax.set_xticks(range(BANDS), ["first", "second", "third", "fourth", "last"])
    ax.set(xlabel="fifth of the words, the commonest first", ylabel="switched words answered in weights", ylim=(-0.03, 1.03))  # fmt: skip


MAIN = {"zipf/vanilla": "vanilla", DUAL: f"forgetting until {CHOSEN}", "zipf/active": "active forgetting", "frozen": "frozen embeddings"}  # fmt: skip
VIEWS = {"novel, in context": novel, "the same, length and bias mended": mended, "the same, one of two words": known}  # fmt: skip
SWITCHED = {"head, in weights": head_weights, "head, in context": head, "tail, in weights": tail_weights, "tail, in context": tail}  # fmt: skip
BY_LAW = {
    "novel, in context": novel, "head switched, in weights": head_weights, "tail switched, in context": tail
}  # fmt: skip
SMOKE = {"words": 20, "head": 2, "size": 8, "hidden": 8, "layers": 1, "batch": 8, "steps": 12, "exam": 10}  # fmt: skip
FULL = {"words": 10_000, "layers": 6, "rate": 5e-5, "batch": 128, "steps": 62_500, "exam": 10_000}
PAPER_ENDS = dict(zip(SEVERAL, (500, 1000, 1500, 2000), strict=True))


def at_full(config: Config) -> dict[str, Any]:
    """What an arm has at the paper's scale besides what all have."""
    own: dict[str, Any] = {}
    if config.words != plain.words:
        own["words"] = {100: 1000, 1000: 20_000}[config.words]
    if config.steps != plain.steps:
        own["steps"] = 4 * FULL["steps"]
    if config.layers != plain.layers:
        own["layers"] = config.layers
    if config.every:
        own["every"] = 10 if config.until else 1000
    if config.until:
        own["until"] = PAPER_ENDS[config.until]
    if config.noise_from:
        own |= {"noise_from": 30_000, "noise_until": 50_000}
    elif config.noise_until:
        own["noise_until"] = PAPER_ENDS[config.noise_until]
    return own


study = Study(
    paper=Paper(
        "dual-process-forgetting", "Dual Process Learning: Controlling Use of In-Context vs. In-Weights Strategies with Weight Forgetting",
        "Suraj Anand, Michael A. Lepori, Jack Merullo, Ellie Pavlick", "ICLR", 2025, "2406.00053", "surajK610/dual_process",
    ),
    family="forgetting",
    question="Can a network be made to keep reading the role of words it has never seen from their context, while it remembers that of common ones?",
    symptoms=(
        "a language model fails on rare or unseen words, new product codes, names",
        "in-context learning appears and disappears again in training",
        "extend a vocabulary, or move to another language, without training all anew",
        "reset embeddings during training, active forgetting",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, ("zipf/vanilla", DUAL, "noise", "frozen"), SMOKE, {DUAL: {"every": 3, "until": 7}, "noise": {"noise_until": 6}}),
        "quick": Budget(5),
        "thorough": Budget(5, also=tuple(f"{law}/temporary" for law in LAWS if law != "zipf")),
        "full": Budget(5, settings=FULL, arm_settings={arm: own for arm, config in ARMS.items() if (own := at_full(config))}),
    },
    claims=CLAIMS,
    figures=(
        Figure("novel", "Sequences of novel words, whose role only the context tells: mean and range of seeds. Left: as they are. Middle: they have the "
               "mean length and bias of trained words. Right: only the two words of the context may be told.",
               pictures.curves(VIEWS, ("", MAIN), xlabel="update", ylim=(-0.03, 1.03)), ("zipf/vanilla",)),
        Figure("strategies", "Words in the other kind's role: the share of sequences answered by their place and by what the word mostly is, for the "
               f"{plain.head} commonest words of each kind and the rarest tenth.",
               pictures.observables(SWITCHED, {arm: label for arm, label in MAIN.items() if arm != "frozen"}, xlabel="update", ylabel="share of sequences", ylim=(-0.03, 1.03)),
               ("zipf/vanilla",)),
        Figure("end", "Temporary forgetting by the update at which it ends. Lines are means, dots seeds.",
               pictures.trend(("", {label: (SEVERAL, [final(of)[f"temporary-{n}"] for n in SEVERAL]) for label, of in BY_LAW.items()}),
                              xscale="log", xticks=SEVERAL, xticklabels=SEVERAL, xlabel="forgetting ends at update", ylabel="share of sequences"), (DUAL,)),
        Figure("bands", "Switched words answered in weights, by how common they are, at the end of training: mean and range of seeds.", draw_bands, ("zipf/vanilla",)),
        Figure("laws", "The end of training by the law of the words (exponents 0, 1.0001, 1.2, 1.5): dots are seeds, bars means.",
               pictures.dots({title: {HOW[law].removeprefix("with "): {"vanilla": final(of)[f"{law}/vanilla"], "active": final(of)[f"{law}/active"],
                                      "temporary": final(of)[DUAL if law == "zipf" else f"{law}/temporary"],
                                      "larger start": final(of)["start" if law == "zipf" else f"{law}/start"]} for law in LAWS} for title, of in BY_LAW.items()}),
               ("steep/vanilla",)),
    ),
    data="sequences of nouns and adjectives, made as they are needed",
    notes="Words are 400 in place of 100 to 20,000, two layers in place of six, a rate of 0.0005 in place of 0.00005, 3,000 updates of 64 sequences in "
    "place of 62,500 of 128. All words of a kind can be drawn; in the authors' code the commonest never is. Exams on switched words leave ambiguous ones "
    "out. Novel words are examined with embeddings of the first deviation (0.02 but for the arms that start with another), and where embeddings are forgotten with that of resets, 1; claims "
    "on words of noise examine them with 1, both there and after vanilla training. There is no dropout of attention. "
    "When embeddings are forgotten, strength of decay, and the first deviation of arms named so are the best on two other seeds, by Zipf's law; the rate is 0.0005 for all. "
    "Strength and end of noise are not tuned.",
    watch="in_context",
)  # fmt: skip
