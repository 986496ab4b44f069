"""A missing optional package is one line with the command that installs it."""

import pathlib
import subprocess
import sys

import pytest

from dal_jax.runtime.errors import InputError, needs_extra

_ROOT = pathlib.Path(__file__).parents[2]


def test_a_message_is_one_line_that_a_terminal_can_show():
    assert str(InputError("a.json: name is 'b\n\tc'")) == "a.json: name is 'b c'"
    assert str(InputError("a.json: é \x1b[31m \u202e \ud800")) == r"a.json: é \x1b[31m \u202e \ud800"
    long = str(InputError(f"run.json: checkpoint is {'9' * 5000}, not 3"))
    assert len(long) < 1100 and long.startswith("run.json: checkpoint is 9") and long.endswith("9, not 3")


def test_a_missing_package_names_its_extra():
    with (
        pytest.raises(InputError, match=r"^package 'no_such_package' is not installed: pip install 'dal_jax\[data\]'$"),
        needs_extra("data"),
    ):
        import no_such_package  # noqa: F401


_PACKAGES = (
    "array_record", "av", "cdflib", "grain", "jinja2", "matplotlib", "mediapipe", "pycocotools", "pygltflib", "pxr",
    "safetensors", "tensorflow_datasets", "trimesh",
)  # fmt: skip
_HIDDEN = f"import sys; sys.modules.update(dict.fromkeys({_PACKAGES!r}))"
_NEED_THEM = ("dal_jax.body.build", "dal_jax.body.formats.gltf", "dal_jax.body.formats.rig")
"""Modules that are imported where they are needed, and not before."""


def _without_extras(code: str) -> subprocess.CompletedProcess:
    """Run code in a process in which the packages of all extras cannot be imported."""
    command = [sys.executable, "-c", f"{_HIDDEN}\n{code}"]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)


def test_everything_can_be_imported_without_the_extras():
    files = sorted((_ROOT / "dal_jax").rglob("*.py"))
    names = [".".join(path.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    names = [name for name in names if not name.startswith(_NEED_THEM)]
    done = _without_extras(f"import importlib\nfor name in {names!r}:\n    importlib.import_module(name)")
    assert done.returncode == 0, done.stderr
    assert len(names) > 100


_NEEDS = [
    ("data", "tensorflow_datasets", "from dal_jax.data import schema; schema.features()"),
    ("data", "tensorflow_datasets", "from dal_jax.data import preparing; preparing.prepare(None, '.')"),
    ("data", "cdflib", "from dal_jax.data.human36m import release; release.read_joints(here, 3)"),
    ("data", "av", "from dal_jax.observations import photographs; list(photographs.frames(here))"),
    ("detect", "mediapipe", "import dal_jax as dal; dal.detect('.', here)"),
    ("data", "safetensors", "from dal_jax.regressor import resnet; resnet.load_trunk(here, {})"),
    ("data", "pycocotools", "from dal_jax.observations import masks; masks.segmentation([[0, 0, 4, 0, 4, 4]], (8, 8))"),
    ("gltf", "trimesh", "from dal_jax.body.formats import load; load.load_body('rig.glb')"),
    ("viewing", "matplotlib", "from dal_jax.viewing import plots; plots.plot_history([])"),
    ("viewing", "pygltflib", "from dal_jax.fits import export; export.check(('glb',), None)"),
    ("viewing", "jinja2", "from dal_jax.viewing import html; html.render('people.html')"),
    ("viewing", "trimesh", "from dal_jax.viewing import html; html.viewer()"),
    ("usd", "pxr", "from dal_jax.fits import export; export.check(('usd',), None)"),
    ("viewer", "rerun", "from dal_jax.fits import stream; stream.check()"),
]  # fmt: skip
_TELL = """
import pathlib
for extra, package, call in {needs!r}:
    try:
        exec(call, {{"here": pathlib.Path({here!r})}})
    except Exception as error:
        print(extra, package, repr(error))
"""


def test_what_needs_an_extra_says_so_in_one_line():
    """One process tries all: a package that is hidden stays hidden."""
    done = _without_extras(_TELL.format(needs=_NEEDS, here=__file__))
    assert done.returncode == 0, done.stderr
    told = "package '{}' is not installed: pip install 'dal_jax[{}]'"
    wanted = [f"{extra} {package} {InputError(told.format(package, extra))!r}" for extra, package, _ in _NEEDS]
    assert done.stdout.splitlines() == wanted


def test_a_binary_ends_with_the_line_and_code_2(tmp_path):
    flags = ["--dataset=synthetic_people/tiny", f"--data_dir={tmp_path}"]
    code = f"import runpy; sys.argv[1:] = {flags!r}; runpy.run_module('experiments.prepare_data', run_name='__main__')"
    done = _without_extras(code)
    line = "error: package 'tensorflow_datasets' is not installed: pip install 'dal_jax[data]'\n"
    assert (done.returncode, done.stderr) == (2, line)
