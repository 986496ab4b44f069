"""The project as a whole: what it pins, ships and promises, and which way its arrows point."""

import ast
import fnmatch
import importlib.metadata
import pathlib
import re
import sys
import tomllib
from collections.abc import Iterator

import pytest

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
    "fits": {"uncertainty", "registration", "observations", "evaluation", "viewing", "body", "runtime"},
    "data": {"observations", "viewing", "body", "runtime"},
    "synthetic": {"data", "observations", "viewing", "body", "runtime"},
}
# The algorithm, its configuration and its bookkeeping: they alone know both halves, in this order. `online_fitting` is
# where registration meets the regressor's training step.
WHOLE = ("config", "online_fitting", "deform_and_learn", "loop")
for position, name in enumerate(WHOLE):
    ARROWS[name] = set(ARROWS) | set(WHOLE[:position])

OPTIONAL_IMPORTS = {"anny", "torch", "smplx", "tensorboardX"}  # of the assets, of `make bench`; used where installed
NEEDED_UNSEEN = {"array-record", "embreex"}  # the file format of tensorflow-datasets; the ray caster of trimesh


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


def test_the_pins_are_the_one_list_of_dependencies():
    project = _pyproject()
    assert "dependencies" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": ["requirements.txt"]}
    extras = project["project"]["optional-dependencies"]
    assert set(extras) == {"gpu", "assets", "dev"}
    assert extras["gpu"] == ["jax[cuda13]"]  # its version is the pinned one of jax
    for requirement in extras["assets"] + extras["dev"]:
        assert "==" in requirement
    assert not set(_pins("requirements.txt")) & set(_pins("constraints.txt"))


def test_what_is_imported_is_pinned_and_what_is_pinned_is_used():
    owners = importlib.metadata.packages_distributions()
    tops = {name.split(".")[0] for path in SOURCES for name in _imports(path)}
    tops -= set(sys.stdlib_module_names) | set(PACKAGES) | OPTIONAL_IMPORTS
    used = {_normal(owners[top][0]) for top in tops}
    assert used | NEEDED_UNSEEN == set(_pins("requirements.txt"))


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


def test_every_data_file_is_shipped():
    data = _pyproject()["tool"]["setuptools"]["package-data"]
    patterns = [f"{package.replace('.', '/')}/{pattern}" for package, names in data.items() for pattern in names]
    files = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "dal_jax").rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"} and not any(p.startswith(".") for p in path.parts)
    ]
    assert files, "at least the free body"
    for file in files:
        assert any(fnmatch.fnmatch(file, pattern.replace("**/", "*")) for pattern in patterns), file


@pytest.mark.parametrize("path", _text_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_names_a_place_on_somebodys_machine(path):
    place = re.compile(r"(?<![\w.<}])/(?:home|root|Users|work|tmp|opt|mnt)/\w")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        assert not place.search(line), f"{path}:{number}: {line.strip()}"


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
