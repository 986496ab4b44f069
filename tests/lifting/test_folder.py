"""The shipped lifter and files of its kind: what they hold, how well it lifts, what is refused."""

import json
import pathlib

import jax
import numpy as np
import pytest

import dal_jax as dal
from dal_jax.evaluation import metrics
from dal_jax.lifting import folder, poses, training
from dal_jax.lifting.config import LiftingConfig
from dal_jax.runtime.errors import InputError
from dal_jax.synthetic import actors, people as synthetic_people, view
from dal_jax.synthetic.annotator import Recipe

ERROR_MM = 70.0  # of people like those of training; measured: 61 and 56
HALF = 2**-11  # relative rounding of a half float of ordinary size
_TINY = LiftingConfig(width=8, members=2, estimated_share=0.5, complete=True)
_HELD_OUT = range(30_000, 30_060)  # people of the training subjects that no training has seen
_RECIPE = Recipe("held_out", train_count=max(_HELD_OUT) + 1, test_count=0, image_size=1, seed=1)


@pytest.fixture(scope="module")
def scenes():
    """People before the rendered people's own cameras, at the height of eyes."""
    return [synthetic_people.stage(_RECIPE, "train", row, np.random.default_rng((1, row))) for row in _HELD_OUT]


@pytest.fixture
def tiny(tmp_path):
    lifter = training.initial_state(_TINY, jax.random.key(0)).lifter
    folder.save(tmp_path / "tiny.npz", _TINY, lifter, {"poses": "sticks"})
    return tmp_path / "tiny.npz", lifter


def test_the_shipped_lifter_is_what_its_recipe_says():
    with np.load(folder.SHIPPED_FILE, allow_pickle=False) as archive:
        fields = {name: archive[name] for name in archive.files}
    recipe = json.loads(str(fields.pop("recipe")))
    assert recipe["poses"] == "synthetic_people" and recipe["people"] == 20_000 and recipe["seed"] == 0
    assert all(leaf.dtype == np.float16 for leaf in fields.values())
    config, lifter = folder.load("shipped")
    assert (
        config == LiftingConfig(**recipe["config"])
        and config.preset == "demo"
        and config.complete
        and config.estimated_share
    )
    expected = jax.eval_shape(lambda key: training.initial_state(config, key).lifter, jax.random.key(0))
    jax.tree.map(lambda leaf, like: np.testing.assert_equal((leaf.shape, leaf.dtype), (like.shape, like.dtype)),
                 lifter, expected)  # fmt: skip
    assert sum(leaf.size for leaf in jax.tree.leaves(lifter)) == sum(leaf.size for leaf in fields.values())
    assert folder.SHIPPED_FILE.stat().st_size < 1.2e6  # of a wheel below 5 MB


@pytest.mark.parametrize("keypoint_set", ["h36m", "body_25b"])
def test_the_shipped_lifter_knows_held_out_people(scenes, keypoint_set):
    """Depths 0, the alternative to lifting, have twice the error; either convention of key points is lifted alike."""
    regressor = np.asarray(actors.surface().regressor(keypoint_set))
    joints = np.stack([regressor @ scene.vertices for scene in scenes])
    seen = view.project(joints)
    if keypoint_set == "body_25b":
        whole = np.ones(seen.shape[:2], np.float32)
        seen = np.asarray(poses.h36m_places(seen, whole)[0])
        joints = np.stack([np.asarray(poses.h36m_places(joints[..., pair], whole)[0]) for pair in ([0, 1], [2, 2])])
        joints = np.concatenate([joints[0], joints[1][..., :1]], axis=-1)
    true_mm = 1000 * (joints - joints[:, :1]).astype(np.float32)
    lifted = dal.lift(seen)
    flat = np.concatenate([lifted.points, np.zeros_like(lifted.depth)[..., None]], axis=-1)
    error, without = (
        np.asarray(jax.vmap(metrics.mpjpe_scale_matched_mm)(each, true_mm)).mean() for each in (lifted.joints, flat)
    )
    assert error < ERROR_MM and error < without / 2
    depth = lifted.depth * (np.sum(flat * true_mm, (1, 2)) / np.sum(flat**2, (1, 2)))[:, None]
    assert np.mean(np.sum(depth * true_mm[..., 2], axis=1) > 0) > 0.95  # hardly anyone is reversed front to back
    hidden = np.tile(np.arange(17) != 13, (len(seen), 1))
    partly = dal.lift(seen, visible=hidden)
    assert np.mean(partly.depth_sd[:, 13] > lifted.depth_sd[:, 13]) > 0.6  # measured: 0.70 of these 60


def test_a_small_file_is_the_lifter_to_half_precision(tiny):
    path, lifter = tiny
    config, read = folder.load(path)
    assert config == _TINY
    for given, back in zip(jax.tree.leaves(lifter), jax.tree.leaves(read), strict=True):
        np.testing.assert_allclose(back, given, rtol=HALF, atol=1e-7)
        assert back.dtype == np.float32


def _damage(path: pathlib.Path, **changed) -> pathlib.Path:
    with np.load(path) as archive:
        fields = {name: archive[name] for name in archive.files} | changed
    np.savez(path, **{name: value for name, value in fields.items() if value is not None})
    return path


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"recipe": None}, "its field 'recipe' is no JSON"),
        ({"recipe": np.array("{")}, "its field 'recipe' is no JSON"),
        ({"recipe": np.array("[]")}, "is no configuration of a lifter"),
        ({"member_weight": None}, "field 'member_weight' is missing"),
        ({"member_weight": np.ones(3)}, r"field 'member_weight' is float64 of shape \(3,\)"),
        ({"member_weight": np.ones(2, int)}, "field 'member_weight' is int64"),
        ({"inverse_distance": np.full(2, np.nan)}, "field 'inverse_distance' holds a value that is not finite"),
    ],
)
def test_a_damaged_small_file_is_refused_by_field(tiny, changed, message):
    path, _ = tiny
    with pytest.raises(InputError, match=message) as refused:
        folder.load(_damage(path, **changed))
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_poses_of_the_embedded_people_are_the_same_whenever_made():
    """And are upright people seen by cameras that look down: half of an H36M and COCO pair lies elsewhere."""
    whole, part = synthetic_people.poses_2d(range(7)), synthetic_people.poses_2d([3, 5])
    for name, keypoints in whole.items():
        np.testing.assert_array_equal(keypoints[[3, 5]], part[name])
    assert not np.array_equal(whole["h36m"], synthetic_people.poses_2d(range(7), seed=1)["h36m"])
    assert whole["h36m"].shape == (7, 17, 2) and whole["body_25b"].shape == (7, 25, 2)
    head, feet = whole["h36m"][:, 10, 1], whole["h36m"][:, [3, 6], 1].min(axis=1)
    assert (head < feet).all()  # y is down
