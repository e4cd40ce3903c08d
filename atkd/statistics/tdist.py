"""Mixtures of Student's t distributions, with the standard library alone.

A mixture is a sequence of (weight, degrees of freedom); weights add up to one and degrees of
freedom are any positive number, infinity included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

Mixture = Sequence[tuple[float, float]]
NORMAL = 1e7  # degrees of freedom from which t is the normal distribution


def cdf(value: float, parts: Mixture) -> float:
    """Distribution function; the lower tail keeps its relative precision."""
    return sum(weight * _cdf(value, freedom) for weight, freedom in parts)


def quantile(probability: float, parts: Mixture) -> float:
    """Inverse of `cdf`, absolute error under 1e-9; NaN if a part has no degrees of freedom."""
    if any(math.isnan(freedom) for _, freedom in parts):
        return math.nan
    if probability < 0.5:
        return -quantile(1.0 - probability, parts)
    value = NormalDist().inv_cdf(probability)  # left of the root, where Newton only climbs
    for _ in range(200):
        slope = sum(weight * _density(value, freedom) for weight, freedom in parts)
        step = (probability - cdf(value, parts)) / slope
        value += step
        if abs(step) < 1e-10 * max(1.0, value):
            break
    return value


def _cdf(value: float, freedom: float) -> float:
    if freedom > NORMAL:
        return 0.5 * math.erfc(-value / math.sqrt(2))
    tail = 0.5 * _incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + value * value))
    return 1.0 - tail if value > 0 else tail


def _density(value: float, freedom: float) -> float:
    if freedom > NORMAL:
        return math.exp(-value * value / 2) / math.sqrt(2 * math.pi)
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    scale -= 0.5 * math.log(freedom * math.pi)
    return math.exp(scale - (freedom + 1) / 2 * math.log1p(value * value / freedom))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function by its continued fraction (Lentz's algorithm)."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _incomplete_beta(b, a, 1.0 - x)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(scale + a * math.log(x) + b * math.log1p(-x)) / a
    fraction, c, d = 1.0, 1.0, 0.0
    for step in range(2000):
        half = step // 2
        if step == 0:
            term = 1.0
        elif step % 2 == 0:
            term = half * (b - half) * x / ((a + step - 1.0) * (a + step))
        else:
            term = -(a + half) * (a + b + half) * x / ((a + step - 1.0) * (a + step))
        d = 1.0 / (1.0 + term * d)
        c = 1.0 + term / c
        fraction *= c * d
        if abs(1.0 - c * d) < 1e-15:
            break
    return front * (fraction - 1.0)
