"""train_lifting and lift end to end: resumed like undisturbed; the folder as a library; one line for bad input."""

import dataclasses
import json
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import PIL.Image
import pytest

from dal_jax.lifting import folder, lift
from dal_jax.lifting.config import PRESETS, best
from dal_jax.lifting.poses import read
from dal_jax.observations import following
from dal_jax.runtime.checkpoints import Checkpoints
from dal_jax.runtime.errors import InputError
from tests.experiments import binaries
from tests.lifting import stick_people

_TINY = (
    "--config.width=8", "--config.batch=4", "--config.steps_per_call=5",
    "--checkpoint_seconds=0",
)  # fmt: skip


def _run(name: str, *flags: object) -> subprocess.CompletedProcess:
    return binaries.run(f"experiments.{name}", *flags)


def _train(workdir, poses, preset, steps: int, on_stop=None) -> None:
    """Do in this process what the binary does with `_TINY`."""
    config = dataclasses.replace(preset(), width=8, batch=4, steps_per_call=5, steps=steps)
    folder.train(workdir, read(poses), config, seed=3, checkpoint_seconds=0, on_stop=on_stop)


@pytest.fixture(scope="module")
def poses(tmp_path_factory):
    path = tmp_path_factory.mktemp("poses") / "poses.npz"
    np.savez(path, keypoints=100 * stick_people.crowd(10, seed=0)[..., :2] + 300)
    return path


@pytest.fixture(scope="module")
def trained(poses):
    """Return the folder of a training that the binary did; beside it is the small file of the same lifter."""
    workdir, asset = poses.parent / "run", poses.parent / "lifter.npz"
    flags = (f"--poses={poses}", f"--workdir={workdir}", "--steps=12", "--seed=3", *_TINY, f"--asset={asset}")
    done = _run("train_lifting", *flags)
    assert done.returncode == 0, done.stderr
    assert "12 steps on 10 poses" in done.stdout and f"wrote {asset}" in done.stdout
    return workdir


def test_training_goes_on_as_if_undisturbed(poses, trained, tmp_path):
    """And in a process of its own as in another."""

    def kill(state, _):
        if state.step == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "run", poses, best, 12, kill)
    _train(tmp_path / "run", poses, best, 12)
    _, through = folder.load(trained)
    _, resumed = folder.load(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, through, resumed)
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [5, 8, 10, 12]


def test_sigterm_saves_first_and_is_no_failure(poses, tmp_path):
    """Between two checkpoints, which are an hour apart here."""
    workdir, flags = tmp_path / "run", [*_TINY[:-1], "--checkpoint_seconds=3600", "--steps=1000000"]
    command = [sys.executable, "-m", "experiments.train_lifting", f"--poses={poses}", f"--workdir={workdir}", *flags]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        while child.poll() is None and not (workdir / "metrics.jsonl").exists():
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        _, said = child.communicate(timeout=120)
    assert said.strip().endswith("stopped by SIGTERM: the same command goes on from the last checkpoint")
    assert child.returncode == 0
    logged = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert Checkpoints(workdir / "checkpoints").latest_step() == logged[-1]


def test_lift_writes_3d_joints(poses, tmp_path):
    """Without --checkpoint the shipped lifter lifts."""
    flags = (f"--poses={poses}", f"--out={tmp_path / 'lifted.npz'}", f"--pictures={tmp_path}")
    done = _run("lift", *flags)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "lifted.npz") as lifted:
        assert lifted["joints"].shape == (10, 17, 3) and lifted["unit"] == "px"
        given = np.load(poses)["keypoints"]
        np.testing.assert_allclose(lifted["joints"], folder.lift(given, "shipped").joints, atol=1e-2)  # px
        farther = lifted["joints"][..., 2:] > 0
        assert (np.abs(lifted["joints"][..., :2]) >= np.abs(lifted["points"]) - 1e-3)[farther[..., 0]].all()
        assert all(
            np.isfinite(lifted[name]).all() for name in ("joints", "depth_sd", "points_sd", "standardised_residual")
        )
        assert lifted["entry"].tolist() == list(range(10))
        far = lifted["standardised_residual"] > 5
        np.testing.assert_array_equal(lifted["unusual"], far | lifted["exchanged"])
    with PIL.Image.open(tmp_path / "sheet.png") as sheet, PIL.Image.open(tmp_path / "turntable.gif") as turntable:
        assert sheet.size == (1440, 480) and turntable.n_frames == 36
    again = _run("lift", *flags)
    assert again.returncode == 2 and "--overwrite" in again.stderr and len(again.stderr.splitlines()) == 1


