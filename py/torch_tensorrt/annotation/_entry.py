"""What a cache keeps of a compiled kernel: JSON under a digest, beside its code."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields, replace
from typing import Any

from torch_tensorrt.annotation._encoding import EncodingError, decode, encode
from torch_tensorrt.annotation._job import Assembled, Outcome
from torch_tensorrt.annotation._ptx import Kind, Slot
from torch_tensorrt.annotation._ptxas import Resources
from torch_tensorrt.annotation.backends import CompiledKernel
from torch_tensorrt.annotation.errors import (
    ArgumentError,
    RedundantTactic,
    UnsupportedKernelError,
)

# What a kernel is refused for once, it is refused for whenever it is compiled so.
_REFUSALS = {
    cls.__name__: cls
    for cls in (ArgumentError, RedundantTactic, UnsupportedKernelError)
}
_EXPRESSIONS = ("extras", "grid")
_ELSEWHERE = {"code", "ptxas"}  # in a file of its own; a path of one machine


class DamagedError(ValueError):
    """An entry is not what was written."""


def seal(body: dict[str, Any]) -> bytes:
    """``body`` as the text of an entry."""
    return json.dumps({"digest": sha256(_canonical(body)), "body": body}).encode()


def unseal(text: bytes) -> dict[str, Any]:
    """The body of an entry. Raises :class:`DamagedError` if it was changed."""
    try:
        entry = json.loads(text)
        body: dict[str, Any] = entry["body"]
        is_whole = sha256(_canonical(body)) == entry["digest"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError("it is not whole") from error
    if not is_whole:
        raise DamagedError("it was changed")
    return body


def to_json(outcome: Outcome) -> tuple[dict[str, Any], bytes] | None:
    """The body for ``outcome``, and its code.

    None for what may be otherwise the next time: a compiler's failure may pass, with
    the machine's or the disk's; and for expressions that are not known.
    """
    if not isinstance(outcome, Assembled):
        name = type(outcome).__name__
        return ({"refused": [name, str(outcome)]}, b"") if name in _REFUSALS else None
    compiled = outcome.compiled
    values = {f.name: getattr(compiled, f.name) for f in fields(compiled)}
    try:
        body = {
            "kernel": {
                k: _part(k, v) for k, v in values.items() if k not in _ELSEWHERE
            },
            "arch": outcome.arch,
            "resources": asdict(outcome.resources),
            "digest": outcome.digest,
        }
        read_back = from_json(json.loads(json.dumps(body)), compiled.code.encode())
    except EncodingError:
        return None
    if read_back != replace(outcome, compiled=replace(compiled, ptxas="")):
        return None
    return body, compiled.code.encode()


def from_json(body: dict[str, Any], code: bytes) -> Outcome:
    """The outcome that :func:`to_json` wrote.

    Raises:
        DamagedError: it did not.
    """
    try:
        if "refused" in body:
            name, message = body["refused"]
            return _REFUSALS[name](message)
        parts = {k: _whole(k, v) for k, v in body["kernel"].items()}
        return Assembled(
            CompiledKernel(**parts, code=code.decode(), ptxas=""),
            body["arch"],
            Resources(**body["resources"]),
            body["digest"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{type(error).__name__}: {error}") from error


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _part(name: str, value: Any) -> Any:
    if name in _EXPRESSIONS:
        return [encode(expr) for expr in value]
    if name == "slots":
        return [[slot.kind.value, slot.index] for slot in value]
    return value


def _whole(name: str, data: Any) -> Any:
    if name in _EXPRESSIONS:
        return tuple(map(decode, data))
    if name == "slots":
        return tuple(Slot(Kind(kind), index) for kind, index in data)
    return tuple(data) if isinstance(data, list) else data


def _canonical(body: Any) -> bytes:
    return json.dumps(body, sort_keys=True).encode()
