"""Photos in folders and tables; ways of enrolling them compared; files that are refused."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from latebloom.apply.continual_few_shot_instances import Options, memory_of, read_photos, sentences
from latebloom.data.files import FileError
from latebloom.lab import apply
from latebloom.methods.forgetting import enrolment
from latebloom.methods.forgetting.enrolment import RATES, Assessed, assess
from latebloom.methods.forgetting.few_shot import answers
from latebloom.methods.forgetting.intervals import not_behind
from latebloom.nn import MLP, StageNet

QUICK = {"methods": "nearest pixels,nearest features,prototypes by Euclid,logistic regression,tuned with replay", "instances": 2, "episodes": 3, "size": 8, "total": 2,
         "known": 12, "steps": 2, "replayed": 1}  # fmt: skip
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of five objects, two photos of each, a little different."""
    folder, rows = tmp_path_factory.mktemp("photos"), []
    for kind in ("bolt", "nut"):
        (folder / kind).mkdir()
        for i in range(5):
            part = RNG.integers(0, 255, (10, 10))
            for shot in "ab":
                noise = RNG.integers(-5, 5, (10, 10))
                name = f"{kind}/{i}{shot}.png"
                Image.fromarray(np.clip(part + noise, 0, 255).astype(np.uint8)).save(folder / name)
                rows.append({"path": name, "label": kind, "instance": f"{kind} {i}"})
    pd.DataFrame(rows).to_csv(folder / "t.csv", index=False)
    return folder


def test_folders_of_classes_and_a_table_hold_the_same(photos):
    options = Options(size=8)
    by_folder, by_table = read_photos([photos], options), read_photos([photos / "t.csv"], options)
    np.testing.assert_array_equal(by_folder.x, by_table.x)
    assert by_folder.y.tolist() == by_table.y.tolist() and "instance" not in by_folder.more
    assert by_folder.ids.tolist() == by_table.ids.tolist()
    both = read_photos([photos, photos / "t.csv"], options)
    assert both.more["instance"][0] == "bolt 0"


def test_a_folder_goes_through(photos, tmp_path):
    done = apply("continual-few-shot-instances", [photos], tmp_path, settings=QUICK)
    result = json.loads((tmp_path / "result.json").read_text())
    assert "2209.07863" in result["cite"] and result["summary"]["instances"] == 2
    names = {path.name for path in done.paths}
    assert {"methods.csv", "robustness.csv", "confusion.csv", "robustness.png", "arrangements.png"} <= names  # fmt: skip
    methods = pd.read_csv(tmp_path / "methods.csv").set_index("method")
    assert len(methods) == 5 and methods.at["nearest pixels", "clean"] == 1
    assert (methods["corrupted_low"] <= methods["corrupted"]).all()
    found = " ".join(result["found"])
    assert "a mere memory of pixels is always right there" in found and "nan" not in found
    robust = pd.read_csv(tmp_path / "robustness.csv")
    assert len(robust) == 5 * 4 * 5
    confusion = pd.read_csv(tmp_path / "confusion.csv")
    assert confusion.empty or confusion["instance"].str.endswith(".png").all()
    arrangements = pd.read_csv(tmp_path / "arrangements.csv")
    assert set(arrangements["sets"]) == {2}


def test_other_photos_of_the_same_objects(photos):
    data = read_photos([photos / "t.csv"], Options(size=8))
    found = assess(data.x, data.y, data.more["instance"], methods=("nearest pixels",), instances=10, episodes=2,
                   known=12, steps=1, fractions=(0.5,))  # fmt: skip
    assert found.separate and found.instances == 10
    assert found.methods["clean"].iloc[0] == 1 and found.best == "nearest pixels"
    assert len(found.memory) == len(found.arrangements) == 0
    if len(found.confusion):
        assert set(found.confusion["instance"]) <= set(data.more["instance"])
        assert (found.confusion["instance"] != found.confusion["taken_for"]).all()


