"""The face of the SDK: what is public is listed, documented, and says what it raises."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

import sdk
import sdk_pruning
from sdk_runtimes import errors

VERBS = sorted(name for name in sdk.__all__ if inspect.isfunction(getattr(sdk, name)))
ROOT = Path(__file__).parents[3]
ERRORS = {
    name for name, item in vars(errors).items() if inspect.isclass(item) and issubclass(item, errors.SdkError)
}


def test_all_is_sorted_and_is_what_is_visible():
    assert sorted(sdk.__all__) == sdk.__all__
    assert {name for name in dir(sdk) if not name.startswith("_")} == set(sdk.__all__)


def test_every_name_lives_where_the_table_says():
    assert set(sdk._HOMES) == set(sdk.__all__)
    for name, home in sdk._HOMES.items():
        module = importlib.import_module(home)
        assert getattr(sdk, name) is (module if name == "errors" else getattr(module, name))


def test_the_names_of_the_pruning_room_live_where_its_table_says():
    assert sorted(sdk_pruning.__all__) == sdk_pruning.__all__
    assert set(sdk_pruning._HOMES) == set(sdk_pruning.__all__) == set(dir(sdk_pruning))
    for name, home in sdk_pruning._HOMES.items():
        assert getattr(sdk_pruning, name) is getattr(importlib.import_module(home), name)
    with pytest.raises(AttributeError, match="aply_plan"):
        sdk_pruning.aply_plan  # noqa: B018 - the access is the test


@pytest.mark.parametrize("package", [sdk, sdk_pruning])
def test_type_checkers_see_the_same_names(package):
    tree = ast.parse(Path(package.__file__).read_text())
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    rows = {
        alias.name: f"{node.module}.{alias.name}" if alias.name == "errors" else node.module
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert rows == package._HOMES


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="exprot"):
        sdk.exprot  # noqa: B018 - the access is the test


def test_the_verbs_of_this_release_are_there():
    assert {"export", "prune", "prune_", "forget", "load", "verify", "inspect", "bench", "devices"} <= set(
        VERBS
    )


@pytest.mark.parametrize("name", sdk.__all__)
def test_everything_public_has_a_docstring(name):
    assert (inspect.getdoc(getattr(sdk, name)) or "").strip()


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "devices"])
def test_every_verb_says_what_it_takes_and_raises(verb):
    function = getattr(sdk, verb)
    text = inspect.getdoc(function)
    raised = text[text.index("Raises:") :]
    named = set(re.findall(r"\b[A-Z]\w+Error\b", raised))
    assert named
    assert named <= ERRORS, f"no such errors: {named - ERRORS}"
    for parameter in inspect.signature(function).parameters:
        assert re.search(rf"^\s+{parameter}: ", text, re.MULTILINE), f"{verb} does not explain {parameter!r}"


def test_every_public_function_of_every_room_has_a_docstring():
    missing = []
    rooms = ("sdk", "export/sdk_export", "pruning/sdk_pruning", "runtimes/sdk_runtimes", "models/sdk_models")
    for room in rooms:
        for path in (ROOT / room).rglob("*.py"):
            tree = ast.parse(path.read_text())
            for node in tree.body:
                is_public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
                if is_public and not ast.get_docstring(node):
                    missing.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert not missing


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_every_error_of_ours_stands_in_the_tree_of_its_module(name):
    assert re.search(rf"\b{name}\b", errors.__doc__)


def test_errors_say_what_why_and_fix():
    error = errors.SdkError("it is so", why="because", fix="do this")
    assert str(error) == "it is so\n  why: because\n  fix: do this"
