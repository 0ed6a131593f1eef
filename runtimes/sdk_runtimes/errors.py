"""Every error this project raises, in one tree.

SdkError
├── UnknownChoiceError      a target, precision, device or program that does not exist (also ValueError)
├── ArgumentError           an argument that cannot be right (also ValueError)
├── MissingExtraError       an optional package is not installed (also ImportError)
├── SampleInputsError       sample inputs are missing or do not fit `forward`
├── TraceError              torch.export could not trace the model
├── LoweringError           an op or precision that a target cannot express
├── WeightsError            weights that hold NaN or Inf
├── PruningError            a model that cannot be pruned as asked; it was left as it was
├── QualityError            the gate: the shipped bytes do not compute what the model computes
├── OutputExistsError       `out` is already there (also FileExistsError)
├── WriteError              the bundle could not be written (disk full, permissions); nothing was left behind
├── BundleError             a bundle that must not be loaded
│   ├── IntegrityError      truncated or altered: a hash or size differs
│   └── UnsafeBundleError   malicious or malformed: paths, links, sizes, limits, unknown schema
├── FeedError               wrong name, dtype or shape at `run` (also ValueError)
├── MemoryLimitError        would not fit the memory limit; refused before loading (also MemoryError)
├── DeviceError             the device or backend is not usable here
└── SessionError            an engine failed while loading or running

Each message says what happened (with the value), why, and which call fixes it.
"""

from collections.abc import Iterable


class SdkError(Exception):
    """Root of the tree.

    Args:
        what: what happened, with the offending value.
        why: the reason, in one sentence.
        fix: the call or command that mends it.
    """

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        self.what = what
        self.why = why
        self.fix = fix
        lines = [what] + [f"  {label}: {text}" for label, text in (("why", why), ("fix", fix)) if text]
        super().__init__("\n".join(lines))


class UnknownChoiceError(SdkError, ValueError):
    """A name that is in none of our tables; the message lists those that are.

    Args:
        kind: what was being chosen ("target", "precision", …).
        given: the unknown name.
        known: the names there are.
        fix: the call that mends it, when naming one of `known` is not enough.
    """

    def __init__(self, kind: str, given: object, known: Iterable[str], *, fix: str = "") -> None:
        self.known = tuple(known)
        listed = ", ".join(repr(name) for name in self.known) or "none"
        super().__init__(
            f"unknown {kind} {given!r}",
            why=f"the known ones are {listed}",
            fix=fix or f"pass one of {listed}",
        )


class ArgumentError(SdkError, ValueError):
    """An argument that cannot be right."""


class MissingExtraError(SdkError, ImportError):
    """An optional package is not installed; the message names the pip line."""


class SampleInputsError(SdkError):
    """Sample inputs are missing, or do not fit the model's `forward`."""


class TraceError(SdkError):
    """`torch.export` could not trace the model; names the op, the module path and the source line."""


class LoweringError(SdkError):
    """An op or a precision that the target cannot express; names the op, module path and source line."""


class WeightsError(SdkError):
    """Weights that hold NaN or Inf; names the tensors."""


class PruningError(SdkError):
    """A model that cannot be pruned as asked; it was left as it was."""


class QualityError(SdkError):
    """The shipped bytes do not compute what the model computes; names the first module that diverges."""


class OutputExistsError(SdkError, FileExistsError):
    """`out` exists and `overwrite` was not given."""


class WriteError(SdkError):
    """The bundle could not be written; nothing half-written was left behind."""


class BundleError(SdkError):
    """A bundle that must not be loaded."""


class IntegrityError(BundleError):
    """A file of the bundle is missing, truncated or altered."""


class UnsafeBundleError(BundleError):
    """A bundle that breaks the format's rules: paths, links, sizes, limits, schema version."""


class FeedError(SdkError, ValueError):
    """A feed with a wrong name, dtype or shape; says what was expected and what was given."""


class MemoryLimitError(SdkError, MemoryError):
    """The program would not fit the memory limit; refused before loading."""


class DeviceError(SdkError):
    """The device or its backend is not usable here."""


class SessionError(SdkError):
    """An engine failed while loading or running a program."""
