from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a cache of its own, and leaves the user's alone."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("EDGE_SDK_CACHE_DIR", str(folder))
    monkeypatch.delenv("EDGE_SDK_CACHE_MAX", raising=False)
    return folder
