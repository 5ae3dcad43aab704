"""The project itself: its version, lock file and scripts, and which module may import which."""

from __future__ import annotations

import ast
import graphlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tenantbase

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tenantbase"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = tomllib.loads((ROOT / "poetry.lock").read_text())

# Modules of the root that all others may import. They import only each other and the cache's
# Protocols.
LEAVES = {
    *(
        "access",
        "background",
        "commands",
        "documents",
        "entry",
        "errors",
        "events",
        "fair_lock",
        "figures",
        "json_requests",
        "json_text",
        "lanes",
        "listing",
        "lookup",
        "media_types",
        "outage",
    ),
    *("owned_files", "pem", "plain_entries", "plain_sets", "problem_types", "scope"),
    *(
        "request_context",
        "secret",
        "shared_timer",
        "stages",
        "switching",
        "troubles",
        "waits",
        "withheld",
    ),
}
# The modules of interfaces/ that are not drivers: Protocols, addresses, and rules of all databases.
ABSTRACT = {
    "interfaces",
    "interfaces.store",
    "interfaces.shared_store",
    "interfaces.moving",
    "interfaces.cache",
    "interfaces.memcached.address",
    "interfaces.postgres.address",
    "interfaces.tracing",
    "interfaces.planning",
    *(
        f"interfaces.planning.{name}"
        for name in (
            "access",
            "change_log",
            "identifiers",
            "in_place",
            "named",
            "outcomes",
            "rows",
            "usage",
        )
    ),
}
# The rooms that each room may import, besides itself, the leaves and the abstract interfaces.
ROOMS: dict[str, set[str]] = {
    "interfaces": set(),
    "coherence": set(),
    "changes": set(),
    "auth": set(),
    "metrics": set(),
    "database": {"auth", "changes", "coherence"},
    "client": set(),
    "offload": set(),
    "web": {"auth", "changes", "database", "metrics", "offload"},
    "process": {"auth", "coherence", "database", "interfaces", "metrics", "web"},
    "cli": {"client", "database", "process", "web.transport"},
    "main": {"cli"},
}
# Who may import a library: modules, or packages with everything in them.
LIBRARIES = {
    "aiosqlite": {"interfaces.sqlite.connection"},
    "asyncpg": {"interfaces.postgres"},
    "aiomcache": {"interfaces.memcached.client"},
    "aiohttp": {"web", "client"},
    "opentelemetry": {"interfaces.otel.tracer"},
    "sentry_sdk": {"interfaces.sentry.reporter"},
    "prometheus_client": {"metrics.families"},
}
NAMES_DRIVERS = {"process.wiring", "process.joining", "process.maintenance", "process.migration"}
READS_ENVIRONMENT = {"process.config", "cli.options"}


def module_name(path: Path) -> str:
    """The name of a module, without the package's name; "" for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {
    module_name(path): ast.parse(path.read_bytes())
    for path in PACKAGE.rglob("*.py")
    if "node_modules" not in path.parts
}


def imported(name: str) -> Iterator[str]:
    """Every module that a module of the package imports, at its top or later, by full name."""
    is_package = (PACKAGE / name.replace(".", "/") / "__init__.py").exists()
    full_name = f"tenantbase.{name}".rstrip(".")
    anchor = full_name if is_package else full_name.rpartition(".")[0]
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), anchor)
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield inner if inner.removeprefix("tenantbase.") in TREES else source


def imported_own(name: str) -> set[str]:
    """The modules of the package that one of them imports, without the package's name."""
    found = (module.removeprefix("tenantbase.") for module in imported(name))
    return {module for module in found if module in TREES and module != name}


