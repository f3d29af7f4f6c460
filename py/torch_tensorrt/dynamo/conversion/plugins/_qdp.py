# SPDX-License-Identifier: BSD-3-Clause

"""The registries of TensorRT's Quick Deployable Plugins, and how to leave them."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from packaging.version import Version

from torch_tensorrt.annotation._attributes import AttributeKind
from torch_tensorrt.annotation.errors import (
    AnnotationError,
    RegistrationError,
    UnavailableError,
)

from ._schema import split_name


def require_available() -> None:
    """Raise unless TensorRT's plugins can be used from here.

    `ENABLED_FEATURES.qdp_plugin` is not asked: before Torch-TensorRT 2.13 it is also
    off for TensorRT 10.15, where the plugins work.

    Raises:
        UnavailableError: this is TensorRT-RTX, TensorRT has no plugins that are
            compiled ahead of time (before 10.9), or its plugins are broken (10.14).
    """
    import tensorrt as trt

    from torch_tensorrt._features import ENABLED_FEATURES

    version = Version(trt.__version__).release[:2]
    if ENABLED_FEATURES.tensorrt_rtx or version < (10, 9) or version == (10, 14):
        name = "TensorRT-RTX" if ENABLED_FEATURES.tensorrt_rtx else "TensorRT"
        raise UnavailableError(
            f"{name} {trt.__version__} has no usable Quick Deployable Plugins. "
            "Install TensorRT 10.9 or newer, but not 10.14."
        )


def passes_sequences() -> bool:
    """Whether TensorRT hands on attributes of several elements as they are.

    TensorRT 10.15 does not: each element it reads back from a field is the first one.
    """
    import tensorrt as trt

    field = trt.PluginField("text", b"ab", trt.PluginFieldType.CHAR)
    return bool(field.data.tobytes() == b"ab")


def require_attributes(op: str, kinds: Mapping[str, AttributeKind]) -> None:
    """Raise if TensorRT would hand one of the attributes on changed.

    Raises:
        RegistrationError: it would.
    """
    import tensorrt as trt

    for name, kind in kinds.items():
        if not kind.is_scalar and not passes_sequences():
            raise RegistrationError(
                f"{op}, argument `{name}`: TensorRT {trt.__version__} repeats the "
                "first element of an attribute in place of the others, and this one, "
                f"a {kind}, has several. Use a number, or install TensorRT 10.16 or "
                "newer."
            )


def plugin_def(op: str) -> Any:
    """TensorRT's record of a registered plugin, or None."""
    from tensorrt.plugin._lib import QDP_REGISTRY

    return QDP_REGISTRY.get(op)


@contextlib.contextmanager
def registering(op: str) -> Iterator[None]:
    """Around TensorRT's registration decorators: on an error nothing stays.

    Raises:
        RegistrationError: a plugin of this name exists, or there can be none.
    """
    require_available()
    import tensorrt.plugin as trtp

    if plugin_def(op) is not None:
        raise RegistrationError(
            f"{op}: TensorRT has a plugin of this name already. Choose another name, "
            "or call custom_op(..., replace=True) for one registered here."
        )
    # issubclass(np.ndarray[...], X) raises from Python 3.13 on, and issubclass(
    # NDArray[...], X) with NumPy 2.5, where NDArray is a type alias. The validator of
    # TensorRT before 11.2.1 asks just that. A global of the validator's module goes
    # before the builtin. It stays, as Torch-TensorRT's own does, for those who call
    # TensorRT's decorators after this, as torch_tensorrt.kernels. The validator is the
    # one beside the decorators: a second copy of the package's files lies in tensorrt/.
    package = trtp.register.__module__.rpartition(".")[0]
    validate: Any = importlib.import_module(f"{package}._validate")
    validate.issubclass = _is_subclass
    try:
        yield
    except BaseException as error:
        forget(op)
        is_ours = isinstance(error, AnnotationError)
        if isinstance(error, ValueError) and not is_ours:  # of TensorRT's validators
            raise RegistrationError(
                f"{op}: TensorRT does not take the plugin: {error}"
            ) from error
        raise


def _is_subclass(annotation: Any, info: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, info)


def forget(op: str) -> None:
    """Remove a plugin from every registry that TensorRT's decorators wrote to."""
    import tensorrt as trt
    import tensorrt.plugin as trtp
    from tensorrt.plugin._lib import QDP_CREATORS, QDP_REGISTRY

    namespace, name = split_name(op)
    QDP_REGISTRY.pop(op, None)
    if (creator := QDP_CREATORS.pop(op, None)) is not None:
        trt.get_plugin_registry().deregister_creator(creator)
    if definitions := vars(trtp.op).get(namespace):
        vars(definitions).pop(name, None)


class Undo(list[Callable[[], None]]):
    """Steps back, each appended before what it undoes, so that no error comes between.

    Calling it takes every step, the last first, whatever one of them raises. A step
    does nothing where there is nothing to undo, so all of them can be taken again after
    an interruption. An ``ExitStack`` forgets its steps, so each call makes a new one.
    """

    def __call__(self) -> None:
        with contextlib.ExitStack() as stack:
            for step in self:
                stack.callback(step)
