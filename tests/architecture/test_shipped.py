"""What is shipped to nodes: Python 3.7's syntax and its standard library, and nothing else."""

from __future__ import annotations

import ast
import io
import itertools
import re
import subprocess
import sys
import tokenize
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.run import agent_package as packing
from launcher.run.agent_package import SHIPPED_ROOMS, agent_package

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = {
    name: zipfile.ZipFile(io.BytesIO(agent_package().data)).read(name).decode()
    for name in zipfile.ZipFile(io.BytesIO(agent_package().data)).namelist()
}
NAMES = sorted(SHIPPED)
OWN_ROOMS = {f"launcher.{room}" for room in SHIPPED_ROOMS}
LAZY = {"oneflow", "numpy"}
# Modules of the standard library that came after Python 3.7, or left since.
NOT_IN_ALL = {"zoneinfo", "tomllib", "graphlib", "distutils", "imp", "asyncore", "asynchat", "cgi"}


def functions(tree: ast.AST) -> Iterator[ast.AST]:
    return (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_file_is_python_3_7(name: str) -> None:
    ast.parse(SHIPPED[name], name, feature_version=(3, 7))


@pytest.mark.parametrize("name", NAMES)
def test_no_with_stands_in_parentheses(name: str) -> None:
    """The parser takes several managers in parentheses whatever version it is told."""
    tokens = [
        token
        for token in tokenize.generate_tokens(io.StringIO(SHIPPED[name]).readline)
        if token.type not in (tokenize.NL, tokenize.COMMENT)
    ]
    parsed = {
        node.lineno: node
        for node in ast.walk(ast.parse(SHIPPED[name]))
        if isinstance(node, ast.With | ast.AsyncWith)
    }
    for word, following in itertools.pairwise(tokens):
        if word.type == tokenize.NAME and word.string == "with" and following.string == "(":
            node = parsed[word.start[0]]
            alone = len(node.items) == 1 and node.items[0].optional_vars is None
            assert alone, f"{name}:{node.lineno}"


@pytest.mark.parametrize("name", NAMES)
def test_annotations_can_be_evaluated_on_3_7(name: str) -> None:
    """`list[int]` and `X | None` in an annotation are an error there unless they are text."""
    text = SHIPPED[name]
    if "from __future__ import annotations" in text:
        return
    tree = ast.parse(text)
    annotations: list[ast.expr | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
            annotations += [node.returns, *(arg.annotation for arg in arguments if arg)]
        elif isinstance(node, ast.AnnAssign):
            annotations.append(node.annotation)
    for annotation in filter(None, annotations):
        for part in ast.walk(annotation):
            where = f"{name}:{annotation.lineno}"
            assert not isinstance(part, ast.BinOp), where
            if isinstance(part, ast.Subscript) and isinstance(part.value, ast.Name):
                assert part.value.id not in ("list", "dict", "set", "tuple", "type"), where


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_file_stands_on_the_standard_library(name: str) -> None:
    tree = ast.parse(SHIPPED[name])
    lazy = {node for function in functions(tree) for node in ast.walk(function)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        modules = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}"
            modules = [node.module or ""]
            if node.module == "launcher":
                modules = [f"launcher.{alias.name}" for alias in node.names]
        for module in modules:
            where, first = f"{name}:{node.lineno} imports {module}", module.split(".")[0]
            if first == "launcher":
                assert ".".join(module.split(".")[:2]) in OWN_ROOMS, where
            elif first in LAZY:
                legacy = name.startswith("launcher/legacy/")
                assert legacy or node in lazy or _is_for_types(tree, node), where
            else:
                assert first in sys.stdlib_module_names, where
                assert first not in NOT_IN_ALL, where


def _is_for_types(tree: ast.AST, node: ast.AST) -> bool:
    """Says whether a statement stands under ``if TYPE_CHECKING``."""
    return any(
        isinstance(parent, ast.If)
        and isinstance(parent.test, ast.Name)
        and parent.test.id == "TYPE_CHECKING"
        and node in ast.walk(parent)
        for parent in ast.walk(tree)
    )


IMPORT_ALL = """
import importlib, sys
class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("oneflow", "numpy"):
            raise AssertionError(name)
sys.meta_path.insert(0, Forbidden())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_no_import_of_a_shipped_room_starts_oneflow() -> None:
    """`import oneflow` is the rendezvous. The old API's modules do it once they are asked for."""
    modules = [
        name[:-3].replace("/", ".").removesuffix(".__init__")
        for name in NAMES
        if not name.startswith("launcher/legacy/") or name.endswith("legacy/__init__.py")
    ]
    subprocess.run([sys.executable, "-c", IMPORT_ALL, *modules], cwd=ROOT, check=True)


NEWER_NAMES = {
    "removeprefix": 9, "removesuffix": 9, "is_relative_to": 9, "missing_ok": 8, "randbytes": 9,
    "dirs_exist_ok": 8, "shlex.join": 8, "math.prod": 8, "functools.cache": 9, "cached_property": 8,
    "with_stem": 9, "hardlink_to": 10, "bit_count": 10, "create_server": 8, "text_encoding": 10,
    "strict=": 10,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_no_newer_part_of_the_standard_library_is_used(name: str) -> None:
    for word, minor in NEWER_NAMES.items():
        pattern = rf"(?<![\w.\"'`-]){re.escape(word)}" if word == "strict=" else re.escape(word)
        found = re.search(pattern, SHIPPED[name])
        assert found is None, f"{name} uses {word}, which came with Python 3.{minor}"


def test_every_room_is_shipped_whole() -> None:
    here = {
        f"launcher/{path.relative_to(ROOT / 'launcher').as_posix()}"
        for room in SHIPPED_ROOMS
        for path in (ROOT / "launcher" / room).rglob("*.py")
    }
    assert set(SHIPPED) == here | {"launcher/__init__.py"}


def test_the_package_is_the_same_however_often_it_is_made() -> None:
    first = agent_package()
    packing._package.cache_clear()
    assert agent_package() == first
