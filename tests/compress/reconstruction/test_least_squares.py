"""Least squares towards weights: moments, rows and factors against explicit float64 systems."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from compress.reconstruction.least_squares import NormalEquations, Problem
from compress.reconstruction.row_products import WIDE, Numbers, map_blocks
from compress.reconstruction.sums import Clip, Moments, Sample, StoredRows, Sums

Drawn = tuple[Numbers, Numbers, Numbers]


def drawn(
    rows: int, columns: int, outputs: int, *, systems: int = 1, means: float = 1.0, seed: int = 0
) -> Drawn:
    """Correlated rows, targets with noise and a constant, and weights before."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(systems, columns, columns)) / np.sqrt(columns) + np.eye(columns)
    p = rng.normal(size=(systems, rows, columns)) @ mixing + means * rng.normal(size=columns)
    true = rng.normal(size=(systems, columns, outputs))
    t = p @ true + 0.3 * rng.normal(size=(systems, rows, outputs)) + rng.normal(size=outputs)
    return p, t, true + 0.5 * rng.normal(size=true.shape)


def solved(
    p: Numbers, t: Numbers, w0: Numbers, ridge: float, shift: Any, support: Any, noise: float = 0.0
) -> Any:
    """One system by `numpy.linalg.lstsq` on explicit rows: the ridge as rows of its own.

    min |P W + c - T|^2 + sum (r |p_d|^2 + (1 + r) n noise) (W - W0)_d^2, column by column of W on
    its support.
    """
    free = shift is None
    means = p.mean(0) if free else np.zeros(p.shape[1])
    centred = p - means
    wanted = t - t.mean(0) if free else t - shift
    scale = np.sqrt(ridge * (centred**2).sum(0) + (1 + ridge) * len(p) * noise)
    w = np.zeros_like(w0)
    for output in range(w0.shape[1]):
        inside = np.arange(len(w0)) if support is None else np.flatnonzero(support[:, output])
        if not len(inside):
            continue
        a = np.concatenate([centred[:, inside], np.diag(scale[inside])])
        b = np.concatenate([wanted[:, output], scale[inside] * w0[inside, output]])
        w[inside, output] = np.linalg.lstsq(a, b, rcond=None)[0]
    return w, (t.mean(0) - means @ w if free else shift)


def sums_of(p: Numbers, t: Numbers, kind: str = "moments") -> Sums:
    sums: Sums = (
        Moments.from_offsets((p[:, :3].mean(1), t[:, :3].mean(1)))
        if kind == "moments"
        else StoredRows()
    )
    sums.add(p, t)
    return sums