def test_the_library_lifts_as_the_binary_does(poses, trained):
    """NumPy in, NumPy out, batch by batch."""
    given = np.load(poses)["keypoints"]
    lifted = folder.lift(given, trained)
    assert all(isinstance(leaf, np.ndarray) for leaf in (lifted.joints, *jax.tree.leaves(lifted)))
    assert lifted.joints.shape == (10, 17, 3) and lifted.depth_sd.shape == lifted.standardised_residual.shape == (
        10,
        17,
    )
    hidden = np.ones((10, 17), bool)
    hidden[:, 13] = False
    broken = np.where(hidden[..., None], given, np.nan)
    partly = folder.lift(broken, folder.load(trained), hidden)
    given = (partly.points_sd == 0) & (lifted.points_sd == 0)  # neither hidden nor disbelieved
    assert given.mean() > 0.5 and not given[:, 13].any()
    np.testing.assert_allclose(partly.points[given], lifted.points[given], atol=1e-3)  # px around 300
    assert np.isfinite(partly.joints).all() and (partly.points_sd[:, 13] > 0).all()


def test_poses_of_known_cameras_teach_as_cameras_that_look_at_the_hip_see_them(poses, tmp_path):
    given = read(poses, ["800", "900", "320", "240"])
    looking, _ = lift.look_at_hip(given.keypoints_px, given.visible, given.intrinsics_px)
    seen = dataclasses.replace(given, keypoints_px=np.asarray(looking), intrinsics_px=None)
    config = dataclasses.replace(PRESETS["kudo"](), width=8, batch=4, steps_per_call=5, steps=5)
    states = [folder.train(tmp_path / name, each, config) for name, each in (("one", given), ("other", seen))]
    jax.tree.map(np.testing.assert_array_equal, *(state.lifter for state in states))
    with pytest.raises(InputError, match="poses_sha256"):
        folder.train(tmp_path / "one", read(poses), config)


def test_the_asset_of_a_training_lifts_as_its_folder_does(poses, trained):
    """`--asset` writes half floats."""
    given = np.load(poses)["keypoints"]
    by_folder, by_asset = folder.lift(given, trained), folder.lift(given, trained.parent / "lifter.npz")
    np.testing.assert_allclose(by_asset.depth, by_folder.depth, atol=0.01 * np.abs(by_folder.depth).max())


@pytest.mark.parametrize(
    ("keypoints", "visible", "message"),
    [
        (np.zeros((2, 34)), None, r"keypoints_px has shape \(2, 34\)"),
        (np.ones((2, 17, 2)), np.ones((2, 16), bool), r"visible has shape \(2, 16\)"),
        (np.full((1, 17, 2), np.nan), None, r"keypoints_px\[0, 0\] is \[nan, nan\]"),
        (np.ones((1, 17, 2)), None, r"keypoints_px\[0\] has no size"),
    ],
)
def test_arrays_that_cannot_be_lifted_are_refused_by_name(keypoints, visible, message, trained):
    with pytest.raises(InputError, match=message):
        folder.lift(keypoints, trained, visible)


