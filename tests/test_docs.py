"""README and docs: short enough, no dead link, no command or flag that is not there, every block of code runs."""

import ast
import dataclasses
import functools
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import typing

import pytest

from dal_jax.config import Config
from dal_jax.lifting.config import LiftingConfig
from dal_jax.runtime import cli

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = [*PAGES, ROOT / "benchmarks" / "README.md"]
MOST_WORDS = 900
MOST_NOUNS = 40

CONFIGS = {"deform_and_learn": Config, "train_lifting": LiftingConfig}
"""What `--config.` of a binary sets."""

RUN_BY_CI = {"make test", "make lint", "make types", "make docs", "make demo"}
"""Commands that count by their names: CI runs them, and the loop that `make demo` starts has tests of its own."""

MARK = re.compile(r"<!-- (?:needs data|takes minutes): \S.* -->")
"""The line before a block that is not run, with the reason."""


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code of a page; `line` is the number of its first line."""

    page: pathlib.Path
    line: int
    language: str
    marked: bool
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@functools.cache
def _blocks(page: pathlib.Path) -> list[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    blocks, opened = [], None
    for number, line in enumerate(lines):
        fence = re.match(r"\s*```(\w*)", line)
        if fence and opened is None:
            opened = number, fence[1]
        elif fence:
            first, language = opened
            before = next((text for text in reversed(lines[:first]) if text.strip()), "")
            text = "\n".join(lines[first + 1 : number])
            blocks.append(Block(page, first + 2, language, bool(MARK.fullmatch(before.strip())), text))
            opened = None
    assert opened is None, f"{page}: a block is not closed"
    return blocks


ALL_BLOCKS = [block for page in PAGES for block in _blocks(page)]


def _commands(text: str) -> list[str]:
    """Return the commands of shell lines, without comments, continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def test_the_readme_is_short():
    words = len(README.read_text(encoding="utf-8").split())
    assert words <= MOST_WORDS


# --- Links ---


