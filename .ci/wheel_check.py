"""Build the wheel, install it in fresh environments and run the README's Python from another folder.

    python .ci/wheel_check.py [--jax=lowest,oldest,newest] [--extras=NAMES] [PYTHON ...]

For each interpreter (the running one, unless some are named): with every dependency of the core at its lower bound
(`lowest`), with the oldest jax that pyproject.toml allows and the newest of everything else (`oldest`), and with the
newest of everything (`newest`). `lowest` runs with the first interpreter alone: releases older than a Python have no
wheels for it.

The README's first Python block runs in a folder that holds nothing but the files which lie in `examples/` beside the
scripts, so that a block may read them. It runs twice, as `register` with a solver that calls LAPACK does: the second
process loads what the first has compiled.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile

ROOT = pathlib.Path(__file__).parents[1]
LARGEST_WHEEL = 5_000_000  # bytes
COMMANDS = ("dal-lift", "dal-predict", "dal-register", "dal-train")  # dal-bench needs a checkout
CHOICES = ("lowest", "oldest", "newest")
# What `import dal_jax` and a body must not load: optional, or slow to import
HEAVY = ("PIL", "grain", "matplotlib", "pygltflib", "tensorflow_datasets", "trimesh", "yaml")
REGISTER = (
    "--annotations=examples/sample/people.json", "--optimizer=dense_lm", "--steps=2", "--starts=closed_form",
    "--holdout=0", "--noquality",
)  # fmt: skip
"""A run that needs nothing but the core, and LAPACK."""


def main() -> None:
    """Check all and exit 1 if anything fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", default=[sys.executable])
    parser.add_argument("--jax", default=",".join(CHOICES), help="which versions, of: %(default)s")
    parser.add_argument("--extras", default="", help="install these extras too, as in --extras=data,viewing")
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the wheel and the environments, kept afterwards")
    arguments = parser.parse_args()
    if unknown := set(arguments.jax.split(",")) - set(CHOICES):
        parser.error(f"--jax: unknown: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as folder:
        folder = (arguments.keep or pathlib.Path(folder)).resolve()
        wheel = build(folder)
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB", flush=True)
        passed = [
            check(f"{wheel}[{arguments.extras}]" if arguments.extras else str(wheel), python, choice, folder)
            for python in arguments.pythons
            for choice in CHOICES
            if choice in arguments.jax.split(",") and (choice != "lowest" or python == arguments.pythons[0])
        ]
    print(f"{sum(passed)} passed, {len(passed) - sum(passed)} failed")
    sys.exit(not all(passed))


def build(folder: pathlib.Path) -> pathlib.Path:
    """Return the wheel; exit where it is too large or puts anything but `dal_jax` into site-packages."""
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={folder}", ROOT)
    (wheel,) = folder.glob("*.whl")
    if wheel.stat().st_size > LARGEST_WHEEL:
        sys.exit(f"error: {wheel.name} has {wheel.stat().st_size} bytes, more than {LARGEST_WHEEL}")
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    if strays := {top for top in tops if top != "dal_jax" and not top.endswith(".dist-info")}:
        sys.exit(f"error: {wheel.name} installs {', '.join(sorted(strays))} beside dal_jax")
    return wheel


def check(requirement: str, python: str, choice: str, folder: pathlib.Path) -> bool:
    """Install the wheel and use it; print a line. Return whether all went well."""
    name = f"{pathlib.Path(python).name}-{choice}"
    environment, elsewhere = folder / name, folder / f"{name}-folder"
    constraints = folder / f"{name}.txt"
    constraints.write_text("\n".join(lower_bounds(choice)))
    try:
        run(python, "-m", "venv", "--clear", environment)
        inside = environment / ("Scripts" if sys.platform == "win32" else "bin")
        python = inside / "python"
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", constraints, requirement)
        kept = elsewhere / "examples"
        shutil.copytree(ROOT / "examples", kept, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.py"))
        run(python, "-c", f"import sys, dal_jax; sys.exit(sorted(set({HEAVY}) & set(sys.modules)) or 0)", cwd=elsewhere)
        for time in ("first", "second"):  # what the first compiles the second loads: another process, and its libraries
            run(python, "-W", "error", "-W", "ignore:no page is written", "-c", first_block(), cwd=elsewhere)
            (elsewhere / "out").rename(elsewhere / f"out-{time}")
            run(python, "-m", "dal_jax.experiments.register", *REGISTER, f"--out={time}", cwd=elsewhere)
        run(python, "-m", "dal_jax.experiments.register", "--help", cwd=elsewhere)
        for command in COMMANDS:
            run(inside / command, "--help", cwd=elsewhere)
        versions = run(python, "-c", "import sys, jax; print(sys.version.split()[0], 'jax', jax.__version__)").strip()
    except subprocess.CalledProcessError as error:
        print(f"FAILED {name}: {' '.join(map(str, error.cmd))[:300]}\n{error.stdout[-3000:]}", flush=True)
        return False
    print(f"passed {name}: Python {versions}", flush=True)
    return True


def lower_bounds(choice: str) -> list[str]:
    """Return the constraints that `choice` means."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = [re.match(r"([\w.-]+)>=([\w.]+)", requirement).groups() for requirement in project["dependencies"]]
    lowest = [f"{name}=={version}" for name, version in bounds]
    oldest_jax = [line for line in lowest if line.startswith("jax==")]
    return {"lowest": lowest, "oldest": oldest_jax, "newest": []}[choice]


def first_block() -> str:
    """Return the README's first Python block."""
    return re.search(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)[1]


def run(*command: object, cwd: pathlib.Path | None = None) -> str:
    """Return what the command prints."""
    command = [str(part) for part in command]
    environment = os.environ if cwd is None else os.environ | {"DAL_CACHE": str(cwd / "cache")}
    return subprocess.run(
        command, cwd=cwd, env=environment, text=True, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ).stdout


if __name__ == "__main__":
    main()
