"""A short run of `tests.trust.fuzz`: readers, numbers of configurations, and every input that once did harm."""

import copy
import dataclasses
import pathlib
import random
import zipfile

import hypothesis
import pytest
from hypothesis import strategies

from dal_jax import config
from dal_jax.lifting import config as lifting_config
from dal_jax.runtime.errors import InputError
from tests.trust import fuzz, readers

# Those that read a file in milliseconds; `python -m tests.trust.fuzz` has all
_QUICK = (
    "annotation", "boxes", "keypoints", "densepose_json", "densepose_dump", "fits", "poses_3d", "poses_2d_npz",
    "poses_2d_npy", "poses_2d_json", "bvh", "mosh", "config", "metrics", "json", "mat", "body_pickle", "gltf",
    "rig_table", "metadata_xml", "photograph_png", "iuv", "safetensors",
)  # fmt: skip
_CORPUS = pathlib.Path(__file__).with_name("corpus.zip")
_FEW = hypothesis.settings(
    max_examples=250, deadline=None, database=None, derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)  # fmt: skip
_NUMBER = strategies.integers(0, 2**32)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Every reader with the path and the content of a good file."""
    found = {}
    for name, reader in readers.readers().items():
        path = reader.write(tmp_path_factory.mktemp(name))
        found[name] = reader, path, path.read_bytes()
    return found


@hypothesis.given(name=strategies.sampled_from(_QUICK), number=_NUMBER)
@_FEW
def test_damage_is_refused_in_a_line_or_read_as_finite_numbers(good, name, number):
    """`python -m tests.trust.fuzz --reader=NAME --number=NUMBER` makes the same file."""
    reader, path, content = good[name]
    path.write_bytes(fuzz.draw(name, number, content))
    try:
        assert fuzz.harm(reader.read, path) == ""
    finally:
        path.write_bytes(content)


def test_what_did_harm_once_does_no_more(good, tmp_path):
    """The corpus is named by reader: READER/NAME.ending."""
    with zipfile.ZipFile(_CORPUS) as archive:
        assert len(archive.namelist()) > 50
        for name in archive.namelist():
            reader = name.split("/")[0]
            path = tmp_path / f"a{pathlib.PurePath(name).suffix}"
            path.write_bytes(archive.read(name))
            assert fuzz.harm(good[reader][0].read, path) == "", name


_NUMBERS = (float("nan"), float("inf"), -float("inf"), -1, 0, 1e-300, 1e30, -1e30, 2**40, 2**70)


def _places(value: object, place: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not dataclasses.is_dataclass(value):
        return [place] if isinstance(value, int | float) and not isinstance(value, bool) else []
    fields = dataclasses.fields(value)
    return [found for one in fields for found in _places(getattr(value, one.name), (*place, one.name))]


@hypothesis.given(number=_NUMBER)
@_FEW
def test_numbers_of_configurations_are_bounded(number):
    """No number of one may be NaN or infinite; whatever else is refused, is in one line that names the field."""
    drawn = random.Random(number)
    for good, check in (
        (config.demo(), config.Config.check),
        (lifting_config.LiftingConfig(), lifting_config.validate),
    ):
        changed = copy.deepcopy(good)
        *path, last = drawn.choice(_places(changed))
        owner = changed
        for name in path:
            owner = getattr(owner, name)
        value = drawn.choice(_NUMBERS)
        if dataclasses.is_dataclass(changed) and type(changed).__dataclass_params__.frozen:
            changed = dataclasses.replace(changed, **{last: value})
        else:
            setattr(owner, last, value)
        said = ""
        try:
            check(changed)
        except InputError as error:
            said = str(error)
        assert last in said if said else -1e300 < value < 1e300, (last, value, said)
