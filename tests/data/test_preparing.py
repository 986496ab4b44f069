"""A prepared data set's life on disk: counted, killed and gone on with, the same bytes by any number of processes."""

import dataclasses
import io
import mmap
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import jax
import numpy as np
import PIL.Image
import pytest

from dal_jax.data import people, preparing, schema
from dal_jax.data.preparing import load, prepare
from dal_jax.data.schema import count
from dal_jax.observations import observation
from dal_jax.runtime.errors import InputError
from tests.data import stick_source
from tests.data.stick_source import sticks

ROOT = pathlib.Path(__file__).parents[2]
STICKS = sticks()


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """Return the files that make up every data set in a folder."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".partial" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return prepare(STICKS, folder, workers=0), folder


def test_the_summary_counts_everything_once(prepared):
    (_, summary), _ = prepared
    assert summary.prepared == {"train": 8, "test": 2}
    assert summary.skipped == {"fives": 2} and summary.noted == {"threes": 5}
    assert str(summary) == "prepared 10, skipped 2: 2 fives; noted 5 threes"
    assert summary.first == {"fives": "stick 0: is a multiple of five"}


def test_the_summary_and_the_options_stay_with_the_data_set(prepared):
    (_, summary), folder = prepared
    builder, kept = load("sticks", "", folder)
    assert kept == dataclasses.replace(summary, first={})
    assert builder.info.metadata["options"] == {"people": 10}
    again, counted = prepare(STICKS, folder)
    assert counted == kept and again.data_dir == builder.data_dir


def test_what_is_read_is_what_was_yielded_in_order(prepared):
    (builder, _), _ = prepared
    source = builder.as_data_source(split="train")
    numbers = [number for number in range(10) if number % 5]
    assert [one["name"].decode() for one in source] == [f"stick{number}" for number in numbers]
    for found, number in zip(source, numbers, strict=True):
        wanted = stick_source.example(number)
        assert found.keys() == wanted.keys() == set(schema.features())
        for name in wanted.keys() - {"name", "subject", "action", "video", "moment", "keypoint_set"}:
            np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
        assert found["video"] == b"reel" and found["frame"] == number


def test_unknown_truth_is_never_zero(prepared):
    (builder, _), _ = prepared
    one = builder.as_data_source(split="test")[0]
    for name, value in one.items():
        if name.startswith("truth_") and np.asarray(value).dtype == np.float32:
            assert np.isnan(value).all(), name
    assert not one["truth_joints_known"] and not one["truth_body_known"]
    assert people.load_truth(builder, "test") is None
    assert people.load_people(builder, "test", with_truth=True).truth is None


def test_unused_places_are_not_loaded(prepared):
    (builder, _), _ = prepared
    observed = people.load_people(builder, "train").observations
    assert observed.point_confidence.shape == (8, 50)
    assert observed.point_confidence.sum(axis=1).tolist() == [1, 2, 3, 4, 6, 7, 8, 9]
    assert observed.keypoint_set == "h36m" and observed.keypoint_confidence[0].tolist() == [1.0] * 17


def _root(leaf):
    """Return what an array is a view of, in the end."""
    return leaf if getattr(leaf, "base", None) is None else _root(leaf.base)


def test_observations_stay_on_the_disk_and_are_seen_along_the_ray(prepared):
    (builder, _), _ = prepared
    plain, turned = (people.load_people(builder, "train", along_ray=along) for along in (False, True))
    leaves = [plain.observations.point_position, plain.observations.keypoint_position, plain.names]
    assert all(isinstance(_root(leaf), mmap.mmap) for leaf in leaves)
    wanted = observation.along_ray(plain.observations, plain.intrinsics_px)
    jax.tree.map(np.testing.assert_array_equal, turned.observations, wanted)
    both = people.load_people(builder, "train+test")
    assert len(both.names) == 10 and list(both.names[:8]) == list(plain.names)
    np.testing.assert_array_equal(both.observations.point_position[:8], plain.observations.point_position)


def test_a_column_that_is_cut_off_is_named(prepared, tmp_path):
    _, folder = prepared
    shutil.copytree(folder, tmp_path / "data")
    (column,) = (tmp_path / "data").rglob("columns/train/point_position.npy")
    column.write_bytes(column.read_bytes()[:-1])
    with pytest.raises(InputError, match="damaged data set"):
        people.load_people(load("sticks", "", tmp_path / "data")[0], "train")


@pytest.mark.parametrize(
    ("kind", "width", "message"), [("GIF", 8, "cannot identify"), ("EPS", 8, "cannot identify"), ("PNG", 51_000, "px")]
)
def test_pictures_inside_are_of_the_formats_and_sizes_of_photographs(kind, width, message):
    """An EPS would start Ghostscript."""
    stream = io.BytesIO()
    PIL.Image.new("L", (width, 1000 if width > 8 else 8)).save(stream, kind)
    with pytest.raises(InputError, match=rf"^place: damaged data set \(\w+: .*{message}"):
        people.LazyImages(lambda _: stream.getvalue(), 1, place="place")[0]


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    """SIGKILL while chunks are being written; the next run keeps them and ends where an undisturbed one does."""
    script = textwrap.dedent(
        f"""
        from dal_jax.data import preparing
        from tests.data import stick_source
        preparing.prepare(stick_source.sticks(pause_s=0.5), {str(tmp_path / "killed")!r}, workers=0)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL, cwd=ROOT)
    pattern = ".partial/sticks/*/train-*.npz"
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "killed").glob(pattern))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob(pattern)}
    assert 2 <= len(kept) < 5
    redone = []
    prepare_chunk = preparing.prepare_chunk
    monkeypatch.setattr(preparing, "prepare_chunk", lambda chunk: redone.append(chunk.path) or prepare_chunk(chunk))
    prepare(STICKS, tmp_path / "killed", workers=0)
    assert redone and not set(redone) & set(kept)
    prepare(STICKS, tmp_path / "whole", workers=0)
    killed, whole = contents(tmp_path / "killed"), contents(tmp_path / "whole")
    assert len([name for name in whole if "array_record" in name]) == 2
    assert killed == whole
    assert not list((tmp_path / "killed").glob(pattern))


