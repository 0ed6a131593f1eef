"""All of a bundle or nothing: exceptions, full disks, kills, and what is left of them."""

# ruff: noqa: PT012 -- the block that raises is what is tested

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import forgery
from sdk_runtimes import staging
from sdk_runtimes.bundle import open_bundle
from sdk_runtimes.bundle_writer import seal_bundle, stage_bundle
from sdk_runtimes.errors import OutputExistsError, UnsafeBundleError, WriteError
from sdk_runtimes.manifest import SCHEMA_VERSION

TESTS = Path(forgery.__file__).parent
posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "exports" / "net.bundle"


@pytest.fixture
def old(out: Path) -> str:
    """Digest of a bundle that is at `out` already."""
    return forgery.write(out).digest


def left_beside(out: Path) -> list[str]:
    """What lies beside `out`, itself left out."""
    return sorted(path.name for path in out.parent.iterdir() if path != out)


def test_a_staging_folder_is_ready_to_be_filled(out: Path) -> None:
    with pytest.raises(WriteError, match="not sealed"), stage_bundle(out, overwrite=False) as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["assets", "golden", "programs"]
        assert folder.parent == out.parent
        assert folder.name.startswith(".net.bundle.staging-")
    assert left_beside(out) == []


def test_a_sealed_bundle_takes_its_place(out: Path) -> None:
    bundle = forgery.write(out)
    assert bundle.path == out
    assert open_bundle(out) == bundle
    assert left_beside(out) == []


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    forgery.write(Path("folder/../net.bundle"))
    assert open_bundle("net.bundle").manifest.schema_version == SCHEMA_VERSION


# --- what is at `out` ---


def test_an_existing_bundle_is_refused_before_any_work(out: Path, old: str) -> None:
    with pytest.raises(OutputExistsError, match="overwrite=True"), stage_bundle(out, overwrite=False):
        pytest.fail("the block must not start")
    assert open_bundle(out).digest == old


def test_overwrite_replaces(out: Path, old: str) -> None:
    with stage_bundle(out, overwrite=True) as folder:
        forgery.fill(folder)
        assert open_bundle(out).digest == old  # until the end
        seal_bundle(folder, replace(forgery.MANIFEST, name="new"))
    assert open_bundle(out).manifest.name == "new"
    assert left_beside(out) == []


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_is_not_a_bundle_is_never_overwritten(out: Path, tmp_path: Path, kind: str) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years")
    out.parent.mkdir()
    {"folder": precious.rename, "file": (precious / "thesis.txt").rename, "link": out.symlink_to}[kind](
        precious if kind == "link" else out
    )
    with pytest.raises(OutputExistsError, match="not a bundle"), stage_bundle(out, overwrite=True):
        pytest.fail("the block must not start")
    assert "years" in [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]


# --- exceptions ---


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
@pytest.mark.parametrize("exists", [False, True])
def test_an_exception_leaves_nothing(out: Path, error: type[BaseException], exists: bool) -> None:
    digest = forgery.write(out).digest if exists else None
    with pytest.raises(error), stage_bundle(out, overwrite=True) as folder:
        forgery.fill(folder)
        raise error
    assert left_beside(out) == []
    assert (open_bundle(out).digest if out.exists() else None) == digest


@pytest.mark.parametrize("step", ["first", "second"])
@pytest.mark.parametrize("error", [OSError(errno.EACCES, "no"), KeyboardInterrupt()])
def test_a_failing_rename_brings_the_old_bundle_back(
    out: Path, old: str, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if (step == "first") == (path == out) and ".replaced-" not in path.name:
            raise error
        return rename(path, target)

    with (
        pytest.raises(WriteError if isinstance(error, OSError) else KeyboardInterrupt),
        stage_bundle(out, overwrite=True) as folder,
    ):
        forgery.fill(folder)
        seal_bundle(folder, forgery.MANIFEST)
        monkeypatch.setattr(Path, "rename", failing)
    assert open_bundle(out).digest == old
    assert left_beside(out) == []


def test_a_bundle_that_a_reader_would_refuse_is_not_written(out: Path) -> None:
    unsafe = replace(forgery.SPEC, files=(*forgery.SPEC.files, "programs/missing.bin"))
    with pytest.raises(UnsafeBundleError, match="missing"), stage_bundle(out, overwrite=False) as folder:
        forgery.fill(folder)
        seal_bundle(folder, replace(forgery.MANIFEST, programs=(unsafe,)))
    assert not out.exists()


def test_a_stray_file_is_not_sealed_in(out: Path) -> None:
    with (
        pytest.raises(UnsafeBundleError, match="does not belong"),
        stage_bundle(out, overwrite=False) as folder,
    ):
        forgery.fill(folder)
        (folder / "notes.txt").write_text("x")
        seal_bundle(folder, forgery.MANIFEST)
    assert left_beside(out) == []


# --- disks ---


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG])
def test_a_disk_that_refuses(out: Path, code: int) -> None:
    with pytest.raises(WriteError, match="are free") as caught, stage_bundle(out, overwrite=False) as folder:
        forgery.fill(folder)
        raise OSError(code, os.strerror(code), str(folder / "programs/net.onnx"))
    assert caught.value.why
    assert caught.value.fix
    assert left_beside(out) == []


def test_other_errors_keep_their_type(out: Path) -> None:
    with pytest.raises(FileNotFoundError), stage_bundle(out, overwrite=False) as folder:
        (folder / "programs/none").read_bytes()


