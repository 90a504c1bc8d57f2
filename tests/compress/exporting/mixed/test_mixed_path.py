from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.core.pareto import trace_convex_hull

NUMBERS = st.integers(0, 20).map(float)


@st.composite
def tables(draw):
    units, levels = draw(st.integers(1, 4)), draw(st.integers(2, 3))
    shape = units * levels
    table = [
        np.array(draw(st.lists(NUMBERS, min_size=shape, max_size=shape))).reshape(units, levels)
        for _ in range(2)
    ]
    return table[0], table[1]


def summed(table, choice):
    return sum(row[level] for row, level in zip(table, choice, strict=True))


@settings(max_examples=150, deadline=None)
@given(tables())
def test_no_choice_of_the_same_cost_loses_less(given_tables) -> None:
    losses, costs = given_tables
    units, levels = losses.shape
    every = list(product(range(levels), repeat=units))
    path = trace_convex_hull(losses, costs)
    for choice in path:
        cost = summed(costs, choice)
        least = min(summed(losses, other) for other in every if summed(costs, other) <= cost)
        assert summed(losses, choice) == least
    assert summed(losses, path[-1]) == sum(losses.min(1)), "the end loses as little as can be"
    assert summed(costs, path[0]) == sum(costs.min(1)), "the beginning is as cheap as can be"


def test_by_hand() -> None:
    losses = np.array([[8.0, 2.0, 0.0], [3.0, 1.0, 0.0]])
    costs = np.array([[1.0, 2.0, 4.0], [1.0, 2.0, 3.0]])
    # 6 a cost, 2 a cost, then 1 a cost each: the first unit's first
    assert trace_convex_hull(losses, costs) == [(0, 0), (1, 0), (1, 1), (2, 1), (2, 2)]


def test_a_level_that_cannot_be_had_is_passed_over() -> None:
    losses = np.array([[np.inf, 2.0, 0.0]])
    costs = np.array([[np.inf, 2.0, 4.0]])
    assert trace_convex_hull(losses, costs) == [(1,), (2,)]
