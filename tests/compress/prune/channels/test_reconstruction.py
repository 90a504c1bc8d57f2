"""Criterion reconstruction, scope output_error: against closed forms, brute force, built models."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest

from benchmarks.resnet20 import build
from compress.core.errors import InputError
from compress.data import UnlabelledDataset
from compress.measure import count_macs
from compress.measure.file_agreement import compute_divergence
from compress.plan import ChannelOptions
from compress.prune.channels import prune_channels
from compress.prune.channels.analysis import analyze_coupling
from compress.prune.channels.criteria import Context
from compress.prune.channels.criteria.reconstruction import (
    Reader,
    collect_readers,
    eliminate_units,
    score_reconstruction,
)
from compress.prune.channels.selection.allowed_counts import TARGET_PRECISION, AllowedCounts
from compress.prune.channels.selection.output_error_selection import allocate_by_error
from compress.prune.channels.selection.sensitivity import GroupSensitivity, OutputErrors


def lost(h: Any, w: Any, gone: list[int]) -> float:
    """The least of (v - w)' h (v - w) over all v that are zero at `gone`, in closed form."""
    left = [index for index in range(len(h)) if index not in gone]
    inner = h[np.ix_(gone, gone)]
    if left:
        across = h[np.ix_(gone, left)]
        inner = inner - across @ np.linalg.solve(h[np.ix_(left, left)], across.T)
    return float(np.trace(w[gone].T @ inner @ w[gone]))


def test_units_leave_that_least_squares_miss_least() -> None:
    rng = np.random.default_rng(0)
    units, each = 5, 2
    p = rng.normal(size=(60, units * each)) @ rng.normal(size=(units * each, units * each))
    h, w = p.T @ p / 60, rng.normal(size=(units * each, 3))
    columns = np.arange(units * each).reshape(units, each)
    reader = Reader(None, np.linalg.inv(h), w, 2.0, columns)  # type: ignore[arg-type]
    found = eliminate_units([reader], units, kernel_counts=[2])
    gone: list[int] = []
    before = 0.0
    for unit in found.order:
        rest = [other for other in range(units) if not set(columns[other]) & set(gone)]
        losses = {other: lost(h, w, [*gone, *columns[other]]) for other in rest}
        assert unit == min(rest, key=lambda other: losses[other])
        np.testing.assert_allclose(
            found.scores[unit], max(losses[unit] - before, found.scores[found.order].min()),
            rtol=1e-6,
        )  # fmt: skip
        before = losses[unit]
        gone += columns[unit].tolist()
    first = np.concatenate(columns[found.order[:2]])
    left = np.setdiff1d(np.arange(units * each), first)
    expected = np.zeros_like(w)
    expected[left] = w[left] + np.linalg.solve(
        h[np.ix_(left, left)], h[np.ix_(left, first)] @ w[first]
    )
    np.testing.assert_allclose(found.kernels[2][0], 2.0 * expected, rtol=1e-6, atol=1e-8)


@pytest.fixture(scope="module")
def x() -> Any:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(240, 14, 14, 1)).astype(np.float32)
    return sum(noise[:, i : i + 12, j : j + 12] for i in range(3) for j in range(3)) / 3


@pytest.fixture(scope="module")
def resnet(x: Any) -> Any:
    """A small residual net whose normalizations fit what they see."""
    keras.utils.set_random_seed(0)
    model = build((8, 12), (12, 12, 1), classes=4, blocks=1)
    for _ in range(30):
        model(x[:128], training=True)
    # no class is more likely than the others
    logits = keras.Model(model.inputs[0], model.get_layer("logits").output)(x).numpy()
    model.get_layer("logits").bias.assign(-logits.mean(0))
    return model


def test_what_depends_on_others_leaves_first() -> None:
    rng = np.random.default_rng(0)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, name="a"), keras.layers.Dense(3)]
    )
    kernel, bias = rng.normal(size=(6, 8)), rng.normal(size=8)
    # two units are sums of others, and count much downstream
    kernel[:, 3] = kernel[:, 0] + kernel[:, 1]
    kernel[:, 5] = kernel[:, 2] - kernel[:, 4]
    model.layers[0].kernel.assign(kernel)
    model.layers[0].bias.assign(bias)
    model.layers[1].kernel.assign(rng.normal(size=(8, 3)))
    coupling = analyze_coupling(model)
    data = UnlabelledDataset.from_arrays("x", rng.normal(size=(200, 6)).astype(np.float32))
    context = Context(coupling, data=data)
    scores = score_reconstruction(coupling.groups[0], context)
    order = np.argsort(scores)
    # of each dependent set one leaves for next to nothing, then nothing more is free
    assert {0, 1, 3} & set(order[:2])
    assert {2, 4, 5} & set(order[:2])
    # the ridge of 1e-3 lets them cost a little
    assert scores[order[1]] < 0.1 * scores[order[2]]
    assert [len(readers) for readers in context.compute_once(collect_readers)] == [1]


def test_output_error_between_measured_widths_by_hand() -> None:
    group = GroupSensitivity("conv", (2, 4), (0.5, 0.3), (0.0,) * 6)
    # never falling: 0.3 counts as 0.5; at all six units twice the last
    expected = [0.0, 0.25, 0.5, 0.5, 0.5, 0.75, 1.0]
    np.testing.assert_allclose(group.interpolate(), expected, atol=1e-7)


