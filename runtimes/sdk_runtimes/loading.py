"""`load`: from a bundle to a session that was checked on this device."""

import dataclasses
import logging
import os
import shutil
import time
from collections.abc import Sequence
from functools import lru_cache

from sdk_runtimes.backends import open_raw
from sdk_runtimes.bundle import Bundle, open_bundle
from sdk_runtimes.choosing import AUTO, Choice, choices
from sdk_runtimes.compiled_cache import compiled_folder
from sdk_runtimes.errors import DeviceError, MemoryLimitError, MissingExtraError, SdkError, SessionError
from sdk_runtimes.identity import identity_of
from sdk_runtimes.limits import DEFAULT_LIMITS, Limits
from sdk_runtimes.memory import must_be_lean
from sdk_runtimes.memory_sizes import parse_size
from sdk_runtimes.opening import OpenOptions
from sdk_runtimes.replay import replay_once
from sdk_runtimes.session import Session
from sdk_runtimes.specs import ProgramSpec

_log = logging.getLogger(__name__)

# After one of these another device may still do; after anything else (a bundle that lies, a wrong result)
# nothing may.
_NEXT = (DeviceError, MissingExtraError, SessionError, MemoryLimitError)


def load(
    path: str | os.PathLike[str] | Bundle,
    device: str = AUTO,
    *,
    target: str | None = None,
    name: str | None = None,
    memory_limit: int | str | None = None,
    threads: int | None = None,
    replay: bool = True,
    limits: Limits = DEFAULT_LIMITS,
) -> Session:
    """Loads a program of a bundle.

    Every hash is checked before an engine sees a byte. On the first load per device, driver and versions the
    bundle's goldens are replayed.

    Args:
        path: the bundle's folder, or an open bundle.
        device: a device that `sdk.devices()` lists ("openvino:cpu"), a kind ("cpu", "gpu", "npu"), or "auto":
            the fastest one that `sdk.bench` measured here, else the first usable one of
            `sdk_runtimes.choosing.ORDER`.
        target: only a program in this form ("onnx").
        name: only this network, where the bundle has several.
        memory_limit: most that the process may grow, in bytes or as "2GB".
        threads: of one run; None leaves the number to the engine.
        replay: False skips the goldens.
        limits: caps on what the bundle may ask of this machine.

    Raises:
        BundleError: the bundle is altered, malformed or not there.
        UnknownChoiceError: no such device, target or network.
        ArgumentError: a limit or thread number that cannot be right.
        DeviceError: nothing that the bundle holds can run here.
        MissingExtraError: the engine asked for is not installed.
        MemoryLimitError: the program would not fit; nothing was loaded.
        QualityError: the goldens came out wrong on this device.
        SessionError: the engine refused the program.
    """
    start = time.perf_counter()
    limit = None if memory_limit is None else parse_size(memory_limit)
    options = OpenOptions(threads=threads, memory_limit_bytes=limit)
    bundle = path if isinstance(path, Bundle) else open_bundle(path, limits=limits)
    found = choices(bundle, device, target=target, name=name)
    session, where = _first_usable(bundle, found, options)
    try:
        if replay:
            replay_once(bundle, session, where, limits=limits)
    except BaseException:
        session.close()
        raise
    session.loaded_in((time.perf_counter() - start) * 1e3)
    return session


def open_choice(bundle: Bundle, choice: Choice, options: OpenOptions) -> Session:
    """Opens one program on one device, within the memory limit and with the cache; replays nothing.

    Raises:
        DeviceError, MissingExtraError, MemoryLimitError, SessionError: as `load`.
    """
    device, spec = choice
    lean = must_be_lean(spec, device.partition(":")[0], options.memory_limit_bytes)
    told = dataclasses.replace(options, lean=lean)
    about = {**identity_of(bundle, spec, device), "threads": options.threads, "lean": lean}
    with compiled_folder(about) as folder:
        try:
            raw = open_raw(spec, bundle.path, device, dataclasses.replace(told, cache_path=folder))
        except SessionError as error:
            if folder is None:
                raise
            # A full disk or a damaged blob must not keep a program from running.
            raw = open_raw(spec, bundle.path, device, told)
            shutil.rmtree(folder, ignore_errors=True)
            _log_once(logging.WARNING, f"{spec.id} on {device} was opened without the cache: {error.what}")
    return Session(spec, raw)


def _first_usable(bundle: Bundle, found: Sequence[Choice], options: OpenOptions) -> tuple[Session, str]:
    failed: list[tuple[str, SdkError]] = []
    for device, spec in found:
        try:
            session = open_choice(bundle, (device, spec), options)
        except _NEXT as error:
            failed.append((f"{spec.id} on {device}", error))
            continue
        _tell(session, spec, device, failed)
        return session, device
    raise _nothing_usable(bundle, failed)


def _tell(session: Session, spec: ProgramSpec, device: str, failed: Sequence[tuple[str, SdkError]]) -> None:
    for tried, error in failed:
        reason = f"not {tried}: {error.what} ({error.why})"
        # A laptop without a discrete GPU is no event; an engine that is missing or failed is one.
        if isinstance(error, DeviceError):
            _log_once(logging.INFO, f"{spec.id} runs on {device}, {reason}")
            continue
        _log_once(logging.WARNING, f"{spec.id} runs on {device}, {reason}")
        session.add_fallbacks([reason])


@lru_cache(maxsize=256)
def _log_once(level: int, message: str) -> None:
    _log.log(level, "%s", message)


def _nothing_usable(bundle: Bundle, failed: Sequence[tuple[str, SdkError]]) -> SdkError:
    kinds = {type(error) for _, error in failed}
    if len(failed) == 1 or (len(kinds) == 1 and DeviceError not in kinds):
        return failed[0][1]
    # The limit was in the way of all that could run: say so, and not that there is no GPU.
    for kind in (MemoryLimitError, SessionError):
        for _, error in failed:
            if isinstance(error, kind):
                return error
    return DeviceError(
        f"nothing that {bundle.manifest.name!r} holds can run here",
        why="; ".join(f"{tried}: {error.what}" for tried, error in failed),
        fix="; ".join(dict.fromkeys(error.fix for _, error in failed if error.fix)),
    )
