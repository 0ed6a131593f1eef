"""What a fresh process pays from nothing to the first answer. Measured inside that process."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from sdk_runtimes.errors import SessionError

# `-P`: a numpy.py or sdk/ in the caller's working directory is none of our business.
_CHILD = "import time; start = time.perf_counter(); from sdk.cold_start import child; child(start)"


@dataclass(frozen=True)
class ColdStart:
    """From nothing to the first answer, in a process of its own.

    Attributes:
        import_ms: `import sdk` with what loading needs.
        load_ms: checking the bundle, opening the program, replaying the goldens where that is still due.
        first_run_ms: the first run.
        total_ms: all three.
        peak_rss_bytes: most memory the process ever held; None where the system does not tell.
    """

    import_ms: float
    load_ms: float
    first_run_ms: float
    total_ms: float
    peak_rss_bytes: int | None


@dataclass(frozen=True)
class Start:
    """What to start: arguments of `load`, and sizes of symbols."""

    path: str
    device: str
    target: str
    name: str
    threads: int | None
    sizes: Mapping[str, int]


def measure_cold_start(start: Start) -> ColdStart:
    """Loads and runs a program once in a fresh process.

    Compiled caches are used as they are: with an OpenVINO program that has been loaded before, this is the
    start that users see every day, not the very first.

    Raises:
        SessionError: the process failed; holds what it said.
    """
    done = subprocess.run(  # noqa: S603 (our own interpreter with our own code)
        [sys.executable, "-P", "-c", _CHILD, json.dumps(asdict(start))],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-3:]
        raise SessionError(
            f"a fresh process could not load {start.name}.{start.target} on {start.device}",
            why=" ".join(last) or f"it ended with {done.returncode}",
            fix=f"edge-sdk run {start.path} --device {start.device} --debug",
        )
    return ColdStart(**json.loads(done.stdout.splitlines()[-1]))


def child(started: float) -> None:
    """The fresh process: prints a `ColdStart` as JSON.

    Args:
        started: `time.perf_counter()` before anything was imported.
    """
    from sdk.bench_feeds import bench_feeds
    from sdk.peak_memory import peak_rss_bytes
    from sdk_runtimes.bundle import open_bundle
    from sdk_runtimes.loading import load

    start = Start(**json.loads(sys.argv[1]))
    imported = time.perf_counter()
    session = load(start.path, start.device, target=start.target, name=start.name, threads=start.threads)
    loaded = time.perf_counter()
    feeds = bench_feeds(open_bundle(start.path), session.spec, start.sizes)  # not counted
    ready = time.perf_counter()
    session.run(feeds)
    ran = time.perf_counter()
    phases = {
        "import_ms": (imported - started) * 1e3,
        "load_ms": (loaded - imported) * 1e3,
        "first_run_ms": (ran - ready) * 1e3,
    }
    sys.stdout.write(
        json.dumps(phases | {"total_ms": sum(phases.values()), "peak_rss_bytes": peak_rss_bytes()}) + "\n"
    )
