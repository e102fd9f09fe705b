"""The shape of the code: imports point downward, files stay short, start-up stays lazy."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from command import PLAN, ROOT, environment

import planner
from planner import errors

PACKAGE = ROOT / "planner"
FILES = sorted(PACKAGE.rglob("*.py"))
#: From the lowest layer up; a module imports its own layer and those below it.
LAYERS = (
    {"units", "errors"},
    {"formulas"},
    {"spec"},
    {"catalog", "ingest"},
    {"cost"},
    {"serving"},
    {"simulation"},
    {"search"},
    {"explanation", "report", "deployment"},
    {"wiring"},
    {"verbs"},
    {"library"},
    {"cli"},
    {"__main__"},
)
HEIGHT = {name: height for height, layer in enumerate(LAYERS) for name in layer}
INNER = [p for p in FILES if p != PACKAGE / "__init__.py"]
MOST_LINES = 400
MOST_FUNCTION_LINES = 60


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a file imports, also inside functions."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: relative import"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def test_every_module_has_a_layer():
    assert {part_of(p) for p in INNER} - {"py.typed"} == set(HEIGHT)


@pytest.mark.parametrize("path", INNER, ids=name_of)
def test_imports_point_downward(path: Path):
    height = HEIGHT[part_of(path)]
    upward = []
    for line, name in imports(path):
        head, *rest = name.split(".")
        if head == "planner" and rest and rest[0] in HEIGHT and HEIGHT[rest[0]] > height:
            upward.append(f"{name_of(path)}:{line}: {name}")
    assert upward == []


@pytest.mark.parametrize("path", INNER, ids=name_of)
def test_only_the_version_comes_from_the_top(path: Path):
    """``import planner`` reaches everything lazily, so it would hide an upward import."""
    named = [n for line, n in imports(path) if n.startswith("planner.")]
    modules = [n for n in named if n.split(".")[1] in HEIGHT or n == "planner.__version__"]
    assert named == modules
    used = {
        node.attr
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "planner"
    }
    assert used - {"__version__"} == set()


def test_formulas_stand_alone():
    # scipy only inside the function that fits: the plan path is held free of it below
    allowed = {"__future__", "collections", "dataclasses", "functools", "math", "numpy", "typing"}
    allowed |= {"scipy"}
    found = [
        f"{name_of(path)}:{line}: {name}"
        for path in sorted((PACKAGE / "formulas").glob("*.py"))
        for line, name in imports(path)
        if name.split(".")[0] not in allowed and not name.startswith("planner.formulas.")
    ]
    assert found == []


def test_the_top_imports_nothing_at_once():
    tree = tree_of(PACKAGE / "__init__.py")
    eager = [
        ast.unparse(node)
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        and ast.unparse(node).split()[1] not in ("__future__", "typing")
    ]
    assert eager == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_are_short(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_functions_are_short(path: Path):
    long = []
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        lines = (node.end_lineno or 0) - node.lineno + 1
        if ast.get_docstring(node) is not None:
            lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
        if lines > MOST_FUNCTION_LINES:
            long.append(f"{node.name}: {lines} lines")
    assert long == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_is_left_to_do(path: Path):
    text = path.read_text(encoding="utf-8")
    assert [w for w in ("TODO", "FIXME", "NotImplementedError") if w in text] == []


RUN = """
import sys
sys.argv = ["planner", *sys.argv[1:]]
from planner.cli.app import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("LOADED", *sorted(sys.modules))
"""


def loaded(folder: Path, script: str, *argv: str) -> set[str]:
    """Return the modules a fresh interpreter holds after a script; it prints them last."""
    done = subprocess.run(
        [sys.executable, "-c", script, *argv], cwd=folder, env=environment(folder), check=False,
        text=True, encoding="utf-8", capture_output=True, timeout=120,
    )
    assert done.returncode == 0, done.stderr
    head, *modules = done.stdout.splitlines()[-1].split()
    assert head == "LOADED"
    return set(modules)


HEAVY = {
    "highspy", "matplotlib", "networkx", "numpy", "pandas", "pulp", "pydantic", "rich.console",
    "rich.table", "scipy", "yaml",
}


def test_import_is_lazy(tmp_path: Path):
    found = loaded(tmp_path, 'import sys, planner; print("LOADED", *sys.modules)')
    assert "planner" in found
    assert found & HEAVY == set()
    assert {m for m in found if m.startswith("planner.")} == set()


@pytest.mark.parametrize("line", ["--help", "plan --help", "hardware --help", "--version"])
def test_help_is_lazy(line: str, tmp_path: Path):
    found = loaded(tmp_path, RUN, *line.split())
    assert "planner.cli" in found
    assert found & (HEAVY - {"pydantic"}) == set(), "typer itself may load pydantic"


@pytest.mark.parametrize(
    ("line", "needless"),
    [
        (PLAN, {"matplotlib", "networkx", "pandas", "scipy"}),
        ("hardware list", {"highspy", "networkx", "pulp", "scipy"}),
        ("workloads list", {"highspy", "networkx", "pulp", "scipy"}),
    ],
)
def test_commands_load_only_what_they_use(line: str, needless: set[str], tmp_path: Path):
    found = loaded(tmp_path, RUN, *line.split())
    assert "planner.catalog.store" in found
    assert found & needless == set()


def test_mix_needs_no_cost_model(tmp_path: Path):
    example = str(ROOT / "docs" / "examples" / "throughputs.json")
    found = loaded(tmp_path, RUN, "mix", example)
    assert "planner.search.assign" in found
    rooms = ("cost", "spec.model", "serving", "library", "catalog.store")
    assert [m for m in found if m.startswith(tuple(f"planner.{r}" for r in rooms))] == []


def test_public_names():
    assert planner.__all__ == sorted(planner.__all__)
    assert dir(planner) == planner.__all__
    missing = [n for n in planner.__all__ if getattr(planner, n, None) is None]
    assert missing == []
    undocumented = [
        n for n in planner.__all__ if n != "__version__" and not getattr(planner, n).__doc__
    ]
    assert undocumented == []
    with pytest.raises(AttributeError, match="no attribute 'paln'"):
        _ = planner.paln


def test_no_module_takes_the_name_of_a_verb():
    # importing planner.explain would set planner.explain, and hide the function behind the module
    modules = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or p.is_dir()}
    assert not modules & set(planner.__all__)


@pytest.mark.parametrize("name", [n for n in planner.__all__ if not n.startswith("_")])
def test_a_verb_stays_callable_once_every_module_is_loaded(name):
    for path in (p for p in INNER if p.name != "__main__.py"):
        importlib.import_module(
            ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        )
    assert callable(getattr(planner, name))


def test_exceptions_form_the_documented_tree():
    tree = {
        "PlannerError": Exception,
        "InputError": errors.PlannerError,
        "CatalogError": errors.InputError,
        "InfeasibleError": errors.PlannerError,
    }
    found = {
        name: value.__base__
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert found == tree
    drawn = [line for line in (errors.__doc__ or "").splitlines() if "Error``" in line]
    indent = {line.split("``")[1]: line.index("``") for line in drawn}
    assert set(indent) == set(tree)
    assert indent["PlannerError"] < indent["InputError"] == indent["InfeasibleError"]
    assert indent["InputError"] < indent["CatalogError"]


def test_no_exception_stands_outside_the_tree():
    defined = [
        f"{name_of(path)}: {node.name}"
        for path in FILES
        if path != PACKAGE / "errors.py"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(b).endswith(("Error", "Exception")) for b in node.bases)
    ]
    assert defined == []
