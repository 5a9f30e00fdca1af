"""Random draws that are the same on any machine, a million in well under a second.

A C library's logarithm may differ from another's in its last bit, and one draw that falls on the other side of a
rounding changes a workload's bytes. So everything here is made of what IEEE 754 and Python fix: the numbers of
``random.Random.random``, which Python promises never to change, and +, -, x, /, the square root and rounding, one array
operation each.
"""

import math
import random

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# ln 2 in two parts: the first has 32 bits, so that its product with an exponent is exact.
_LN2_HIGH = math.ldexp(2977044471, -32)
_LN2_LOW = 1.9082149292705877e-10
_LN_TERMS, _EXP_TERMS = 12, 15


def uniforms(seed: int | str, count: int) -> Floats:
    """Uniform over [0, 1), of shape (count,); fewer of one seed are the first of more."""
    state = random.Random(seed).getstate()[1]
    generator = np.random.RandomState()  # the same generator, and as frozen
    generator.set_state(("MT19937", np.array(state[:-1], dtype=np.uint32), state[-1], 0, 0.0))
    return generator.random_sample(count)


def ln(x: Floats) -> Floats:
    """Natural logarithm of positive numbers, to a few units of the last place."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < math.sqrt(0.5)
    mantissa = np.where(low, 2.0 * mantissa, mantissa)
    power = np.where(low, exponent - 1, exponent).astype(np.float64)
    ratio = (mantissa - 1.0) / (mantissa + 1.0)  # ln m = 2 artanh ratio, whose series converges fast
    square = ratio * ratio
    series = np.zeros_like(ratio)
    for term in range(_LN_TERMS, 0, -1):
        series = (series + 1.0 / (2 * term + 1)) * square
    return power * _LN2_HIGH + (power * _LN2_LOW + (2.0 * ratio * series + 2.0 * ratio))


def exp(x: Floats) -> Floats:
    """Exponential, to a few units of the last place; beyond +-700 as there, which no caller can tell apart."""
    x = np.clip(x, -700.0, 700.0)
    power = np.rint(x / math.log(2))
    rest = (x - power * _LN2_HIGH) - power * _LN2_LOW
    series = np.ones_like(rest)
    for term in range(_EXP_TERMS, 0, -1):
        series = 1.0 + series * rest / term
    return np.ldexp(series, power.astype(np.int64))


def normals(seed: int | str, count: int) -> Floats:
    """Standard normal, of shape (count,), by Marsaglia's polar method; fewer of one seed are the first of more."""
    pairs = count + count // 2 + 64  # of which pi / 4 are accepted
    while True:
        drawn = 2.0 * uniforms(seed, 2 * pairs) - 1.0
        first, second = drawn[0::2], drawn[1::2]
        radius = first * first + second * second
        accepted = (radius > 0.0) & (radius < 1.0)
        if accepted.sum() >= count:
            first, radius = first[accepted][:count], radius[accepted][:count]
            return first * np.sqrt(-2.0 * ln(radius) / radius)
        pairs *= 2


def gammas(shape: float, seed: int | str, count: int) -> Floats:
    """Gamma of mean `shape` and scale 1, of shape (count,); fewer of one seed are the first of more.

    Marsaglia and Tsang (2000); a shape below 1 is drawn as shape + 1 and raised, as they say, by a power of a uniform.
    """
    if shape < 1:
        return gammas(shape + 1, seed, count) * exp(ln(1.0 - uniforms(f"{seed}-power", count)) / shape)
    d = shape - 1 / 3
    c = 1 / math.sqrt(9 * d)
    tries = count + count // 8 + 64  # more than 95 % are accepted
    while True:
        normal, uniform = normals(f"{seed}-normal", tries), 1.0 - uniforms(f"{seed}-uniform", tries)
        root = 1.0 + c * normal
        positive = root > 0.0
        cube = np.where(positive, root * root * root, 1.0)
        accepted = positive & (ln(uniform) < 0.5 * normal * normal + d * (1.0 - cube + ln(cube)))
        if accepted.sum() >= count:
            return d * cube[accepted][:count]
        tries *= 2
