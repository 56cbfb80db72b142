"""The numbers that kernels compute with: eight sentences at once, one in each lane of a vector, with or without a derivative.

Sentences of a batch go through the same recursion, so eight of them cost what one does. Arrays have a last dimension of
`WIDTH`; a *row* is such an array of two dimensions, and `load(row, k)` is the number at place k of it. A pair of rows is a
row of dual numbers, value and derivative (forward-mode differentiation): a recursion that is written once with `plus`,
`times` and `over` computes a value, or a value and its derivative along a direction, depending on what it is given.
"""

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_model
from numba.np.arrayobj import make_array

from hf_latent.inference.cpu.compiling import part

WIDTH = 8
VECTOR = ir.VectorType(ir.DoubleType(), WIDTH)


class Lanes(types.Type):
    """Numba's name for `WIDTH` doubles in a vector register."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


LANES = Lanes()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: types.Type) -> None:
        super().__init__(manager, numba_type, VECTOR)


def _pointer(context: Any, builder: Any, row_type: types.Array, row: Any, k: Any) -> Any:
    data = builder.bitcast(make_array(row_type)(context, builder, row).data, VECTOR.as_pointer())
    return builder.gep(data, [k], source_etype=VECTOR)


@intrinsic
def _load(typing: Any, row: types.Array, k: types.Type) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(context, builder, signature.args[0], *arguments), align=8)

    return LANES(row, types.intp), generate


@intrinsic
def _store(typing: Any, row: types.Array, k: types.Type, value: Lanes) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row, k, value = arguments
        builder.store(value, _pointer(context, builder, signature.args[0], row, k), align=8)
        return context.get_dummy_value()

    return types.void(row, types.intp, LANES), generate


@intrinsic
def _constant(typing: Any, value: types.Float) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.Constant(VECTOR, ir.Undefined)
        for lane in range(WIDTH):
            vector = builder.insert_element(vector, arguments[0], ir.Constant(ir.IntType(32), lane))
        return vector

    return LANES(types.float64), generate


def _lane_by_lane(emit: Callable[[Any, Any, Any], Any]) -> Any:
    @intrinsic
    def operation(typing: Any, x: Lanes, y: Lanes) -> Any:
        return LANES(LANES, LANES), lambda context, builder, signature, arguments: emit(builder, *arguments)

    return operation


FLAGS = ("nsz", "contract")  # a product and the sum after it may become one instruction
_add = _lane_by_lane(lambda builder, x, y: builder.fadd(x, y, flags=FLAGS))
_subtract = _lane_by_lane(lambda builder, x, y: builder.fsub(x, y, flags=FLAGS))
_multiply = _lane_by_lane(lambda builder, x, y: builder.fmul(x, y, flags=FLAGS))
_divide = _lane_by_lane(lambda builder, x, y: builder.fdiv(x, y, flags=FLAGS))
_largest = _lane_by_lane(lambda builder, x, y: builder.select(builder.fcmp_ordered(">", x, y), x, y))


@intrinsic
def _replaced(typing: Any, x: Lanes, this: Lanes, by: Lanes) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, this, by = arguments
        return builder.select(builder.fcmp_ordered("==", x, this), by, x)

    return LANES(LANES, LANES, LANES), generate


@intrinsic
def _forbidden_below(typing: Any, x: Lanes, limit: Lanes) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, limit = arguments
        return builder.select(builder.fcmp_ordered("<", x, limit), in_all_lanes(-math.inf), x)

    return LANES(LANES, LANES), generate


def in_all_lanes(value: float) -> ir.Constant:
    return ir.Constant(VECTOR, [value] * WIDTH)


@part
def charts_of(scratch, first, count, size):  # type: ignore[no-untyped-def]
    """Charts `first` to `first + count` of those that `scratch` has room for: `(count, size, size, WIDTH)`."""
    length = size * size * WIDTH
    return scratch[first * length : (first + count) * length].reshape((count, size, size, WIDTH))


@part
def chart(scratch, first, rows, columns):  # type: ignore[no-untyped-def]
    """Room for `rows × columns` numbers in `scratch`, behind the `first` ones."""
    return scratch[first * WIDTH : (first + rows * columns) * WIDTH].reshape((rows, columns, WIDTH))


# Kernels call the functions below; what stands in for them is chosen by the kind of the first argument.


def row(chart: Any, i: int, start: int) -> Any:
    """`chart[i, start:]`, for a chart of dimensions `(places, places, WIDTH)` or a pair of them."""


def load(row: Any, k: int) -> Any:
    """The number at place k. Nothing checks that there is one."""


def store(row: Any, k: int, x: Any) -> None:
    """Writes x to place k. Nothing checks that there is one."""


def increase(row: Any, k: int, x: Any) -> None:
    """Adds x to what is at place k."""


def constant(row: Any, value: float) -> Any:
    """`value` in every lane (with derivative 0), as a number of the kind that `row` has."""


def set_lane(row: Any, lane: int, value: float) -> None:
    """Writes `value` (with derivative 0) to one lane of the first number of `row`."""


def copy_lane(row: Any, target: Any, lane: int) -> None:
    """Copies one lane of the first number of `row` to the first number of the row `target`."""


def plus(x: Any, y: Any) -> Any:
    """x + y."""


def times(x: Any, y: Any) -> Any:
    """x · y."""


def over(x: Any, y: Any) -> Any:
    """x / y."""


def minus(x: Any, y: Any) -> Any:
    """x - y; not for dual numbers."""


def replaced(x: Any, this: float, by: float) -> Any:
    """x, but `by` in the lanes where it is `this`; not for dual numbers."""


def value(x: Any) -> Any:
    """x without its derivative."""


def scaled(x: Any, factor: Any) -> Any:
    """x times a `factor` that has no derivative."""


def shifted(x: Any, by: Any) -> Any:
    """x plus a number that has no derivative."""


def forbidden_below(x: Any, limit: Any) -> Any:
    """x, but -inf in the lanes where it is below the `limit`; not for dual numbers."""


def larger(x: Any, y: Any) -> Any:
    """The larger of x and y, lane by lane; not for dual numbers."""


def is_dual(numba_type: types.Type) -> bool:
    return isinstance(numba_type, types.UniTuple)


@overload(row)
def _(chart, i, start):  # type: ignore[no-untyped-def]
    if is_dual(chart):
        return lambda chart, i, start: (chart[0][i, start:], chart[1][i, start:])
    return lambda chart, i, start: chart[i, start:]


@overload(load)
def _(row, k):  # type: ignore[no-untyped-def]
    return (lambda row, k: (_load(row[0], k), _load(row[1], k))) if is_dual(row) else (lambda row, k: _load(row, k))


@overload(store)
def _(row, k, x):  # type: ignore[no-untyped-def]
    if is_dual(row):

        def store_both(row, k, x):  # type: ignore[no-untyped-def]
            _store(row[0], k, x[0])
            _store(row[1], k, x[1])

        return store_both
    return lambda row, k, x: _store(row, k, x)


@overload(increase)
def _(row, k, x):  # type: ignore[no-untyped-def]
    return lambda row, k, x: store(row, k, plus(load(row, k), x))


@overload(constant)
def _(row, value):  # type: ignore[no-untyped-def]
    return (lambda row, value: (_constant(value), _constant(0.0))) if is_dual(row) else (lambda row, value: _constant(value))


@overload(set_lane)
def _(row, lane, value):  # type: ignore[no-untyped-def]
    if is_dual(row):

        def set_both(row, lane, value):  # type: ignore[no-untyped-def]
            row[0][0, lane], row[1][0, lane] = value, 0.0

        return set_both

    def set_one(row, lane, value):  # type: ignore[no-untyped-def]
        row[0, lane] = value

    return set_one


@overload(copy_lane)
def _(row, target, lane):  # type: ignore[no-untyped-def]
    if is_dual(row):

        def copy_both(row, target, lane):  # type: ignore[no-untyped-def]
            target[0][0, lane], target[1][0, lane] = row[0][0, lane], row[1][0, lane]

        return copy_both

    def copy_one(row, target, lane):  # type: ignore[no-untyped-def]
        target[0, lane] = row[0, lane]

    return copy_one


@overload(plus)
def _(x, y):  # type: ignore[no-untyped-def]
    return (lambda x, y: (_add(x[0], y[0]), _add(x[1], y[1]))) if is_dual(x) else (lambda x, y: _add(x, y))


@overload(times)
def _(x, y):  # type: ignore[no-untyped-def]
    if is_dual(x):
        return lambda x, y: (_multiply(x[0], y[0]), _add(_multiply(x[0], y[1]), _multiply(x[1], y[0])))
    return lambda x, y: _multiply(x, y)


@overload(over)
def _(x, y):  # type: ignore[no-untyped-def]
    if is_dual(x):

        def over_dual(x, y):  # type: ignore[no-untyped-def]
            quotient = _divide(x[0], y[0])
            return quotient, _divide(_subtract(x[1], _multiply(quotient, y[1])), y[0])

        return over_dual
    return lambda x, y: _divide(x, y)


@overload(larger)
def _(x, y):  # type: ignore[no-untyped-def]
    return lambda x, y: _largest(x, y)


@overload(minus)
def _(x, y):  # type: ignore[no-untyped-def]
    return lambda x, y: _subtract(x, y)


@overload(replaced)
def _(x, this, by):  # type: ignore[no-untyped-def]
    return lambda x, this, by: _replaced(x, _constant(this), _constant(by))


@overload(value)
def _(x):  # type: ignore[no-untyped-def]
    return (lambda x: x[0]) if is_dual(x) else (lambda x: x)


@overload(scaled)
def _(x, factor):  # type: ignore[no-untyped-def]
    if is_dual(x):
        return lambda x, factor: (_multiply(x[0], factor), _multiply(x[1], factor))
    return lambda x, factor: _multiply(x, factor)


@overload(shifted)
def _(x, by):  # type: ignore[no-untyped-def]
    return (lambda x, by: (_add(x[0], by), x[1])) if is_dual(x) else (lambda x, by: _add(x, by))


@overload(forbidden_below)
def _(x, limit):  # type: ignore[no-untyped-def]
    return lambda x, limit: _forbidden_below(x, limit)
