"""Rows of a benchmark on disk."""

import pytest

from benchmarks.peers.kept_rows import append, digest, read

ROW = {"method": "ours, −30 %", "error": 0.125, "warnings": ["few"]}


def test_rows_come_back_as_they_were_in_order_and_only_those_that_are_up_to_date(tmp_path):
    path = tmp_path / "build" / "rows.jsonl"
    assert list(read(path, ["now"])) == []
    append(path, ROW, "now")
    append(path, {"method": "old"}, "before")
    append(path, {"method": "peer"}, "peer")
    assert list(read(path, ["now", "peer"])) == [ROW, {"method": "peer"}]


@pytest.mark.parametrize("left", [1, 10, 40])
def test_a_row_that_was_cut_off_spoils_no_other(tmp_path, left):
    path = tmp_path / "rows.jsonl"
    append(path, ROW, "now")
    whole = path.read_bytes()
    append(path, {"method": "killed while it was written"}, "now")
    path.write_bytes(path.read_bytes()[: len(whole) + 1 + left])
    append(path, {"method": "after"}, "now")
    assert list(read(path, ["now"])) == [ROW, {"method": "after"}]


def test_the_digest_changes_with_a_files_content_name_and_presence_and_with_nothing_else(tmp_path):
    (tmp_path / "room").mkdir()
    file = tmp_path / "room" / "a.py"
    file.write_text("one")
    first = digest(tmp_path, ["room/*.py"])
    (tmp_path / "room" / "notes.txt").write_text("not asked for")
    assert digest(tmp_path, ["room/*.py"]) == digest(tmp_path, ["room/a.py", "room/*.py"]) == first
    found = {first}
    file.write_text("two")
    found.add(digest(tmp_path, ["room/*.py"]))
    file.rename(tmp_path / "room" / "b.py")
    found.add(digest(tmp_path, ["room/*.py"]))
    (tmp_path / "room" / "c.py").write_text("")
    found.add(digest(tmp_path, ["room/*.py"]))
    assert len(found) == 4
