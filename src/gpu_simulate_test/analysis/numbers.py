"""How figures are written: the same in the terminal, the Markdown summary, the HTML report and the plots."""

import numpy as np
import numpy.typing as npt

NS_PER_MS = 1e6


def number(value: float, digits: int, unit: str = "", *, sign: bool = False) -> str:
    """Write a number with thousands separators, as ``1,234.50 ms``; empty when missing, and no sign before zero."""
    if np.isnan(value):
        return ""
    rounded = round(value, digits) + 0.0  # turns -0.0 into 0.0
    return f"{rounded:{'+' if sign and rounded else ''},.{digits}f}{unit and ' ' + unit}"


def ms(ns: float, digits: int = 3, *, sign: bool = False) -> str:
    """Write nanoseconds as ms, without the unit."""
    return number(ns / NS_PER_MS, digits, sign=sign)


def percent(fraction: float, *, sign: bool = False) -> str:
    """Write a fraction as ``4.1 %``, or with its direction as ``-4.1 %``."""
    return number(100 * fraction, 1, "%", sign=sign)


def points(difference: float, *, sign: bool = False) -> str:
    """Write a difference of two fractions as ``-4.1 points``, percentage points."""
    return number(100 * difference, 1, "points", sign=sign)


def count(n: float, noun: str = "") -> str:
    """Write a number of things as ``1,204``, ``1 request`` or ``1,204 requests``."""
    return f"{int(n):,}{noun and ' ' + noun}{'s' if noun and n != 1 else ''}"


def short(value: float) -> str:
    """Write a number that someone set, as they would: ``20``, ``0.5``."""
    return f"{value:g}"


def significant(value: float) -> str:
    """Write a number with four significant digits, as ``1,235``, ``12.35`` or ``123,457``; empty when missing."""
    if np.isnan(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def between(low: str, high: str) -> str:
    """Write a range as ``1.0 to 2.0``; empty when missing."""
    return f"{low} to {high}" if low else ""


def decimals(values_ns: npt.ArrayLike) -> int:
    """Count the decimals that give the smallest of some times, ns, four digits in ms; at most four."""
    values = np.asarray(values_ns, dtype=np.float64) / NS_PER_MS
    values = values[values > 0]
    return int(np.clip(3 - np.floor(np.log10(values.min())), 0, 4)) if values.size else 0
