"""Public functions and methods say the types of what they take and return: the package is marked as typed."""

import ast
from pathlib import Path

import pytest

import haim_tf

ROOT = Path(haim_tf.__file__).parent
# What is annotated so far; a package's name stands for all modules in it.
CHECKED = (
    "checks.py",
    "class_names.py",
    "cli",
    "completion.py",
    "compression",
    "data",
    "distribution.py",
    "evaluation",
    "files.py",
    "layers",
    "likelihoods",
    "models",
    "networks",
    "presets",
    "programs",
    "progress.py",
    "registered.py",
    "registry.py",
    "sampling",
    "saved_model",
    "training",
)


def unannotated(tree):
    """`(line, name)` of each public function, method or property that lacks a type."""
    scopes = [tree, *(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name[0] != "_")]
    for scope in scopes:
        for node in scope.body:
            if isinstance(node, ast.FunctionDef) and (node.name[0] != "_" or node.name == "__init__"):
                given = node.args
                taken = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
                bound = isinstance(scope, ast.ClassDef) and not any(
                    isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list
                )
                untold = not node.returns and node.name != "__init__"
                if untold or not all(a.annotation for a in taken[bound:] if a):
                    yield node.lineno, node.name


@pytest.mark.parametrize("name", CHECKED)
def test_public_functions_are_annotated(name):
    path = ROOT / name
    files = [path] if path.suffix else sorted(path.rglob("*.py"))
    assert files
    missing = [
        f"{file.relative_to(ROOT)}:{line} {function}"
        for file in files
        for line, function in unannotated(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert not missing


def test_the_check_finds_what_is_missing():
    source = """
def right(a: int, *, b: str = "") -> None: ...
def no_return(a: int): ...
def no_argument(a, b: int) -> None: ...
def _private(a): ...
class Public:
    def __init__(self, a) -> None: ...
    def right(self, a: int) -> int: ...
    @staticmethod
    def static(a) -> int: ...
    def catches(self, **more) -> int: ...
class _Private:
    def method(self, a): ...
"""
    names = [name for _, name in unannotated(ast.parse(source))]
    assert names == ["no_return", "no_argument", "__init__", "static", "catches"]
