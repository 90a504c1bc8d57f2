"""Graphs before and after: edges against Keras, and places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest

from compress.core.atomic_files import read_json, write_json
from compress.core.errors import InputError
from compress.measure import count_macs
from compress.measure.counting import build_call_graph
from compress.report.live.graphs import (
    MAX_NODES,
    arrange_nodes,
    build_graph_chart,
    compute_macs_change,
)
from compress.run.compressed_model import CallNode, ModelGraphs, read_graphs
from compress.run.directory import RunFolder


@pytest.fixture(scope="module")
def net() -> Any:
    x = keras.Input((8, 8, 3), name="image")
    y = keras.layers.Conv2D(4, 3, padding="same", name="first")(x)
    inner = keras.Input((8, 8, 4))
    body = keras.Model(
        inner, keras.layers.Conv2D(4, 1, name="deep")(keras.layers.ReLU(name="up")(inner)),
        name="body",
    )  # fmt: skip
    z = keras.layers.Add(name="sum")([body(y), y])
    z = keras.layers.Flatten(name="flat")(z)
    return keras.Model(x, keras.layers.Dense(2, name="logits")(z))


def test_calls_read_what_keras_says(net: Any) -> None:
    nodes = build_call_graph(net)
    names = [node.name for node in nodes]
    assert names == ["first", "body/up", "body/deep", "sum", "flat", "logits"]
    reads = {node.name: [names[source] for source in node.sources] for node in nodes}
    assert reads == {
        "first": [], "body/up": ["first"], "body/deep": ["body/up"],
        "sum": ["body/deep", "first"], "flat": ["sum"], "logits": ["flat"],
    }  # fmt: skip
    counted = count_macs(net)
    assert sum(node.macs or 0 for node in nodes) == counted.macs
    assert sum(node.params for node in nodes) == counted.params
    assert nodes[0].shape == (8, 8, 4)


def test_a_shared_layer_stands_where_it_is_called() -> None:
    x = keras.Input((4,))
    same = keras.layers.Dense(4, name="same")
    nodes = build_call_graph(keras.Model(x, same(same(x))))
    assert [(node.name, node.sources, node.params) for node in nodes] == [
        ("same", (), 20), ("same", (0,), 0),
    ]  # fmt: skip


def test_each_call_stands_below_what_it_reads(net: Any) -> None:
    nodes = build_call_graph(net)
    x, y = arrange_nodes(nodes)
    for place, node in enumerate(nodes):
        assert all(y[source] > y[place] for source in node.sources)
    assert len(set(zip(x, y, strict=True))) == len(nodes)


def smaller(nodes: tuple[CallNode, ...]) -> tuple[CallNode, ...]:
    """The same without the body, and half of the first's MACs."""
    first, _, _, _, flat, logits = nodes
    half = CallNode("first", first.kind, first.shape, (first.macs or 0) // 2, 10, ())
    return (
        half,
        CallNode("flat", flat.kind, flat.shape, flat.macs, 0, (0,)),
        CallNode("logits", logits.kind, logits.shape, logits.macs, logits.params, (1,)),
    )


def test_what_was_removed(net: Any) -> None:
    before = build_call_graph(net)
    after = smaller(before)
    kept = {node.name: node for node in after}
    shares = {node.name: compute_macs_change(node, kept.get(node.name)) for node in before}
    assert shares == {
        "first": 0.5, "body/up": 1.0, "body/deep": 1.0, "sum": 1.0, "flat": 0.0, "logits": 0.0,
    }  # fmt: skip
    chart = build_graph_chart("m", before, after)
    assert chart is not None
    edges, marks, _, others = chart.traces
    assert len(marks["x"]) == 6
    assert len(others["x"]) == 3
    assert edges["x"].count(None) == sum(len(node.sources) for node in before)
    (removed,) = [item for item in chart.variants if item["name"] == "what was removed"]
    assert removed["colours"]["1"] == [shares[node.name] for node in before]
    told = {line[0]: line[3] for line in marks["customdata"]}
    assert told["body/up (ReLU)"] == "removed"
    assert told["logits (Dense)"] == "MACs unchanged"
    assert told["first (Conv2D)"].startswith("MACs 6.91 k -> 3.46 k")
    assert build_graph_chart("m", (), ()) is None
    many = tuple(CallNode(f"n{k}", "ReLU", (), 0, 0, ()) for k in range(MAX_NODES + 1))
    assert build_graph_chart("m", many, many) is None


def test_damaged_graphs_are_refused(net: Any, tmp_path: Path) -> None:
    path = RunFolder(tmp_path).get_graphs_path("m")
    assert read_graphs(path) is None
    before = build_call_graph(net)
    graphs = ModelGraphs(before, smaller(before))
    write_json(path, graphs.to_json())
    assert read_graphs(path) == graphs
    content = read_json(path)
    content["before"][0]["sources"] = [3]
    write_json(path, content)
    with pytest.raises(InputError, match="sources must be calls in front of the call"):
        read_graphs(path)
    write_json(path, {"before": []})
    with pytest.raises(InputError, match="Received: no 'after'"):
        read_graphs(path)
