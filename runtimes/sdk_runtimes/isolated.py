"""A program in a process of its own, which holds no torch and no second copy of the weights.

The export gate runs large programs here: the model's weights lie in the exporting process already, and the
engine maps or copies them once more. It is also what the device will do, and an engine that crashes takes
down the child only.

Protocol: the parent writes one line of JSON to the child's standard input for the program, then one for each
run, naming a feeds file and a results file (`sdk_runtimes.goldens`); the child answers each with a line,
`{}` or `{"error": …}`.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sdk_runtimes.errors import SessionError
from sdk_runtimes.feeds import Array
from sdk_runtimes.goldens import read_goldens, write_goldens
from sdk_runtimes.specs import ProgramSpec


class IsolatedProgram:
    """A program opened in a child process; a context manager.

    Args:
        spec: the program; `spec.files` are relative to `folder`.
        folder: the bundle's folder, or a staging folder.
        device: a device id.

    Raises:
        SessionError: the child could not open the program, or died.
    """

    def __init__(self, spec: ProgramSpec, folder: Path, device: str) -> None:
        self._spec = spec
        self._scratch = tempfile.TemporaryDirectory(prefix="edge-sdk-")
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "sdk_runtimes.isolated"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self._ask({"spec": asdict(spec), "folder": str(folder), "device": device})
        except BaseException:
            self.close()
            raise

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """One run, as `Session.run`.

        Raises:
            SessionError: the engine failed or crashed.
        """
        inputs, results = Path(self._scratch.name) / "in", Path(self._scratch.name) / "out"
        write_goldens(inputs, [(feeds, {})])
        self._ask({"feeds": str(inputs), "results": str(results)})
        ((_, outputs),) = read_goldens(results)
        results.unlink()
        return {output.name: outputs[output.name] for output in self._spec.outputs}

    def close(self) -> None:
        """Ends the child."""
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            pipe.close()
        self._child.terminate()
        self._child.wait()
        self._scratch.cleanup()

    def _ask(self, message: Mapping[str, Any]) -> None:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.stdin.write(json.dumps(message) + "\n")
            self._child.stdin.flush()
            line = self._child.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SessionError(
                f"the process that runs {self._spec.id!r} died with status {self._child.wait()}",
                why="the engine crashed, or the system ended it for want of memory",
                fix="export with more free memory, or for another target",
            )
        if error := json.loads(line).get("error"):
            raise SessionError(f"{self._spec.id!r} failed in its own process: {error}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _serve() -> None:
    """The child: opens the program, then runs it until standard input ends."""
    from sdk_runtimes.backends import open_raw
    from sdk_runtimes.session import Session

    lines = iter(sys.stdin)
    order = json.loads(next(lines))
    try:
        spec = _spec(order["spec"])
        session = Session(spec, open_raw(spec, Path(order["folder"]), order["device"]))
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent tells it
        _answer(error)
        return
    _answer(None)
    with closing(session):
        for line in lines:
            message = json.loads(line)
            try:
                ((feeds, _),) = read_goldens(Path(message["feeds"]))
                write_goldens(Path(message["results"]), [({}, session.run(feeds))])
            except Exception as error:  # noqa: BLE001 - likewise
                _answer(error)
            else:
                _answer(None)


def _spec(content: Mapping[str, Any]) -> ProgramSpec:
    import pydantic

    return pydantic.TypeAdapter(ProgramSpec).validate_json(json.dumps(content))


def _answer(error: Exception | None) -> None:
    print(json.dumps({"error": f"{type(error).__name__}: {error}"} if error else {}), flush=True)


if __name__ == "__main__":
    _serve()
