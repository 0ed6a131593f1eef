"""`import sdk` costs at most twice what `import numpy` costs, measured by turns in fresh processes."""

import statistics
import subprocess
import sys
import time

ROUNDS = 11


def seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def test_import_sdk_is_at_most_twice_import_numpy():
    sides = {"": [], "import numpy": [], "import sdk": []}
    for code in sides:
        seconds(code)  # bytecode and disk cache
    for _ in range(ROUNDS):
        for code, times in sides.items():
            times.append(seconds(code))
    bare, numpy, ours = (statistics.median(times) for times in sides.values())
    print(
        f"interpreter {bare * 1e3:.0f} ms, numpy +{(numpy - bare) * 1e3:.0f}, sdk +{(ours - bare) * 1e3:.0f}"
    )
    assert (ours - bare) <= 2 * (numpy - bare)
