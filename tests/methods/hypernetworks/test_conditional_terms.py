"""Terms on traces of a few losses, worked by hand."""

import numpy as np
import xarray as xr

from latebloom.measures import final
from latebloom.methods.hypernetworks import terms


def trace(loss, rates=(0.1, 1.0)):
    loss = np.asarray(loss, float)
    return xr.Dataset(
        {"loss": (("seed", "step", "rate"), loss)},
        {"step": np.arange(loss.shape[1]) * 10, "rate": list(rates)},
    )


def test_a_seed_uses_the_rate_that_is_best_on_the_others():
    ends = np.array([[1.0, 9.0], [5.0, 4.0], [5.0, 4.0]])
    loss = np.stack([np.full_like(ends, 10), ends], axis=1)
    found = terms.log_loss(trace(loss))  # seed 0's own luck does not count for it
    np.testing.assert_allclose(found, np.log([9 + 1e-4, 5 + 1e-4, 5 + 1e-4]))
    np.testing.assert_allclose(final(terms.validation)(trace(loss)), [9, 5, 5])


def test_a_run_that_broke_down_has_the_worst_loss_of_the_start():
    loss = [[[2.0, 4.0], [1.0, np.nan], [1.0, np.nan]]] * 2
    np.testing.assert_allclose(
        terms.area(trace(loss)), [np.log([1 + terms.FLOOR, 4 + terms.FLOOR])] * 2
    )
    assert terms.failed(trace(loss), 0.5).tolist() == [[True, True]] * 2
    assert terms.failed(trace(loss), 1.5).tolist() == [[False, True]] * 2
