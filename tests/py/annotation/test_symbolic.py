# SPDX-License-Identifier: BSD-3-Clause

"""Expressions over extents: no fact may be wrong, and every reading of one agrees."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import sympy
import tensorrt as trt
import tensorrt.plugin as trtp
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tensorrt.plugin._tensor import SymIntExpr
from torch.utils._sympy import functions
from torch.utils._sympy.functions import (
    BitwiseFn_bitwise_and,
    BitwiseFn_bitwise_xor,
    CeilDiv,
    CeilToInt,
    FloorDiv,
    FloorToInt,
    IntTrueDiv,
    Max,
    Min,
    Mod,
    OpaqueUnaryFn_sqrt,
    PowByNatural,
    PythonMod,
    TruncToInt,
)
from values import evaluate

from torch_tensorrt.annotation._dry_run.builder import dimensions, expression_builder
from torch_tensorrt.annotation._record.tracing import Trace
from torch_tensorrt.annotation._sizes.expressions import shown
from torch_tensorrt.annotation._sizes.facts import bounds, facts
from torch_tensorrt.annotation._sizes.to_tensorrt import compiled, to_tensorrt
from torch_tensorrt.annotation._tensors import (
    INT32_MAX,
    INT32_MIN,
    Range,
    TensorInfo,
    ranges_of,
    symbol,
)
from torch_tensorrt.annotation.errors import ArgumentError, SpecError

n, m, k = (symbol(0, axis) for axis in range(3))
SYMBOLS = (n, m, k)
POWER = PowByNatural(m, k)

# --- Expressions as user code builds them, and what they mean on plain ints -----------


@dataclass(frozen=True)
class Formula:
    """One operation: how Python computes it, how torch writes it down."""

    text: str
    on_ints: Callable[[Sequence[int]], int]
    on_torch: Callable[[Sequence[Any]], Any]
    on_sympy: Callable[[Sequence[sympy.Expr]], sympy.Expr]

    def __repr__(self) -> str:
        return self.text


def variable(axis: int) -> Formula:
    def pick(values: Sequence[Any]) -> Any:
        return values[axis]

    return Formula("nmk"[axis], pick, pick, pick)


def constant(value: int) -> Formula:
    return Formula(
        str(value), lambda _: value, lambda _: value, lambda _: sympy.Integer(value)
    )


def modulo(a: sympy.Expr, b: sympy.Expr) -> sympy.Expr:
    """As torch writes ``a % b``."""
    return (Mod if a.is_nonnegative and b.is_nonnegative else PythonMod)(a, b)


# text, on ints, on torch's sizes (None: as on ints), on sympy (None: as on ints)
BINARY: dict[str, tuple[Any, Any, Any]] = {
    "({} + {})": (lambda a, b: a + b, None, None),
    "({} - {})": (lambda a, b: a - b, None, None),
    "({} * {})": (lambda a, b: a * b, None, None),
    "max({}, {})": (max, torch.sym_max, Max),
    "min({}, {})": (min, torch.sym_min, Min),
}
DIVISIONS: dict[str, tuple[Any, Any, Any]] = {
    "({} // {})": (lambda a, b: a // b, None, FloorDiv),
    "({} % {})": (lambda a, b: a % b, None, modulo),
    "cdiv({}, {})": (
        lambda a, b: (a + b - 1) // b,
        None,
        lambda a, b: FloorDiv(a + b - 1, b),
    ),
    "-(-{} // {})": (lambda a, b: -(-a // b), None, lambda a, b: -FloorDiv(-a, b)),
}
COMPARISONS: dict[str, tuple[Any, Any, Any]] = {
    "({} == {})": (operator.eq, None, sympy.Eq),
    "({} != {})": (operator.ne, None, sympy.Ne),
    "({} < {})": (operator.lt, None, sympy.Lt),
    "({} <= {})": (operator.le, None, sympy.Le),
    "({} > {})": (operator.gt, None, sympy.Gt),
    "({} >= {})": (operator.ge, None, sympy.Ge),
}


def combine(text: str, first: Formula, second: Formula) -> Formula:
    ints, torchs, sympys = {**BINARY, **DIVISIONS, **COMPARISONS}[text]
    torchs, sympys = torchs or ints, sympys or ints
    return Formula(
        text.format(first, second),
        lambda v: ints(first.on_ints(v), second.on_ints(v)),
        lambda v: torchs(first.on_torch(v), second.on_torch(v)),
        lambda v: sympys(first.on_sympy(v), second.on_sympy(v)),
    )


extents = st.one_of(st.integers(0, 3), st.integers(0, 20), st.integers(0, 4096))
ranges_of_extents = st.lists(extents, min_size=3, max_size=3).map(
    lambda values: Range(*sorted(values))
)
profiles = st.tuples(ranges_of_extents, ranges_of_extents, ranges_of_extents)
variables = st.integers(0, 2).map(variable)
divisors = st.one_of(
    st.sampled_from((1, 2, 3, 4, 7, 8, 16, 64, 128, 1000, -1, -4, -7)).map(constant),
    variables.map(lambda v: combine("max({}, {})", v, constant(1))),
)
formulas = st.recursive(
    st.one_of(variables, st.integers(-40, 4096).map(constant)),
    lambda inner: st.one_of(
        st.builds(combine, st.sampled_from(sorted(BINARY)), inner, inner),
        st.builds(combine, st.sampled_from(sorted(DIVISIONS)), inner, divisors),
    ),
    max_leaves=6,
)


def shapes_in(profile: Sequence[Range]) -> Iterator[tuple[int, ...]]:
    """The profile's corners, its opt, and extents between, at most 343 in all."""
    axes = []
    for r in profile:
        steps = {r.min, r.min + 1, r.opt - 1, r.opt, (r.min + r.max) // 2, r.max - 1}
        axes.append(sorted(v for v in steps | {r.max} if r.min <= v <= r.max))
    return itertools.product(*axes)


def ranges(*of_each: Range) -> dict[sympy.Symbol, Range]:
    return dict(zip(SYMBOLS, of_each, strict=False))


@cache
def strict_builder() -> Any:
    """The dry run's, which refuses what is not documented of TensorRT's operations.

    That is a division by or of a negative number, and more than 64 bits.
    """
    divisions = (trt.DimensionOperation.FLOOR_DIV, trt.DimensionOperation.CEIL_DIV)
    stand_in: Any = expression_builder()

    class Strict(stand_in):  # type: ignore[misc]
        @classmethod
        def operation(cls, operation: Any, first: Any, second: Any) -> Any:
            result = super().operation(operation, first, second)

            def checked(dims: Any) -> int:
                if operation in divisions:
                    assert first.value(dims) >= 0 < second.value(dims)
                value: int = result.value(dims)
                assert -(2**63) <= value < 2**63
                return value

            return cls.of(checked, result.known)

    return Strict


@contextmanager
def inside_a_callback() -> Iterator[None]:
    """Expressions can be made, as TensorRT arranges it around its callbacks."""
    SymIntExpr._exprBuilder = strict_builder()
    try:
        yield
    finally:
        SymIntExpr._exprBuilder = None


def translate(expr: sympy.Expr, profile: Sequence[Range]) -> Any:
    """What TensorRT would evaluate: a function of the extents of all inputs."""
    with inside_a_callback():
        shape = [trtp.ShapeExpr(e) for e in dimensions(0, list(profile))]
        of_symbol = dict(zip(SYMBOLS, shape, strict=False))
        return to_tensorrt(expr, of_symbol, ranges(*profile))._expr


# --- Range ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extents", [(-1, 0, 1), (2, 1, 3), (1, 4, 3), (3, 2, 1), (0, 0, -1)]
)
def test_a_range_out_of_order_is_refused(extents: tuple[int, int, int]) -> None:
    with pytest.raises(SpecError, match="0 <= min <= opt <= max"):
        Range(*extents)


