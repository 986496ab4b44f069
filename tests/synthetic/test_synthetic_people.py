"""The synthetic data set: one example's consistency with its truth, and the data set's life on disk."""

import dataclasses
import io
import pathlib
import subprocess
import sys
import textwrap

import jax
import numpy as np
import PIL.Image
import pytest

from dal_jax.body.formats import load
from dal_jax.config import demo
from dal_jax.data import people as people_lib, schema
from dal_jax.data.people import HIDDEN_CONFIDENCE, LazyImages
from dal_jax.loop import run
from dal_jax.observations import observation
from dal_jax.runtime.errors import InputError
from dal_jax.synthetic import actors, annotator, people as synthetic_people
from dal_jax.synthetic.annotator import RECIPES, ROUTES, TEST_SUBJECTS, TRAIN_SUBJECTS
from dal_jax.synthetic.view import View
from dal_jax.viewing import raycast
from dal_jax.viewing.raycast import Points

HALF_TENTH_MM = 0.06  # vertices are stored to a tenth of a millimetre, half of it lost in rounding
FLOAT32_PX = 0.01
TINY = RECIPES["tiny"]
EXACT = dataclasses.replace(
    TINY, name="exact", route="mosh", keypoint_noise=0.0, hidden_keypoint_noise=0.0, occluder_rate=0.0
)
FEW = dataclasses.replace(TINY, name="few", train_count=5, test_count=2)


