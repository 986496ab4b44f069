"""The teacher with several views: one body a moment, told to each of its pictures."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dal_jax import algorithm
from dal_jax.algorithm import Run, RunState
from dal_jax.body.formats import load
from dal_jax.data import coco_sets, people as people_lib
from dal_jax.data.files import Files
from dal_jax.loop import run as run_lib
from dal_jax.observations.observation import px_from_crop
from dal_jax.registration import views
from dal_jax.registration.views import Bodies, World
from dal_jax.runtime.errors import InputError
from dal_jax.synthetic import annotator, people as synthetic_people
from dal_jax.synthetic.annotator import RECIPES
from tests.data.sources import made_folders
from tests.loop import one_round
from tests.regressor import people as made_people

FLOAT32 = 1e-4
PX = 0.01
FOUR = dataclasses.replace(
    RECIPES["views"], name="four", train_count=8, test_count=4, image_size=one_round.SIZE, route="mosh",
    keypoint_noise=0.0, hidden_keypoint_noise=0.0,
)  # fmt: skip


def _in_world(one) -> np.ndarray:
    rotation, translation = one["extrinsics_m"][:, :3], one["extrinsics_m"][:, 3]
    return (one["truth_joints_mm"] / 1000.0 - translation) @ rotation


def test_four_cameras_photograph_one_moment():
    """The same body at the same place of the world, in the same clothes; the next moment is another."""
    people = [synthetic_people.make_person(FOUR, "train", row) for row in range(5)]
    assert [one["moment"] for one in people] == ["train 0"] * 4 + ["train 1"]
    for one in people[1:4]:
        np.testing.assert_allclose(_in_world(one), _in_world(people[0]), atol=FLOAT32)
        np.testing.assert_array_equal(one["truth_pose"], people[0]["truth_pose"])
        assert one["subject"] == people[0]["subject"]
    places = np.array([-one["extrinsics_m"][:, :3].T @ one["extrinsics_m"][:, 3] for one in people[:4]])
    assert min(np.linalg.norm(places[a] - places[b]) for a in range(4) for b in range(a)) > 3.0
    assert np.abs(_in_world(people[4]) - _in_world(people[0])).max() > 0.05


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return synthetic_people.prepare(FOUR, tmp_path_factory.mktemp("four"), workers=0)


def test_a_rig_has_the_frames_of_its_observations(four):
    """True joints, through its extrinsics and pinhole, are the exact key points, as in photographs and along rays."""
    for along_ray in (False, True):
        people = people_lib.load_people(four, "train", along_ray=along_ray, with_truth=True, with_vertices=False)
        assert people.rig.moment.tolist() == [0] * 4 + [1] * 4
        turned = people_lib.load_people(four, "train", with_truth=True, with_vertices=False)
        world = np.einsum(
            "nij,nki->nkj",
            turned.rig.extrinsics_m[..., :3],
            people.truth.joints_h36m_mm / 1000.0 - turned.rig.extrinsics_m[:, None, :, 3],
        )
        seen = np.einsum("nij,nkj->nki", people.rig.extrinsics_m[..., :3], world)
        seen = seen + people.rig.extrinsics_m[:, None, :, 3]
        if along_ray:
            found = people.observations.pinhole.focal[:, None, None] * seen[..., :2] / seen[..., 2:]
            px = px_from_crop(found, people.observations.box_px)
            wanted = px_from_crop(people.observations.keypoint_position, people.observations.box_px)
        else:
            fx, fy, cx, cy = people.intrinsics_px.T[..., None]
            px = np.stack([fx * seen[..., 0] / seen[..., 2] + cx, fy * seen[..., 1] / seen[..., 2] + cy], axis=-1)
            wanted = px_from_crop(people.observations.keypoint_position, people.observations.box_px)
        np.testing.assert_allclose(px, wanted, atol=10 * PX)


def test_a_body_before_one_camera_and_in_its_moment_are_one(four):
    """`from_views` undoes `in_views` where the moment's place is the pelvis."""
    people = people_lib.load_people(four, "train", along_ray=True)
    random, made = np.random.default_rng(0), made_people.random_bodies(2, seed=1)
    position = np.array([[0.1, 0.9, 0.2], [-0.2, 1.0, 0.1]])
    world = World(position, Rotation.random(2, random_state=3).as_matrix(), np.array([0.9, 1.1]))
    parameters = dataclasses.replace(
        jax.tree.map(np.asarray, made), camera_scale=np.array([1.1, 0.9]), translation=np.zeros((2, 3))
    )
    rotation = np.swapaxes(world.axes, -1, -2) @ parameters.rotation
    bodies = Bodies(
        load.load_body(), np.zeros(2, int), np.arange(2), random.normal(size=(2, 24, 3)), rotation, position,
        parameters.camera_scale * world.unit, parameters,
    )  # fmt: skip
    moment, extrinsics = people.rig.moment, people.rig.extrinsics_m
    seen = views.in_views(bodies, moment, extrinsics, people.observations)
    back = views.from_views(people.observations, seen, moment, extrinsics, world)
    for name in ("rotation", "camera_scale", "translation", "pose", "segment_scale"):
        wanted = np.asarray(getattr(parameters, name))[moment]
        np.testing.assert_allclose(getattr(back, name), wanted, atol=FLOAT32, err_msg=name)


