"""exp and log of the numbers that kernels compute with, eight lanes at a time; see `simd`."""

import math
from typing import Any

from llvmlite import ir
from numba.extending import intrinsic, overload

from hf_latent.inference.cpu.compiling import part
from hf_latent.inference.cpu.simd import (
    FLAGS,
    LANES,
    VECTOR,
    WIDTH,
    Lanes,
    constant,
    in_all_lanes,
    is_dual,
    larger,
    load,
    minus,
    over,
    plus,
    replaced,
    shifted,
    store,
    times,
    value,
)

_WHOLE = ir.VectorType(ir.IntType(64), WIDTH)

# Added to this number, whose bits these are, another is rounded to an integer, which is then in its lowest bits.
_ROUNDER = 1.5 * 2.0**52
_ROUNDER_BITS = 0x4338000000000000

# log(2) in two parts, the first with so few digits that its products with exponents are exact.
_LOG_2 = 0.693145751953125, 1.42860682030941723212e-6

_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD


def _whole(value: int) -> ir.Constant:
    return ir.Constant(_WHOLE, [value] * WIDTH)


def _polynomial(builder: Any, x: Any, coefficients: list[float]) -> Any:
    """The highest power first."""
    result = in_all_lanes(coefficients[0])
    for coefficient in coefficients[1:]:
        result = builder.fadd(builder.fmul(result, x, flags=FLAGS), in_all_lanes(coefficient), flags=FLAGS)
    return result


@intrinsic
def _exp(typing: Any, x: Lanes) -> Any:
    """exp of numbers that are at most 0, to the last digit or two; 0 below -708 (and for NaN).

    exp(x) = 2^k exp(r) with |r| <= log(2) / 2: a Taylor polynomial, whose exponent k is added to as an integer.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (x,) = arguments
        rounder = in_all_lanes(_ROUNDER)
        added = builder.fadd(builder.fmul(x, in_all_lanes(1 / math.log(2))), rounder)
        k = builder.fsub(added, rounder)
        rest = builder.fsub(x, builder.fmul(k, in_all_lanes(_LOG_2[0])))
        rest = builder.fsub(rest, builder.fmul(k, in_all_lanes(_LOG_2[1])))
        result = _polynomial(builder, rest, [1 / math.factorial(degree) for degree in range(13, -1, -1)])
        exponent = builder.shl(builder.bitcast(added, _WHOLE), _whole(52))
        found = builder.bitcast(builder.add(builder.bitcast(result, _WHOLE), exponent), VECTOR)
        return builder.select(builder.fcmp_ordered(">", x, in_all_lanes(-708.0)), found, in_all_lanes(0.0))

    return LANES(LANES), generate


@intrinsic
def _log(typing: Any, x: Lanes) -> Any:
    """log of numbers that are not tiny (2e-308), to the last digit or two; -inf for 0.

    log(x) = k log(2) + log(m) with m between √½ and √2, and log(m) = 2 artanh((m - 1) / (m + 1)): its Taylor polynomial.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (x,) = arguments
        bits, one = builder.bitcast(x, _WHOLE), in_all_lanes(1.0)
        exponent = builder.ashr(builder.sub(bits, _whole(_SQRT_HALF_BITS)), _whole(52))
        m = builder.bitcast(builder.sub(bits, builder.shl(exponent, _whole(52))), VECTOR)
        k = builder.fsub(builder.bitcast(builder.add(exponent, _whole(_ROUNDER_BITS)), VECTOR), in_all_lanes(_ROUNDER))
        f = builder.fdiv(builder.fsub(m, one), builder.fadd(m, one))
        series = _polynomial(builder, builder.fmul(f, f), [2 / (2 * power + 1) for power in range(10, -1, -1)])
        low = builder.fadd(builder.fmul(f, series), builder.fmul(k, in_all_lanes(_LOG_2[1])))
        found = builder.fadd(builder.fmul(k, in_all_lanes(_LOG_2[0])), low)
        return builder.select(builder.fcmp_ordered(">", x, in_all_lanes(0.0)), found, in_all_lanes(-math.inf))

    return LANES(LANES), generate


def exp(x: Any) -> Any:
    """exp(x) for x <= 0, and 0 for x below -708."""


def log(x: Any) -> Any:
    """log(x), and -inf for 0 (with derivative 0 where that of x is 0)."""


@overload(exp)
def _(x):  # type: ignore[no-untyped-def]
    if is_dual(x):

        def exp_dual(x):  # type: ignore[no-untyped-def]
            found = _exp(x[0])
            return found, times(found, x[1])

        return exp_dual
    return lambda x: _exp(x)


@overload(log)
def _(x):  # type: ignore[no-untyped-def]
    if is_dual(x):
        return lambda x: (_log(x[0]), over(x[1], replaced(x[0], 0.0, 1.0)))
    return lambda x: _log(x)


@part
def log_sum(terms, first, count):  # type: ignore[no-untyped-def]
    """log Σ exp of `count` terms of a row, which become their shares of the sum; 0 where all terms are -inf."""
    highest = value(load(terms, first))
    for k in range(first + 1, first + count):
        highest = larger(value(load(terms, k)), highest)
    zero, total = value(constant(terms, 0.0)), constant(terms, 0.0)
    lowered = minus(zero, replaced(highest, -float("inf"), 0.0))
    for k in range(first, first + count):
        x = exp(shifted(load(terms, k), lowered))
        store(terms, k, x)
        total = plus(total, x)
    inverse = over(constant(terms, 1.0), shifted(total, value(constant(terms, 1e-300))))  # at least 1, or 0
    for k in range(first, first + count):
        store(terms, k, times(load(terms, k), inverse))
    return shifted(log(total), highest)