def within(name: str, packages: set[str]) -> bool:
    """Whether a module is one of these, or inside one of them."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_imports_make_no_cycle() -> None:
    order = graphlib.TopologicalSorter({name: imported_own(name) for name in TREES})
    order.prepare()  # raises CycleError and names the cycle


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_leaves_do_not_import_rooms(name: str) -> None:
    assert imported_own(name) <= LEAVES | ABSTRACT


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_in_one_direction(room: str) -> None:
    assert any(within(name, {room}) for name in TREES)
    for name in TREES:
        if within(name, {room}) and name != "web.__main__":
            allowed = {room} | ROOMS[room]
            others = imported_own(name) - LEAVES - ABSTRACT - {""}
            assert {own for own in others if not within(own, allowed)} == set(), name


def test_every_module_is_in_a_room() -> None:
    outside = {name for name in TREES if not within(name, set(ROOMS))} - LEAVES
    assert outside == {"", "__main__"}


@pytest.mark.parametrize(
    "driver", ["interfaces.sqlite", "interfaces.postgres", "interfaces.memcached"]
)
def test_drivers_do_not_import_each_other(driver: str) -> None:
    for name in TREES:
        if within(name, {driver}):
            drivers = {own for own in imported_own(name) if within(own, {"interfaces"})} - ABSTRACT
            assert {own for own in drivers if not within(own, {driver})} == set(), name


def test_only_the_wiring_imports_drivers() -> None:
    drivers = {name for name in TREES if within(name, {"interfaces"})} - ABSTRACT
    assert drivers
    for name in TREES:
        if not within(name, {"interfaces", *NAMES_DRIVERS}):
            assert not imported_own(name) & drivers, name


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_imported_in_its_place(library: str) -> None:
    importers = {name for name in TREES if any(within(m, {library}) for m in imported(name))}
    assert importers
    assert {name for name in importers if not within(name, LIBRARIES[library])} == set()


def test_the_environment_is_read_in_one_place() -> None:
    readers = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in {"environ", "environb", "getenv"}
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    }
    assert readers <= READS_ENVIRONMENT


def test_one_version() -> None:
    assert tenantbase.__version__ == PROJECT["project"]["version"]


def test_the_changelog_has_an_unreleased_section() -> None:
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize(
    ("group", "requirements"),
    [
        ("main", PROJECT["project"]["dependencies"]),
        ("dev", PROJECT["dependency-groups"]["dev"]),
    ],
)
def test_the_lock_fits_the_requirements(group: str, requirements: list[str]) -> None:
    locked = {
        package["name"]: package["version"]
        for package in LOCK["package"]
        if group in package["groups"]
    }
    for requirement in map(Requirement, requirements):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)])


def test_the_lock_holds_no_addresses() -> None:
    for package in LOCK["package"]:
        assert "source" not in package
        assert not any("url" in file for file in package["files"])


def project_files() -> Iterator[Path]:
    """The project's own files, without environments, caches, build results and databases."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if name in {".ci", ".github"}
            or not (name.startswith(".") or name in {"__pycache__", "node_modules", "dist"})
        ]
        yield from (Path(folder, name) for name in files if ".db" not in name)


def test_no_registry_is_named() -> None:
    # The brackets keep this file from matching itself.
    hosts = re.compile(rb"pyth[o]nhosted|[/.]py[p]i\.[o]rg|registry\.(np[m]js|y[a]rnpkg)")
    assert [path for path in project_files() if hosts.search(path.read_bytes())] == []