def _prose(page: pathlib.Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^\s*```.*?^\s*```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def _anchors(page: pathlib.Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", title).strip().lower() for title in titles)
    return {re.sub(r"[-\s]+", "-", title) for title in plain}


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "code", _prose(page))):
        if re.match(r"https?://|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name}: {target}"
        if page.parent != ROOT:
            assert (ROOT / "docs") in file.parents, f"{page.name}: {target}: the site has the pages of docs/ alone"
        if anchor:
            assert anchor in _anchors(file), f"{page.name}: {target}"


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_the_project_that_are_named_exist(page):
    named = re.findall(r"`((?:dal_jax|benchmarks|docs|examples|tests|experiments)/[\w./-]+)`", page.read_text("utf-8"))
    for name in named:
        assert (ROOT / name).exists(), f"{page.name}: {name}"


# --- Commands and flags ---


def _shell_texts() -> list[tuple[str, str]]:
    """Return (place, text) of all shell code: blocks, and spans in the prose that call a binary."""
    texts = [(str(block), block.text) for page in TEXTS for block in _blocks(page) if block.language in ("sh", "bash")]
    for page in TEXTS:
        spans = re.findall(r"`(python -m [^`]+)`", _prose(page))
        texts += [(str(page.relative_to(ROOT)), span) for span in spans]
    return texts


@functools.cache
def _flags(module: str) -> set[str]:
    """Return the flags that a binary defines itself, or by `cli.define_processes`."""
    text = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    names = {
        call.args[0].value
        for call in calls
        if call.func.attr.startswith("DEFINE_") and call.args and isinstance(call.args[0], ast.Constant)
    }
    shared = set(cli.PROCESSES) if "cli.define_processes()" in text else set()
    return names | shared | {"help"}


def _known(flag: str, module: str) -> bool:
    name = flag.removeprefix("--").partition("=")[0]
    path = name.split(".")
    if path[0] == "config" and (config := CONFIGS.get(module.rpartition(".")[2])):
        for field in path[1:]:
            config = typing.get_type_hints(config).get(field) if dataclasses.is_dataclass(config) else None
        return config is not None
    return name in _flags(module) or name.removeprefix("no") in _flags(module)


def test_binaries_and_flags_that_are_shown_exist():
    shown = 0
    for place, text in _shell_texts():
        for command in _commands(text):
            found = re.search(r"python -m ((?:dal_jax\.)?(?:experiments|benchmarks)\.[a-z]\w+)(.*)", command)
            if not found:
                continue
            module = found[1].removeprefix("dal_jax.")
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"{place}: {module}"
            for word in shlex.split(found[2], comments=True):
                if word.startswith("--"):
                    assert _known(word, module), f"{place}: {module} has no {word}"
                    shown += 1
    assert shown > 50


def test_configuration_named_in_the_text_exists():
    for page in PAGES:
        for name in re.findall(r"`--(config\.[a-z_.]*[a-z_])(?:=[^`]*)?`", page.read_text("utf-8")):
            assert any(_known(name, f"experiments.{binary}") for binary in CONFIGS), f"{page.name}: --{name}"


def test_make_targets_that_are_shown_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in TEXTS:
        code = re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", page.read_text("utf-8"), re.MULTILINE)
        assert {name for pair in code for name in pair if name} <= targets, page.name


# --- Every block runs, or says why not ---


def test_every_block_of_shell_is_run_by_ci_or_marked():
    for block in ALL_BLOCKS:
        if block.language in ("sh", "bash") and not block.marked:
            assert set(_commands(block.text)) <= RUN_BY_CI, f"{block}: <!-- needs data: ... --> or <!-- takes minutes"


@pytest.mark.slow
def test_every_block_of_python_runs(tmp_path):
    """In one process, in a folder with two people annotated in the free body's chart; a namespace a page."""
    program = tmp_path / "program.py"
    program.write_text(_program([block for block in ALL_BLOCKS if block.language == "python"]), encoding="utf-8")
    shutil.copytree(ROOT / "examples" / "sample", tmp_path / "folder" / "examples" / "sample")
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path / "folder",
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'docs'}", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _program(blocks: list[Block]) -> str:
    """Return a program that makes the folder's content and runs the blocks that are not marked, each page afresh."""
    for block in blocks:
        ast.parse(block.text, str(block))
    run = [(str(block.page), str(block), block.text) for block in blocks if not block.marked]
    assert any(page == str(README) for page, _, _ in run), "the README's own lines run"
    return "\n".join((
        "import pathlib, made_people",
        "from dal_jax.runtime import machine",
        "machine.configure()",
        "made_people.write(pathlib.Path('.'))",
        "spaces = {}",
        f"for page, place, text in {run!r}:",
        "    print(place, flush=True)",
        "    exec(compile(text, place, 'exec'), spaces.setdefault(page, {'__name__': 'page'}))",
    ))  # fmt: skip


# --- The glossary ---


def _exists(name: str) -> bool:
    """Tell whether a dotted name of dal_jax is a module, or something that a module or its class defines."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:count])
        file = path.with_suffix(".py")
        if file.is_file() or path.is_dir():
            body = ast.parse(file.read_text(encoding="utf-8")).body if file.is_file() else []
            for part in parts[count:]:
                node = next((node for node in body if part in _defined(node)), None)
                if node is None:
                    return False
                body = getattr(node, "body", [])
            return True
    return False


def _defined(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def test_the_glossary_is_short_and_says_where_things_live():
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?!word |--)(.+?) \|$", text.split("## Where the equations live")[0], re.MULTILINE)
    assert 20 <= len(rows) <= MOST_NOUNS
    for row in rows:
        word, sentence, source, place = row.split(" | ")
        assert sentence.endswith("."), word
        assert source, word
        assert re.fullmatch(r"`dal_jax\.[\w.]+`", place), word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_of_the_code_in_the_text_exist(page):
    text = page.read_text(encoding="utf-8")
    names = re.findall(r"`(dal_jax\.[\w.]+)`", text) + re.findall(r"^::: (dal_jax\.[\w.]+)$", text, re.MULTILINE)
    for name in names:
        assert name.startswith("dal_jax.experiments") or _exists(name), f"{page.name}: {name}"


def test_every_name_of_the_face_is_in_the_reference():
    import dal_jax

    reference = (ROOT / "docs" / "api" / "face.md").read_text(encoding="utf-8")
    shown = {name.rpartition(".")[2] for name in re.findall(r"^::: (dal_jax\.[\w.]+)$", reference, re.MULTILINE)}
    assert set(dal_jax.__all__) - {"__version__"} == shown
