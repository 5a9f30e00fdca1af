"""Draws have the distribution they are named for, and are the same numbers on any machine."""

import hashlib
import math
import random
from collections.abc import Callable
from decimal import Context, Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_simulate_test.workloads.draws import Floats, exp, gammas, ln, normals, uniforms

EXACT = Context(prec=30)
SEEDS = st.one_of(st.integers(0, 2**64), st.text(max_size=8))


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(values.astype("<f8").tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (lambda: uniforms(7, 1000), "fb732dd470005c16"),
        (lambda: normals(7, 1000), "07c48b34c29fc3f7"),
        (lambda: gammas(0.25, 7, 1000), "22bb37967e68ea49"),
        (lambda: gammas(16.0, 7, 1000), "4f8b5ecc3ecf461b"),
    ],
)
def test_a_seed_gives_the_same_bits_as_when_this_was_written(draw: Callable[[], Floats], expected: str) -> None:
    assert digest(draw()) == expected


@given(SEEDS, st.integers(0, 300))
def test_uniforms_are_the_ones_python_promises_never_to_change(seed: int | str, count: int) -> None:
    promised = random.Random(seed)
    assert uniforms(seed, count).tolist() == [promised.random() for _ in range(count)]


@given(st.floats(1e-300, 1e300))
def test_the_logarithm_is_right_to_the_last_places(x: float) -> None:
    exact = float(EXACT.ln(Decimal(x)))
    assert ln(np.array([x]))[0] == pytest.approx(exact, rel=1e-15, abs=1e-300)


@given(st.floats(-690, 690))
def test_the_exponential_is_right_to_the_last_places(x: float) -> None:
    assert exp(np.array([x]))[0] == pytest.approx(float(EXACT.exp(Decimal(x))), rel=1e-15)


@given(SEEDS, st.integers(0, 50), st.integers(0, 50), st.floats(0.05, 50))
def test_fewer_draws_are_the_first_of_more(seed: int | str, few: int, more: int, shape: float) -> None:
    assert (normals(seed, few + more)[:few] == normals(seed, few)).all()
    assert (gammas(shape, seed, few + more)[:few] == gammas(shape, seed, few)).all()


def test_normals_have_the_moments_and_the_tails_of_a_normal() -> None:
    drawn = normals("moments", 100_000)
    assert drawn.mean() == pytest.approx(0, abs=0.01)
    assert drawn.std() == pytest.approx(1, abs=0.01)
    assert (np.abs(drawn) < 1.959964).mean() == pytest.approx(0.95, abs=0.003)


@pytest.mark.parametrize("shape", [0.1, 1.0, 4.0])
def test_gammas_have_the_mean_and_the_spread_of_their_shape(shape: float) -> None:
    drawn = gammas(shape, "moments", 200_000)
    assert drawn.mean() == pytest.approx(shape, rel=0.02)
    assert drawn.std() == pytest.approx(math.sqrt(shape), rel=0.03)
    assert (drawn >= 0).all()


def test_a_gamma_of_shape_one_is_exponential() -> None:
    drawn = gammas(1.0, "exponential", 100_000)
    for quantile in (0.1, 0.5, 0.9, 0.99):
        assert np.quantile(drawn, quantile) == pytest.approx(-math.log(1 - quantile), rel=0.03)
