"""Where a bundle can run on this machine, and why not elsewhere."""

from sdk_runtimes.backends import BACKENDS
from sdk_runtimes.opening import Device

__all__ = ["Device", "devices"]


def devices() -> tuple[Device, ...]:
    """Every device that is known, usable ones first.

    Usable means tried: a provider is started on a one-node graph, since one whose driver is missing is in the
    list of its library all the same. What is not usable says why, and which package or driver would mend it.
    """
    found = [device for backend in BACKENDS.values() for device in backend.devices()]
    return tuple(sorted(found, key=lambda device: not device.usable))
