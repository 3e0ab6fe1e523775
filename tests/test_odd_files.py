"""Every reader of `apply` on hundreds of files that are unusual or malformed, and what they found.

`make fuzz` draws files that no run has drawn before.
"""

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_files import DRAWN, READ, REFUSED, outcome

FILES = max(300, hypothesis.settings.default.max_examples)  # a reader
many = hypothesis.settings(max_examples=FILES, suppress_health_check=list(hypothesis.HealthCheck))


@pytest.mark.parametrize("slug", DRAWN)
@many
@given(seed=st.integers(0, 2**32))
def test_a_file_is_read_as_written_or_refused_with_its_place(slug, seed, tmp_path_factory):
    draw, read = DRAWN[slug]
    made = draw(seed)
    came = outcome(read, made, tmp_path_factory.getbasetemp())
    assert came in (READ, REFUSED), f"{slug}, {made.what}: {came}"