def test_a_range_of_one_extent_is_a_range() -> None:
    assert facts(n, {n: Range(7, 7, 7)}).constant == 7


def test_a_range_that_holds_zero_is_a_range() -> None:
    assert bounds(n, {n: Range(0, 0, 1)}) == (0, 1)


# --- Facts ----------------------------------------------------------------------------

WIDE = Range(1, 8, 64)


@pytest.mark.parametrize(
    ("expr", "divisor"),
    [
        (n, 1),
        (n * 4096, 4096),
        (n * 24, 8),
        (n * m * 6, 2),
        (n * 64 + 48, 16),
        (n * 64 - m * 32, 32),
        ((4 * n) ** 2, 16),
        (Max(n * 4, 12) ** 2, 16),
        (n * (n + 1) / 2, 1),
        (Max(n * 32, 16), 16),
        (Min(n * 32, 24), 8),
        (Mod(n * 16, 24), 8),
        (Mod(n * 16, 5), 1),
        (FloorDiv(n * 64, 4), 16),
        (FloorDiv(n * 64, 3), 1),
        (FloorDiv(n, 16) * 16, 16),
        (sympy.Integer(-48), 16),
        (sympy.Integer(1), 1),
    ],
    ids=str,
)
def test_the_divisor_is_the_largest_power_of_two_that_is_proved(
    expr: sympy.Expr, divisor: int
) -> None:
    assert facts(expr, {n: WIDE, m: WIDE}).divisor == divisor


