"""Random graphs drawn from all the rules obey the law for random kept sets."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from itertools import chain, count, islice
from typing import Any, NamedTuple

import numpy as np
import pytest

from compress.model.program import Program
from compress.model.recording import record_program
from compress.prune.channels.rules import find_rule, list_rules
from compress.prune.channels.selection.costs import CostModel
from tests.compress.prune.channels.generator import graph
from tests.compress.prune.channels.law import check

FEW, SOME = 6, 10
GRAPHS = int(os.environ.get("PARETUNE_GRAPHS", "24"))
MOST_MORE = 400
OF_SEVERAL = 100
# seeds of graphs with rules that are drawn seldom
RARE_SEEDS = (20, 23, 34, 37, 39, 44, 68, 80, 109)
# seeds that once broke the law
KEPT_SEEDS: tuple[int, ...] = ()

hits: Counter[str] = Counter()


class Cut(NamedTuple):
    """What was removed of a graph: units of all that could leave, MACs of all."""

    units: int
    removed: int
    macs: float
    left: float


def starts(number: int, step: int) -> list[Any]:
    """Returns where each piece begins; all but the first are run by hand."""
    return [
        pytest.param(start, marks=[pytest.mark.matrix] if start else [])
        for start in range(0, number, step)
    ]


def name_of(rule: Any) -> str:
    """Family and name of a rule."""
    return f"{rule.__module__.rsplit('.', 1)[-1]}.{rule.__name__}"


def rules_in(program: Program) -> Counter[str]:
    """Returns how often each rule is asked for in a program."""
    found: Counter[str] = Counter()
    for node in program.walk():
        inside = getattr(node.operation, "_flatten_layers", None)
        for part in inside() if inside else [node.operation]:
            rule = find_rule(part)
            if rule is not None:
                found[name_of(rule)] += 1
    return found


def obeys(seed: int, several: bool = False) -> Cut:
    """Checks the law on one graph; a graph in which nothing can leave obeys it too."""
    model = graph(seed, several=several)
    coupling, _, mask = check(model, seed=seed, removes=False)
    hits.update(rules_in(coupling.program))
    whole = np.array([len(group.units) for group in coupling.groups])
    kept = np.array([mask[group.units].sum() for group in coupling.groups])
    macs, left = (float(CostModel.from_coupling(coupling).macs(counts)) for counts in (whole, kept))
    return Cut(coupling.unit_count, int((~mask).sum()), macs, left)


def assert_they_shrank(cuts: Iterable[Cut]) -> None:
    """The law says nothing about graphs that are held as a whole: there must hardly be any."""
    found = list(cuts)
    assert len(found) >= 10
    shrank = [cut.removed > 0 and cut.left < cut.macs for cut in found]
    assert np.mean(shrank) >= 0.95, "graphs of which nothing was removed"
    units = sum(cut.removed for cut in found) / sum(cut.units for cut in found)
    assert units >= 0.35, f"{units:.0%} of the units left"
    saved = np.mean([1 - cut.left / cut.macs for cut in found])
    assert saved >= 0.5, f"{saved:.0%} of the MACs left"


# a random kept set may leave a softmax one entry
ONE_ENTRY = pytest.mark.filterwarnings("ignore:(.|\n)*softmax over axis")


@ONE_ENTRY
@pytest.mark.parametrize("seed", range(FEW))
def test_a_few_graphs(seed: int) -> None:
    obeys(seed)


@ONE_ENTRY
@pytest.mark.parametrize("seed", range(1))
def test_a_few_graphs_of_several_outputs(seed: int) -> None:
    obeys(seed, several=True)


@ONE_ENTRY
@pytest.mark.slow
@pytest.mark.parametrize("start", starts(OF_SEVERAL, 10))
def test_graphs_of_several_outputs(start: int) -> None:
    assert_they_shrank(obeys(seed, several=True) for seed in range(start, start + 10))


def test_graphs_that_are_held_as_a_whole_do_not_pass() -> None:
    held, cut = Cut(80, 0, 5000.0, 5000.0), Cut(80, 40, 5000.0, 1500.0)
    assert_they_shrank([cut] * 19 + [held])
    with pytest.raises(AssertionError, match="nothing was removed"):
        assert_they_shrank([cut] * 18 + [held] * 2)
    with pytest.raises(AssertionError, match="of the units"):
        assert_they_shrank([cut._replace(removed=10)] * 20)
    with pytest.raises(AssertionError, match="of the MACs"):
        assert_they_shrank([cut._replace(left=4000.0)] * 20)
    with pytest.raises(AssertionError):
        assert_they_shrank([])


@pytest.mark.parametrize("seed", KEPT_SEEDS)
def test_graphs_that_once_broke(seed: int) -> None:
    obeys(seed)


@ONE_ENTRY
@pytest.mark.slow
@pytest.mark.parametrize("number", [SOME, pytest.param(GRAPHS, marks=pytest.mark.matrix)])
def test_random_graphs(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    hits.clear()
    seeds = count(FEW)
    assert_they_shrank([obeys(seed) for seed in islice(seeds, number)])
    expected = {name_of(rule) for rule in list_rules()} - ELSEWHERE
    # if the seeds at hand lack a rule, graphs are built until one has it
    for seed in chain(RARE_SEEDS, islice(seeds, MOST_MORE)):
        if expected <= set(hits):
            break
        if (expected - set(hits)) & set(rules_in(record_program(graph(seed)))):
            obeys(seed)
    with capsys.disabled():
        print(f"\nrules hit in {number} graphs and those that were looked for:")
        for name, times in sorted(hits.items()):
            print(f"  {times:5d} {name}")
    assert set(hits) >= expected, f"not hit: {sorted(expected - set(hits))}"


# rules that the networks of keras.applications alone have layers for
ELSEWHERE = {"normalization.propagate_layer_scale"}
