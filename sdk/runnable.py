"""Whether a target can be lowered and run here, asked before minutes are spent on what it is needed for."""

from sdk_runtimes.backends import BACKENDS
from sdk_runtimes.choosing import AUTO, KINDS, known_devices
from sdk_runtimes.errors import DeviceError, MissingExtraError, SdkError, UnknownChoiceError
from sdk_runtimes.opening import Device
from sdk_runtimes.require import require_installed


def why_not_here(target: str, device: str, *, needed_for: str) -> SdkError | None:
    """What is in the way of running a target on a device of this machine; None if nothing is.

    Args:
        target: a key of the export targets.
        device: a device id, a kind or "auto", as `sdk.load` takes it.
        needed_for: for the message.

    Raises:
        UnknownChoiceError: no such target or device anywhere; lists those there are.
    """
    from sdk_export.targets.table import find_target

    row = find_target(target, "fp32")
    refuse_unknown_device(device)
    try:
        require_installed(row.needs, needed_for=needed_for)
    except MissingExtraError as error:
        return error
    candidates = [
        found
        for backend in BACKENDS.values()
        if target in backend.targets
        for found in backend.devices()
        if _is_meant(found, device)
    ]
    if any(found.usable for found in candidates):
        return None
    return DeviceError(
        f"no device {device!r} here runs target {target!r}",
        why="; ".join(f"{found.id}: {found.note}" for found in candidates)
        or "the engine of that device does not open it",
        fix="sdk.devices() says what is usable here",
    )


def refuse_unknown_device(device: str) -> None:
    """Raises UnknownChoiceError for what is neither a device id, nor a kind, nor "auto"."""
    known = (AUTO, *KINDS, *known_devices())
    if ":".join(device.split(":")[:2]) not in known:
        raise UnknownChoiceError("device", device, known, fix="sdk.devices() says what is usable here")


def _is_meant(found: Device, device: str) -> bool:
    if ":" in device:
        return device == found.id or device.startswith(f"{found.id}:")
    return found.kind == device or (device == AUTO and found.kind != "npu")