def test_zero_is_divisible_by_everything_that_is_asked_about() -> None:
    assert facts(sympy.Integer(0), {}).divisor % 16 == 0


def test_a_divisor_never_exceeds_what_32_bits_hold() -> None:
    assert facts(n * 2**40, {n: WIDE}).divisor == 2**31


def test_a_dimension_of_one_extent_makes_a_constant() -> None:
    assert facts(n * 16 + 1, {n: Range(4, 4, 4)}).constant == 65


def test_a_value_that_varies_is_not_a_constant() -> None:
    assert facts(n, {n: Range(4, 4, 5)}).constant is None


@pytest.mark.parametrize(
    ("size", "fits"),
    [
        (n, True),
        (n + 1, False),
        (-n, True),
        (-n - 1, True),
        (-n - 2, False),
        (n * n, False),
    ],
    ids=str,
)
def test_a_value_fits_int32_up_to_its_last_value(size: sympy.Expr, fits: bool) -> None:
    assert facts(size, {n: Range(0, 1, INT32_MAX)}).fits_int32 is fits


def test_bounds_of_a_product_beyond_64_bits_are_exact() -> None:
    assert bounds(n * m * 2**40, {n: Range(0, 1, 2**31), m: WIDE}) == (0, 2**77)


@pytest.mark.parametrize(
    "expr",
    [
        pytest.param(n, id="a symbol without a range"),
        pytest.param(FloorDiv(m, Max(n, 0)), id="a quotient by an unknown value"),
        pytest.param(FloorDiv(m, k), id="a quotient by a value that may be zero"),
        pytest.param(m**9, id="a power that torch takes for infinite"),
    ],
)
def test_a_value_without_bounds_is_refused(expr: sympy.Expr) -> None:
    with pytest.raises(ArgumentError, match="no bound over the profile"):
        bounds(expr, {m: Range(1, 2**20, 2**31), k: Range(0, 1, 2)})


# --- Evaluation -----------------------------------------------------------------------


def test_extents_that_nothing_uses_are_ignored() -> None:
    assert evaluate(n + 1, {n: 1, m: 5}) == 2


def test_the_value_is_a_python_int() -> None:
    assert type(evaluate(Max(n, 3), {n: 5})) is int


# --- TensorRT's form ------------------------------------------------------------------


def test_a_constant_is_constant_to_tensorrt() -> None:
    assert translate(sympy.Integer(12), (WIDE,)).get_constant_value() == 12


def test_a_symbol_is_the_extent_itself() -> None:
    assert translate(m, (WIDE, WIDE)).value(((3, 5),)) == 5


def test_only_negative_terms_are_subtracted_from_zero() -> None:
    assert translate(-n - 2 * m, (WIDE, WIDE)).value(((3, 5),)) == -13


def test_a_square_is_a_product() -> None:
    assert translate(n**2 * m, (WIDE, WIDE)).value(((3, 5),)) == 45


def test_the_negated_ceiling_division_is_translated() -> None:
    assert translate(-FloorDiv(-n, 4), (WIDE,)).value(((9,),)) == 3


def test_torchs_ceiling_division_is_translated() -> None:
    assert translate(CeilDiv(n, 4), (WIDE,)).value(((9,),)) == 3


def test_a_dynamic_divisor_is_translated_where_it_is_positive() -> None:
    assert translate(FloorDiv(n * 8, m), (WIDE, WIDE)).value(((9, 7),)) == 10