OBJECTS = np.repeat(np.arange(6), 3)
FEATURES = (RNG.normal(size=(6, 5))[OBJECTS] + 0.1 * RNG.normal(size=(18, 5))).astype(np.float32)
FEW = {"instances": 4, "episodes": 6, "total": 8}


def test_features_of_objects_are_told_apart_and_tuned_at_a_rate_of_their_own():
    """Nothing is pretrained or corrupted; features of any scale find a rate that learns."""
    ways = ("nearest features", "tuned with replay")
    for scale in (1, 1000):
        found = assess(scale * FEATURES, ["part"] * 18, OBJECTS, methods=ways, **FEW)
        table = found.methods.set_index("method")
        assert found.judged == "clean" and "corrupted" not in table and len(found.robust) == 0
        assert table["clean"].min() > 0.8, table
        rate = table.at["tuned with replay", "rate"]
        assert rate in RATES and np.isnan(table.at["nearest features", "rate"])
    assert rate < 0.1
    said = " ".join(sentences(found))
    assert "half" not in said and "of 4 instances" in said
    assert f"first or the last that was tried (tuned with replay {rate:g})" in said
    given = assess(FEATURES, ["part"] * 18, OBJECTS, methods=ways[1:], rate=0.02, **FEW)
    assert given.methods["rate"].tolist() == [0.02] and len(given.memory) > 0


def test_features_that_tell_nothing_are_recognised_by_chance():
    noise = RNG.normal(size=(60, 5))
    found = assess(noise, ["part"] * 60, np.repeat(np.arange(20), 3), methods=("nearest features",), instances=20, episodes=30)  # fmt: skip
    assert abs(found.methods["clean"].iloc[0] - 1 / 20) < 0.03


class Convolutional(eqx.Module):
    """One image at a time with channels first, as Equinox has them, and dropout."""

    convolution: eqx.nn.Conv2d
    dropout: eqx.nn.Dropout
    readout: eqx.nn.Linear

    def __init__(self, channels, key):
        self.convolution = eqx.nn.Conv2d(channels, 3, 3, stride=2, key=key)
        self.dropout, self.readout = eqx.nn.Dropout(0.5), eqx.nn.Linear(27, 5, key=key)

    def __call__(self, x, *, key=None):
        return self.readout(self.dropout(self.convolution(x).ravel(), key=key))


@pytest.mark.parametrize("channels", [1, 3])
def test_any_network_is_handed_what_it_takes(channels):
    key = jax.random.key(0)
    images = jnp.asarray(RNG.uniform(size=(4, 8, 8, channels)), jnp.float32)
    single, stages = Convolutional(channels, key), StageNet((8, 8), channels, filters=2, stages=2, key=key)  # fmt: skip
    flat, first = MLP(64 * channels, (4,), 5, key=key), jnp.moveaxis(images, -1, 1)
    for network, wanted in (
        (single, jax.vmap(eqx.nn.inference_mode(single))(first)), (stages, stages(images)),
        (flat, flat(images.reshape(4, -1))), (lambda x: x.mean(axis=(1, 2)), images.mean(axis=(1, 2))),
        (eqx.nn.MLP(64 * channels, 5, 4, 1, key=key), None),
    ):  # fmt: skip
        laid, width = enrolment._laid(network, images)
        made = answers(laid, images, "running")
        assert made.shape == (4, width)
        if wanted is not None:
            np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-6)


def test_a_network_of_ones_own_is_tuned_with_all_its_weights():
    """A network that learned to throw away what tells objects apart is mended by tuning, a function is not."""
    blind = eqx.nn.MLP(5, 6, 8, 1, key=jax.random.key(0))
    blind = eqx.tree_at(lambda m: m.layers[0].weight, blind, replace_fn=lambda w: 1e-3 * w)
    ways = {"methods": ("tuned with replay",), "rate": 0.3, **FEW, "total": 60}
    module, function = (
        assess(FEATURES, ["part"] * 18, OBJECTS, network=n, **ways).methods["clean"].iloc[0]
        for n in (blind, lambda x: jax.vmap(blind)(x))
    )
    assert module > function + 0.2


