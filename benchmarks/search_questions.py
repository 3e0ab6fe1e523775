"""How often does search find the paper that a question in plain words is about?

Rank one and the first three, by words alone (BM25), by meaning alone (static embeddings) and by
both; how often a question about nothing here is answered so; how often one about a paper is refused.
The questions of `search_questions.csv` were written before the search, those of
`search_confirmation.csv` after a first look at these had shown that long questions were refused,
and nothing was chosen on either; the share of words and the level were chosen on
`search_development.csv`.

    python benchmarks/search_questions.py [questions | confirmation | development] [--list]
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

import numpy as np

from latebloom.lab.search import LEVEL, SHARE_OF_WORDS, Library, search

names = [a for a in sys.argv[1:] if not a.startswith("-")] or ["questions"]
path = Path(__file__).parents[1] / "tests" / "lab" / f"search_{names[0]}.csv"
with open(path, newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
about = [r for r in rows if r["kind"] == "fits"]
library = Library.of_all()
position = {e.slug: i for i, e in enumerate(library.entries)}
targets = np.array([position[r["slug"]] for r in about])
built = np.array([r["slug"] in library.built for r in about])


def rank(scores: np.ndarray) -> np.ndarray:
    """How many papers score as well as the one that is meant, itself included."""
    own = scores[np.arange(len(targets)), targets][:, None]
    return np.where(own[:, 0] > 0, (scores >= own).sum(1), len(position))


words, meaning = map(
    np.array, zip(*(library.scores(r["question"]) for r in about), strict=True)
)  # fmt: skip
both = SHARE_OF_WORDS * words + (1 - SHARE_OF_WORDS) * meaning

print(
    f"{path.name}: {len(about)} questions about {len(position)} papers, {built.sum()} about built ones"
)
print(f"{'':18}{'rank one':>10}{'first three':>13}{'built: one':>12}{'three':>7}")
for name, scores in (("words (BM25)", words), ("meaning", meaning), ("both", both)):
    r = rank(scores)
    parts = (r == 1).mean(), (r <= 3).mean(), (r[built] == 1).mean(), (r[built] <= 3).mean()
    print(f"{name:18}{parts[0]:10.1%}{parts[1]:13.1%}{parts[2]:12.1%}{parts[3]:7.1%}")

print(f"\nlevel {LEVEL}")
refused = {r["question"]: not search(r["question"]) for r in rows}
for kind, text in (
    ("fits", "about a paper, wrongly refused"),
    ("elsewhere", "about something else, refused"),
    ("neighbour", "machine learning that no paper treats, refused"),
):
    asked = [r["question"] for r in rows if r["kind"] == kind]
    if asked:
        print(f"{text:48}{sum(refused[q] for q in asked):4} of {len(asked)}")

if "--list" in sys.argv:
    for r, place, s in zip(about, rank(both), both, strict=True):
        first = library.entries[int(np.argmax(s))].slug
        if place > 1 or refused[r["question"]]:
            print(f"{place:3} {r['slug']:30} {s.max():.2f} {first:30} {r['question']}")
    for r in rows:
        if r["kind"] != "fits" and (found := search(r["question"])):
            print(
                f"    {r['kind']:30} {found[0].score:.2f} {found[0].entry.slug:30} {r['question']}"
            )

start = time.process_time()
for r in rows:
    search(r["question"])
print(f"\n{(time.process_time() - start) / len(rows) * 1e3:.1f} CPU ms a question, once loaded")
