"""Holds the code to its shape: which module may import which, how long one may be, and that each has its tests."""

import ast
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

MAX_LINES = 400
MAX_VIEW_LINES = 14

SPECS = {"forwards.engine.specs", "forwards.engine.states", "forwards.engine.keys"}
WEB = SPECS | {
    f"forwards.{name}"
    for name in ("services", "models", "forms", "rows", "shown", "htmx", "reasons", "listing", "signin")
}

# What each module may import of ours. One that is not here has no place in the design yet: give it one.
MAY_IMPORT = {
    "forwards.apps": set(),
    "forwards.fields": {"forwards.engine.specs", "forwards.reasons"},
    "forwards.reasons": set(),
    "forwards.sealing": set(),
    "forwards.models.*": {
        "forwards.engine.specs",
        "forwards.engine.states",
        "forwards.fields",
        "forwards.models.*",
        "forwards.reasons",
        "forwards.sealing",
    },
    "forwards.messages": set(),
    "forwards.services": {"forwards.models", "forwards.messages"},
    "forwards.signin": {"forwards.models"},
    "forwards.shown": SPECS | {"forwards.models", "forwards.reasons"},
    "forwards.rows": SPECS | {"forwards.models", "forwards.shown"},
    "forwards.listing": {"forwards.models", "forwards.shown", "forwards.rows"},
    "forwards.templatetags.*": set(),
    "forwards.htmx": set(),
    "forwards.forms": SPECS
    | {"forwards.fields", "forwards.models", "forwards.reasons", "forwards.sealing", "forwards.services"},
    "forwards.views.*": WEB,
    "forwards.admin": WEB,
    "forwards.urls": {"forwards.views.*"},
    "forwards.consumers": {"forwards.messages", "forwards.models", "forwards.rows"},
    "forwards.routing": {"forwards.consumers"},
    # The one place where database, channel layer and engine meet; store is its reading and writing of rows.
    "forwards.store": {"forwards.engine.*", "forwards.models"},
    "forwards.worker": {"forwards.engine.*", "forwards.messages", "forwards.models", "forwards.store"},
    "forwards.management.commands.*": SPECS | {"forwards.models", "forwards.signin", "forwards.worker", "tunnelweb.*"},
    "forwards.engine.*": {"forwards.engine.*"},
    "tunnelweb.asgi": {"forwards.routing", "tunnelweb.origin"},
    "tunnelweb.urls": {"forwards.urls", "forwards.views.sign_in"},
    "tunnelweb.server": {"forwards.worker"},
    "tunnelweb.*": {"tunnelweb.*"},
}

# The engine is importable and testable alone.
ENGINE_MAY_USE = {"asyncssh", "psutil", "cryptography"}

# In the engine nothing calls up: a module imports only what stands to its right.
ENGINE_LAYERS = ("supervisor", "runner", "connection", "listeners", "relay", "socks")

# Wiring, which the tests of what it wires cover.
WITHOUT_TESTS = {
    "forwards.apps",
    "forwards.routing",
    "forwards.urls",
    "tunnelweb.asgi",
    "tunnelweb.settings",
    "tunnelweb.urls",
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)


MODULES = {
    name_of(path): path
    for package in ("forwards", "tunnelweb")
    for path in sorted((REPOSITORY / package).rglob("*.py"))
    if path.name != "__init__.py" and "migrations" not in path.parts
}
ENGINE = [name for name in MODULES if name.startswith("forwards.engine.")]


@cache
def imports(name: str) -> frozenset[str]:
    """Return the modules that a module of ours imports, wherever in its text and for whatever use."""
    return frozenset(_imports(ast.parse(MODULES[name].read_text(encoding="utf-8"))))


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "import by full name, so that directions can be read"
            for alias in node.names:
                # `from forwards import rows` imports a module, `from forwards.rows import here` a name of one.
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)


def ours(name: str) -> set[str]:
    return {found for found in imports(name) if found.split(".")[0] in ("forwards", "tunnelweb")}


def rule(name: str) -> set[str] | None:
    if name in MAY_IMPORT:
        return MAY_IMPORT[name]
    return next((allowed for pattern, allowed in MAY_IMPORT.items() if fnmatchcase(name, pattern)), None)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_the_way_of_the_design(name) -> None:
    allowed = rule(name)
    assert allowed is not None, f"{name} has no place in the design: give it one in MAY_IMPORT"

    assert {found for found in ours(name) if not any(fnmatchcase(found, pattern) for pattern in allowed)} == set()


def test_no_module_imports_itself_by_a_detour() -> None:
    try:
        list(TopologicalSorter({name: ours(name) - {name} for name in MODULES}).static_order())
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize("name", ENGINE)
def test_the_engine_knows_neither_django_nor_channels(name) -> None:
    tops = {found.split(".")[0] for found in imports(name)} - {"forwards"}

    assert tops - sys.stdlib_module_names - ENGINE_MAY_USE == set()


@pytest.mark.parametrize("layer", ENGINE_LAYERS)
def test_in_the_engine_nothing_calls_up(layer) -> None:
    above = {f"forwards.engine.{name}" for name in ENGINE_LAYERS[: ENGINE_LAYERS.index(layer)]}

    assert ours(f"forwards.engine.{layer}") & above == set()


@pytest.mark.parametrize("name", MODULES)
def test_a_module_has_one_subject(name) -> None:
    lines = len(MODULES[name].read_text(encoding="utf-8").splitlines())

    assert lines <= MAX_LINES, f"{name} has {lines} lines: it is two subjects"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("forwards.views.")])
def test_a_view_is_short(name) -> None:
    long = {}
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            # The signature and the body, without the docstring between them.
            lines = (node.body[0].lineno - node.lineno) + (node.end_lineno - first.lineno + 1)
            if lines > MAX_VIEW_LINES:
                long[node.name] = lines

    assert long == {}


@pytest.mark.parametrize("name", [name for name in MODULES if name not in WITHOUT_TESTS])
def test_every_module_has_tests_that_mirror_it(name) -> None:
    package, *parents, module = name.split(".")
    folder = REPOSITORY / "tests" / Path(*[parent for parent in parents if parent not in ("management", "commands")])

    assert (folder / f"test_{module}.py").exists(), f"{name} wants {folder.relative_to(REPOSITORY)}/test_{module}.py"
