"""Nothing phones home: no socket opens during export, load and run (DESIGN §1)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Runs before anything of ours is imported. Audit hooks see what Python opens; native code (an engine's
# telemetry) is seen by the descriptors that the process holds while and after it works.
WATCH = """
import os, sys, threading, time

opened, started = [], []
def hook(event, args):
    if event.startswith("socket."):
        opened.append((event, repr(args[1:])[:200]))
    if event in ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system"):
        started.append((event, repr(args)[:200]))  # a child could do it for us
sys.addaudithook(hook)

def internet():
    # By inode, from the kernel's tables: libc asks a local daemon for names through another family.
    inodes = set()
    for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        try:
            with open(f"/proc/self/net/{table}") as file:
                inodes.update(line.split()[9] for line in file.readlines()[1:])
        except OSError:
            continue
    return inodes

def sockets():
    found = set()
    for fd in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            link = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue  # closed meanwhile
        if link.startswith("socket:"):
            found.add(link[len("socket:["):-1])
    return found & internet() if found else found

held, before, stop = set(), sockets(), threading.Event()
def look():
    while not stop.wait(0.005):
        held.update(sockets() - before)
threading.Thread(target=look, daemon=True).start()
"""

VERDICT = """
stop.set()
held.update(sockets() - before)
print("opened", opened, "held", sorted(held), "started", started)
assert not opened and not held and not started
"""

EXPORT_AND_RUN = """
import numpy as np, torch, sdk
torch.manual_seed(0)
layers = torch.nn.Conv2d(3, 4, 3), torch.nn.SiLU(), torch.nn.Flatten(), torch.nn.Linear(144, 5)
bundle = sdk.export(
    torch.nn.Sequential(*layers).eval(),
    "net.bundle",
    target=["onnx", "openvino", "coreml", "tensorrt"],
    sample_inputs=(torch.randn(1, 3, 8, 8),),
)
feeds = {"input": np.zeros((1, 3, 8, 8), np.float32)}
for device in ("onnxruntime:cpu", "openvino:cpu", "auto"):
    with sdk.load("net.bundle", device=device) as session:
        session.run(feeds)
        session.bind(feeds).run()
sdk.devices()
assert sdk.verify("net.bundle").passed
"""


def watched(code: str, cwd: Path, *wrapper: str) -> subprocess.CompletedProcess[str]:
    script = cwd / "script.py"
    script.write_text(WATCH + code + VERDICT)
    return subprocess.run(
        [*wrapper, sys.executable, str(script)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env={**os.environ, "EDGE_SDK_CACHE_DIR": str(cwd / "cache")},
    )


def test_no_socket_opens_during_export_load_and_run(tmp_path):
    done = watched(EXPORT_AND_RUN, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def _strace_works() -> bool:
    strace = shutil.which("strace")
    return (
        bool(strace)
        and subprocess.run([strace, "-f", "true"], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not _strace_works(), reason="strace is not installed, or may not trace here")
def test_the_kernel_sees_no_socket_either(tmp_path):
    """Native code and children included: telemetry that an engine would bring along."""
    log = tmp_path / "strace.log"
    done = watched(
        EXPORT_AND_RUN,
        tmp_path,
        "strace",
        "-f",
        "--seccomp-bpf",
        "-e",
        "trace=socket,connect",
        "-o",
        str(log),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    calls = [line for line in log.read_text().splitlines() if "AF_INET" in line]
    assert not calls


@pytest.mark.parametrize(
    "code",
    [
        "import subprocess\nsubprocess.run(['true'])\n",
        # native code, which Python's audit does not see: a UDP socket to this machine, held for a while
        (
            "import ctypes, time\nlibc = ctypes.CDLL(None)\nfd = libc.socket(2, 2, 0)\n"
            "libc.connect(fd, (ctypes.c_ubyte * 16)(2, 0, 0, 9, 127, 0, 0, 1), 16)\ntime.sleep(0.2)\n"
        ),
        "import socket\nsocket.socket().close()\n",
        "import socket\ntry:\n    socket.getaddrinfo('localhost', 80)\nexcept OSError:\n    pass\n",
    ],
)
def test_the_watch_itself_can_fail(code, tmp_path):
    done = watched(code, tmp_path)
    assert done.returncode != 0
    assert "AssertionError" in done.stderr
