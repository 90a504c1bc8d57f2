"""Two kernels in a row, solved together: what they make, slopes, a step, and what it is worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from compress.model.program import flatten_program
from compress.model.recording import record_program
from compress.prune.channels import prune_channels
from compress.reconstruction import gauss_newton, layer_pairs, repair, sampling
from compress.reconstruction.kernel_pair import KernelPair, PairSample, PairWeights
from compress.reconstruction.kernel_parts import build_parts
from compress.reconstruction.layer_pairs import trace_between
from compress.reconstruction.linear_paths import Graph
from compress.reconstruction.matching import should_open
from compress.reconstruction.sampling import estimate_rounding_noise
from compress.reconstruction.sums import Clip

pytestmark = pytest.mark.usefixtures("unrounded")

L = keras.layers
Numbers = npt.NDArray[np.float64]


def normalized() -> Any:
    return L.BatchNormalization(name="bn")


CASES: dict[str, tuple[tuple[int, ...], Callable[[], list[Any]]]] = {
    "same padding, a normalization and relu": ((5, 6, 2), lambda: [
        L.Conv2D(4, 3, padding="same", name="one"), normalized(), L.ReLU(),
        L.Conv2D(3, 3, padding="same", use_bias=False, name="two")]),
    "strides and dilation": ((9, 8, 2), lambda: [
        L.Conv2D(4, 3, strides=2, activation="relu", name="one"),
        L.Conv2D(3, 2, dilation_rate=2, padding="same", name="two")]),
    "groups": ((5, 5, 4), lambda: [
        L.Conv2D(6, 3, groups=2, name="one"), L.Activation("gelu"),
        L.Conv2D(4, 1, groups=2, name="two")]),
    "a depthwise second": ((6, 5, 3), lambda: [
        L.Conv2D(4, 1, name="one"), normalized(), L.ReLU(max_value=6.0),
        L.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="two")]),
    "a depthwise first, nothing between": ((6, 5, 3), lambda: [
        L.DepthwiseConv2D(3, padding="same", use_bias=False, name="one"),
        L.Conv2D(4, 1, name="two")]),
    "transposed": ((4, 5, 2), lambda: [
        L.Conv2D(4, 3, padding="same", activation="tanh", name="one"),
        L.Conv2DTranspose(3, 3, strides=2, padding="same", name="two")]),
    "one axis, causal": ((9, 3), lambda: [
        L.Conv1D(4, 3, activation="silu", name="one"),
        L.Conv1D(3, 2, padding="causal", name="two")]),
    "dense": ((7,), lambda: [
        L.Dense(5, name="one"), L.Dropout(0.5), L.Activation("relu"), normalized(),
        L.Dense(3, name="two")]),
    "dense at positions": ((4, 6), lambda: [
        L.Dense(5, activation="gelu", name="one"), L.Dense(3, name="two")]),
}  # fmt: skip


def built(case: str, count: int = 6) -> tuple[Any, npt.NDArray[np.float32]]:
    shape, layers = CASES[case]
    made = inputs = keras.Input(shape)
    for layer in layers():
        made = layer(made)
    model = keras.Model(inputs, made)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        low = 0.5 if "variance" in weight.path else -1.0
        if weight.dtype == "float32":
            weight.assign(rng.uniform(low, 1.0, weight.shape))
    return model, rng.normal(size=(count, *shape)).astype(np.float32)


def paired(model: Any, x: npt.NDArray[np.float32], clip: Clip | None = None) -> Any:
    """Returns the pair of `one` and `two`, all their places, and their kernels as they are."""
    program = flatten_program(record_program(model, should_open))
    first, second = (node for node in program.nodes if node.name in ("one", "two"))
    parts = tuple(build_parts(node.operation, len(node.inputs[0].shape))[0][0]
                  for node in (first, second))  # fmt: skip

    found = trace_between(
        Graph(program), first, {id(second)}, parts[0].extract_all_outputs, parts[0].channel_count
    )
    assert found is not None
    hidden = keras.Model(model.input, second.inputs[0])(x).numpy()
    made = model(x).numpy()
    table = parts[1].map_input_positions(hidden, made)
    each, count = parts[0].count_positions(hidden), len(x)
    reads = table[None] + each * np.arange(count)[:, None, None]
    reads = np.where(table[None] < 0, each * count, reads).reshape(-1, table.shape[1])

    def everywhere(part: Any, y: npt.NDArray[Any]) -> Any:
        positions = part.count_positions(y)
        return np.repeat(np.arange(count), positions), np.tile(np.arange(positions), count)

    own = parts[0].extract_rows(
        x, parts[0].create_blank_output(x.shape), everywhere(parts[0], hidden)
    )
    wanted = parts[1].extract_outputs(made, everywhere(parts[1], made))
    way, kernel = found.path, parts[0].read_weights()
    kernels = PairWeights(
        kernel * way.gain.reshape(kernel.shape[0], 1, -1), parts[1].read_weights(),
        (way.gain * parts[0].read_bias() + way.offset, parts[1].read_bias()),
    )  # fmt: skip
    places = PairSample(own.astype(np.float32), reads, wanted, None)
    return KernelPair(parts, found, clip), places, kernels


def moved(kernels: PairWeights, size: float, seed: int = 0) -> PairWeights:
    rng = np.random.default_rng(seed)
    return kernels.add(size * rng.normal(size=kernels.flatten().shape))


@pytest.mark.parametrize("case", CASES)
def test_a_pair_makes_what_the_layers_make(case: str) -> None:
    pair, places, kernels = paired(*built(case))
    made = pair.run_forward(places, kernels).outputs
    np.testing.assert_allclose(made, places.targets, rtol=2e-4, atol=2e-4)
    assert pair.measure_error(places, kernels) < 1e-8


@pytest.mark.parametrize("case", CASES)
def test_slopes_are_those_of_differences_and_products_are_each_others_transposes(case: str) -> None:
    pair, places, kernels = paired(*built(case))
    made = pair.run_forward(places, kernels)
    change = moved(kernels, 1.0).add(-kernels.flatten())
    forward = pair.multiply_jacobian(places, made, kernels, change)
    # small enough that few of the values between the kernels cross a kink
    step = 3e-4
    ends = [pair.run_forward(places, kernels.add(sign * step * change.flatten())).outputs
            for sign in (1, -1)]  # fmt: skip
    slope = (ends[0].astype(np.float64) - ends[1]) / (2 * step)
    off = np.abs(forward - slope)
    assert np.median(off) < 5e-3 * np.abs(slope).mean()
    assert np.quantile(off, 0.9) < 0.05 * np.abs(slope).mean()
    u = np.random.default_rng(2).normal(size=forward.shape).astype(np.float32)
    back = pair.multiply_transposed(places, made, kernels, u)
    assert float((forward * u).sum()) == pytest.approx(float(back @ change.flatten()), rel=1e-3)


@pytest.mark.parametrize("steps", [float("inf"), 5.0])
def test_a_step_solves_the_damped_normal_equations(
    monkeypatch: pytest.MonkeyPatch, steps: float
) -> None:
    monkeypatch.setattr(sampling, "STEPS", steps)
    monkeypatch.setattr(gauss_newton, "PRODUCTS", 400)
    monkeypatch.setattr(gauss_newton, "NEAR", 1e-16)
    pair, places, kernels = paired(*built("dense", 40))
    start, kernels = kernels, moved(kernels, 0.2)
    made = pair.run_forward(places, kernels)
    residual, active = pair.compute_residual(places, made)
    first, second = (
        gauss_newton.Curvature(rows, 0.1)
        for rows in pair.compute_moments(places, made, kernels, active)
    )
    size = kernels.flatten().size
    columns = [pair.multiply_jacobian(places, made, kernels, kernels.unflatten(row)).ravel()
               for row in np.eye(size)]  # fmt: skip
    jacobian = np.stack(columns, 1).astype(np.float64)
    ones = kernels.unflatten(np.ones(size))
    weights = PairWeights(*(lambda a, b: (a[0], b[0], (a[1], b[1])))(
        first.multiply_diagonal(ones.first, ones.shifts[0]),
        second.multiply_diagonal(ones.second, ones.shifts[1]),
    )).flatten()  # fmt: skip
    # noise in the rows of each kernel, by the mean over rows of what its outputs weigh
    hidden = (active @ (kernels.second[0] ** 2).T) * made.slope**2
    pulls = [
        len(rows) * estimate_rounding_noise(rows) * np.tile(weigh.mean(0), (rows.shape[1], 1))
        for rows, weigh in ((places.rows[0], hidden), (made.rows[0], active))
    ]
    noise = PairWeights(
        pulls[0][None], pulls[1][None], tuple(0 * part for part in start.shifts)
    ).flatten()
    damped = jacobian.T @ jacobian + 0.1 * np.diag(weights) + np.diag(noise)
    away = kernels.flatten() - start.flatten()
    expected = np.linalg.solve(damped, -jacobian.T @ residual.ravel() - noise * away)
    found = gauss_newton._compute_step(pair, [places], kernels, start, 0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("case", CASES)
def test_parts_of_a_sample_give_the_step_of_the_whole(case: str) -> None:
    pair, places, kernels = paired(*built(case))
    start, kernels = kernels, moved(kernels, 0.1)
    count = len(places.targets)
    other = PairSample(places.rows[:, ::-1], places.rows.shape[1] - 1 - places.reads,
                       0.5 * places.targets, None)  # fmt: skip
    padding = places.reads == places.rows.shape[1]
    other.reads[padding] = places.rows.shape[1]
    whole = PairSample.concat([places, other])
    assert len(whole.targets) == 2 * count
    expected = gauss_newton._compute_step(pair, [whole], kernels, start, 0.1)
    found = gauss_newton._compute_step(pair, [places, other], kernels, start, 0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=2e-4 * np.abs(expected).max())
    # threads share the parts, and the order of their sums is that of the parts
    solutions = [
        gauss_newton.solve_pair(pair, [[places, other]], whole, kernels)[0].flatten()
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*solutions)


def test_moments_of_parts_are_few_enough_for_the_memory() -> None:
    memory = 96 * 2**20
    shapes = [(1, 1023, 4), (1, 511, 8)]
    # 8 bytes x (1024^2 + 512^2) = 10 MiB for each part, of 96 MiB
    assert layer_pairs._limit_parts(shapes, memory) == 9
    assert layer_pairs._limit_parts([(1, 9, 4), (16, 9, 1)], memory) == layer_pairs.PARTS
    assert layer_pairs._limit_parts([(1, 9999, 4), (1, 9, 1)], memory) == 1


def test_what_an_activation_cuts_off_is_no_residual() -> None:
    pair, places, kernels = paired(*built("dense at positions"), Clip(0.0, np.inf))
    made = pair.run_forward(places, kernels)
    targets = np.full_like(made.outputs, -3.0)
    targets[0], made.outputs[0] = 2.0, -1.0
    targets[1], made.outputs[1] = -2.0, 1.0
    targets[2], made.outputs[2] = -2.0, -1.0
    residual, active = pair.compute_residual(
        PairSample(places.rows, places.reads, targets, None), made
    )
    # what should be seen and is not pulls; what is seen and should not be, down to zero; else free
    for row, off, counts in ((0, -3.0, 1.0), (1, 1.0, 1.0), (2, 0.0, 0.0)):
        np.testing.assert_allclose(residual[row], off)
        np.testing.assert_allclose(active[row], counts)


def test_masks_hold_and_what_cannot_move_stays() -> None:
    pair, places, kernels = paired(*built("dense", 40))
    first = np.random.default_rng(0).random(kernels.first.shape) < 0.5
    pair.supports, pair.can_shift = (first, None), (True, False)
    start = moved(kernels, 0.3)
    start = PairWeights(start.first * first, start.second, start.shifts)
    found, error_share = gauss_newton.solve_pair(pair, [[places]] * 3, places, start)
    assert error_share < 1
    assert not found.first[~first].any()
    np.testing.assert_array_equal(found.shifts[1], start.shifts[1])


def bottleneck() -> tuple[Any, Any, npt.NDArray[np.float32]]:
    """A net whose two hidden units make one number: one of them could do, if it were another."""
    inputs = keras.Input((6,))
    hidden = L.Dense(2, name="one")(inputs)
    model = keras.Model(inputs, L.Dense(1, name="two")(hidden))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    x = rng.normal(size=(200, 6)).astype(np.float32)
    return model, prune_channels(model, macs=0.5, scope="layer", round_to=1), x


def test_what_the_second_kernel_alone_cannot_do_both_can() -> None:
    errors = {}
    for together in (False, True):
        model, small, x = bottleneck()
        report = repair(small.model, model, x, kept=small.kept, joint=together)
        errors[together] = report.output_error[0][1]
        rows = {row.name: row for row in report.layers}
        assert rows["two"].together == ("one" if together else "")
    assert errors[False] > 0.05
    assert errors[True] < 1e-6


def convolutional(branched: bool) -> Any:
    keras.utils.set_random_seed(3)
    x = inputs = keras.Input((12, 12, 2))
    x = L.Conv2D(16, 3, padding="same", use_bias=False, name="one")(x)
    x = L.BatchNormalization(name="bn")(x)
    y = L.ReLU(name="relu")(x)
    x = L.Conv2D(8, 3, padding="same", name="two")(y)
    x = L.GlobalAveragePooling2D()(L.ReLU()(x))
    if branched:
        x = L.Concatenate()([x, L.GlobalAveragePooling2D()(y)])
    return keras.Model(inputs, L.Dense(3, name="head")(x))


@pytest.mark.parametrize("branched", [False, True])
def test_only_what_one_layer_alone_reads_is_solved_again(branched: bool) -> None:
    model = convolutional(branched)
    x = np.random.default_rng(0).normal(size=(120, 12, 12, 2)).astype(np.float32)
    found = {}
    for together in (False, True):
        small = prune_channels(model, macs=0.5, scope="layer", round_to=1, exclude=("two",))
        report = repair(small.model, model, x, kept=small.kept, joint=together)
        rows = {row.name: row for row in report.layers}
        assert rows["two"].together == ("one" if together and not branched else "")
        found[together] = rows["two"].after
        if rows["two"].together:
            # statistics are those of what is made now: a training begins from this function
            layer = small.model.get_layer("bn")
            seen = keras.Model(small.model.input, layer.input)(x).numpy()
            spread = seen.std((0, 1, 2))
            far = np.abs(layer.moving_mean.numpy() - seen.mean((0, 1, 2)))
            assert (far < 0.1 * spread).all()
            np.testing.assert_allclose(np.sqrt(layer.moving_variance), spread, rtol=0.1)
    if branched:
        assert found[True] == pytest.approx(found[False])
    else:
        assert found[True] < 0.9 * found[False]
