"""Scan the source of loaded modules for what they import: files of the project, and packages."""

import ast
import sys
from collections.abc import Iterable, Iterator
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]  # folder of the project


def find_imports(names: Iterable[str]) -> tuple[set[str], set[str]]:
    """Return what the modules `names` need: files of the project, and names of other modules.

    The files include those of the modules themselves, and what these import in turn. The other
    modules are top-level ones, also of the standard library. Only loaded modules are found.
    """
    files, other_modules = set(), set()
    pending, seen = set(names), {""}  # "" is the parent of a top-level module
    while pending:
        name = pending.pop()
        seen.add(name)
        # None if the name is that of a function or class, or if its import did not run.
        module = sys.modules.get(name)
        path = Path(getattr(module, "__file__", None) or "")
        if module and path.is_relative_to(ROOT) and "site-packages" not in path.parts:
            files.add(path.relative_to(ROOT).as_posix())
            pending |= {name.rpartition(".")[0], *imported_names(module, path)} - seen
        elif module:
            other_modules.add(name.partition(".")[0])
    return files, other_modules


def imported_names(module: ModuleType, path: Path) -> Iterator[str]:
    """Yield the names that a module imports.

    For `from base import name` these are `base` and `base.name`, which may be a module, too.
    """
    for node in ast.walk(ast.parse(path.read_bytes() if path.suffix == ".py" else b"")):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), module.__package__)
            yield from (base, *(f"{base}.{each.name}" for each in node.names))
