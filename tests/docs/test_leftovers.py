"""Nothing half done stays in the source: no notes to oneself, no error that is swallowed without a word, no stub."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ("unrain", "export", "engine", "kernels", "csrc", "benchmarks", "tests", "docs", "examples")
SUFFIXES = {".py", ".cpp", ".h", ".cu", ".cuh", ".md", ".html", ".js", ".css", ".toml", ".yml"}
FILES = [
    path
    for floor in FLOORS
    for path in sorted((ROOT / floor).rglob("*"))
    if path.suffix in SUFFIXES and "__pycache__" not in path.parts
]
# In two pieces, so that this file is no leftover.
NOTES = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
PYTHON = [path for path in FILES if path.suffix == ".py"]


@pytest.mark.parametrize("floor", FLOORS)
def test_no_notes_to_oneself(floor):
    files = [path for path in FILES if path.is_relative_to(ROOT / floor)]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if NOTES.search(line)
    ]
    assert not found, "\n".join(found)


def test_no_error_is_swallowed_without_a_reason():
    """`except` names what it catches; one that does nothing about it has a comment that says why, or is `suppress`."""
    found = []
    for path in PYTHON:
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.ExceptHandler):
                silent = all(isinstance(part, ast.Pass) for part in node.body)
                said = any("#" in line for line in lines[node.lineno - 1 : node.body[-1].lineno])
                narrow = node.type is not None and ast.unparse(node.type) not in ("Exception", "BaseException")
                if node.type is None or (silent and not said and not narrow):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found, "\n".join(found)


def test_what_is_not_implemented_is_abstract():
    """`raise NotImplementedError` only as the body of a method that every subclass has, or as PyTorch raises it: with a
    message that names what refuses."""
    found = []
    for path in PYTHON:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        bodies = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        allowed = {id(part) for node in bodies for part in node.body if _only_raises(node)}
        found += [
            f"{path.relative_to(ROOT)}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Raise) and "NotImplemented" in ast.unparse(node)
            if id(node) not in allowed and not _names_something(node)
        ]
    assert not found, "\n".join(found)


def _names_something(node: ast.Raise) -> bool:
    return isinstance(node.exc, ast.Call) and any(isinstance(each, ast.JoinedStr) for each in node.exc.args)


def _only_raises(function: ast.FunctionDef) -> bool:
    return all(
        isinstance(part, ast.Raise) or isinstance(getattr(part, "value", None), ast.Constant) for part in function.body
    )
