"""Execute a compiled host launcher on expressions: what it would launch, for any shape.

CuTe DSL compiles the launcher to a function of MLIR's LLVM dialect, with a few kinds of
operations. Run on the expressions of its arguments, it says the grid, the block, and
every byte of the kernel's parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy
from cutlass._mlir import ir

from torch_tensorrt.annotation._symbolic import Ranges
from torch_tensorrt.annotation.backends._cutedsl_arithmetic import Arithmetic
from torch_tensorrt.annotation.backends._cutedsl_memory import (
    Address,
    Aggregate,
    HostLaunch,
    Memory,
    Value,
)
from torch_tensorrt.annotation.backends._cutedsl_mlir import (
    bits,
    constant,
    integers,
    symbol,
)
from torch_tensorrt.annotation.backends._cutedsl_types import (
    Array,
    HostCodeError,
    Struct,
    locate,
    parse_type,
)
from torch_tensorrt.annotation.backends._cutedsl_values import (
    Comparison,
    Number,
    Unknown,
    show,
)
from torch_tensorrt.annotation.errors import UnsupportedKernelError

_MOST_STEPS = 100_000
_DYNAMIC_INDEX = -(2**31)  # in rawConstantIndices: the next operand is the index
_LAUNCH = "_cudaLaunchKernelEx"
_HARMLESS = frozenset({"intr.assume", "intr.lifetime.start", "intr.lifetime.end"})


def execute(
    module: Any, function: str, arguments: Sequence[Value], ranges: Ranges, name: str
) -> list[HostLaunch]:
    """The launches that ``function`` of ``module`` makes for these arguments.

    Args:
        name: how errors name the launcher.

    Raises:
        UnsupportedKernelError: it branches on something that ``ranges`` leave open, or
            calls what an engine does not.
    """
    with module.context:
        (blocks,) = (
            list(op.regions[0].blocks)
            for op in (o.operation for o in module.body.operations)
            if op.name == "llvm.func"
            and ir.StringAttr(op.attributes["sym_name"]).value == function
        )
        machine = _Machine(Arithmetic(ranges))
        try:
            machine.run(blocks[0], arguments)
        except HostCodeError as error:
            raise UnsupportedKernelError(f"launcher {name}: {error}.") from error
    return machine.launches


class _Machine:
    """Runs one function, block by block."""

    def __init__(self, arithmetic: Arithmetic) -> None:
        self._arithmetic = arithmetic
        self._values: dict[str, Value | Aggregate] = {}
        self._memory = Memory()
        self._objects = 0
        self.launches: list[HostLaunch] = []

    def run(self, block: Any, arguments: Sequence[Value]) -> None:
        steps = 0
        values: Sequence[Value | Aggregate] | None = arguments
        while values is not None:
            for parameter, value in zip(block.arguments, values, strict=True):
                self._values[parameter.get_name()] = value
            values = None
            for operation in block.operations:
                op = operation.operation
                steps += 1
                if steps > _MOST_STEPS:
                    raise HostCodeError("its host code does not end")
                if op.name in ("llvm.br", "llvm.cond_br"):
                    block, values = self._branch(op)
                    break
                if op.name != "llvm.return":
                    self._step(op)

    def _step(self, op: Any) -> None:
        name = op.name.removeprefix("llvm.")
        handler = self._HANDLERS.get(name)
        if handler is not None:
            handler(self, op)
        elif self._arithmetic.knows(name):
            left, right = (self._number(operand) for operand in op.operands)
            width = bits(op.results[0])
            self._set(op, self._arithmetic.binary(name, left, right, width))
        elif name == "unreachable":
            raise HostCodeError("its host code ends in an error of its own")
        elif name not in _HARMLESS:
            self._unknown(op)

    def _unknown(self, op: Any) -> None:
        """An operation that computes something; it must not write to memory."""
        reads = [self._values.get(operand.get_name()) for operand in op.operands]
        if not op.results or any(isinstance(value, Address) for value in reads):
            raise HostCodeError(f"its host code does {op.name}, which an engine cannot")
        for result in op.results:
            self._values[result.get_name()] = Unknown(f"a result of {op.name}")

    def _set(self, op: Any, value: Value | Aggregate) -> None:
        self._values[op.results[0].get_name()] = value

    def _get(self, operand: Any) -> Any:
        return self._values[operand.get_name()]

    def _number(self, operand: Any) -> Number:
        value = self._get(operand)
        if isinstance(value, Address | Mapping):
            return Unknown("arithmetic on an address")
        return value

    def _address(self, operand: Any) -> Address:
        value = self._get(operand)
        if not isinstance(value, Address):
            raise HostCodeError(
                "its host code computes an address in a way that is not understood"
            )
        return value

    def _allocate(self) -> Address:
        self._objects += 1
        return Address(f"%{self._objects}")

    def _constant(self, op: Any) -> None:
        self._set(op, constant(op.attributes["value"]))

    def _undefined(self, op: Any) -> None:
        type_ = parse_type(str(op.results[0].type))
        self._set(op, {} if isinstance(type_, Struct | Array) else Unknown("undefined"))

    def _zero(self, op: Any) -> None:
        type_ = parse_type(str(op.results[0].type))
        zeros = {offset: sympy.S.Zero for offset, _ in type_.leaves()}
        self._set(op, zeros if isinstance(type_, Struct | Array) else sympy.S.Zero)

    def _address_of(self, op: Any) -> None:
        self._set(op, Address(f"@{symbol(op.attributes['global_name'])}"))

    def _element_pointer(self, op: Any) -> None:
        base, *dynamic = op.operands
        rest = iter(dynamic)
        at, type_ = self._address(base), parse_type(str(op.attributes["elem_type"]))
        indices = [
            self._index(next(rest)) if index == _DYNAMIC_INDEX else index
            for index in integers(op.attributes["rawConstantIndices"])
        ]
        offset, _ = locate(type_, indices[1:])
        self._set(op, Address(at.object, at.offset + indices[0] * type_.size + offset))

    def _index(self, operand: Any) -> int:
        value = self._number(operand)
        if isinstance(value, Unknown | Comparison) or not value.is_Integer:
            raise HostCodeError(
                f"its host code computes an address from {show(value)}. Offset the "
                "tensor inside the kernel"
            )
        return int(value)

    def _store(self, op: Any) -> None:
        value, at = op.operands
        type_ = parse_type(str(value.type))
        self._memory.store(self._address(at), self._get(value), type_)

    def _load(self, op: Any) -> None:
        type_ = parse_type(str(op.results[0].type))
        self._set(op, self._memory.load(self._address(op.operands[0]), type_))

    def _extract(self, op: Any) -> None:
        type_ = parse_type(str(op.operands[0].type))
        offset, part = locate(type_, integers(op.attributes["position"]))
        whole = self._get(op.operands[0])
        if not isinstance(whole, Mapping):
            self._set(op, whole)
            return
        values = {
            inner: whole.get(offset + inner, Unknown("undefined"))
            for inner, _ in part.leaves()
        }
        self._set(op, values if isinstance(part, Struct | Array) else values[0])

    def _insert(self, op: Any) -> None:
        whole, value = map(self._get, op.operands)
        type_ = parse_type(str(op.results[0].type))
        offset, _ = locate(type_, integers(op.attributes["position"]))
        if not isinstance(whole, Mapping):
            whole = {at: whole for at, _ in type_.leaves()}
        parts = value if isinstance(value, Mapping) else {0: value}
        self._set(op, {**whole, **{offset + at: part for at, part in parts.items()}})

    def _compare(self, op: Any) -> None:
        predicate = ir.IntegerAttr(op.attributes["predicate"]).value
        left, right = map(self._number, op.operands)
        self._set(op, self._arithmetic.compare(predicate, left, right))

    def _select(self, op: Any) -> None:
        condition = self._number(op.operands[0])
        first, second = map(self._get, list(op.operands)[1:])
        if not isinstance(condition, Unknown | Comparison):
            self._set(op, first if condition == 1 else second)
        elif isinstance(first, Address | Mapping):
            self._set(op, Unknown(f"an address chosen by {show(condition)}"))
        else:
            self._set(op, self._arithmetic.select(condition, first, second))

    def _convert(self, op: Any) -> None:
        (operand,) = op.operands
        name = op.name.removeprefix("llvm.")
        value, width = self._number(operand), bits(op.results[0])
        self._set(op, self._arithmetic.convert(name, value, bits(operand), width))

    def _same(self, op: Any) -> None:
        self._set(op, self._get(op.operands[0]))

    def _call(self, op: Any) -> None:
        callee = symbol(op.attributes["callee"]) if "callee" in op.attributes else ""
        if callee == _LAUNCH:
            given = map(self._address, op.operands)
            self.launches.append(self._memory.read_launch(*given))
        elif callee != "printf":
            raise HostCodeError(
                f"its host code calls {callee.lstrip('_') or 'a function'}, and an "
                "engine does nothing but the launch. A tensor map (TMA), and what the "
                "GPU is asked for, are made by such calls: do without"
            )
        for result in op.results:
            self._values[result.get_name()] = sympy.S.Zero  # cudaSuccess

    def _branch(self, op: Any) -> tuple[Any, list[Value | Aggregate]]:
        operands, successors = list(op.operands), list(op.successors)
        if op.name == "llvm.br":
            return successors[0], [self._get(value) for value in operands]
        condition = self._number(operands[0])
        if isinstance(condition, Unknown | Comparison):
            raise HostCodeError(
                f"its host code branches on {show(condition)}, which the profile "
                "leaves open (d0_1 is dimension 1 of input 0): one branch would be "
                "baked in. Narrow the profile, make the dimension static, or branch "
                "inside the kernel"
            )
        _, true_count, _ = integers(op.attributes["operandSegmentSizes"])
        taken, other = operands[1 : 1 + true_count], operands[1 + true_count :]
        if condition == 0:
            return successors[1], [self._get(value) for value in other]
        return successors[0], [self._get(value) for value in taken]

    _HANDLERS: Mapping[str, Callable[[_Machine, Any], None]] = {
        "mlir.constant": _constant,
        "mlir.addressof": _address_of,
        "mlir.undef": _undefined,
        "mlir.poison": _undefined,
        "mlir.zero": _zero,
        "alloca": lambda self, op: self._set(op, self._allocate()),
        "getelementptr": _element_pointer,
        "store": _store,
        "load": _load,
        "extractvalue": _extract,
        "insertvalue": _insert,
        "icmp": _compare,
        "select": _select,
        "trunc": _convert,
        "sext": _convert,
        "zext": _convert,
        "freeze": _same,
        "bitcast": _same,
        "addrspacecast": _same,
        "inttoptr": _same,
        "call": _call,
    }