def test_a_native_writer_that_fails_on_a_full_disk(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    with pytest.raises(WriteError, match="disk is full"), stage_bundle(out, overwrite=False):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 100, 0))
        raise RuntimeError("PytorchStreamWriter failed writing file")
    assert left_beside(out) == []


def test_too_little_space_is_known_before_any_work(out: Path) -> None:
    free = shutil.disk_usage(out.parent.parent).free
    with (
        pytest.raises(WriteError, match="are needed"),
        stage_bundle(out, overwrite=False, needed_bytes=2 * free + 1),
    ):
        pytest.fail("the block must not start")
    assert left_beside(out) == []


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(WriteError, match="is a file"), stage_bundle(tmp_path / "file/b", overwrite=False):
        pytest.fail("the block must not start")


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="too long"), stage_bundle(tmp_path / ("n" * 240), overwrite=False):
        pytest.fail("the block must not start")


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Starts Python with the rooms and the tests in its path."""
    path = os.pathsep.join(filter(None, [*sys.path, str(TESTS)]))
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@posix
def test_a_real_write_that_hits_a_limit_of_the_system(out: Path) -> None:
    process = run(
        """
        import resource, signal, sys
        from pathlib import Path
        import forgery
        from sdk_runtimes.bundle_writer import stage_bundle
        from sdk_runtimes.errors import WriteError

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # else the kernel ends us; so it is EFBIG
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        try:
            with stage_bundle(Path(sys.argv[1]), overwrite=False) as folder:
                forgery.fill(folder)
                (folder / "programs/large.bin").write_bytes(bytes(1 << 20))
        except WriteError as error:
            print("refused:", error)
        """,
        out,
    )
    said, _ = process.communicate(timeout=60)
    assert "refused: could not write" in said, said
    assert left_beside(out) == []
    assert not out.exists()


# --- kills ---

KILLED = """
import os, signal, sys
from pathlib import Path
import forgery
from sdk_runtimes.bundle_writer import seal_bundle, stage_bundle

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

out, when = Path(sys.argv[1]), sys.argv[2]
rename = Path.rename
if when == "between the renames":
    Path.rename = lambda path, target: die() if ".staging-" in path.name else rename(path, target)
if when == "after the renames":
    import shutil
    rmtree = shutil.rmtree
    shutil.rmtree = lambda path, **kinds: die() if ".staging-" in Path(path).name else rmtree(path, **kinds)
with stage_bundle(out, overwrite=True) as folder:
    forgery.fill(folder)
    if when == "half-way":
        die()
    seal_bundle(folder, forgery.MANIFEST)
    if when == "sealed":
        die()
"""


def kill(out: Path, when: str) -> None:
    process = run(KILLED, out, when)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, said


@posix
@pytest.mark.parametrize("when", ["half-way", "sealed"])
def test_a_killed_export_leaves_only_a_hidden_sibling_which_the_next_one_removes(
    out: Path, when: str
) -> None:
    kill(out, when)
    assert not out.exists()
    assert [name.startswith(".net.bundle.staging-") for name in left_beside(out)] == [True]
    forgery.write(out)
    assert left_beside(out) == []


@posix
@pytest.mark.parametrize("when", ["half-way", "sealed", "between the renames", "after the renames"])
def test_a_killed_overwrite_loses_neither_bundle(out: Path, old: str, when: str) -> None:
    kill(out, when)
    if when != "between the renames":
        assert open_bundle(out)  # the old one, or the new one once both renames are done
    with pytest.raises(OutputExistsError), stage_bundle(out, overwrite=False):
        pytest.fail("the old bundle is back in its place")
    assert open_bundle(out).digest == old
    assert left_beside(out) == []


@pytest.fixture
def busy(out: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process in the middle of an export to `out`."""
    process = run(
        """
        import sys, time
        from pathlib import Path
        from sdk_runtimes.bundle_writer import stage_bundle
        with stage_bundle(Path(sys.argv[1]), overwrite=True):
            print("started", flush=True)
            time.sleep(600)
        """,
        out,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    yield process
    process.kill()
    process.communicate()


@posix
def test_the_folder_of_a_living_process_is_left_alone(out: Path, busy: subprocess.Popen[str]) -> None:
    forgery.write(out)
    assert [f"-{busy.pid}-" in name for name in left_beside(out)] == [True]
    busy.kill()
    busy.wait()
    forgery.write(out, overwrite=True)
    assert left_beside(out) == []


def test_exports_of_one_process_to_one_place_do_not_disturb_each_other(out: Path) -> None:
    with stage_bundle(out, overwrite=True) as first:
        forgery.fill(first)
        with stage_bundle(out, overwrite=True) as second:
            forgery.fill(second)
            seal_bundle(second, forgery.MANIFEST)
        seal_bundle(first, replace(forgery.MANIFEST, name="first"))
    assert open_bundle(out).manifest.name == "first"
    assert left_beside(out) == []


def test_names_of_other_bundles_are_left_alone(out: Path) -> None:
    dead = f"staging-{staging._host()}-999999999-0a1b2c3d"
    names = [f".other.bundle.{dead}", f".net.bundle.{dead}.txt", ".net.bundle.staging-00000000-1-0a1b2c3d"]
    for name in names:
        (out.parent / name).mkdir(parents=True)
    (out.parent / f".net.bundle.{dead}").mkdir()
    forgery.write(out)
    assert left_beside(out) == sorted(names)


def test_a_process_that_lives_and_one_that_does_not() -> None:
    assert staging.is_alive(os.getpid())
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert not staging.is_alive(process.pid)
