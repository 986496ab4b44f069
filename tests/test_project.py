"""The project as a whole: what it pins, ships and promises, and which way its arrows point."""

import ast
import fnmatch
import importlib
import importlib.metadata
import json
import pathlib
import re
import sys
import tomllib
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement

from dal_jax.data import catalogue

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("dal_jax", "experiments")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# What a part of dal_jax may import besides itself and the standard library's and registries' packages.
ARROWS = {
    "runtime": set(),
    "body": {"runtime"},
    "viewing": {"body", "runtime"},
    "evaluation": {"body", "runtime"},
    "observations": {"body", "runtime"},
    "registration": {"observations", "body", "runtime"},
    "lifting": {"observations", "body", "runtime"},
    "regressor": {"observations", "body", "runtime"},
    "uncertainty": {"registration", "observations", "body", "runtime"},
    "fits": {"uncertainty", "registration", "lifting", "observations", "evaluation", "viewing", "body", "runtime"},
    "data": {"observations", "viewing", "body", "runtime"},
    "synthetic": {"data", "observations", "viewing", "body", "runtime"},
}
# The algorithm, its configuration and its bookkeeping: they alone know both halves, in this order. In `teachers`
# registration meets the regressor's training step and a data set's cameras.
WHOLE = ("config", "teachers", "algorithm", "loop")
for position, name in enumerate(WHOLE):
    ARROWS[name] = set(ARROWS) | set(WHOLE[:position])

OPTIONAL_IMPORTS = {
    "anny",
    "pxr",
    "rerun",
    "torch",
    "smplx",
    "tensorboardX",
}  # of the assets, of `make bench`, `usd`, `viewer`; used where installed
NEEDED_UNSEEN = {"array-record"}  # the file format of tensorflow-datasets
EXTRAS_AT_RUN_TIME = ("data", "gltf", "viewing")  # together: `all`
LARGE_EXTRAS = ("detect",)  # at run time too, but not in `all`


