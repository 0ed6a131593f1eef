"""README.md says what is there: its tree lists every source file, and its code runs."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[2]
README = (HOME / "README.md").read_text(encoding="utf-8")
ROOTS = (
    "sdk",
    "export/sdk_export",
    "models/sdk_models",
    "pruning/sdk_pruning",
    "quant/sdk_quant",
    "runtimes/sdk_runtimes",
    "samples",
    "benchmarks",
)
TREE = re.compile(r"<!-- tree -->\n```text\n(.*?)```", re.DOTALL)
RUNNABLE = re.compile(r"<!-- runs -->\n```python\n(.*?)```", re.DOTALL)
SLOW = re.compile(r"<!-- runs slowly -->\n```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
_INDENT = 2


def listed() -> dict[str, str]:
    """Path -> comment, of the tree in the README."""
    (tree,) = TREE.findall(README)
    rows: dict[str, str] = {}
    above: list[str] = []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // _INDENT
        name, _, comment = line.strip().partition(" ")
        path = "".join(above[:depth]) + name
        assert path not in rows, f"{path} is there twice"
        rows[path] = comment.strip()
        above[depth:] = [name]
    return rows


def has_code(path: Path) -> bool:
    """Whether a file is more than a package's docstring."""
    return path.name != "__init__.py" or len(ast.parse(path.read_text(encoding="utf-8")).body) > 1


def sources() -> set[str]:
    found = (path for root in ROOTS for path in (HOME / root).rglob("*") if path.suffix in (".py", ".css"))
    return {path.relative_to(HOME).as_posix() for path in found if has_code(path)}


def test_the_tree_lists_every_source_file_and_no_other():
    in_readme = {path for path in listed() if not path.endswith("/")}
    assert sorted(sources() - in_readme) == [], "not in README's tree"
    assert sorted(in_readme - sources()) == [], "in README's tree, but not there"


def test_every_line_of_the_tree_says_something_and_folders_are_there():
    for path, comment in listed().items():
        assert comment, f"{path} has no comment"
        assert (HOME / path).is_dir() == path.endswith("/"), path


@pytest.mark.parametrize(
    "page",
    sorted(path.relative_to(HOME).as_posix() for path in (*HOME.glob("*.md"), *HOME.glob("docs/**/*.md"))),
)
def test_links_lead_somewhere(page):
    for target in LINK.findall((HOME / page).read_text(encoding="utf-8")):
        assert target.startswith("https://") or ((HOME / page).parent / target).exists(), target


def test_the_code_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_SDK_CACHE_DIR", str(tmp_path / "cache"))
    blocks = RUNNABLE.findall(README)
    assert len(blocks) == 2
    # Each in a process of its own, as a reader would; the second must do without torch.
    guard = "\nimport sys\nassert 'torch' not in sys.modules\n"
    for number, (block, after) in enumerate(zip(blocks, ("", guard), strict=True)):
        script = tmp_path / f"block_{number}.py"
        script.write_text(block + after, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, script.name],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        shown = ("passed on openvino:cpu", "Session Classifier.")[number]
        assert shown in done.stdout


@pytest.mark.slow
def test_the_code_that_takes_a_minute_runs_too(tmp_path):
    blocks = SLOW.findall(README)
    assert len(blocks) == 2
    script = tmp_path / "slow.py"
    script.write_text("\n".join(blocks), encoding="utf-8")  # the second goes on where the first ends
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(HOME), "EDGE_SDK_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shares = [float(share) for share in re.findall(r"([\d.]+) % of the test images", done.stdout)]
    assert len(shares) == 2
    assert min(shares) > 98
    assert "verdict: suppression" in done.stdout
