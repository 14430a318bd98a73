"""Refuse files of more than 400 lines and functions of more than 60 (docstrings not counted)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
FOLDERS = ("src", "benchmarks", "examples", "tests")


def count_function_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring: prose is not complexity."""
    n_lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node) is not None:
        first = node.body[0]
        n_lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return n_lines


def find_violations(path: Path) -> Iterator[str]:
    """Yield one line of text for each file or function that is too long."""
    text = path.read_text(encoding="utf-8")
    n_lines = len(text.splitlines())
    if n_lines > MAX_FILE_LINES:
        yield f"{path}: {n_lines} lines, at most {MAX_FILE_LINES}"
    for node in ast.walk(ast.parse(text, filename=str(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            n_lines = count_function_lines(node)
            if n_lines > MAX_FUNCTION_LINES:
                yield (
                    f"{path}:{node.lineno}: {node.name} has {n_lines} lines, "
                    f"at most {MAX_FUNCTION_LINES}"
                )


def main() -> int:
    """Check every Python file below the project's folders."""
    root = Path(__file__).resolve().parent.parent
    paths = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))]
    violations = [text for path in paths for text in find_violations(path)]
    print("\n".join(violations) or f"sizes: {len(paths)} files, none too long")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
