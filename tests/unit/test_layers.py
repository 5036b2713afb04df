"""The architecture holds: imports go down only and in no circle, files stay short and say what they are for."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"
LAYERS = (
    {"version"},
    {"core"},
    {"tokenize"},
    {"data"},
    {"model"},
    {"distributed"},
    {"checkpoint"},
    {"inference"},
    {"control"},
    {"predict"},
    {"interop"},
    {"metrics"},
    {"baselines"},
    {"tasks"},
    {"train"},
    {"evaluate"},
    {"explain"},
    {"report"},
    {"plan"},
    {"recipe", "big_language_model"},
    {"api"},
    {"serve"},
    {"cli"},
    {"__main__"},
)
"""From the bottom up; those of a layer do not import each other."""
DATA = (
    {"scripts"},
    {"cleaning"},
    {"document", "split"},
    {"formats"},
    {"examples"},
    {"sources"},
    {"corpus"},
)
"""Likewise inside `data`."""
APART = ({"lucidlm.train.pretrain", "lucidlm.train.finetune"},)
"""Folders that know nothing of each other."""
MOST = 16
"""Modules of a folder, beside those in folders of its own."""
EAGER = {"lucidlm.core.errors", "lucidlm.version"}
LAZY = {
    "lucidlm.api.inspecting",
    "lucidlm.api.judging",
    "lucidlm.api.planning",
    "lucidlm.api.training",
    "lucidlm.big_language_model",
    "lucidlm.tokenize.tokenizer",
    "lucidlm.model.config",
    "lucidlm.checkpoint.load",
    "lucidlm.predict.classifier",
    "lucidlm.predict.embedder",
    "lucidlm.predict.multi_label_classifier",
    "lucidlm.predict.pair_classifier",
    "lucidlm.predict.span_reader",
    "lucidlm.predict.text_generator",
    "lucidlm.predict.token_tagger",
}
"""What `lucidlm/__init__.py` may import at once, and when it is first used."""
LONGEST = 400

FILES = sorted((SOURCE / "lucidlm").rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(node: ast.AST) -> set[str]:
    """Return the modules of ours that anything below `node` imports, inside functions too."""
    found: set[str] = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Import):
            found |= {alias.name for alias in part.names if alias.name in MODULES}
        elif isinstance(part, ast.ImportFrom):
            assert part.level == 0, f"line {part.lineno}: imports are absolute here"
            for alias in part.names:
                inner = f"{part.module}.{alias.name}"
                found |= {inner if inner in MODULES else part.module} & MODULES.keys()
    return found


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def speaks_for_itself(node: ast.FunctionDef | ast.ClassDef) -> bool:
    """Two lines or fewer need no words; and what a script's `main` does, the script says."""
    return (len(node.body) <= 2 and node.end_lineno == node.body[-1].lineno) or node.name == "main"


def layer_of(module: str, layers: tuple[set[str], ...] = LAYERS, depth: int = 1) -> tuple[int, str]:
    part = module.split(".")[depth]
    return next(height for height, layer in enumerate(layers) if part in layer), part


@pytest.mark.parametrize("module", [name for name in MODULES if name != "lucidlm"])
def test_imports_go_down_only(module: str) -> None:
    height, own = layer_of(module)
    for other in imports(tree_of(MODULES[module])):
        assert other != "lucidlm", f"{module} imports the top of the package"
        below, part = layer_of(other)
        assert part == own or below < height, f"{module} imports {other}, which does not lie below it"


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("lucidlm.data.")])
def test_imports_go_down_only_inside_data(module: str) -> None:
    height, own = layer_of(module, DATA, depth=2)
    for other in imports(tree_of(MODULES[module])):
        if other.startswith("lucidlm.data."):
            below, part = layer_of(other, DATA, depth=2)
            assert part == own or below < height, f"{module} imports {other}, which does not lie below it"


@pytest.mark.parametrize("folders", APART, ids=lambda folders: " and ".join(sorted(folders)))
def test_folders_that_know_nothing_of_each_other(folders: set[str]) -> None:
    for folder in folders:
        for module in MODULES:
            if module.startswith(f"{folder}."):
                found = imports(tree_of(MODULES[module]))
                others = [name for name in found for other in folders - {folder} if name.startswith(other)]
                assert not others, f"{module} imports {others[0]}"


def test_folders_hold_few_modules() -> None:
    counts = Counter(path.parent for path in FILES if path.name != "__init__.py")
    assert not {str(folder): count for folder, count in counts.items() if count > MOST}


def test_the_top_of_the_package_imports_what_it_may() -> None:
    tree = tree_of(MODULES["lucidlm"])
    eager = set().union(*(imports(node) for node in tree.body if not is_for_types_only(node)))
    assert eager <= EAGER
    assert imports(tree) - eager <= LAZY
    named = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert named & MODULES.keys() - {"lucidlm"} <= LAZY


def test_there_are_no_circles() -> None:
    """Neither among what files import, nor with what they name in types or import inside functions."""
    graph = {module: imports(tree_of(path)) - {module} for module, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_are_short_and_say_what_they_are_for(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{path} has {lines} lines: it has more than one subject"
    assert ast.get_docstring(tree_of(path)), f"{path} does not say what it is for"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_public_functions_and_classes_have_docstrings(path: Path) -> None:
    bare = [
        node.name
        for node in tree_of(path).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
        and not speaks_for_itself(node)
    ]
    assert not bare, f"{path}: no docstring on {', '.join(bare)}"