@pytest.mark.parametrize(
    "script",
    [
        "scripts/serve",
        "scripts/test",
        "scripts/lint",
        "scripts/mutate",
        "scripts/torture",
        "scripts/bench",
        "scripts/build",
        "scripts/cluster",
        ".ci/run",
    ],
)
def test_scripts_can_be_run(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    shell = "bash" if script == ".ci/run" else "sh"
    subprocess.run([shell, "-n", path], check=True)


@pytest.fixture
def fresh_tree(tmp_path: Path) -> Path:
    """A copy of the files that the scripts need, without an environment."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for name in ("pyproject.toml", "poetry.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("exit 1", "no Python 3.11 or newer (tried: {python})"),
        ("case $2 in *ensurepip*) exit 1 ;; esac", "run: apt-get install python3-venv"),
    ],
    ids=["too old", "without venv"],
)
@pytest.mark.parametrize("script", ["serve", "test", "lint"])
def test_an_unfit_python_is_reported_in_one_line(
    fresh_tree: Path, script: str, behaviour: str, message: str
) -> None:
    python = fresh_tree / "python3"
    python.write_text(f"#!/bin/sh\n{behaviour}\n")
    python.chmod(0o755)
    run = subprocess.run(
        [fresh_tree / "scripts" / script],
        env={**os.environ, "PYTHON": str(python)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert run.stdout == ""
    assert len(run.stderr.splitlines()) == 1
    assert message.format(python=python) in run.stderr
    assert not (fresh_tree / ".venv").exists()


@pytest.fixture
def odd_tree(tmp_path: Path) -> Path:
    """The project in a long path full of characters that are special to shells, URLs and C."""
    tree = tmp_path / ('it\'s a "path" of ünïcödé; $HOME & 100% #1 ' + "x" * 120)
    left = shutil.ignore_patterns("__pycache__", "node_modules")
    for name in ("scripts", "tenantbase", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=left)
    for name in ("pyproject.toml", "poetry.lock"):
        shutil.copy(ROOT / name, tree)
    # An environment that seems to have been made there, with the packages installed here.
    programs = tree / ".venv" / "bin"
    programs.mkdir(parents=True)
    python = f"PYTHONPATH=$PWD exec {shlex.quote(sys.executable)}"
    (programs / "python").write_text(f'#!/bin/sh\n{python} "$@"\n')
    (programs / "python").chmod(0o755)
    seem = """
        . "$(dirname -- "$0")/environment"
        state="$root $(cat "$root/pyproject.toml" "$root/poetry.lock" | cksum)"
        for group in main dev; do printf '%s\\n' "$state" >"$venv/installed-$group"; done
    """
    subprocess.run(["sh", "-euc", seem, tree / "scripts" / "serve"], check=True)
    return tree


def test_scripts_work_in_any_path(odd_tree: Path) -> None:
    environment = {name: text for name, text in os.environ.items() if name != "PYTHON"}
    for command, shown in {
        "serve --help": "--database",
        "test tests/interfaces/memcached/test_address.py": " passed",
        "torture --help": "--seed",
        "mutate --list": "tenantbase/changes/feed.py: ",
    }.items():
        script, *arguments = command.split()
        run = subprocess.run(
            [odd_tree / "scripts" / script, *arguments],
            cwd=odd_tree,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, f"{command}: {run.stdout}{run.stderr}"
        assert shown in run.stdout, command


def locked_for(groups: str) -> dict[str, str]:
    """The scripts' input to pip for these groups: the line of each package, by its name."""
    command = f'. "$(dirname -- "$0")/environment"; venv=$1; locked {groups}'
    run = subprocess.run(
        ["sh", "-euc", command, ROOT / "scripts" / "serve", sys.prefix],
        check=True,
        capture_output=True,
        text=True,
    )
    return {line.partition("==")[0]: line for line in run.stdout.splitlines()}


def test_installed_versions_are_the_locked_ones() -> None:
    runtime, everything = locked_for("main"), locked_for("main dev")
    assert everything.keys() == {package["name"] for package in LOCK["package"]}
    assert runtime.keys() == {p["name"] for p in LOCK["package"] if "main" in p["groups"]}
    assert "pytest" not in runtime
    for package in LOCK["package"]:
        line = everything[package["name"]]
        requirement, *hashes = line.split(" --hash=")
        assert str(Requirement(requirement).specifier) == f"=={package['version']}"
        assert hashes == [file["hash"] for file in package["files"]]


def test_conditions_of_groups_are_joined() -> None:
    # A package is installed if any group needs it: the groups' conditions are alternatives.
    marker = Requirement(locked_for("main dev")["colorama"].partition(" --hash=")[0]).marker
    assert marker is not None
    assert not marker.evaluate({"platform_system": "Linux", "os_name": "posix"})
    assert marker.evaluate({"platform_system": "Windows", "os_name": "posix"})
    assert marker.evaluate({"platform_system": "Linux", "os_name": "nt"})
