"""300 random graphs drawn from all the rules obey the law for random kept sets."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compress.prune.channels.rules import rule_for
from tests.compress.channels.generator import graph
from tests.compress.channels.law import check

GRAPHS = int(os.environ.get("PARETUNE_GRAPHS", "300"))
# seeds that once broke the law
KEPT_SEEDS: tuple[int, ...] = ()

hits: Counter[str] = Counter()


def obeys(seed: int) -> None:
    model = graph(seed)
    coupling, _, _ = check(model, seed=seed, removes=False)
    for node in coupling.program.walk():
        inside = getattr(node.operation, "_flatten_layers", None)
        for part in inside() if inside else [node.operation]:
            rule = rule_for(part)
            if rule is not None:
                family = rule.__module__.rsplit(".", 1)[-1]
                hits[f"{family}.{rule.__name__}"] += 1


# a random kept set may leave a softmax one entry
ONE_ENTRY = pytest.mark.filterwarnings("ignore:(.|\n)*softmax over axis")


@ONE_ENTRY
@pytest.mark.parametrize("seed", range(12))
def test_a_few_graphs(seed: int) -> None:
    obeys(seed)


@pytest.mark.parametrize("seed", KEPT_SEEDS)
def test_graphs_that_once_broke(seed: int) -> None:
    obeys(seed)


@ONE_ENTRY
@pytest.mark.slow
def test_random_graphs(capsys: pytest.CaptureFixture[str]) -> None:
    hits.clear()

    @settings(
        max_examples=GRAPHS,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**32 - 1))
    def run(seed: int) -> None:
        obeys(seed)

    run()
    with capsys.disabled():
        print(f"\nrules hit in {GRAPHS} graphs:")
        for name, count in sorted(hits.items()):
            print(f"  {count:5d} {name}")
    from compress.prune.channels.rules import all_rules

    expected = {
        f"{rule.__module__.rsplit('.', 1)[-1]}.{rule.__name__}" for rule in all_rules()
    } - ELSEWHERE
    assert set(hits) >= expected, f"not hit: {sorted(expected - set(hits))}"


# rules that the networks of keras.applications alone have layers for
ELSEWHERE = {"applications.layer_scale"}
