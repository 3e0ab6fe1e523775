"""Tables and logs: real ones from installed packages, and small files damaged in every way."""

import numpy as np
import pandas as pd
import pytest
import rdata
from sklearn.linear_model import LogisticRegression

from latebloom import data
from latebloom.data import bandit_logs, tables


@pytest.fixture(autouse=True)
def no_data_but_the_tests_own(tmp_path, monkeypatch):
    monkeypatch.setenv("LATEBLOOM_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(tables, "_INSTALLED", tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [("iris", (150, 4), 3), ("wine", (178, 13), 3), ("breast-cancer", (569, 30), 2), ("digits-8x8", (1797, 64), 10)],
)  # fmt: skip
def test_tables_of_installed_packages(name, shape, classes):
    table = data.load_table(name)
    assert table.x.shape == shape and table.x.dtype == np.float32 and table.y.dtype == np.int32
    assert len(table.features) == shape[1] and len(table.classes) == classes == table.y.max() + 1
    x = (table.x - table.x.mean(0)) / (table.x.std(0) + 1e-6)
    assert LogisticRegression().fit(x, table.y).score(x, table.y) > 0.95


def test_a_regression_table_has_no_classes():
    table = data.load_table("diabetes")
    assert table.classes == () and table.y.dtype == np.float32 and table.y.std() > 10


@pytest.fixture
def glass(tmp_path, monkeypatch):
    frame = pd.DataFrame(
        {
            "RI": [1.5, 1.6, 1.7],
            "tint": pd.Categorical(["no", "yes", "no"]),
            "Type": pd.Categorical(["2", "1", "2"]),
        }
    )
    path = tmp_path / "cache" / "mlbench" / "Glass.rda"
    path.parent.mkdir(parents=True)
    rdata.write_rda(path, {"Glass": frame})
    monkeypatch.setattr(tables, "_verify", lambda path, sha256: None)
    return path


def test_an_r_file_becomes_a_table(glass):
    table = data.load_table("glass")
    np.testing.assert_allclose(table.x, [[1.5, 0], [1.6, 1], [1.7, 0]], rtol=1e-6)
    assert table.y.tolist() == [1, 0, 1] and table.classes == ("1", "2")
    assert table.features == ("RI", "tint") and table.source == str(glass)
    assert data.find("glass") == glass.parent
    assert data.names()["glass"]["where"] == str(glass.parent)


def test_an_r_file_without_the_frame_is_named(glass):
    rdata.write_rda(glass, {"Other": [1]})
    with pytest.raises(data.DataError, match=r"Glass\.rda holds no readable R data frame Glass"):
        data.load_table("glass")
    glass.write_bytes(b"not R")
    with pytest.raises(data.DataError, match=r"Glass\.rda holds no readable R data frame Glass"):
        data.load_table("glass")


def test_a_table_that_is_not_the_original_is_refused(glass, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("LATEBLOOM_DATA", str(glass.parents[1]))
    with pytest.raises(data.DataError, match="not the original file"):
        data.load_table("glass")


def test_missing_tables_say_what_to_do():
    with pytest.raises(data.DataError, match="run `latebloom data fetch letter`"):
        data.load_table("letter")
    with pytest.raises(data.DataError, match="there is no table 'cifar'; there are: iris, wine"):
        data.load_table("cifar")


def test_a_failed_fetch_leaves_nothing(tmp_path, monkeypatch):
    def broken(package, to):
        (to / "Glass.rda").write_bytes(b"half a")
        raise data.DataError("apt-get failed: no such package")

    monkeypatch.setattr(tables, "from_debian", broken)
    with pytest.raises(data.DataError, match="letter could not be had .*no such package"):
        data.fetch("letter")
    assert not list(tmp_path.rglob("*.rda"))


LOG = """,timestamp,item_id,position,click,propensity_score,user_feature_0,user-item_affinity_0
0,2019-11-24 00:00:21.5+00:00,14,3,0,0.0125,abc,0.0
1,2019-11-24 00:00:20+00:00,3,1,1,0.5,abd,1.0
"""


@pytest.fixture
def logs(tmp_path, monkeypatch):
    for log in bandit_logs._SHA256:
        path = tmp_path / "cache" / "open-bandit" / f"{log}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(LOG)
    return tmp_path / "cache" / "open-bandit"


def test_a_log_comes_in_order_of_time_with_plain_names(logs, monkeypatch):
    with pytest.raises(data.DataError, match="not the original log"):
        data.load_open_bandit()
    monkeypatch.setattr(bandit_logs, "_verify", lambda path, log: None)
    log = data.load_open_bandit("bts", "men")
    assert log.action.tolist() == [3, 14] and log.reward.tolist() == [1, 0]
    assert log.propensity.tolist() == [0.5, 0.0125] and log.affinity_0.tolist() == [1, 0]
    assert data.find("open-bandit") == logs


def test_missing_and_unknown_logs_say_what_to_do():
    with pytest.raises(data.DataError, match="run `latebloom data fetch open-bandit`"):
        data.load_open_bandit()
    with pytest.raises(data.DataError, match="there is no log 'random/shoes'"):
        data.load_open_bandit("random", "shoes")