def test_the_published_method_is_a_preset_and_lifts_without_deviations(poses, tmp_path):
    workdir, out = tmp_path / "run", tmp_path / "lifted.npz"
    _train(workdir, poses, PRESETS["kudo"], steps=5)
    config, _ = folder.load(workdir)
    assert config.preset == "kudo" and not config.normalise_fakes and config.width == 8
    done = _run("lift", f"--poses={poses}", f"--checkpoint={workdir}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    with np.load(out) as lifted:
        assert "depth_sd" not in lifted.files
        np.testing.assert_array_equal(lifted["joints"][..., :2], lifted["points"])


def test_lift_smooths_people_of_videos(poses, tmp_path):
    """As the library does, which refuses frames of other poses."""
    keypoints, track_id, frame = np.load(poses)["keypoints"], np.arange(10) // 5, np.arange(10) % 5
    np.savez(tmp_path / "video.npz", keypoints=keypoints, track_id=track_id, frame=frame)
    done = _run("lift", f"--poses={tmp_path / 'video.npz'}", "--fps=25", f"--out={tmp_path / 'lifted.npz'}")
    assert done.returncode == 0, done.stderr
    smooth = folder.lift(keypoints, frames=following.Frames(track_id, frame, 25.0))
    with pytest.raises(InputError, match="frames has 9 tracks and 10 frames, not 10"):
        folder.lift(keypoints, frames=following.Frames(track_id[1:], frame, 25.0))
    assert np.abs(smooth.joints - folder.lift(keypoints).joints).max() > 1
    with np.load(tmp_path / "lifted.npz") as lifted:
        np.testing.assert_allclose(lifted["joints"], smooth.joints, atol=1e-2)  # px


def test_a_wild_rate_ends_in_a_line_and_the_former_rate_goes_on(poses, tmp_path):
    """To the bits of a training that nobody disturbed."""
    workdir = tmp_path / "run"
    _train(workdir, poses, PRESETS["kudo"], steps=5)
    wild = ("--config.preset=kudo", "--config.learning_rate=1e30", "--steps=10", "--seed=3", *_TINY)
    done = _run("train_lifting", f"--poses={poses}", f"--workdir={workdir}", *wild)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert line.startswith("error: lifter, step 10: ") and line.endswith("a lower learning rate goes on from it")
    assert Checkpoints(workdir / "checkpoints").latest_step() == 5
    _train(workdir, poses, PRESETS["kudo"], steps=10)
    _train(tmp_path / "undisturbed", poses, PRESETS["kudo"], steps=10)
    (_, mended), (_, undisturbed) = (folder.load(tmp_path / name) for name in ("run", "undisturbed"))
    jax.tree.map(np.testing.assert_array_equal, mended, undisturbed)


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("train_lifting", ["--config.width=16"], "config.width"),
        ("train_lifting", ["--config.preset=cudo"], "--config.preset=cudo: one of kudo, demo, best"),
        ("train_lifting", ["--config.learning_rate=-1"], "--config.learning_rate is -1.0"),
        ("train_lifting", ["--asset=lifter.txt"], "--asset=lifter.txt: the name must end in .npz"),
        ("train_lifting", ["--config.track_weight=1"], "the poses have no track_id"),
        ("lift", ["--fps=30", "--out={tmp_path}/out.npz"], "poses.npz does not say whose its poses are, track_id"),
        ("lift", ["--checkpoint={poses.parent}", "--out={tmp_path}/out.npz"], "no folder of a trained lifter"),
        ("lift", ["--checkpoint={poses}", "--out={tmp_path}/out.npz"], "poses.npz: is no file of a lifter"),
        ("lift", ["--checkpoint=shiped", "--out={tmp_path}/out.npz"], "shiped: is no folder of a trained lifter"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(name, flags, message, poses, trained, tmp_path):
    filled = [flag.format(poses=poses, tmp_path=tmp_path) for flag in flags]
    more = [f"--workdir={trained}", "--steps=12", "--seed=3", *_TINY] if name == "train_lifting" else []
    done = _run(name, f"--poses={poses}", *more, *filled)
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.splitlines()) == 1
