"""docs/environment.md names every environment variable that is read, and none that is not."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ("unrain", "export", "engine", "kernels", "csrc", "benchmarks", "examples")
NAME = re.compile(r"[A-Z][A-Z0-9_]{2,}")
# Read by what unrain builds on, and explained because unrain says them to its users.
OF_OTHERS = {"TRITON_INTERPRET"}


def test_the_table_is_complete_and_true():
    page = (ROOT / "docs" / "environment.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    described = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert described == read_anywhere() | OF_OTHERS


def read_anywhere() -> set[str]:
    found: set[str] = set()
    for file in [ROOT / "setup.py", ROOT / "tests" / "conftest.py", *sources("*.py")]:
        found |= read_by_python(ast.parse(file.read_text()))
    for file in [path for suffix in ("*.cpp", "*.h", "*.cu", "*.cuh") for path in sources(suffix)]:
        found |= set(re.findall(r'getenv\(\s*"(\w+)"', file.read_text()))
    for file in (ROOT / "Makefile", ROOT / ".ci" / "run"):
        found |= set(re.findall(r"UNRAIN_[A-Z_]+", file.read_text()))
    return found


def sources(suffix: str) -> list[Path]:
    return [path for floor in FLOORS for path in sorted((ROOT / floor).rglob(suffix))]


def read_by_python(tree: ast.Module) -> set[str]:
    """The names among the strings of every function (or line of the module) that looks into the environment."""
    found: set[str] = set()
    for node in ast.walk(tree):
        for part in getattr(node, "body", []) if isinstance(node, ast.Module | ast.FunctionDef) else []:
            scope = node if isinstance(node, ast.FunctionDef) else part
            if not isinstance(part, ast.ClassDef | ast.FunctionDef) and looks(part):
                strings = [each.value for each in ast.walk(scope) if isinstance(each, ast.Constant)]
                found |= {each for each in strings if isinstance(each, str) and NAME.fullmatch(each)}
    return found


def looks(node: ast.AST) -> bool:
    return any(getattr(each, "attr", getattr(each, "id", None)) in ("environ", "getenv") for each in ast.walk(node))