@pytest.mark.parametrize("kind", ["moments", "rows"])
@pytest.mark.parametrize("ridge", [1e-1, 1e-3, 1e-8])
@pytest.mark.parametrize("free", [True, False], ids=["shift", "no shift"])
def test_the_solution_is_that_of_explicit_rows(kind: str, ridge: float, free: bool) -> None:
    p, t, w0 = drawn(60, 7, 4, systems=2)
    given = None if free else np.full((2, 4), 0.7)
    weights, shift = Problem(w0, fixed_shift=given).solve(sums_of(p, t, kind), ridge)
    for system in range(2):
        w, c = solved(
            p[system], t[system], w0[system], ridge, None if free else given[system], None
        )
        np.testing.assert_allclose(weights[system], w, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(shift[system], c, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", ["moments", "rows"])
@pytest.mark.parametrize("free", [True, False], ids=["shift", "no shift"])
@pytest.mark.parametrize("rows", [80, 9], ids=["tall", "wide"])
def test_each_output_is_solved_on_its_own_support(kind: str, free: bool, rows: int) -> None:
    p, t, w0 = drawn(rows, 12, 6)
    rng = np.random.default_rng(1)
    support = rng.random((1, 12, 6)) < 0.4
    support[0, :, 1] = support[0, :, 0]  # outputs that share theirs
    support[0, :, 2] = False
    support[0, :, 3] = True
    w0 = w0 * support
    given = None if free else np.full((1, 6), -0.4)
    weights, _ = Problem(w0, support, given).solve(sums_of(p, t, kind), 1e-2)
    w, _ = solved(p[0], t[0], w0[0], 1e-2, None if free else given[0], support[0])
    np.testing.assert_allclose(weights[0], w, rtol=1e-5, atol=1e-5)
    assert not weights[~support].any()


@pytest.mark.parametrize("free", [True, False], ids=["shift", "no shift"])
@pytest.mark.parametrize("ridge", [1e-1, 1e-5])
def test_rows_answer_as_moments_do(free: bool, ridge: float) -> None:
    p, t, w0 = drawn(20, 50, 3)
    given = None if free else np.ones((1, 3))
    problem = Problem(w0, fixed_shift=given)
    moments, rows = sums_of(p, t), sums_of(p, t, "rows")
    one, two = problem.solve(moments, ridge), problem.solve(rows, ridge)
    np.testing.assert_allclose(one[0], two[0], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(one[1], two[1], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(
        moments.compute_errors(w0, one[1]), rows.compute_errors(w0, one[1]), rtol=1e-9
    )
    np.testing.assert_allclose(moments.compute_spread(), rows.compute_spread(), rtol=1e-9)
    direct = ((p[0] @ w0[0] + one[1][0] - t[0]) ** 2).sum(0)
    np.testing.assert_allclose(rows.compute_errors(w0, one[1])[0], direct, rtol=1e-9)


@pytest.mark.parametrize("kind", ["moments", "rows"])
@pytest.mark.parametrize("free", [True, False], ids=["shift", "no shift"])
def test_columns_that_never_change_keep_their_weights(kind: str, free: bool) -> None:
    p, t, w0 = drawn(40, 8, 3)
    p[:, :, [2, 5]] = 3.0 if free else 0.0
    given = None if free else np.zeros((1, 3))
    weights, shift = Problem(w0, fixed_shift=given).solve(sums_of(p, t, kind), 1e-3)
    np.testing.assert_allclose(weights[0, [2, 5]], w0[0, [2, 5]], rtol=1e-9)
    alive = [0, 1, 3, 4, 6, 7]
    rest = t[0] - p[0][:, [2, 5]] @ w0[0, [2, 5]]
    w, c = solved(p[0][:, alive], rest, w0[0, alive], 1e-3, None if free else np.zeros(3), None)
    np.testing.assert_allclose(weights[0, alive], w, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(shift[0], c, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["moments", "rows"])
def test_inputs_of_mixed_scale_lose_nothing(kind: str) -> None:
    """Scales from 1e4 to 1e-2, each column worth as much: as accurate as with equal scales."""
    p, _, w0 = drawn(200 if kind == "moments" else 20, 30, 5)
    p = p - p.mean(1, keepdims=True)
    scales = 10.0 ** np.linspace(4, -2, 30)
    w0 = np.zeros_like(w0)
    true = np.random.default_rng(2).normal(size=(1, 30, 5))
    t = p @ true
    scaled, _ = Problem(w0).solve(sums_of(p * scales, t, kind), 1e-8)
    equal, _ = Problem(w0).solve(sums_of(p, t, kind), 1e-8)
    np.testing.assert_allclose(scaled[0] * scales[:, None], equal[0], rtol=1e-4, atol=1e-4)
    made = (p * scales) @ scaled
    assert ((made - t) ** 2).sum() < 1e-8 * (t**2).sum()


def test_added_in_pieces_is_the_same_as_at_once() -> None:
    p, t, w0 = drawn(90, 6, 4, systems=3)
    at_once = sums_of(p, t)
    pieces = Moments.from_offsets(at_once.offsets)
    for start, stop in ((0, 1), (1, 50), (50, 90)):
        pieces.add(p[:, start:stop].astype(np.float64), t[:, start:stop])
    halves = Moments.from_offsets(at_once.offsets), Moments.from_offsets(at_once.offsets)
    halves[0].add(p[:, :30], t[:, :30])
    halves[1].add(p[:, 30:], t[:, 30:])
    for other in (pieces, halves[0] + halves[1]):
        assert other.count == 90
        for mine, theirs in zip(at_once.compute_centred(), other.compute_centred(), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9)
        one, two = (Problem(w0).solve(sums, 1e-3)[0] for sums in (at_once, other))
        np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(at_once.means[0], p.mean(1))
    centred = p[1] - p[1].mean(0)
    np.testing.assert_allclose(at_once.compute_centred()[0][1], centred.T @ centred, atol=1e-9)
    shift = np.ones((3, 4))
    raw = at_once.compute_raw(shift)
    np.testing.assert_allclose(raw[0][2], p[2].T @ p[2], rtol=1e-9)
    np.testing.assert_allclose(raw[1][2], p[2].T @ (t[2] - 1), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(raw[2][2], ((t[2] - 1) ** 2).sum(0), rtol=1e-9)


@pytest.mark.parametrize("solver", ["moments", "rows", "factored"])
def test_large_means_eat_no_small_spreads(solver: str) -> None:
    """float32 rows of mean 1,000 and spread 1: solved as those about zero are."""
    p, _, w0 = drawn(300, 6, 3, means=0.0)
    true = np.random.default_rng(3).normal(size=(1, 6, 3))
    p = (p + 1000.0).astype(np.float32)
    t = (p.astype(np.float64) @ true - 1000.0 * true.sum(1)[:, None] + 50.0).astype(np.float32)
    problem = Problem(w0)
    if solver == "factored":
        moments = Moments.from_offsets(tuple(x[:, :3].astype(np.float64).mean(1) for x in (p, t)))
        moments.add(p, t)
        clip = Clip(-np.inf, np.inf)
        equations = NormalEquations(Sample(p, t[0]), moments, problem, 1e-8, clip)
        weights, shift = equations.solve(w0, np.zeros((1, 3)))
    else:
        weights, shift = problem.solve(sums_of(p, t, solver), 1e-8)
    np.testing.assert_allclose(weights[0], true[0], atol=2e-3)
    made = p.astype(np.float64) @ weights + shift[:, None]
    assert ((made - t) ** 2).sum() < 1e-6 * ((t - t.mean(1)) ** 2).sum()


def test_products_of_wide_noisy_rows_are_exact_to_single_precision() -> None:
    """Rows of mean 1,000 and spread 1; the noise adds to the diagonal, and nothing is lost."""
    rng = np.random.default_rng(0)
    p = (rng.normal(size=(1, 1500, WIDE)) + 1000.0).astype(np.float32)
    t = (rng.normal(size=(1, 1500, 3)) + p[..., :3] - 990.0).astype(np.float32)
    offsets = tuple(x[:, :100].astype(np.float64).mean(1) for x in (p, t))
    moments = Moments.from_offsets((offsets[0], offsets[1]), noise=1e-3)
    for part in (slice(0, 700), slice(700, None)):
        moments.add(p[:, part], t[:, part])
    exact, targets = (x[0].astype(np.float64) - x[0].astype(np.float64).mean(0) for x in (p, t))
    pp, pt, tt = moments.compute_centred()
    np.testing.assert_allclose(
        pp[0], exact.T @ exact + 1.5 * np.eye(WIDE), rtol=1e-5, atol=1500 * 1e-5
    )
    np.testing.assert_allclose(pt[0], exact.T @ targets, rtol=1e-5, atol=1500 * 1e-5)
    np.testing.assert_allclose(tt[0], (targets**2).sum(0), rtol=1e-5)
    for mine, rows in zip(moments.means, (p, t), strict=True):
        np.testing.assert_allclose(mine[0], rows[0].astype(np.float64).mean(0), rtol=1e-6)


@pytest.mark.parametrize("systems", [1, 3])
@pytest.mark.parametrize("free", [True, False], ids=["shift", "no shift"])
@pytest.mark.parametrize("is_sum", [True, False], ids=["sum", "own"])
def test_hidden_targets_follow_the_outputs_in_blocks_of_rows(
    is_sum: bool, free: bool, systems: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below 0 and above 1 an output may lie anywhere beyond the bound; 200 rows are four blocks.

    Of a sum, the other addends count towards the bounds; rows of a sum are noisy here.
    """
    monkeypatch.setattr("compress.reconstruction.least_squares.TARGET_NUMBERS", 0)
    monkeypatch.setattr("compress.reconstruction.least_squares.MIN_TARGET_ROWS", 64)
    p, t, w0 = drawn(200, 5, 2, systems=systems)
    given = None if free else np.full((systems, 2), 0.2)
    problem = Problem(w0, fixed_shift=given)
    noise = 0.05 if is_sum else 0.0
    moments = Moments.from_offsets((p[:, :3].mean(1), t[:, :3].mean(1)), noise)
    moments.add(p, t)
    base = np.random.default_rng(5).normal(size=t.shape).astype(np.float32)
    if not is_sum:
        base[:] = 0.0
    rows_of_base = base.transpose(1, 0, 2).reshape(200, -1)
    targets = t.transpose(1, 0, 2).reshape(200, -1)
    sample = Sample(p, targets, rows_of_base if is_sum else None, noise)
    solution = problem.solve(moments, 1e-3)
    for clip in (Clip(-np.inf, np.inf), Clip(0.0, np.inf), Clip(0.0, 1.0)):
        equations = NormalEquations(sample, moments, problem, 1e-3, clip)
        weights, shift = equations.solve(*solution)
        outputs = np.einsum("srd,sdm->srm", p, solution[0]) + solution[1][:, None]
        low, high = clip.low - base, clip.high - base
        free_targets = np.where(t <= low, np.minimum(outputs, low), t)
        free_targets = np.where(t >= high, np.maximum(outputs, high), free_targets)
        for system in range(systems):
            fixed = None if given is None else given[system]
            w, c = solved(p[system], free_targets[system], w0[system], 1e-3, fixed, None, noise)
            np.testing.assert_allclose(weights[system], w, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(shift[system], c, rtol=1e-5, atol=1e-5)
        solution = weights, shift


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_blocks_come_in_order_whatever_the_number_of_threads(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compress.reconstruction.row_products.count_threads", lambda: threads)
    began: list[threading.Thread] = []

    def list_rows(part: slice) -> list[int]:
        began.append(threading.current_thread())
        return list(range(10))[part]

    for result_bytes in (8, 2**60):  # results of the second size fit into no memory twice
        began.clear()
        parts = []
        for result in map_blocks(list_rows, 10, 3, result_bytes):
            parts.append(result)
            # results are not computed long before they are read
            assert len(began) <= len(parts) + threads
        assert parts == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
        is_alone = threads == 1 or result_bytes > 8
        assert (threading.main_thread() in began) == is_alone


def test_an_exact_solution_is_found_whatever_stood_there_before() -> None:
    """Inputs whose missing columns are combinations of the others: residual of about the ridge."""
    rng = np.random.default_rng(0)
    full = rng.normal(size=(1, 400, 8))
    combination = rng.normal(size=(6, 2))
    full[..., 6:] = full[..., :6] @ combination + 0.3
    w = rng.normal(size=(1, 8, 4))
    t = full @ w + 1.0
    weights, shift = Problem(w[:, :6]).solve(sums_of(full[..., :6], t), 1e-8)
    np.testing.assert_allclose(weights[0], w[0, :6] + combination @ w[0, 6:], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(shift[0], 1.0 + 0.3 * w[0, 6:].sum(0), rtol=1e-6)
    errors = sums_of(full[..., :6], t).compute_errors(weights, shift)
    assert errors.sum() < 1e-12 * ((t - t.mean(1)) ** 2).sum()


def test_equal_columns_share_what_they_are_worth() -> None:
    """A singular Gram matrix: finite, and by symmetry half of the weight each."""
    rng = np.random.default_rng(0)
    p = np.repeat(rng.normal(size=(1, 50, 1)), 2, axis=2)
    t = 3.0 * p[..., :1]
    weights, _ = Problem(np.zeros((1, 2, 1))).solve(sums_of(p, t), 1e-8)
    np.testing.assert_allclose(weights.ravel(), [1.5, 1.5], rtol=1e-6)
