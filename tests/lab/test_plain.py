"""Values that JSON knows."""

import json
import math

import numpy as np

from latebloom.lab.plain import plain


def test_what_json_does_not_know_is_null_or_a_word():
    given = {
        "nan": math.nan, "far": [math.inf, (-math.inf, 1)], "own": np.float32(0.5),
        "none": np.float32(np.nan), "count": np.int64(3), "name": "a", "on": True, "no": None,
    }  # fmt: skip
    kept = plain(given)
    assert kept == {
        "nan": None, "far": ["inf", ["-inf", 1]], "own": 0.5, "none": None, "count": 3,
        "name": "a", "on": True, "no": None,
    }  # fmt: skip
    json.dumps(kept, allow_nan=False)
