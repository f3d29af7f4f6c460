"""Everything this package raises.

AnnotationError
├── SpecError            what was handed over is wrong: a config, an op name, a format
├── ToolchainError       a kernel language, or its compiler, is not installed
├── TargetError          no GPU to compile for, or one that the toolchain does not know
├── DTypeError           a dtype that TensorRT, or a kernel, cannot take
├── FormatError          a tensor that cannot have the format its kernel is for
├── RecordError          the launch function could not be turned into one launch
│   ├── UserCodeError        it raised, or the op's fake kernel did
│   ├── LaunchCountError     it launched nothing, or more than one kernel
│   ├── ArgumentError        it passed the kernel something an engine cannot pass
│   ├── DataDependentError   a size follows from a tensor's values
│   └── DynamicControlFlowError  it branches on a size that the profile leaves open
├── CompileError         the toolchain refused the kernel
├── UnsupportedKernelError   it compiled, and TensorRT cannot launch the result
├── RedundantTactic      its kernel is another tactic's; users never see it
├── PTXError             the compiled text is not what was expected
├── RegistrationError    the op cannot be registered, or is registered otherwise
└── DryRunError          the plugin could not be driven as TensorRT's builder does

And what it warns of, all ``UserWarning``: ``FallbackWarning``, ``TacticWarning``,
``CacheWarning``.
"""


class AnnotationError(Exception):
    """Base of every error of ``torch_tensorrt.annotation``."""


class SpecError(AnnotationError, ValueError):
    """A spec is wrong in itself, whatever it is used for."""


class ToolchainError(AnnotationError):
    """A kernel language or its compiler is missing, or is not one that is known."""


class TargetError(AnnotationError):
    """There is no GPU to compile for, or the one named is not known."""


class DTypeError(AnnotationError, TypeError):
    """A dtype that TensorRT, or the kernel's language, does not have."""


class FormatError(AnnotationError, ValueError):
    """A tensor cannot have the format that a kernel is registered for."""


class RecordError(AnnotationError):
    """A launch function could not be turned into one recorded launch."""


class UserCodeError(RecordError):
    """A launch function, or a fake kernel, raised on the shapes it was tried on."""


class LaunchCountError(RecordError):
    """A launch function launched no kernel, or more than one."""


class ArgumentError(RecordError):
    """A kernel argument is not an input, an output, an int or a constant."""


class DataDependentError(RecordError):
    """A size, or an argument, follows from the values of a tensor."""


class DynamicControlFlowError(RecordError):
    """A launch function or fake kernel branches on a size the profile leaves open."""


class CompileError(AnnotationError):
    """The toolchain refused the kernel."""


class UnsupportedKernelError(AnnotationError):
    """The kernel compiled, but TensorRT has no way to launch what came out."""


class RedundantTactic(AnnotationError):
    """The tactic's kernel is that of another one: it is left out without a word."""


class PTXError(AnnotationError):
    """A PTX entry is not what its compiler was expected to emit."""


class RegistrationError(AnnotationError):
    """An op cannot be registered, or is registered with something else."""


class DryRunError(AnnotationError):
    """A registered plugin could not be driven as TensorRT's builder does."""


class FallbackWarning(UserWarning):
    """A node stays in PyTorch, and why no tactic can serve it."""


class TacticWarning(UserWarning):
    """A tactic is left out, and why; the others stand."""


class CacheWarning(UserWarning):
    """The kernel cache is damaged, or cannot be used; kernels are compiled again."""