def test_a_remainder_is_translated() -> None:
    assert translate(Mod(n, 4), (WIDE,)).value(((11,),)) == 3


@pytest.mark.parametrize("start", [1, 5, 6, 63, 64, 65, 70])
@pytest.mark.parametrize("divisor", [4, -4, 7, -7, Max(m, 1), -Max(m, 1)], ids=str)
def test_quotients_and_remainders_of_any_sign_are_pythons(
    divisor: Any, start: int
) -> None:
    value, by = n - start, sympy.sympify(divisor)
    quotient = translate(FloorDiv(value, by), (WIDE, WIDE))
    remainder = translate(PythonMod(value, by), (WIDE, WIDE))
    for size in range(1, 65):
        b = evaluate(by, {m: 3})
        assert quotient.value(((size, 3),)) == (size - start) // b
        assert remainder.value(((size, 3),)) == (size - start) % b


@pytest.mark.parametrize(
    ("start", "division", "has_difference"),
    [(1, "FLOOR_DIV", False), (5, "FLOOR_DIV", True), (64, "CEIL_DIV", True)],
)
def test_a_dividend_is_shifted_only_where_it_has_either_sign(
    start: int, division: str, has_difference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, original = set[str](), strict_builder().operation

    def operation(kind: Any, *operands: Any) -> Any:
        used.add(kind.name)
        return original(kind, *operands)

    monkeypatch.setattr(strict_builder(), "operation", operation)
    translate(FloorDiv(n - start, 7), (WIDE,))
    assert used & {"FLOOR_DIV", "CEIL_DIV"} == {division}
    assert ("SUB" in used) == has_difference


ROUNDED = {CeilToInt: math.ceil, FloorToInt: math.floor, TruncToInt: math.trunc}


@pytest.mark.parametrize("rounded", ROUNDED, ids=str)
def test_a_rounded_true_division_is_translated(rounded: Any) -> None:
    profile = (Range(0, 8, 16), Range(1, 8, 16))
    translated = translate(rounded(IntTrueDiv(n, m)), profile)
    for a, b in itertools.product(range(17), range(1, 17)):
        assert translated.value(((a, b),)) == ROUNDED[rounded](a / b)


@pytest.mark.parametrize("largest", [127, 2**53 - 1])
def test_a_true_division_of_less_than_2_to_the_53_is_exact(largest: int) -> None:
    profile = (Range(1, 8, largest), Range(1, 8, largest))
    translated = translate(CeilToInt(IntTrueDiv(n, m)), profile)
    for by in (2, 3, largest // 2, largest - 1):
        assert translated.value(((largest, by),)) == -(-largest // by)


@pytest.mark.parametrize(
    ("expr", "fits"),
    [
        (n * 2**56, True),
        (n * 2**57, False),
        (-n * 2**57, False),
        (n * 2**56 + m * (2**56 - 1), True),
        (n * 2**56 + m * 2**56, False),
        (n * 2**56 - m * 2**56, False),  # which may be computed in any order
        (k * 2**62, True),
        (n * 2**57 * (k - 1), False),
        ((n * 7) ** 7, True),
        ((n * 8) ** 7, False),
    ],
    ids=str,
)
def test_a_sum_or_product_that_may_pass_64_bits_is_refused(
    expr: sympy.Expr, fits: bool
) -> None:
    profile = (WIDE, WIDE, Range(1, 1, 1))
    if fits:
        expected = evaluate(expr, {n: 64, m: 64, k: 1})
        assert translate(expr, profile).value(((64, 64, 1),)) == expected
        return
    with pytest.raises(ArgumentError, match="pass the 64 bits"):
        translate(expr, profile)


@pytest.mark.parametrize(
    "expr",
    [
        sympy.Integer(12),
        n - 2 * m * k,
        FloorDiv(n - 5, m),
        CeilDiv(n, 4),
        -FloorDiv(5 - n, 7),
        Max(n, m, 7),
        Min(n, m, 7),
        sympy.Eq(n, m),
        sympy.And(n > 4, m < 9),
        sympy.Gt(n, m),
        pytest.param(n * 2**70, id="what passes 64 bits"),
        pytest.param(POWER, id="a power with a dynamic exponent"),
        pytest.param(
            sympy.Lt(PowByNatural(2, n), m**5), id="a comparison that TensorRT lacks"
        ),
        pytest.param(BitwiseFn_bitwise_xor(n, m), id="an exclusive or"),
        pytest.param(FloorToInt(IntTrueDiv(n - 9, m)), id="a float in between"),
        pytest.param(FloorToInt(OpaqueUnaryFn_sqrt(n)), id="a square root"),
    ],
    ids=str,
)
def test_what_is_compiled_computes_what_sympy_does(expr: sympy.Basic) -> None:
    function = compiled([k, expr], (n, m, k), ranges(WIDE, WIDE, WIDE))
    for shape in itertools.product((1, 5, 6, 64), (1, 2, 64), (3,)):
        values = dict(zip(SYMBOLS, shape, strict=True))
        assert function(shape) == [3, evaluate(expr, values)]


def test_powers_are_products_of_up_to_eight_factors() -> None:
    for exponent in (1, 2, 8):
        power = sympy.Pow(n, exponent, evaluate=False)
        assert translate(power, (WIDE,)).value(((3,),)) == 3**exponent
    with pytest.raises(ArgumentError, match="TensorRT cannot compute"):
        translate(n**9, (WIDE,))


def test_a_magnitude_is_translated() -> None:
    magnitude = translate(sympy.Abs(n - 5), (WIDE,))
    assert [magnitude.value(((size,),)) for size in (1, 5, 9)] == [4, 0, 4]


@pytest.mark.parametrize("mask", [0, 1, 15, 255, -1, -2, -16])
def test_a_bit_mask_is_a_remainder_or_rounds_down(mask: int) -> None:
    masked = BitwiseFn_bitwise_and(n - 5, sympy.Integer(mask), evaluate=False)
    translated = translate(masked, (WIDE,))
    for size in range(1, 65):
        assert translated.value(((size,),)) == (size - 5) & mask


@pytest.mark.parametrize(
    "expr",
    [
        sympy.And(n > 4, m < 9),
        sympy.Or(n > 40, m < 9),
        sympy.Not(sympy.And(n > 4, sympy.Ne(m, 9))),
    ],
    ids=str,
)
def test_conditions_are_combined(expr: sympy.Basic) -> None:
    translated = translate(expr, (WIDE, WIDE))
    for shape in itertools.product(range(1, 65, 3), repeat=2):
        values = dict(zip(SYMBOLS, shape, strict=False))
        assert translated.value((shape,)) == evaluate(expr, values)


@pytest.mark.parametrize(
    "expr",
    [
        pytest.param(FloorDiv(n, m - 1), id="a divisor that may be zero"),
        pytest.param(FloorDiv(n, m - 5), id="a divisor of either sign"),
        pytest.param(
            BitwiseFn_bitwise_and(n, sympy.Integer(5), evaluate=False),
            id="a mask with holes",
        ),
        pytest.param(n / 2, id="a fraction"),
        pytest.param(CeilToInt(IntTrueDiv(n - 2, m)), id="a true division below zero"),
        pytest.param(
            CeilToInt(IntTrueDiv(n, m - 1)), id="a true division by what may be zero"
        ),
        pytest.param(
            CeilToInt(IntTrueDiv(n * 2**47, m)), id="a true division that is rounded"
        ),
        pytest.param(2**n, id="a power with a dynamic exponent"),
        pytest.param(sympy.Function("gamma")(n), id="a function TensorRT lacks"),
    ],
)
def test_what_tensorrt_cannot_compute_is_refused(expr: sympy.Expr) -> None:
    with pytest.raises(ArgumentError, match="TensorRT cannot compute the expression"):
        translate(expr, (WIDE, WIDE))


def test_a_refusal_shows_an_expression_of_at_most_200_characters() -> None:
    def refusal(length: int) -> str:
        with pytest.raises(ArgumentError) as caught:
            translate(sympy.Function("g" * (length - len("(d0_0)")))(n), (WIDE,))
        return str(caught.value)

    assert f" {194 * 'g'}(d0_0). It has" in refusal(200)
    assert "expression: a long expression of d0_0. It has" in refusal(201)


def test_expressions_are_shown_as_python_code() -> None:
    m = symbol(1, 0)
    for expr, text in {
        functions.FloorDiv(n, 3): "d0_0 // 3",
        functions.CeilToInt(functions.IntTrueDiv(n, m)): "math.ceil(d0_0 / d1_0)",
        functions.BitwiseFn_bitwise_or(n, m): "d0_0 | d1_0",
        functions.ToFloat(n): "float(d0_0)",
        sympy.Eq(n, m): "d0_0 == d1_0",
        sympy.Pow(2, n): "2**d0_0",
    }.items():
        assert shown(expr) == text


# --- Properties -----------------------------------------------------------------------


@given(formulas, profiles)
def test_no_fact_is_wrong_for_any_shape(
    formula: Formula, profile: tuple[Range, ...]
) -> None:
    expr = formula.on_sympy(SYMBOLS)
    try:
        known = facts(expr, ranges(*profile))
    except ArgumentError:
        return
    for shape in shapes_in(profile):
        value = formula.on_ints(shape)
        assert known.lower <= value <= known.upper
        assert value % known.divisor == 0
        assert known.constant in (None, value)
        assert not known.fits_int32 or INT32_MIN <= value <= INT32_MAX


@given(formulas, profiles)
def test_evaluating_gives_what_python_gives(
    formula: Formula, profile: tuple[Range, ...]
) -> None:
    expr = formula.on_sympy(SYMBOLS)
    for shape in itertools.islice(shapes_in(profile), 0, None, 5):
        values = dict(zip(SYMBOLS, shape, strict=True))
        assert evaluate(expr, values) == formula.on_ints(shape)


@given(formulas, profiles)
def test_tensorrt_computes_what_python_computes_or_the_expression_is_refused(
    formula: Formula, profile: tuple[Range, ...]
) -> None:
    try:
        translated = translate(formula.on_sympy(SYMBOLS), profile)
    except ArgumentError:
        return
    for shape in shapes_in(profile):
        assert translated.value((shape,)) == formula.on_ints(shape)


conditions = st.builds(
    combine, st.sampled_from(sorted(COMPARISONS)), formulas, formulas
)


@given(conditions, profiles)
def test_a_condition_is_one_where_it_holds_and_zero_elsewhere(
    condition: Formula, profile: tuple[Range, ...]
) -> None:
    expr = condition.on_sympy(SYMBOLS)
    known = facts(expr, ranges(*profile))
    try:
        translated = translate(expr, profile)
    except ArgumentError:
        return
    for shape in shapes_in(profile):
        value = int(condition.on_ints(shape))
        assert translated.value((shape,)) == value
        assert evaluate(expr, dict(zip(SYMBOLS, shape, strict=True))) == value
        assert known.lower <= value <= known.upper


@settings(phases=[Phase.generate])  # too slow to be made smaller
@given(formulas, profiles)
def test_sizes_that_torch_wrote_down_mean_what_python_computes(
    formula: Formula, profile: tuple[Range, ...]
) -> None:
    tensors = (TensorInfo(profile, torch.float32),)
    of_symbol = ranges_of(tensors)
    run = Trace(tensors, {s: r.opt for s, r in of_symbol.items()})
    recorded = run.run(lambda trace: trace.expr(formula.on_torch(run.inputs[0].shape)))
    assert list(run.guards()) == []
    for shape in itertools.islice(shapes_in(profile), 0, None, 5):
        values = dict(zip(SYMBOLS, shape, strict=True))
        assert evaluate(recorded, values) == formula.on_ints(shape)


def test_a_size_that_may_be_zero_is_not_taken_for_positive() -> None:
    tensors = (TensorInfo((Range(0, 4, 8),), torch.float32),)
    run = Trace(tensors, {n: 4})
    at_least_one = run.run(
        lambda trace: trace.expr(torch.sym_max(trace.inputs[0].shape[0], 1))
    )
    assert evaluate(at_least_one, {n: 0}) == 1


def test_the_properties_are_not_vacuous() -> None:
    """Of the usual forms of a grid none is refused."""
    profile = (Range(1, 8, 64), Range(0, 100, 5000), Range(3, 3, 3))
    for text in DIVISIONS:
        size = combine("({} * {})", variable(0), variable(1))
        formula = combine(text, size, constant(256))
        translated = translate(formula.on_sympy(SYMBOLS), profile)
        for shape in shapes_in(profile):
            assert translated.value((shape,)) == formula.on_ints(shape)