@pytest.fixture(scope="module")
def exact():
    return [synthetic_people.make_person(EXACT, "train", index) for index in range(0, 75, 8)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return synthetic_people.prepare("tiny", tmp_path_factory.mktemp("data"), workers=0)


def _true_vertices_mm(one):
    return one["truth_vertices_tenth_mm"] / 10.0 + one["truth_joints_mm"][0]


def _surface_points_mm(one):
    used = one["point_confidence"] > 0
    corners = _true_vertices_mm(one)[actors.surface().faces[one["point_face"][used]]]
    return np.einsum("pc,pcd->pd", one["point_barycentric"][used], corners), used


def _project_px(one, points_mm):
    fx, fy, cx, cy = one["intrinsics_px"]
    return points_mm[:, :2] / points_mm[:, 2:] * [fx, fy] + [cx, cy]


def test_true_surface_points_project_onto_their_pixels(exact):
    """Route 'mosh': a stored surface point of the true body, seen by the stored camera, is the stored pixel."""
    for one in exact:
        points, used = _surface_points_mm(one)
        tolerance = HALF_TENTH_MM * 1146 / points[:, 2].min() + FLOAT32_PX
        assert np.abs(_project_px(one, points) - one["point_px"][used]).max() < tolerance


def test_annotated_points_are_not_hidden(exact):
    """An independent test of every triangle: none crosses the way from the camera to a point, except at the point."""
    faces = actors.surface().faces
    for one in exact[:3]:
        points, _ = _surface_points_mm(one)
        corners = _true_vertices_mm(one)[faces]
        a, edge1, edge2 = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        for point in points[::10]:  # Moeller and Trumbore
            h = np.cross(point, edge2)
            determinant = np.einsum("fc,fc->f", edge1, h)
            safe = np.where(np.abs(determinant) < 1e-9, 1.0, determinant)
            u = np.einsum("fc,fc->f", -a, h) / safe
            q = np.cross(-a, edge1)
            v = q @ point / safe
            t = np.einsum("fc,fc->f", edge2, q) / safe
            crossed = (np.abs(determinant) > 1e-9) & (u > 1e-4) & (v > 1e-4) & (u + v < 1 - 1e-4) & (t > 0.1)
            assert not (crossed & (t < 1 - 1e-3)).any()


def test_key_points_are_the_regressed_joints_of_the_true_body(exact):
    regressor = np.asarray(load.load_body().h36m_regressor)
    for one in exact:
        joints = one["truth_joints_h36m_mm"]
        assert regressor @ _true_vertices_mm(one) == pytest.approx(joints, abs=2 * HALF_TENTH_MM)
        assert _project_px(one, joints) == pytest.approx(one["keypoints_px"][:17], abs=FLOAT32_PX)


def test_the_box_holds_the_person(exact):
    for one in exact:
        x, y, width, height = one["box_px"]
        assert width == height
        px = _project_px(one, _true_vertices_mm(one))
        assert (px >= [x, y]).all()
        assert (px <= [x + width, y + height]).all()


def test_the_iuv_map_agrees_with_the_points(exact):
    """The part of the pixel that a point lies in is the point's own part, but for points at the pixel's border."""
    surface = actors.surface()
    agree, total = 0, 0
    for one in exact:
        iuv = np.asarray(PIL.Image.open(io.BytesIO(one["iuv"])))
        used = one["point_confidence"] > 0
        place = observation.crop_from_px(one["point_px"][used], one["box_px"])
        column, row = np.floor((place + 1) / 2 * len(iuv)).astype(int).T
        agree += (iuv[row, column, 0] == surface.part[one["point_face"][used]]).sum()
        total += used.sum()
    assert agree > 0.8 * total


def test_visibility_tells_the_near_side_from_the_far_side():
    """Of somebody seen from the left, the left shoulder, elbow and knee are seen, and the right shoulder is not."""
    actor = actors.subject("S1")
    turn = np.array([[0.0, 0.0, -1.0], [0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])  # the left (+x) towards the camera
    lowered = np.zeros((23, 3))
    lowered[15, 2], lowered[16, 2] = -1.3, 1.3
    vertices, _ = actors.pose(actor, turn, lowered)
    vertices = vertices + [0.0, 0.0, 5.0]
    seen = View(vertices, np.zeros((0, 8, 3))).sees_keypoints(actors.surface().h36m_regressor @ vertices)
    assert seen[[5, 11, 12]].all()
    assert not seen[14]


def test_annotators_err_as_much_as_the_recipe_says():
    surface = actors.surface()
    random = np.random.default_rng(3)
    face = random.integers(0, len(surface.faces), 3000)
    exact = Points(random.uniform(0, 500, (3000, 2)), face, random.dirichlet(np.ones(3), 3000))
    recipe = dataclasses.replace(TINY, outlier_rate=0.0)
    erring = annotator.err(exact, 500.0, recipe, random)
    assert np.std(erring.px - exact.px) == pytest.approx(recipe.click_noise * 500.0, rel=0.05)
    assert (surface.part[erring.face] == surface.part[exact.face]).all()

    def rest(points):
        return np.einsum("pc,pcd->pd", points.barycentric, actors.corners()[points.face])

    off = np.linalg.norm(rest(erring) - rest(exact), axis=1)
    # Two tangent directions; a little less, because a match that would leave its part stays where it is.
    assert 0.8 * recipe.surface_noise_m < np.sqrt(np.mean(off**2) / 2) < 1.05 * recipe.surface_noise_m


def test_points_spread_over_every_part_seen():
    part = np.zeros((64, 64), int)
    part[10:30, 10:30], part[30:60, 10:50], part[5:8, 40:44] = 2, 9, 3
    rows, columns = raycast.spread(part, 120, np.random.default_rng(0))
    chosen = part[rows, columns]
    assert set(chosen) == {2, 3, 9}
    assert 100 <= len(chosen) <= 150
    assert len({*zip(rows.tolist(), columns.tolist(), strict=True)}) == len(rows)
    for quarter in (rows[chosen == 9] < 45, columns[chosen == 9] < 30):
        assert 0.3 < quarter.mean() < 0.7


def test_an_undamaged_prediction_gives_nearby_points():
    """Read off the exact map, the nearest vertex in UV lies within some centimetres of the truth for nearly all."""
    recipe = dataclasses.replace(EXACT, image_size=128)
    one = synthetic_people.make_person(recipe, "train", 3)
    iuv = np.asarray(PIL.Image.open(io.BytesIO(one["iuv"])))
    grid = raycast.pixel_grid_px(one["box_px"].astype(np.float64), 128)
    points = annotator.read_points(iuv, grid, np.random.default_rng(0))
    corners = _true_vertices_mm(one)[actors.surface().faces[points.face]]
    shown = np.einsum("pc,pcd->pd", points.barycentric, corners)
    off_px = np.linalg.norm(_project_px(one, shown) - points.px, axis=1)
    assert np.median(off_px) < 0.02 * one["box_px"][2]


def test_a_degraded_prediction_has_wrong_parts_holes_and_blur():
    one = synthetic_people.make_person(EXACT, "train", 3)
    iuv = np.asarray(PIL.Image.open(io.BytesIO(one["iuv"])))
    wrong, holes, moved = [], [], []
    for seed in range(10):
        bad = annotator.degrade(iuv, np.random.default_rng(seed))
        both = (iuv[..., 0] > 0) & (bad[..., 0] > 0)
        wrong.append((iuv[both, 0] != bad[both, 0]).mean())
        holes.append(((iuv[..., 0] > 0) & (bad[..., 0] == 0)).sum() / (iuv[..., 0] > 0).sum())
        same = both & (iuv[..., 0] == bad[..., 0])
        moved.append(np.abs(iuv[same, 1:].astype(int) - bad[same, 1:]).mean())
    assert 0.02 < np.mean(wrong) < 0.5
    assert 0.01 < np.mean(holes) < 0.4
    assert 2 < np.mean(moved) < 40
    assert (annotator.LEFT_RIGHT[annotator.LEFT_RIGHT] == np.arange(25)).all()
    assert (annotator.FRONT_BACK[annotator.FRONT_BACK] == np.arange(25)).all()


@pytest.mark.parametrize("route", ROUTES)
def test_the_same_recipe_gives_the_same_example(route):
    recipe = dataclasses.replace(TINY, route=route)
    first, second = synthetic_people.make_person(recipe, "test", 7), synthetic_people.make_person(recipe, "test", 7)
    assert first.keys() == second.keys() == set(schema.features())
    for name, value in first.items():
        assert np.array_equal(value, second[name]), name


def test_headings_keep_within_their_spread():
    """With a spread of 30 degrees every pelvis faces the camera, give or take its own turn in the action."""
    recipe = dataclasses.replace(TINY, heading_spread_deg=30.0)
    facing = []
    for index in range(0, 300, 4):
        scene = synthetic_people.stage(recipe, "train", index, np.random.default_rng(index))
        away = scene.joints[0] * [1, 0, 1]
        front = scene.rotation @ [0.0, 0.0, 1.0] * [1, 0, 1]
        facing.append(np.degrees(np.arccos(-front @ away / np.linalg.norm(front) / np.linalg.norm(away))))
    assert max(facing) < 45
    assert max(facing) > 25


def test_tiny_is_built_read_and_balanced(tiny):
    people = people_lib.load_people(tiny, "train")
    assert people.truth is None
    assert people.images.shape == (24, 64, 64, 3)
    assert people.images.dtype == np.uint8
    assert {name.split("_")[0] for name in people.names} == set(TRAIN_SUBJECTS)
    used = people.observations.point_confidence > 0
    assert np.abs(people.observations.point_position[used]).max() <= 1.05  # a click may err over the border
    assert used.sum(axis=1).min() > 50
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(people.observations))
    test = people_lib.load_people(tiny, "test", limit=5, with_truth=True)
    assert {name.split("_")[0] for name in test.names} == set(TEST_SUBJECTS)
    assert test.truth.joints_h36m_mm.shape == (5, 17, 3)
    assert test.truth.vertices_mm.shape == (5, len(actors.surface().vertices), 3)
    with pytest.raises(InputError, match="no split 'validation'"):
        people_lib.load_people(tiny, "validation")


def test_what_is_read_is_what_was_made(tiny):
    made = synthetic_people.make_person(TINY, "train", 11)
    people = people_lib.load_people(tiny, "train", limit=12)
    assert np.array_equal(people.images[11], np.asarray(PIL.Image.open(io.BytesIO(made["image"]))))
    seen = people.observations
    used = seen.point_confidence[11] > 0
    back = observation.px_from_crop(seen.point_position[11], seen.box_px[11])[used]
    assert back == pytest.approx(made["point_px"][made["point_confidence"] > 0], abs=FLOAT32_PX)
    assert np.array_equal(seen.point_face[11], made["point_face"][: len(used)])
    lookup = {1: HIDDEN_CONFIDENCE, 2: 1.0}
    assert seen.keypoint_confidence[11].tolist() == [lookup[flag] for flag in made["keypoint_visible"][:17].tolist()]


def test_images_beyond_the_budget_are_decoded_when_asked_for(tiny, monkeypatch):
    whole = people_lib.load_people(tiny, "train").images
    monkeypatch.setattr(people_lib, "IMAGES_IN_MEMORY_BYTES", 1000)
    lazy = people_lib.load_people(tiny, "train").images
    assert isinstance(lazy, LazyImages)
    assert len(lazy) == len(whole)
    assert np.array_equal(lazy[3], whole[3])
    assert np.array_equal(lazy[np.array([5, 2, 23])], whole[[5, 2, 23]])
    assert np.array_equal(lazy[20:], whole[20:])
    rows = np.array([5, 2, 23])
    assert np.array_equal(lazy.take(rows)[1:], whole[[2, 23]])


def test_choices_are_scored_on_a_subject_that_is_not_trained_on(tiny):
    config = demo()
    config.synthetic, config.scored, config.camera = "tiny", "validation", "weak"
    folder = pathlib.Path(tiny.data_dir).parents[2]
    train, scored = run.load(config, folder)
    assert {name.split("_")[0] for name in scored.names} == {"S8"}
    assert {name.split("_")[0] for name in train.names} == set(TRAIN_SUBJECTS) - {"S8"}
    whole = people_lib.load_people(tiny, "train", with_truth=True)
    for part in (train, scored):
        rows = [list(whole.names).index(name) for name in part.names]
        assert np.array_equal(part.images, whole.images[rows])
        assert np.array_equal(part.observations.point_position, whole.observations.point_position[rows])
        assert np.array_equal(part.truth.joints_h36m_mm, whole.truth.joints_h36m_mm[rows])
    assert len(train.names) + len(scored.names) == 24


def test_people_annotated_by_another_route_are_the_same_people():
    degraded = TINY.annotated_by("densepose")
    assert TINY.annotated_by("annotator") is TINY and degraded.name == "tiny_densepose"
    one, other = (synthetic_people.make_person(recipe, "train", 3) for recipe in (TINY, degraded))
    same = {name for name in one if np.array_equal(one[name], other[name])}
    assert {"image", "keypoints_px", "truth_joints_mm"} <= same
    assert "point_px" not in same


def _contents(folder):
    files = {path.relative_to(folder): path for path in pathlib.Path(folder).rglob("*array_record*")}
    return {str(name): path.read_bytes() for name, path in files.items()}


def test_parallel_processes_make_the_same_bytes(tmp_path):
    synthetic_people.prepare(FEW, tmp_path / "one", workers=0)
    synthetic_people.prepare(FEW, tmp_path / "two", workers=2)
    assert _contents(tmp_path / "one") == _contents(tmp_path / "two")


def test_a_data_set_of_another_recipe_is_refused(tmp_path):
    synthetic_people.prepare(FEW, tmp_path, workers=0)
    synthetic_people.prepare(FEW, tmp_path, workers=0)
    with pytest.raises(InputError, match="made from other files or with other options"):
        synthetic_people.prepare(dataclasses.replace(FEW, seed=1), tmp_path, workers=0)
    with pytest.raises(InputError, match="run experiments.prepare_data first"):
        synthetic_people.load("demo", tmp_path)
    with pytest.raises(InputError, match="huge: no such configuration"):
        synthetic_people.prepare("huge", tmp_path)


def test_tensorflow_is_never_imported(tmp_path):
    script = textwrap.dedent(
        f"""
        import sys
        from dal_jax.data import people
        from dal_jax.synthetic import annotator, people as synthetic_people
        few = annotator.Recipe(**{dataclasses.asdict(FEW)!r})
        people.load_people(synthetic_people.prepare(few, {str(tmp_path)!r}, workers=0), "train", with_truth=True)
        assert "tensorflow" not in sys.modules
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
