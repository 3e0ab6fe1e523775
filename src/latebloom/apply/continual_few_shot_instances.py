"""Photos of objects in; which way of enrolling them from one photo each recognises them later, and how dirt harms it, out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from latebloom.data.files import Column, FileError
from latebloom.data.labelled import Labelled, read_features, read_folders, read_images, read_npz
from latebloom.lab import Application, Applied, pictures
from latebloom.lab.application import Say
from latebloom.methods.forgetting.corrupted import KINDS
from latebloom.methods.forgetting.enrolment import RATES, REPLAYED, Assessed, assess

MORE = {"instance": Column("label", required=False, aliases=("object", "part", "item", "identity", "serial"))}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """- `instances`: enrolled in an episode; `episodes` drawn.
    - `size`: images are scaled to so many pixels a side. `methods`: ways that are compared.
    - `features`: the table has no images, but numbers in all other columns, which a network of your own has made.
    - `total` steps of tuning an episode at `rate` (None: the best of six on other episodes); `replayed` images a step;
      `known` made-up characters that the network is pretrained on, for `steps` batches.
    - `seed`: of all that is drawn. `columns`: what the table calls them, where it calls them otherwise ("label=class").
    """

    instances: int = 20
    episodes: int = 20
    size: int = 28
    methods: tuple[str, ...] = ()
    features: bool = False
    total: int = 40
    rate: float | None = None
    replayed: int = 4
    known: int = 300
    steps: int = 300
    seed: int = 0
    columns: tuple[str, ...] = ()


def run(paths: Sequence[Path], options: Options, say: Say) -> Applied:
    if not 8 <= options.size <= 256:
        raise ValueError(f"size must be from 8 to 256 pixels, not {options.size}")
    say("reading the images", 0.0)
    data = read_photos(paths, options)
    try:
        found = assess(
            data.x, data.y, data.more.get("instance"), names=data.ids, methods=options.methods if options.methods else None, instances=options.instances,
            episodes=options.episodes, total=options.total, rate=options.rate, replayed=options.replayed, known=options.known,
            steps=options.steps, seed=options.seed, say=lambda what, share: say(what, 0.02 + 0.93 * share),
        )  # fmt: skip
    except ValueError as error:
        raise FileError(f"{paths[-1]}: {error}") from None
    say("drawing", 0.96)
    figures = {"methods": draw_methods(found)}
    if len(found.robust):
        figures["robustness"] = draw_robustness(found)
    if len(found.arrangements):
        figures["arrangements"] = draw_arrangements(found)
    summary = {
        "images": len(data.y), "classes": len(np.unique(data.y)), "instances": found.instances, "separate_photos": found.separate, "left_out": found.left_out,
        "best": found.best, "alike": found.alike, "arrangement": arrangement_of(found), "memory": memory_of(found),
    }  # fmt: skip
    tables = {"methods": found.methods, "robustness": found.robust, "confusion": found.confusion, "arrangements": found.arrangements, "memory": found.memory}  # fmt: skip
    return Applied(sentences(found), summary, tables, figures)


def read_photos(paths: Sequence[Path], options: Options) -> Labelled:
    """Images, or features, with a label and perhaps an instance. Raises `FileError`."""
    if len(paths) == 1 and paths[0].suffix.lower() == ".npz":
        return read_npz(paths[0], MORE)
    folders = [path for path in paths if path.is_dir()]
    tables = [path for path in paths if not path.is_dir()]
    if options.features:
        if len(paths) != 1 or folders:
            raise FileError(
                f"features come in one table, not {', '.join(map(str, paths)) or 'nothing'}"
            )
        return read_features(tables[0], options.columns, MORE)
    if len(tables) == 1 and len(folders) <= 1:
        folder = folders[0] if folders else tables[0].parent
        return read_images(folder, tables[0], options.size, options.columns, MORE)
    if len(folders) != 1 or tables:
        raise FileError(
            f"give a folder with a folder of images for each class, or a table (with the folder that its paths "
            f"start from), or one .npz, not {', '.join(map(str, paths)) or 'nothing'}"
        )
    return read_folders(folders[0], options.size)


def arrangement_of(found: Assessed) -> dict[str, Any] | None:
    """Where tuning with replay does best: sets, and images of each; and those not surely behind."""
    if not len(found.arrangements):
        return None
    rows = found.arrangements.to_dict("records")
    method = REPLAYED if any(row["method"] == REPLAYED for row in rows) else rows[0]["method"]
    own = [row for row in reversed(rows) if row["method"] == method]
    top = max(own, key=lambda row: row[found.judged])
    alike = [[int(r["sets"]), int(r["images"])] for r in own if r["may_be_best"] and r is not top]
    return {"method": str(top["method"]), "sets": int(top["sets"]), "images": int(top["images"]), "alike": alike}  # fmt: skip


def memory_of(found: Assessed) -> int | None:
    """The fewest remembered sets that are not surely behind the best."""
    if not len(found.memory):
        return None
    enough = found.memory[found.memory["may_be_best"]]
    return min(int(kept) for kept in enough["sets_kept"].tolist())


def sentences(found: Assessed) -> tuple[str, ...]:
    table = found.methods.set_index("method")
    best, others = found.best, [m for m in found.alike if m != found.best]
    asked = "another photo of each" if found.separate else "the very photos that were enrolled"
    start = "With half of the image lost, " if found.judged == "corrupted" else ""
    said = [
        f"{start}{best} recognises {percent(table.loc[best, found.judged])} of {found.instances} instances "
        f"[{percent(table.loc[best, f'{found.judged}_low'])}, {percent(table.loc[best, f'{found.judged}_high'])}]"
        + (f"; {', '.join(others)} may do as well." if others else ", surely the most."),
        f"{'Whole' if start else 'All ways'}: {', '.join(f'{m} {percent(v)}' for m, v in table['clean'].items())}; a guess is right on {percent(1 / found.instances)}. "
        f"Asked for were {asked}" + ("." if found.separate else ": a mere memory of pixels is always right there, so go by what is lost."),
    ]  # fmt: skip
    if found.left_out and found.separate:
        said.append(f"Left out are instances with one photo: {found.left_out}.")
    elif found.left_out:
        said.append(f"Left out are classes with fewer than {found.instances} images: {found.left_out}. Ask for fewer instances to draw from more.")  # fmt: skip
    if found.same:
        said.append(f"All episodes have the same {found.instances} images: intervals tell of order and damage, not of other objects.")  # fmt: skip
    if edge := [f"{m} {r:g}" for m, r in table["rate"].items() if r in (RATES[0], RATES[-1])]:
        said.append(f"The best learning rate is the first or the last that was tried ({', '.join(edge)}): one beyond may be better.")  # fmt: skip
    if (place := arrangement_of(found)) is not None:
        others = ", ".join(f"{sets} x {images}" for sets, images in place["alike"])
        said.append(f"Tuning takes {place['sets']} x {place['images']} (sets x images of each) best ({place['method']})"
                    + (f"; {others} may do as well." if others else "."))  # fmt: skip
    if (kept := memory_of(found)) is not None:
        said.append(f"Replay needs the last {kept} {'set' if kept == 1 else 'sets'} in memory: that more helps is not sure.")  # fmt: skip
    if len(found.confusion):
        row = found.confusion.iloc[0]
        said.append(f"Most often {row['instance']} is taken for {row['taken_for']} ({row['times']} times).")  # fmt: skip
    return tuple(said)


def percent(value: Any) -> str:
    return f"{100 * float(value):.0f} %"


def draw_robustness(found: Assessed) -> Figure:
    figure, axes = pictures.panels(4, 4, width=12.5, height=3.3, sharey=True)
    titles = ("a disc hidden", "a square hidden", "salt and pepper", "uniform noise")
    for ax, kind, title in zip(axes, KINDS, titles, strict=True):
        for i, method in enumerate(found.methods["method"]):
            rows = found.robust[(found.robust["kind"] == kind) & (found.robust["method"] == method)]
            look = pictures.nth_look(i)
            ax.plot(rows["fraction"], 100 * rows["accuracy"], marker="osvD^Px"[i % 7], markersize=4, color=look["colour"], linestyle=look["linestyle"], label=method)  # fmt: skip
        ax.set(title=title, xlabel="share of the pixels", ylim=(0, 102))
    axes[0].set_ylabel("instances recognised in %")
    pictures.legend_below(figure)
    return figure


def draw_methods(found: Assessed) -> Figure:
    table = found.methods.sort_values(found.judged, kind="stable")
    figure, (ax,) = pictures.panels(1, width=7, height=0.9 + 0.32 * len(table))
    y = np.arange(len(table))
    labels = {"corrupted": "half lost, 95 %", "clean": "whole, 95 %"}
    for i, (name, label) in enumerate((n, w) for n, w in labels.items() if n in table):
        middle = 100 * table[name]
        bars = [middle - 100 * table[f"{name}_low"], 100 * table[f"{name}_high"] - middle]
        ax.errorbar(middle, y + 0.12 * (1 - 2 * i), xerr=bars, fmt="os"[i], color=pictures.nth_look(i)["colour"], label=label)  # fmt: skip
    ax.set_yticks(y, table["method"])
    ax.set(xlabel="instances recognised in %", xlim=(0, 102))
    pictures.legend_below(figure)
    return figure


def draw_arrangements(found: Assessed) -> Figure:
    figure, (ax,) = pictures.panels(1, width=6.4, height=3.6)
    for i, (method, rows) in enumerate(found.arrangements.groupby("method", sort=False)):
        middle = 100 * rows[found.judged]
        bars = [
            middle - 100 * rows[f"{found.judged}_low"],
            100 * rows[f"{found.judged}_high"] - middle,
        ]
        look = pictures.nth_look(i)
        ax.errorbar(range(len(rows)), middle, yerr=bars, marker="os"[i % 2], color=look["colour"], linestyle=look["linestyle"], label=str(method), capsize=2)  # fmt: skip
        ax.set_xticks(range(len(rows)), [f"{s} x {n}" for s, n in zip(rows["sets"], rows["images"], strict=True)])  # fmt: skip
    lost = ", half lost," if found.judged == "corrupted" else ""
    ax.set(xlabel="support sets x images of each", ylabel=f"recognised{lost} in %", ylim=(0, 102))
    ax.legend(fontsize=8)
    return figure


application = Application(
    about="Photos of objects or classes: instances are enrolled from one photo each and asked for again, whole, partly hidden "
    "and noisy; out come which way of learning recognises them, what is confused, and how to show and replay them.",
    files="a folder with a folder of images for each class; or a table with the columns path and label (and instance, where "
    "there are several photos of an object), with the folder that the paths start from if it is not the table's; or an .npz with x and "
    "y (and instance); with features=true a table with label, instance and numbers",
    options=Options,
    run=run,
)
