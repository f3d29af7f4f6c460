"""The memory of a host launcher that is executed on expressions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch_tensorrt.annotation.backends._cutedsl_types import (
    Array,
    Scalar,
    Struct,
    Type,
    parse_type,
)
from torch_tensorrt.annotation.backends._cutedsl_values import Number, Unknown

# cudaLaunchConfig_t, and the size of a cudaLaunchAttribute, of the CUDA runtime.
_CONFIG = parse_type("struct<(array<3 x i32>, array<3 x i32>, i64, ptr, ptr, i32)>")
_ATTRIBUTE_SIZE = 72
_KERNEL_HANDLE = "*@kernels_"  # what is loaded from a global named after the kernel
_INT = Scalar("i32", 4)


@dataclass(frozen=True)
class Address:
    """A place: so many bytes into an object."""

    object: str
    offset: int = 0


Value: TypeAlias = Number | Address
Aggregate: TypeAlias = Mapping[int, Value]  # of a struct or array: values by offset


@dataclass(frozen=True)
class Field:
    """One scalar of a kernel's parameter."""

    offset: int
    size: int
    value: Value


@dataclass(frozen=True)
class HostLaunch:
    """One launch that a host launcher makes.

    Attributes:
        kernel: the entry's name.
        shared_memory: dynamic, in bytes.
        attributes: by id, the three words of the value.
        parameters: fields of each, those of no size left out.
    """

    kernel: str
    grid: tuple[Value, Value, Value]
    block: tuple[Value, Value, Value]
    shared_memory: Value
    attributes: Mapping[int, tuple[Value, Value, Value]]
    parameters: tuple[tuple[Field, ...], ...]


@dataclass
class Memory:
    """Scalars by object and offset, each with its size."""

    cells: dict[tuple[str, int], tuple[Value, int]] = field(default_factory=dict)

    def store(self, at: Address, value: Value | Aggregate, type_: Type) -> None:
        for offset, scalar in type_.leaves():
            leaf = value.get(offset) if isinstance(value, Mapping) else value
            if leaf is not None:
                key = (at.object, at.offset + offset)
                self.cells[key] = (leaf, scalar.size)

    def load(self, at: Address, type_: Type) -> Value | Aggregate:
        leaves = {
            offset: self._scalar(Address(at.object, at.offset + offset), scalar)
            for offset, scalar in type_.leaves()
        }
        return leaves if isinstance(type_, Struct | Array) else leaves[0]

    def _scalar(self, at: Address, scalar: Scalar) -> Value:
        if at.object.startswith("@"):
            return Address(f"*{at.object}")
        value, size = self.cells.get((at.object, at.offset), (None, 0))
        if value is None or size != scalar.size:
            return Unknown("memory that the launcher has not written")
        return value

    def read_launch(
        self, config: Address, kernel: Address, arguments: Address
    ) -> HostLaunch:
        """What ``cudaLaunchKernelEx`` is given."""
        values: Any = self.load(config, _CONFIG)
        attributes: dict[int, Any] = {}
        for index in range(int(values[48])):
            start = values[40].offset + _ATTRIBUTE_SIZE * index
            key: Any = self.load(Address(values[40].object, start), _INT)
            words: Any = self.load(
                Address(values[40].object, start + 8), Struct((_INT,) * 3)
            )
            attributes[int(key)] = tuple(words.values())
        return HostLaunch(
            kernel=kernel.object.removeprefix(_KERNEL_HANDLE),
            grid=(values[0], values[4], values[8]),
            block=(values[12], values[16], values[20]),
            shared_memory=values[24],
            attributes=attributes,
            parameters=tuple(self._parameters(arguments)),
        )

    def _parameters(self, at: Address) -> Iterator[tuple[Field, ...]]:
        """What the addresses from ``at`` on lead to."""
        offset = at.offset
        while (at.object, offset) in self.cells:
            place, _ = self.cells[at.object, offset]
            assert isinstance(place, Address)
            fields = [
                Field(start - place.offset, size, value)
                for (name, start), (value, size) in self.cells.items()
                if name == place.object and start >= place.offset
            ]
            if fields:
                yield tuple(sorted(fields, key=lambda field: field.offset))
            offset += 8
