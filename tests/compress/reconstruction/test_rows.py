"""Products with rows are matrix products, in whichever order the rows lie in memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from compress.reconstruction.kernel_pair import propagate_back
from compress.reconstruction.row_products import (
    BLOCK,
    compute_gram,
    multiply_rows,
    multiply_transposed,
)

SYSTEMS = [(1, 6, 5), (4, 6, 1), (4, 6, 3)]
"""(systems, columns, outputs): one kernel, a depthwise one, one that multiplies channels."""
COUNTS = [1, 2 * BLOCK + 7]


def drawn(systems: int, count: int, columns: int, order: str) -> npt.NDArray[np.float32]:
    """Rows of integers, whose sums are exact, with the columns or the systems last in memory."""
    values = np.random.default_rng(0).integers(-4, 5, (systems, count, columns))
    rows = values.astype(np.float32)
    if order == "columns last":
        return rows
    return np.ascontiguousarray(rows.transpose(1, 2, 0)).transpose(2, 0, 1)


@pytest.mark.parametrize("order", ["columns last", "systems last"])
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(("systems", "columns", "outputs"), SYSTEMS)
def test_products_are_those_of_each_system(
    systems: int, columns: int, outputs: int, count: int, order: str
) -> None:
    rows = drawn(systems, count, columns, order)
    rng = np.random.default_rng(1)
    weights = rng.integers(-4, 5, (systems, columns, outputs)).astype(np.float64)
    u = rng.integers(-4, 5, (count, systems * outputs)).astype(np.float32)
    each = range(systems)
    of = [u[:, system * outputs :][:, :outputs] for system in each]
    np.testing.assert_array_equal(
        multiply_rows(rows, weights), np.concatenate([rows[s] @ weights[s] for s in each], 1)
    )
    np.testing.assert_array_equal(multiply_transposed(rows, u), [rows[s].T @ of[s] for s in each])
    np.testing.assert_array_equal(propagate_back(u, weights), [of[s] @ weights[s].T for s in each])
    np.testing.assert_array_equal(compute_gram(rows), [rows[s].T @ rows[s] for s in each])


def test_long_sums_lose_no_digits() -> None:
    """A million times 0.1 of single precision, added one by one, is off by a percent."""
    ones = np.ones((2, 10**6, 1), np.float32)
    rows = np.ascontiguousarray((0.1 * ones).transpose(1, 2, 0)).transpose(2, 0, 1)
    wanted = 10**6 * float(np.float32(0.1))
    for found in (
        multiply_transposed(rows, np.ones((10**6, 2), np.float32)),
        compute_gram(rows) / np.float32(0.1),
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