def test_another_process_makes_the_same_bytes(prepared, tmp_path):
    """Which is not given: protobuf lays out a map, as hash tables are, in another order in every process."""
    _, folder = prepared
    script = textwrap.dedent(
        f"""
        from dal_jax.data import preparing
        from tests.data import stick_source
        preparing.prepare(stick_source.sticks(), {str(tmp_path)!r}, workers=0)
        """
    )
    subprocess.run([sys.executable, "-c", script], check=True, stderr=subprocess.DEVNULL, cwd=ROOT)
    assert contents(tmp_path) == contents(folder)


def test_chunks_and_processes_do_not_show_in_the_bytes(prepared, tmp_path):
    _, folder = prepared
    prepare(dataclasses.replace(STICKS, units_a_chunk=3), tmp_path, workers=2)
    assert contents(tmp_path) == contents(folder)


def test_another_source_is_refused(prepared):
    _, folder = prepared
    with pytest.raises(InputError, match=r"made from other files or with other options \(10-0, now 10-1\)"):
        prepare(sticks(seed=1), folder)
    with pytest.raises(InputError, match="run experiments.prepare_data first"):
        load("sticks", "other", folder)


def test_a_split_of_which_nobody_can_be_used_is_refused_with_a_reason(tmp_path):
    with pytest.raises(InputError, match="no person of 'train' can be used .*: stick 0: is a multiple of five"):
        prepare(sticks(people=1), tmp_path, workers=0)
    assert not (tmp_path / "sticks").exists()


def test_an_example_that_is_not_of_the_schema_is_a_bug(tmp_path):
    counts = count("train", [])
    for wrong in ({"height": 1.8}, {}):
        example = stick_source.example(1) | wrong
        if not wrong:
            del example["frame"]
        with pytest.raises(ValueError, match="height|frame"):
            preparing.write_chunk(tmp_path / "chunk.npz", [example], counts)
    assert not list(tmp_path.iterdir())
