import json
import logging
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk_runtimes import compiled_cache as cache
from sdk_runtimes.errors import ArgumentError
from sdk_runtimes.memory_sizes import UNITS, format_size, parse_size

ABOUT = {"bundle": "b", "program": "net.onnx", "device": "openvino:cpu"}


def keep(about: dict[str, str], size: int = 100) -> Path:
    with cache.compiled_folder(about) as folder:
        assert folder is not None
        (folder / "net.blob").write_bytes(bytes(size))
    return cache.cache_root() / "compiled" / cache.key_of(about)


def test_a_blob_appears_when_the_block_has_ended(cache_dir: Path) -> None:
    with cache.compiled_folder(ABOUT) as staged:
        assert staged is not None
        (staged / "net.blob").write_bytes(b"blob")
        assert cache.entries() == ()
    with cache.compiled_folder(ABOUT) as folder:
        assert folder is not None
        assert folder != staged
        assert folder.is_relative_to(cache_dir)
        assert (folder / "net.blob").read_bytes() == b"blob"
    (entry,) = cache.entries()
    assert (entry.kind, entry.about, entry.size_bytes) == ("compiled", ABOUT, 4)


def test_what_failed_half_way_is_not_kept(cache_dir: Path) -> None:
    def fail(folder: Path | None) -> None:
        assert folder is not None
        (folder / "net.blob").write_bytes(b"half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"), cache.compiled_folder(ABOUT) as staged:
        fail(staged)
    assert not list((cache_dir / "compiled").iterdir())


def test_an_engine_that_keeps_nothing_leaves_nothing(cache_dir: Path) -> None:
    with cache.compiled_folder(ABOUT):
        pass
    assert not list((cache_dir / "compiled").iterdir())


@pytest.mark.parametrize("key", ["bundle", "program", "device"])
def test_another_bundle_program_or_device_has_another_blob(key: str) -> None:
    assert cache.key_of(ABOUT) != cache.key_of({**ABOUT, key: "other"})
    assert cache.key_of(ABOUT) == cache.key_of(dict(reversed(ABOUT.items())))


def test_the_least_recently_used_blobs_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_SDK_CACHE_MAX", "250B")
    paths = [keep({"device": str(number)}) for number in range(2)]
    for age, path in enumerate(paths):
        os.utime(path, (1000 + age, 1000 + age))
    with cache.compiled_folder({"device": "0"}):  # used again: now the younger of the two
        pass
    newest = keep({"device": "2"})
    assert [path.exists() for path in (*paths, newest)] == [True, False, True]
    assert {json.dumps(dict(entry.about)) for entry in cache.entries()} == {
        '{"device": "0"}',
        '{"device": "2"}',
    }


def test_a_blob_above_the_cap_stays_while_it_is_the_one_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_SDK_CACHE_MAX", "50B")
    first = keep({"device": "0"})
    assert first.exists()
    second = keep({"device": "1"})
    assert (first.exists(), second.exists()) == (False, True)


def test_an_unreadable_cap_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_SDK_CACHE_MAX", "lots")
    with pytest.raises(ArgumentError, match="'lots' is not a size"):
        cache.cap_bytes()


def test_json_entries_come_back() -> None:
    cache.write("verdicts", "k", {"verdict": "passed"})
    assert cache.read("verdicts", "k") == {"verdict": "passed"}
    assert cache.read("verdicts", "other") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_broken_entry_is_no_entry(cache_dir: Path, content: bytes) -> None:
    cache.write("verdicts", "k", {})
    (cache_dir / "verdicts/k.json").write_bytes(content)
    assert cache.read("verdicts", "k") is None
    assert [entry.key for entry in cache.entries()] == ["k"]


def test_clear_removes_all_and_tells_what_was_freed(cache_dir: Path) -> None:
    keep(ABOUT, size=1000)
    cache.write("speeds", "k", {"latency_ms": {}})
    (cache_dir / "compiled/left.staged-1234").mkdir()
    (cache_dir / "of-someone-else").write_text("kept")
    assert cache.size_bytes() > 1000
    assert cache.clear() > 1000
    assert cache.entries() == ()
    assert [path.name for path in cache_dir.iterdir()] == ["of-someone-else"]
    assert cache.clear() == 0


def test_it_may_be_deleted_while_in_use() -> None:
    with cache.compiled_folder(ABOUT) as staged:
        assert staged is not None
        cache.clear()
        assert not staged.exists()
    assert cache.entries() == ()
    keep(ABOUT)
    with cache.compiled_folder(ABOUT) as folder:
        cache.clear()
        assert folder is not None
        assert not folder.exists()


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("EDGE_SDK_CACHE_DIR", str(blocked / "below"))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with cache.compiled_folder(ABOUT) as folder:
                assert folder is None
            cache.write("verdicts", "k", {})
            assert cache.read("verdicts", "k") is None
    assert cache.entries() == ()
    assert len([record for record in caplog.records if "cannot be written" in record.message]) == 1


def test_two_processes_may_compile_the_same(cache_dir: Path) -> None:
    barrier, seen = threading.Barrier(2), []

    def compile_it() -> None:
        with cache.compiled_folder(ABOUT) as staged:
            assert staged is not None
            (staged / "net.blob").write_bytes(b"same")
            barrier.wait(timeout=30)
        seen.append(staged)

    threads = [threading.Thread(target=compile_it) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 2
    assert [entry.size_bytes for entry in cache.entries()] == [4]
    assert not list((cache_dir / "compiled").glob("*staged*"))


def test_the_platforms_folder_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_SDK_CACHE_DIR")
    assert cache.cache_root().name in ("edge-sdk", "Cache")
    assert cache.cap_bytes() == cache.DEFAULT_CAP_BYTES


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 10**9), ("1.5 GiB", 3 << 29), (" 512mib ", 512 << 20), ("7B", 7), ("0.5KB", 500), (12, 12)],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "2", "GB", "2 G", "-1GB", "1e9B", "2GB2", "0GB", "0.1B", "nanGB", 0, -5, True, None, 1.5]
)
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ArgumentError, match="is not a size of memory"):
        parse_size(text)  # type: ignore[arg-type]  # wrong on purpose


@given(st.integers(1, 10**15))
def test_sizes_for_people_are_read_back_nearly(size: int) -> None:
    assert abs(parse_size(format_size(size)) - size) <= 0.006 * size


@given(st.text(max_size=20))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        assert parse_size(text) > 0
    except ArgumentError:
        assert not any(text == f"1{unit}" for unit in UNITS)