@pytest.mark.slow
def test_every_view_is_taught_its_moment_s_body(tmp_path, monkeypatch):
    """As a later round deforms: from predictions and old fits, here all in the T-pose."""
    monkeypatch.setitem(annotator.RECIPES, "four", FOUR)
    config = one_round.config("synthetic")
    config.synthetic, config.several_views = "four", True
    config.later.registration = dataclasses.replace(config.first.registration, starts="given")
    config.later.prior = "tpose"
    train, _ = run_lib.load(config, tmp_path / "data")
    run = Run(config, load.load_body(), train)
    before, position = algorithm.initial_state(run), RunState(round=2, phase="deform")
    after, _ = algorithm.deform(run, before, position, lambda *_: None, lambda *_: None)
    fits, moment = after.fits, train.rig.moment
    upright = np.swapaxes(train.rig.extrinsics_m[..., :3], -1, -2) @ fits.rotation
    for leaf in (fits.pose, fits.segment_scale, upright, after.energy):
        for number in (0, 1):
            rows = leaf[moment == number]
            np.testing.assert_allclose(rows, np.broadcast_to(rows[:1], rows.shape), atol=FLOAT32)
        assert np.abs(leaf[0] - leaf[4]).max() > FLOAT32
    assert np.abs(fits.pose - before.fits.pose).max() > 0.01


def test_people_of_one_camera_are_refused(tiny_people, tmp_path):
    config = one_round.config("synthetic")
    config.synthetic, config.regressor.image_size, config.several_views, config.camera = "tiny", 64, True, "weak"
    with pytest.raises(InputError, match=r"config.several_views needs config.camera=perspective"):
        run_lib.deform_and_learn(config, tmp_path / "run", tiny_people)
    config.camera = "perspective"
    with pytest.raises(InputError, match=r"config.several_views: .*tiny.* has no moment that several known cameras"):
        run_lib.deform_and_learn(config, tmp_path / "run", tiny_people)


def test_a_folder_with_a_calibration_has_moments(tmp_path):
    """The name of a photograph tells camera and frame, `track_id` the person; what is annotated is straightened."""
    names = ("cam01/0007.jpg", "cam02/0007.jpg", "cam02/0009.jpg")
    entries = [made_folders.entry(row + 1, row + 1) for row in range(3)]
    entries += [made_folders.entry(4, 3), made_folders.entry(5, 3, track_id=6)]
    content = made_folders.coco_container(entries)
    for image, name in zip(content["images"], names, strict=True):
        image["file_name"] = name
    made_folders.write_container(tmp_path / "set" / "train.json", tmp_path / "set", content)
    stand = {"K": [[300, 0, 50], [0, 300, 80], [0, 0, 1]], "distortion_k1k2p1p2k3": [0.1, 0, 0, 0, 0]}
    cameras = [
        {"name": name, "R_world_to_camera": np.eye(3).tolist(), "t_world_to_camera_m": [x, 0.0, 3.0]} | stand
        for name, x in (("cam01", 0.0), ("cam02", 1.0))
    ]
    (tmp_path / "rig.json").write_text(json.dumps(cameras))
    files = Files(str(tmp_path / "set"), image_size=one_round.SIZE)
    plain, source = coco_sets.coco_folder(files), coco_sets.coco_folder(files, str(tmp_path / "rig.json"))
    assert source.digest() != plain.digest()

    def examples(one):
        return [item for unit in one.splits()["train"] for item in one.read(unit) if isinstance(item, dict)]

    found = examples(source)
    assert [one["moment"] for one in found] == ["7 person", "7 person", "", "", "9 person 6"]
    assert found[1]["extrinsics_m"][:, 3].tolist() == [1.0, 0.0, 3.0]
    assert found[0]["intrinsics_px"].tolist() == [300, 300, 50, 80]
    bent, straight = examples(plain)[0], found[0]
    assert bent["moment"] == "" and np.isnan(bent["extrinsics_m"]).all()
    across = (straight["point_px"] - [50, 80]) / 300
    radial = 1 + 0.1 * np.sum(across**2, axis=1, keepdims=True)
    used = straight["point_confidence"] > 0
    np.testing.assert_allclose((across * radial * 300 + [50, 80])[used], bent["point_px"][used], atol=PX)
