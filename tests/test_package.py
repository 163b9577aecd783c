"""The package as a whole: its public names, its rooms and what the README promises."""

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import hypercircuit
from hypercircuit.cli import _parser

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "hypercircuit"
README = ROOT / "README.md"

#: Data flows from top to bottom: a room imports only from rooms above it.
ROOMS = (
    "_cores",
    "_devices",
    "_files",
    "_locks",
    "_hdf5",
    "_quimb",
    "_threads",
    "_precision",
    "_shards",
    "_run_lock",
    "_types",
    "_versions",
    "data",
    "bnn",
    "hamiltonian",
    "circuit",
    "state",
    "energy",
    "train",
    "decode",
    "study",
    "cluster",
    "config",
    "problem",
    "methods",
    "run_diagnose",
    "run",
    "run_restarts",
    "run_compile",
    "run_sweep",
    "run_compare",
    "run_submit",
    "cli_sweep",
    "run_estimate",
    "cli_cluster",
    "run_export",
    "run_noise",
    "run_report",
    "cli_submit",
    "cli",
)
MODULES = sorted(SOURCE.rglob("*.py"))
NAMES = [
    alias.asname
    for node in ast.parse((SOURCE / "__init__.py").read_text()).body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
]


def module_id(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def room(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py") if parts else ""


def imported_rooms(path: Path) -> set[str]:
    """The rooms that a module imports from, those within functions included."""
    package = path.relative_to(SOURCE).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            module = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                base = package[: len(package) - (node.level - 1)] + module
            elif module and module[0] == "hypercircuit":
                base = module[1:]
            else:
                continue
            found |= {base[0]} if base else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {name[1] for name in names if name[0] == "hypercircuit" and len(name) > 1}
    return found


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("name", NAMES)
def test_public_name_is_there_and_documented(name: str):
    assert name, "the front door names what it hands on: from .x import Y as Y"
    documented = getattr(hypercircuit, name).__doc__
    assert documented
    # A dataclass without a docstring gets its signature for one.
    assert not documented.startswith(f"{name}(")


def test_public_names_are_not_repeated():
    assert len(NAMES) == len(set(NAMES)) > 30


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_module_is_documented(path: Path):
    assert ast.get_docstring(ast.parse(path.read_text()))


# ---------------------------------------------------------------- rooms


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_room_imports_only_from_rooms_above(path: Path):
    parts = path.relative_to(SOURCE).parts
    here = room(parts)
    if here == "__init__":
        return
    assert here in ROOMS, f"{here} is a new room: give it its place in the order"
    above = ROOMS[: ROOMS.index(here)]
    below = {each for each in imported_rooms(path) if each not in (here, *above)}
    assert not below, f"{module_id(path)} imports from below: {sorted(below)}"


def test_circuits_know_nothing_of_losses():
    for path in (SOURCE / "circuit").glob("*.py"):
        assert imported_rooms(path) <= {"circuit", "_types", "_precision", "_files"}


def test_only_the_command_line_sets_jax_up():
    setters = [path for path in MODULES if re.search(r"config\.update\((?!')", path.read_text())]
    # The latter switches the compile cache off for the length of a block, and back.
    assert {module_id(path) for path in setters} == {"cli.py", "cluster/compile_clock.py"}


# ---------------------------------------------------------------- the README


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.M | re.S)


def test_readme_example_runs():
    code = blocks("python")
    if not code:
        pytest.skip("the README has no Python example yet")
    assert len(code) == 1
    assert len(code[0].strip().splitlines()) <= 18
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code[0]], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    match = re.search(r"^(\S+) Score\(.*test_accuracy=(\S+)\)$", done.stdout, re.M)
    assert match, done.stdout
    energy, accuracy = map(float, match.groups())
    # The minimum over all 2^17 networks is 0.599 nats, its accuracy 0.812.
    assert 0.59 < energy < 0.61
    assert accuracy > 0.8


def test_readme_commands_exist():
    commands = blocks("bash")
    if not commands:
        pytest.skip("the README has no commands yet")
    assert len(commands) == 2, "one command to install and run, one to install and test"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.findall(r"\[([\w,]+)\]", "".join(commands))
    assert extras
    for extra in ",".join(extras).split(","):
        assert extra in project["optional-dependencies"]
    tools = {"python3", ".venv/bin/pip", ".venv/bin/pytest", ".venv/bin/hypercircuit"}
    for command in commands:
        for part in command.replace("\n", " && ").split("&&"):
            words = shlex.split(part)
            if not words:
                continue
            assert words[0] in tools
            if words[0].endswith("hypercircuit"):
                assert "hypercircuit" in project["scripts"]
                _parser().parse_args(words[1:])


def test_readme_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text()):
        if target.startswith("experiments/"):
            continue  # written by the runs that they show
        assert (ROOT / target).exists(), target
