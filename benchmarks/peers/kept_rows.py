"""Rows of a benchmark on disk, so that a run can be stopped and go on."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any


def append(path: Path, row: Mapping[str, Any], made_by: str) -> None:
    """Adds a row, as one line of JSON.

    Args:
        path: created where it is not there.
        row: of what JSON knows.
        made_by: settings and sources; `read` asks for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        # A line break first: what a run that was killed left unfinished then spoils no other row.
        file.write("\n" + json.dumps({"made_by": made_by, "row": row}, ensure_ascii=False))


def read(path: Path, made_by: Collection[str]) -> Iterator[dict[str, Any]]:
    """Rows that are up to date, in the order they were added.

    Args:
        path: may be missing.
        made_by: rows that were made by anything else, and unfinished ones, are passed over.
    """
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found = json.loads(line)
        except json.JSONDecodeError:
            continue
        if found["made_by"] in made_by:
            yield found["row"]


def digest(home: Path, patterns: Collection[str]) -> str:
    """Twelve hexadecimal digits that change with any file.

    Args:
        home: where the patterns start.
        patterns: such as "samples/**/*.py".
    """
    files = sorted({file for pattern in patterns for file in home.glob(pattern)})
    hashed = hashlib.sha256()
    for file in files:
        hashed.update(f"{file.relative_to(home).as_posix()} {file.stat().st_size} ".encode())
        hashed.update(file.read_bytes())
    return hashed.hexdigest()[:12]
