"""The house of DESIGN §2: imports point down only, are absolute, and files stay short."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# package -> (its folder, what it may import of ours)
STAGES = ("sdk_export", "sdk_pruning", "sdk_quant")
ALLOWED = {
    "sdk_runtimes": set(),
    "sdk_models": {"sdk_runtimes"},
    **{stage: {"sdk_models", "sdk_runtimes"} for stage in STAGES},
    "sdk": {*STAGES, "sdk_models", "sdk_runtimes"},
}
HOMES = {
    "sdk_runtimes": "runtimes",
    "sdk_models": "models",
    "sdk_export": "export",
    "sdk_pruning": "pruning",
    "sdk_quant": "quant",
    "sdk": ".",
}
MOST_LINES = 400
PHONES_HOME = ("openvino",)  # importing it sends an event, unless `require` does it

FILES = sorted(
    (package, path) for package, home in HOMES.items() for path in (ROOT / home / package).rglob("*.py")
)


def _imports(tree: ast.AST) -> Iterator[tuple[int, int, str]]:
    """(line, level, module) of every import, also those inside functions and behind TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, 0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.level, node.module or ""


def _by_string(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Module names of ours in plain strings: `importlib.import_module("sdk_export.x")`, rows of tables."""
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
        if is_text and all(part.isidentifier() for part in node.value.split(".")) and "." in node.value:
            yield node.lineno, node.value


def offences(package: str, source: str) -> list[str]:
    """What a file of `package` imports although it may not."""
    tree = ast.parse(source)
    named = [(line, module) for line, _, module in _imports(tree)] + list(_by_string(tree))
    heads = [(line, module, module.partition(".")[0]) for line, module in named]
    allowed = ALLOWED[package] | {package}
    found = [
        f"line {line}: {module}" for line, module, head in heads if head in ALLOWED and head not in allowed
    ]
    relative = [f"line {line}: relative" for line, level, _ in _imports(tree) if level]
    tests = [
        f"line {line}: {module}" for line, module, head in heads if head in ("tests", "samples", "benchmarks")
    ]
    return found + relative + tests


def test_all_rooms_are_looked_at() -> None:
    assert {package for package, _ in FILES} == set(ALLOWED)
    assert len(FILES) > 100


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_point_down_only(package: str) -> None:
    found = {
        str(path.relative_to(ROOT)): bad
        for owner, path in FILES
        if owner == package and (bad := offences(package, path.read_text()))
    }
    assert not found


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("sdk_runtimes", "import sdk_export.gate"),
        ("sdk_runtimes", "def f():\n    from sdk_models import x"),
        ("sdk_export", "from sdk_quant import scheme"),
        ("sdk_export", "if TYPE_CHECKING:\n    from sdk.exporting import export"),
        ("sdk_models", "import importlib\nimportlib.import_module('sdk_export.capture')"),
        ("sdk_pruning", "from . import budget"),
        ("sdk", "from tests import faults"),
    ],
)
def test_the_check_itself_can_fail(package: str, source: str) -> None:
    assert offences(package, source)


@pytest.mark.parametrize(
    ("package", "source"),
    [("sdk", "import sdk_export"), ("sdk_export", "from sdk_runtimes.errors import SdkError\nimport numpy")],
)
def test_the_check_itself_can_pass(package: str, source: str) -> None:
    assert not offences(package, source)


def _typing_only(tree: ast.AST) -> set[int]:
    """Nodes behind `if TYPE_CHECKING`."""
    blocks = (
        node.body
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    )
    return {id(inner) for block in blocks for node in block for inner in ast.walk(node)}


def past_the_door(source: str) -> list[str]:
    """Imports of packages that report to their makers other than through `sdk_runtimes.require`."""
    tree = ast.parse(source)
    for_types = _typing_only(tree)
    return [
        f"line {node.lineno}: {module}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in for_types
        for _, _, module in _imports(ast.Module([node], []))
        if module.partition(".")[0] in PHONES_HOME
    ]


def test_what_would_phone_home_is_imported_through_the_door_only() -> None:
    beside = [path for folder in ("samples", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    files = [*(path for _, path in FILES), *beside]
    found = {str(path.relative_to(ROOT)): bad for path in files if (bad := past_the_door(path.read_text()))}
    assert not found


@pytest.mark.parametrize(
    ("source", "number"),
    [
        ("def f():\n    import openvino", 1),
        ("from openvino.frontend import x", 1),
        ("if TYPE_CHECKING:\n    import openvino\nimport openvino as ov", 1),
        ("if TYPE_CHECKING:\n    from openvino import Model\nimport openvino_like", 0),
    ],
)
def test_that_check_itself_can_fail(source: str, number: int) -> None:
    assert len(past_the_door(source)) == number


def test_files_stay_short() -> None:
    long = {str(path): n for _, path in FILES if (n := len(path.read_text().splitlines())) > MOST_LINES}
    assert not long


def test_no_room_bears_the_name_of_a_verb() -> None:
    verbs = {
        "export",
        "prune",
        "forget",
        "quantize",
        "load",
        "generate",
        "bench",
        "verify",
        "inspect",
        "devices",
    }
    folders = {path.parent.name for _, path in FILES} | {
        path.stem for _, path in FILES if path.parent.name == "sdk"
    }
    assert not folders & verbs


def test_only_six_names_land_in_site_packages() -> None:
    import tomllib

    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {Path(package).name for package in built["packages"]} == set(ALLOWED)