def _imports(path: pathlib.Path) -> Iterator[str]:
    """Yield the dotted name of everything a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pins(file_name: str) -> dict[str, str]:
    lines = (ROOT / file_name).read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins), "every line is NAME==VERSION"
    return {_normal(name): version for name, version in (pin.split("==") for pin in pins)}


def _pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _text_files() -> list[pathlib.Path]:
    names = ("Makefile", ".ci/run", "*.md", "*.txt", "*.toml")
    found = [path for name in names for path in ROOT.glob(name)]
    return found + [
        path
        for top in (*PACKAGES, "tests", "examples", "benchmarks", "docs")
        for path in (ROOT / top).rglob("*.*")
        if _is_text(path)
    ]


def _is_text(path: pathlib.Path) -> bool:
    return path.suffix in {".py", ".html", ".md", ".txt", ".json", ".css"}


def _requirements(extra: str | None = None) -> list[Requirement]:
    """Return what the core, or an extra without the extras it includes, asks for."""
    project = _pyproject()["project"]
    lines = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    return [one for one in map(Requirement, lines) if one.name != "dal_jax"]


def _all_requirements() -> list[Requirement]:
    extras = _pyproject()["project"]["optional-dependencies"]
    return [one for extra in (None, *extras) for one in _requirements(extra) if extra != "gpu"]


@pytest.mark.parametrize("requirement", _all_requirements(), ids=lambda requirement: requirement.name)
def test_every_pin_lies_in_its_range(requirement):
    pins = _pins("requirements.txt") | _pins("constraints.txt")
    assert requirement.specifier.contains(pins[_normal(requirement.name)])
    assert ">=" in str(requirement.specifier)


@pytest.mark.parametrize("path", sorted(ROOT.glob("benchmarks/*.json")), ids=lambda path: path.name)
def test_what_is_published_can_be_read(path):
    assert json.loads(path.read_text())


@pytest.mark.parametrize("requirement", _requirements(), ids=lambda requirement: requirement.name)
def test_the_core_asks_for_ranges(requirement):
    """Nobody could use the package beside another project if it asked for exact versions."""
    assert sorted(one.operator for one in requirement.specifier) == ["<", ">="]


def test_the_pins_are_of_what_the_extras_ask_for():
    extras = (None, *EXTRAS_AT_RUN_TIME, *LARGE_EXTRAS, "dev", "docs")
    asked = {_normal(one.name) for extra in extras for one in _requirements(extra)}
    assert asked == set(_pins("requirements.txt"))
    assert not set(_pins("requirements.txt")) & set(_pins("constraints.txt"))


def test_what_is_imported_is_asked_for_and_what_is_asked_for_is_used():
    owners = importlib.metadata.packages_distributions()
    tops = {name.split(".")[0] for path in SOURCES for name in _imports(path)}
    tops -= set(sys.stdlib_module_names) | set(PACKAGES) | OPTIONAL_IMPORTS | {"benchmarks"}  # of a checkout
    used = {_normal(owners[top][0]) for top in tops}
    asked = {_normal(one.name) for extra in (None, *EXTRAS_AT_RUN_TIME, *LARGE_EXTRAS) for one in _requirements(extra)}
    assert used | NEEDED_UNSEEN == asked


def test_all_is_what_can_be_used_at_run_time():
    (everything,) = map(Requirement, _pyproject()["project"]["optional-dependencies"]["all"])
    assert everything.extras == set(EXTRAS_AT_RUN_TIME)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_point_one_way(path):
    package, part = path.relative_to(ROOT).with_suffix("").parts[:2]
    for name in _imports(path):
        assert not name.endswith(".*"), "import modules by name"
        if name.startswith("experiments."):
            pytest.fail(f"{name}: binaries are imported by nobody")
        if package == "dal_jax" and part != "__init__" and name.startswith("dal_jax."):
            imported = name.split(".")[1]
            assert imported == part or imported in ARROWS[part], f"{part} must not know {imported}"


def test_no_module_is_long():
    """One that is longer than this has been two concepts every time."""
    modules = (ROOT / "dal_jax").rglob("*.py")
    assert [path.name for path in modules if len(path.read_text().splitlines()) > 350] == []


def test_every_data_file_is_shipped():
    (patterns,) = _pyproject()["tool"]["setuptools"]["package-data"].values()
    files = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "dal_jax").rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"} and not any(p.startswith(".") for p in path.parts)
    ]
    assert files, "at least the free body"
    for file in files:
        assert any(fnmatch.fnmatch(file, "*" + pattern.replace("**/", "/")) for pattern in patterns), file


@pytest.mark.parametrize("path", _text_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_names_a_place_on_somebodys_machine(path):
    place = re.compile(r"(?<![\w.<}])/(?:home|root|Users|work|tmp|opt|mnt)/\w")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        assert not place.search(line), f"{path}:{number}: {line.strip()}"


def test_every_command_is_a_binary():
    for command, target in _pyproject()["project"]["scripts"].items():
        module, function = target.split(":")
        package = importlib.import_module(module.removeprefix("dal_jax."))
        assert module == "dal_jax.experiments"
        assert function == command.replace("-", "_")
        assert callable(getattr(package, function))


def test_readme_commands_exist():
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = set(re.findall(r"\bmake ([a-z][a-z-]*)", "\n".join(_code(readme))))
    assert {"demo", "test", "control"} <= commands <= targets
    modules = set(re.findall(r"-m (experiments\.\w+)", readme))
    assert "experiments.register" in modules
    for module in modules:
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module


def test_ci_runs_the_readme_test_command():
    assert "make test" in _code((ROOT / "README.md").read_text())
    assert "\nmake test\n" in (ROOT / ".ci" / "run").read_text()


def _code(markdown: str) -> list[str]:
    """Return the lines and spans of code."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", markdown)


def test_every_data_set_made_from_files_has_a_page_with_its_command():
    for name in catalogue.FROM_FILES:
        page = (ROOT / "docs" / f"{name}.md").read_text()
        for title in ("## Where to get it", "## The folder", "## One command", "Time: ", "Disk: "):
            assert title in page, f"{name}: {title}"
        commands = " ".join(_code(page))
        assert f"experiments.prepare_data --dataset={name} --source=" in commands
        assert f"--config.data={name}" in commands