def test_an_answer_depends_on_no_neighbour():
    images = jnp.asarray(RNG.uniform(size=(3, 8, 8, 1)), jnp.float32)
    net = StageNet((8, 8), filters=2, stages=2, key=jax.random.key(0))
    body = enrolment._ByItself(net)
    alone = answers(body, images[:1], "running")
    np.testing.assert_allclose(answers(body, images, "running")[:1], alone, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(alone, answers(net, images[:1]), rtol=1e-4, atol=1e-5)
    assert abs(answers(net, images)[:1] - alone).max() > 0.01
    learner = enrolment._learner(images, None, 4, known=8, steps=1, seed=0)
    assert isinstance(learner.body, enrolment._ByItself)


def test_features_in_a_table_or_arrays(tmp_path):
    table = pd.DataFrame(FEATURES, columns=list("abcde")).assign(label="part", instance=OBJECTS)
    table.to_csv(tmp_path / "t.csv", index=False)
    np.savez(tmp_path / "t.npz", x=FEATURES, y=["part"] * 18, instance=OBJECTS)
    by_table = read_photos([tmp_path / "t.csv"], Options(features=True))
    by_arrays = read_photos([tmp_path / "t.npz"], Options())
    np.testing.assert_allclose(by_table.x, by_arrays.x, rtol=1e-6)
    assert by_table.more["instance"].tolist() == [str(i) for i in by_arrays.more["instance"]]
    settings = {
        "features": "true",
        "methods": "nearest features,tuned with replay",
        "rate": 0.1,
        **FEW,
    }
    done = apply("continual-few-shot-instances", [tmp_path / "t.csv"], tmp_path / "o", settings=settings)  # fmt: skip
    assert {"methods.png", "arrangements.png", "methods.csv"} <= {path.name for path in done.paths}
    assert not (tmp_path / "o" / "robustness.png").exists()
    with pytest.raises(FileError, match="features come in one table"):
        read_photos([tmp_path, tmp_path / "t.csv"], Options(features=True))


def test_episodes_that_are_all_alike_are_told():
    x = RNG.integers(0, 255, (4, 8, 8)).astype(np.uint8)
    short = {"methods": ("nearest pixels",), "episodes": 2, "known": 12, "steps": 1, "fractions": (0.5,)}  # fmt: skip
    found = assess(x, ["a"] * 4, instances=4, **short)
    assert found.same and "All episodes have the same 4 images" in " ".join(sentences(found))
    assert not assess(x, ["a"] * 4, instances=3, **short).same


def test_objects_numbered_anew_in_each_class_are_not_taken_for_one_another(photos):
    """Number 0 of the bolts and number 0 of the nuts are two, and a confusion of them is one."""
    x = np.repeat(RNG.integers(0, 255, (1, 8, 8)), 8, axis=0).astype(
        np.uint8
    )  # nothing can be told apart
    x[::2, 0, 0] += 1
    label, number = np.repeat(["bolt", "nut"], 4), np.tile([0, 0, 1, 1], 2)
    found = assess(x, label, number, methods=("nearest pixels",), instances=4, episodes=4, known=12, steps=1)  # fmt: skip
    names = set(found.confusion["instance"]) | set(found.confusion["taken_for"])
    assert names == {"bolt/0", "bolt/1", "nut/0", "nut/1"}
    pairs = found.confusion.apply(tuple, axis=1).str[:2].tolist()
    assert any(a.endswith(b[-1]) for a, b in pairs) and all(a != b for a, b in pairs)


def test_classes_that_are_too_small_are_told():
    x = RNG.integers(0, 255, (13, 8, 8)).astype(np.uint8)
    given = {"methods": ("nearest pixels",), "episodes": 2, "known": 12, "steps": 1}
    found = assess(x, np.repeat(["a", "b", "c"], [6, 5, 2]), **given)
    assert (found.instances, found.left_out) == (6, 2)
    assert "Left out are classes with fewer than 6 images: 2" in " ".join(sentences(found))
    found = assess(x, np.zeros(13), np.repeat(range(7), [2, 2, 2, 2, 2, 2, 1]), **given)
    assert (found.instances, found.left_out) == (6, 1)
    assert "Left out are instances with one photo: 1." in " ".join(sentences(found))


def told(**more):
    methods = pd.DataFrame({"method": ["tuned", "nearest pixels"], "clean": [0.8, 1], "corrupted": [0.3, 0.6], "rate": [0.1, np.nan],
                            "corrupted_low": [0.2, 0.5], "corrupted_high": [0.4, 0.7], "may_be_best": [False, True]})  # fmt: skip
    memory = pd.DataFrame({"sets_kept": [1, 4, 9], "corrupted": [0.3, 0.5, 0.55], "may_be_best": [False, True, True]})  # fmt: skip
    confusion = pd.DataFrame({"instance": ["a"], "taken_for": ["b"], "times": [7]})
    empty = pd.DataFrame()
    return Assessed(**({"methods": methods, "robust": empty, "arrangements": empty, "memory": memory,
                        "confusion": confusion, "instances": 20, "episodes": 5, "separate": False} | more))  # fmt: skip


def test_what_is_said():
    said = " ".join(sentences(told()))
    assert "nearest pixels recognises 60 % of 20 instances [50 %, 70 %], surely the most." in said
    assert "a guess is right on 5 %" in said and "the last 4 sets in memory" in said
    assert "Most often a is taken for b (7 times)." in said
    assert memory_of(told(memory=pd.DataFrame())) is None
    near = told().methods.assign(may_be_best=True)
    assert "; tuned may do as well." in sentences(told(methods=near, separate=True))[0]
    shown = pd.DataFrame({"method": "tuned", "sets": [2, 10, 20], "images": [10, 2, 1], "corrupted": [0.3, 0.5, 0.4],
                          "may_be_best": [False, True, True]})  # fmt: skip
    said = " ".join(sentences(told(arrangements=shown)))
    assert "takes 10 x 2 (sets x images of each) best (tuned); 20 x 1 may do as well." in said


def test_who_is_behind_is_told_by_the_same_episodes():
    """A lead of 3 points in every episode is seen, however hard the episodes differ; where two are alike, one is
    said to lead in at most 5 % of the cases, and the best is lost in at most 5 %, with seven to choose from."""
    rng = np.random.default_rng(1)
    hard = rng.normal(0.5, 0.15, 20)
    values = np.stack([hard, hard - 0.03 + rng.normal(0, 0.01, 20), hard])
    assert not_behind(values).tolist() == [True, False, True]
    assert not_behind(np.ones((1, 2))).tolist() == [True]
    constant = np.array([[0.75] * 5, [0.5] * 5])  # of four instances each
    assert not_behind(constant).all() and not_behind(np.repeat(constant, 2, 1)).tolist() == [
        True,
        False,
    ]
    with pytest.raises(ValueError, match="two splits or more, not 1"):
        not_behind(np.ones((2, 1)))
    for ways in (2, 7):
        drawn = rng.normal(0.5, 0.1, (2000, ways, 20))
        told_apart = [not_behind(v) for v in drawn]
        assert np.mean([t.sum() == 1 for t in told_apart]) < 0.065
        assert np.mean([not t[0] for t in told_apart]) < 0.06


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": np.zeros((20, 4, 4), np.uint8)}, "at least 8 x 8"),
        ({"x": np.full((20, 8, 8), 3.0)}, "from 0 to 1: scale them"),
        ({"x": np.full((20, 8, 8), np.nan)}, "finite floats"),
        ({"label": np.arange(3)}, "a label for each of the 20 images"),
        ({"label": np.arange(20)}, "every class has one image"),
        ({"instance": np.arange(20)}, "fewer than two instances have a second photo"),
        ({"instance": np.arange(3)}, "an instance for each of the 20"),
        ({"label": ["a"] * 19 + [None]}, "example 19 has no label"),
        ({"x": np.zeros((20, 260, 260), np.uint8)}, "at most 256 pixels a side, not 260 x 260"),
        ({"x": np.zeros((20, 5))}, "features need an instance for each"),
        (
            {
                "x": np.zeros((20, 5)),
                "instance": np.repeat(np.arange(10), 2),
                "methods": ("nearest pixels",),
            },
            "features have no pixels",
        ),
        (
            {"x": np.full((20, 5), np.inf), "instance": np.repeat(np.arange(10), 2)},
            "finite numbers where it is features",
        ),
        (
            {"network": lambda x: x.sum(axis=tuple(range(1, x.ndim)))},
            "where features .d. are needed",
        ),
        ({"network": eqx.nn.BatchNorm(1, "batch", mode="batch")}, "latebloom.nn.BatchNorm"),
        (
            {"network": eqx.nn.MLP(63, 5, 8, 1, key=jax.random.key(0))},
            "takes neither a batch .* all in one row",
        ),
        ({"methods": ("best",)}, "methods must be some of nearest pixels"),
        ({"episodes": 1}, "episodes must be a whole number from 2"),
        ({"rate": float("nan")}, "rate must be above 0"),
        ({"fractions": (1.5,)}, "fractions must be from 0 to 1"),
    ],
)
def test_what_is_refused(change, words):
    given = {"x": np.zeros((20, 8, 8), np.uint8), "label": np.repeat([0, 1], 10)} | change
    with pytest.raises(ValueError, match=words):
        assess(given.pop("x"), given.pop("label"), **given)


