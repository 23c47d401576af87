"""The house has no circles: modules import downward only, and upward inside functions only where listed."""

import ast
from pathlib import Path

import haim_tf

ROOT = Path(haim_tf.__file__).parent
# From the ground up; a module may import those of its own floor and of lower ones.
FLOORS = [
    {"version", "startup", "backend", "checks", "files", "registry", "registered", "class_names", "progress"}
    | {"plots", "programs", "processor"},
    {"layers", "likelihoods", "data"},
    {"networks", "presets"},
    {"sampling"},
    {"models"},
    {"saved_model", "evaluation", "completion", "distribution", "compression"},
    {"training"},
    {"cli", "__main__"},
]
# Calls upward that are made inside functions, for the convenience of those who call them.
UPWARD = {
    ("models.generation", "completion"),  # model.complete
    ("models.generation", "distribution"),  # model.as_distribution, model.prior_distribution
}


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts), path


NAMES = dict(modules())


def imported(tree, name):
    """`(module, inside)` of each haim_tf module that a module imports, and whether inside a function."""

    def walk(node, inside):
        for child in ast.iter_child_nodes(node):
            deeper = inside or isinstance(child, (ast.FunctionDef, ast.Lambda))
            typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            if isinstance(child, ast.ImportFrom) and (child.module or "").split(".")[0] == "haim_tf":
                base = child.module.removeprefix("haim_tf").lstrip(".")
                for alias in child.names:
                    full = f"{base}.{alias.name}".lstrip(".")
                    yield (full if full in NAMES else base or alias.name), inside
            elif isinstance(child, ast.Import):
                for alias in child.names:
                    if alias.name.startswith("haim_tf."):
                        yield alias.name.removeprefix("haim_tf."), inside
            elif not typing:
                yield from walk(child, deeper)

    return [(module, inside) for module, inside in walk(tree, False) if module != name]


IMPORTS = {name: imported(ast.parse(path.read_text(encoding="utf-8")), name) for name, path in NAMES.items()}


def floor(module):
    top = module.split(".")[0]
    return next(i for i, floors in enumerate(FLOORS) if top in floors)


def test_every_module_has_a_floor():
    known = set().union(*FLOORS)
    assert {name.split(".")[0] for name in NAMES} - {"__init__"} == known


def test_imports_run_downward():
    wrong = [
        (name, module)
        for name, found in IMPORTS.items()
        if name != "__init__"
        for module, inside in found
        if not inside and module in NAMES and floor(module) > floor(name)
    ]
    assert not wrong


def test_upward_inside_functions_only_where_listed():
    found = {
        (name, module)
        for name, imports in IMPORTS.items()
        if name != "__init__"
        for module, inside in imports
        if inside and module in NAMES and floor(module) > floor(name)
    }
    assert found == UPWARD


def test_no_circles():
    graph = {
        name: {module for module, inside in found if not inside and module in NAMES}
        for name, found in IMPORTS.items()
        if name != "__init__"
    }
    done, path = set(), []

    def visit(name):
        assert name not in path, f"circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name in done or name not in graph:
            return
        path.append(name)
        for module in sorted(graph[name]):
            # A package's own __init__ brings in its modules, which is no circle.
            if module != name.rpartition(".")[0]:
                visit(module)
        path.pop()
        done.add(name)

    for name in graph:
        visit(name)