def test_distances_by_hand() -> None:
    wanted, made = np.array([[0.5, 0.5], [0.9, 0.1]]), np.array([[0.25, 0.75], [0.9, 0.1]])
    kl = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    assert compute_divergence([wanted], [made]) == pytest.approx(kl / 2)
    numbers = np.array([[1.0], [2.0], [6.0]])
    assert compute_divergence([numbers], [numbers + 1]) == pytest.approx(3 / (4 + 1 + 9))


@pytest.mark.parametrize("seed", range(6))
def test_allocation_against_all_choices(seed: int) -> None:
    rng = np.random.default_rng(seed)
    units = np.array([4, 6, 5])
    tables = [
        np.concatenate([[0.0], np.cumsum(np.sort(rng.random(count) ** 3))]) for count in units
    ]
    weights = rng.integers(1, 9, 3)
    losses = OutputErrors(tables, rng.random(2), np.array([[1, 0, 0], [0, 0, 0]], bool),
                       np.zeros((2, 2), bool))  # fmt: skip

    def cost(kept: Any, present: Any) -> Any:
        # a product between neighbours, and a block around the first group
        inside = kept[..., 0] * kept[..., 1] * weights[0] * present[..., 0]
        return inside + kept[..., 1] * kept[..., 2] * weights[1] + 10 * present[..., 1] + 5.0

    allowed = AllowedCounts(units, 0 * units, 1 + 0 * units, 1 + 0 * units)
    whole = float(cost(units, np.ones(2, int)))
    target = 0.45 * whole
    found = allocate_by_error(losses, allowed, cost, target)
    assert found.cost <= target * (1 + TARGET_PRECISION)
    assert found.cost == cost(found.totals, found.present)
    best = np.inf
    for totals in itertools.product(*(range(1, count + 1) for count in units)):
        for present in itertools.product((0, 1), repeat=2):
            kept, there = np.array(totals), np.array(present)
            if cost(kept, there) <= target * (1 + TARGET_PRECISION):
                best = min(best, float(losses(units - kept, there)))
    assert float(losses(units - found.totals, found.present)) <= 1.25 * best + 1e-9


def test_damage_in_blocks_that_left_is_none() -> None:
    losses = OutputErrors(
        [np.array([0.0, 1.0]), np.array([0.0, 2.0])],
        [4.0, 8.0],
        np.array([[1, 0], [1, 0]], bool),
        np.array([[0, 1], [0, 0]], bool),
    )
    removed = np.array([1, 1])
    assert losses(removed, np.array([1, 1])) == 3.0
    # the first block holds the second and the first group
    assert losses(removed, np.array([0, 0])) == 2.0 + 4.0
    assert losses(removed, np.array([1, 0])) == 2.0 + 8.0


@pytest.mark.slow
def test_channels_are_repaired_where_data_are_given(resnet: Any, x: Any) -> None:
    wanted = np.asarray(resnet(x[200:]))
    errors = {}
    for repair in (False, None):
        small = prune_channels(resnet, macs=0.5, data=x[:200], repair=repair, round_to=2)
        errors[repair] = float(((np.asarray(small.model(x[200:])) - wanted) ** 2).sum())
        assert (small.report.repair is None) == (repair is False)
    assert errors[None] < 0.5 * errors[False]
    assert "layers repaired on 200 examples" in str(small)
    again = prune_channels(resnet, macs=0.5, data=x[:200], repair=200, round_to=2)
    for one, two in zip(small.model.weights, again.model.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())


def test_too_few_examples_are_told(resnet: Any, x: Any) -> None:
    small = prune_channels(resnet, macs=0.5, data=x[:10], round_to=2)
    assert small.report.repair is None
    assert "nothing was repaired: that takes at least 20 examples" in small.report.notes


@pytest.mark.parametrize("blocks", [False, True])
def test_widths_and_blocks_by_output_error(resnet: Any, x: Any, blocks: bool) -> None:
    before = [weight.numpy() for weight in resnet.weights]
    told: list[str] = []
    small = prune_channels(
        resnet, macs=0.35, data=x[:120], criterion="reconstruction", scope="output_error",
        blocks=blocks, round_to=2, tries=4, on_progress=lambda text, share: told.append(text),
    )  # fmt: skip
    assert small.report.macs is not None
    (tried,) = (note for note in small.report.notes if note.startswith("output error of the first"))
    first, best = (float(text.split(";")[0]) for text in tried.split(": ")[1:])
    assert best <= first
    assert count_macs(small.model).macs == small.report.macs[1]
    assert small.report.macs[1] <= 0.36 * small.report.macs[0]
    # measuring leaves the original as it was
    for weight, value in zip(resnet.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
    assert any(text.startswith("output error of thinner") for text in told)
    assert any(text.startswith("output error without") for text in told) == blocks
    left = [note for note in small.report.notes if note.endswith("' was removed")]
    names = {layer.name for layer in resnet.layers} - {layer.name for layer in small.model.layers}
    assert bool(names) == bool(left)
    loaded = np.asarray(small.model(x[:4]))
    assert np.isfinite(loaded).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"repair": True}, "repair must have data to look at"),
        ({"scope": "output_error"}, "Channel scope 'output_error' must have data"),
        ({"repair": 5, "data": np.zeros((40, 12, 12, 1), np.float32)}, "at least 20 examples"),
        ({"blocks": True}, "Channel scope 'output_error' must have data"),
    ],
)
def test_refusals(resnet: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prune_channels(resnet, macs=0.5, **settings)
    with pytest.raises(
        InputError, match="channel_scope must be output_error, or auto without a crit"
    ):
        ChannelOptions(target=0.5, blocks=True, criterion="l2")
