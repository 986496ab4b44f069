"""Dense points from SMPL's parameters: exact projections, in sight, on the right body."""

import numpy as np
import pytest

from dal_jax.body.formats import load
from dal_jax.data.human36m import mosh
from dal_jax.data.human36m.mosh import SubjectBodies
from dal_jax.data.human36m.release import CameraSequence
from dal_jax.data.motions import smpl_motion
from dal_jax.observations import human36m_cameras as cameras, person
from dal_jax.runtime.errors import InputError
from tests.body import made_up, smpl_files
from tests.data.human36m import release

RAY_PX = 0.05  # of float32 rays at five metres
IN_SIGHT_M = 1e-4
MAP_M = 0.003  # the made-up SMPL surface is the free body's, shaken by half a millimetre and cut into other triangles

LENS = cameras.published()[release.CAMERA]


def _before_the_camera(template):
    recorded = release.motion()
    vertices = next(mosh._bodies(template, recorded.root[:1], recorded.pose[:1]))
    # the laboratory's z up to the camera's y down, five metres away
    return vertices @ np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]) @ np.diag([1.0, -1, -1]) + [0.3, 0.1, 5.0]


@pytest.fixture(scope="module")
def free_body():
    template = load.load_body()
    vertices = _before_the_camera(template)
    return template, vertices, *mosh.look(vertices, template, LENS, np.random.default_rng(0))


def _points(template, vertices, found):
    return np.einsum("pc,pcx->px", found.barycentric, vertices[np.asarray(template.faces)[found.face]])


def test_points_are_exact_projections_spread_over_the_body(free_body):
    template, vertices, box_px, found = free_body
    assert 100 <= len(found.face) <= 150
    assert len(np.unique(np.asarray(template.part)[found.face])) >= 10
    projected = LENS.project(_points(template, vertices, found))
    assert found.px == pytest.approx(projected, abs=RAY_PX)
    outline = LENS.project(vertices)
    assert box_px[2] == pytest.approx(person.CROP_MARGIN * np.ptp(outline, axis=0).max())
    assert box_px[:2] + box_px[2:] / 2 == pytest.approx((outline.min(axis=0) + outline.max(axis=0)) / 2)


def _nearest_distance(direction, corners):
    """Return how far along a ray from the origin the first of all triangles is (Moeller and Trumbore 1997)."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    p = np.cross(direction, second)
    determinant = np.sum(first * p, axis=1)
    safe = np.where(np.abs(determinant) < 1e-14, 1e-14, determinant)
    u = np.sum(-corners[:, 0] * p, axis=1) / safe
    q = np.cross(-corners[:, 0], first)
    v = q @ direction / safe
    distance = np.sum(second * q, axis=1) / safe
    hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 0)
    return distance[hit].min()


def test_nothing_of_the_body_is_in_front_of_a_point(free_body):
    template, vertices, _, found = free_body
    corners = vertices[np.asarray(template.faces)]
    points = _points(template, vertices, found)
    for point in points[::10]:
        assert _nearest_distance(point, corners) == pytest.approx(1.0, abs=IN_SIGHT_M)


def test_points_of_a_smpl_body_come_over_to_the_free_body(tmp_path):
    path = str(smpl_files.write_npz(tmp_path / "smpl.npz", smpl_files.model()))
    whose = SubjectBodies(smpl=path)
    template, shaped = whose.of(())
    assert not shaped
    _, seen = mosh.look(_before_the_camera(template), template, LENS, np.random.default_rng(0))
    face, barycentric = whose.carry(template, seen.face, seen.barycentric)
    free = load.load_body()
    assert face.max() < len(free.faces) and barycentric.sum(axis=1) == pytest.approx(1.0)
    own = _points(template, np.asarray(template.vertices), seen)
    carried = _points(free, np.asarray(free.vertices), seen._replace(face=face, barycentric=barycentric))
    apart = np.linalg.norm((own - own.mean(axis=0)) - (carried - carried.mean(axis=0)), axis=1)
    assert np.median(apart) < MAP_M, "made-up faces join far vertices here and there: the median"
    on_smpl, _ = SubjectBodies(body=path).carry(template, seen.face, seen.barycentric)
    assert on_smpl is seen.face, "on SMPL itself they stay"


def test_betas_shape_a_smpl_body_and_no_other(tmp_path):
    model = smpl_files.model()
    whose = SubjectBodies(smpl=str(smpl_files.write_npz(tmp_path / "smpl.npz", model)))
    betas = (1.5, -2.0, 0.5)
    template, shaped = whose.of(betas)
    assert shaped and template.pose_blendshapes is not None
    vertices = model["v_template"] + np.einsum("nxk,k->nx", model["shapedirs"][..., :3], betas)
    pelvis = model["J_regressor"][0] @ vertices
    assert np.asarray(template.vertices) == pytest.approx(vertices - pelvis, abs=1e-6)
    longer, _ = whose.of((*betas, *np.zeros(300)))
    assert np.asarray(longer.vertices) == pytest.approx(np.asarray(template.vertices), abs=1e-6)
    assert SubjectBodies().of(betas)[1] is False


def test_a_model_that_cannot_be_used_is_named(tmp_path):
    model = {name: value for name, value in smpl_files.model().items() if name != "shapedirs"}
    path = str(smpl_files.write_npz(tmp_path / "smpl.npz", model))
    with pytest.raises(InputError, match="smpl.npz: field 'shapedirs' is missing"):
        SubjectBodies(smpl=path).of((1.0,))
    flat = str(smpl_files.write_npz(tmp_path / "flat.npz", model | {"shapedirs": np.array(1.0)}))
    with pytest.raises(InputError, match="flat.npz: field 'shapedirs' has shape"):
        SubjectBodies(smpl=flat).of((1.0,))
    np.savez(tmp_path / "other.npz", **made_up.fields())
    with pytest.raises(InputError, match="smpl.npz: is known on the free body alone, not on .*other.npz"):
        SubjectBodies(str(tmp_path / "other.npz"), path).of(())


@pytest.mark.parametrize("name", ["Photo 1.npz", "Photo 1_poses.npz", "Photo 1.pkl", "Photo 1_cam0_aligned.pkl"])
def test_parameters_are_found_by_their_usual_names(tmp_path, name):
    sequence = CameraSequence(tmp_path, "S1", "Photo 1", "Photo", release.CAMERA)
    with pytest.raises(InputError, match="S1: no Photo 1{.npz,_poses.npz,.pkl,_cam0_aligned.pkl}"):
        mosh.find(tmp_path, sequence)
    (tmp_path / "S1").mkdir()
    (tmp_path / "S1" / name).touch()
    assert mosh.find(tmp_path, sequence).name == name


def test_bodies_are_those_whose_joints_are_regressed():
    template = load.load_body()
    recorded = release.motion()
    vertices = np.stack(list(mosh._bodies(template, recorded.root, recorded.pose)))
    joints = smpl_motion.h36m_joints(template, recorded.root, recorded.pose)
    assert len(vertices) == release.FRAMES
    regressed = np.einsum("jn,fnx->fjx", np.asarray(template.h36m_regressor, np.float64), vertices)
    assert joints == pytest.approx(regressed, abs=1e-5)