def test_files_that_cannot_be_used_are_told(photos, tmp_path):
    (tmp_path / "none").mkdir()
    for paths, words in (
        ([tmp_path / "none"], "no folders of images"),
        ([photos, photos], "give a folder with a folder of images for each class"),
        ([], "not nothing"),
    ):
        with pytest.raises(FileError, match=words):
            read_photos(paths, Options())
    odd = tmp_path / "odd"
    for place in ("a", "b", ".thumbnails", "__MACOSX"):
        (odd / place).mkdir(parents=True)
    picture = Image.fromarray(np.arange(96, dtype=np.uint8).reshape(8, 12))
    turned = picture.getexif()
    turned[0x0112] = 6  # taken with the phone upright
    picture.save(odd / "a" / "1.PNG")
    picture.save(odd / "b" / "1.png", exif=turned)
    (odd / "a" / "._1.png").write_bytes(b"a resource fork")
    (odd / "a" / "notes.txt").write_text("no image")
    picture.save(odd / ".thumbnails" / "1.png")
    picture.save(odd / "__MACOSX" / "1.png")
    found = read_photos([odd], Options(size=8))
    assert found.ids.tolist() == ["a/1.PNG", "b/1.png"]
    assert found.x[0, 0, 0] < found.x[0, 0, -1] and found.x[1, 0, 0] > found.x[1, 0, -1]
    picture.save(odd / "loose.png")
    with pytest.raises(FileError, match="loose.png lies in no folder of a class"):
        read_photos([odd], Options())
    (odd / "loose.png").unlink()
    (odd / "b" / "IMG_1.HEIC").write_bytes(b"")
    with pytest.raises(FileError, match="IMG_1.HEIC cannot be read: save it as .jpg"):
        read_photos([odd], Options())
    (tmp_path / "bad" / "a").mkdir(parents=True)
    (tmp_path / "bad" / "a" / "x.png").write_bytes(b"no image")
    with pytest.raises(FileError, match="not an image"):
        read_photos([tmp_path / "bad"], Options())
    with pytest.raises(ValueError, match="size must be from 8 to 256"):
        apply("continual-few-shot-instances", [photos], tmp_path / "o", settings={"size": "4"})
