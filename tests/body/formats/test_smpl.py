"""Models of SMPL's true formats as bodies: against `smplx.lbs` (a golden run), by laws, and one line for every damage.

`python -m benchmarks.smplx_parity` made the golden file; the models are made up (`smpl_files`).
"""

import functools
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from dal_jax.body import kinematics, rotations, skeleton, skinning, triangles
from dal_jax.body.formats import carry_over, load
from dal_jax.runtime.errors import InputError
from tests.body import smpl_files
from tests.body.smpl_files import MatVecMult

GOLDEN = pathlib.Path(__file__).with_name("smplx_parity.npz")
PARITY = 1e-5  # metres: float32 beside smplx in float64, sums of 207 corrections included
ROUNDING = 1e-6  # metres
JOINT_GAP = 0.004  # metres, between the free body's 17 joints and those carried over to SMPL's vertices on its skin


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("smpl")


@pytest.fixture(scope="module")
def smpl(folder):
    """Return (model, archive, pickle) of SMPL's form."""
    model = smpl_files.model()
    return model, *_written(folder, model, "smpl")


@pytest.fixture(scope="module")
def smplh(folder):
    model = smpl_files.model(52)
    return model, *_written(folder, model, "smplh")


def _written(folder, model, name):
    archive = smpl_files.write_npz(folder / f"{name}.npz", model)
    return archive, smpl_files.write_pickle(folder / f"{name}.pkl", model)


@pytest.fixture(scope="module")
def body(smpl):
    return load.load_body(smpl[1])


@pytest.mark.parametrize("name", ["smpl", "smplh"])
def test_posed_vertices_are_those_of_smplx(name, smpl, smplh):
    archive = {"smpl": smpl, "smplh": smplh}[name][1]
    body = load.load_body(archive, pose_blendshapes=True)
    golden = np.load(GOLDEN)
    pose = golden["pose"].copy()
    if name == "smplh":
        pose[:, 22:] = 0  # our hands: the golden run's fingers are straight

    @jax.jit
    @jax.vmap
    def posed(turns):
        root = rotations.axis_angle_to_matrix(turns[0])
        segments = kinematics.pose_skeleton(body, root, turns[1:], jnp.ones(24))
        return segments.position, skinning.skin_vertices(body, segments)

    joints, vertices = posed(pose)
    np.testing.assert_allclose(vertices[:, :: int(golden["every"])], golden[f"{name}_vertices"], atol=PARITY)
    np.testing.assert_allclose(joints[:, :22], golden[f"{name}_joints"], atol=PARITY)
    assert np.abs(np.asarray(vertices) - body.vertices).max() > 0.3, "the poses move the body"


def test_archive_and_pickle_are_the_same_body(smpl):
    for blendshapes in (False, True):
        first, second = (load.load_body(path, pose_blendshapes=blendshapes) for path in smpl[1:])
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-12), first, second)
    assert load.load_body(smpl[1]).pose_blendshapes is None


def test_the_model_arrives_in_our_frame(smpl):
    model, archive, _ = smpl
    body = load.load_body(archive, pose_blendshapes=True)
    joints = model["J_regressor"] @ model["v_template"]
    np.testing.assert_allclose(body.vertices, model["v_template"] - joints[0], atol=ROUNDING)
    np.testing.assert_allclose(body.joints, joints - joints[0], atol=ROUNDING)
    np.testing.assert_array_equal(body.faces, model["f"])
    np.testing.assert_allclose(body.skin_weight, model["weights"], atol=ROUNDING)
    np.testing.assert_allclose(body.pose_blendshapes, model["posedirs"], atol=ROUNDING)
    names = skeleton.SMPL_JOINT_NAMES
    assert body.joints[names.index("head"), 1] > 0.4 > 0 > body.joints[names.index("left_foot"), 1]
    assert body.joints[names.index("left_hand"), 0] > 0.5


def test_smplhs_fingers_go_with_hand_and_wrist(smplh):
    model, archive, pickled = smplh
    body = load.load_body(archive)
    joints = model["J_regressor"] @ model["v_template"]
    joints -= joints[0]
    for side, wrist in (("left", 20), ("right", 21)):
        hand = skeleton.SMPL_JOINT_NAMES.index(f"{side}_hand")
        fingers = list(smpl_files.SMPLH_FINGERS[wrist])
        np.testing.assert_allclose(
            body.joints[hand], joints[[fingers[0], fingers[3]]].mean(axis=0) - joints[0], atol=1e-6
        )
        np.testing.assert_allclose(body.skin_weight[:, hand], model["weights"][:, fingers].sum(axis=1), atol=ROUNDING)
        palm = [wrist, *smpl_files.SMPLH_THUMBS[wrist]]
        np.testing.assert_allclose(body.skin_weight[:, wrist], model["weights"][:, palm].sum(axis=1), atol=ROUNDING)
    np.testing.assert_allclose(body.skin_weight.sum(axis=1), 1.0, atol=ROUNDING)
    jax.tree.map(np.testing.assert_array_equal, body, load.load_body(pickled))
    basis = load.load_body(archive, pose_blendshapes=True).pose_blendshapes
    np.testing.assert_allclose(basis[..., :189], model["posedirs"][..., :189], atol=ROUNDING)
    assert not basis[..., 189:].any()


def test_more_than_four_segments_a_vertex_are_reduced(smpl, tmp_path):
    model = dict(smpl[0])
    model["weights"] = model["weights"].copy()
    model["weights"][7] = 0
    model["weights"][7, :6] = [0.3, 0.25, 0.2, 0.15, 0.06, 0.04]
    del model["posedirs"]
    body = load.load_body(smpl_files.write_npz(tmp_path / "six.npz", model))
    np.testing.assert_allclose(body.skin_weight[7, :6], np.array([0.3, 0.25, 0.2, 0.15, 0, 0]) / 0.9, atol=ROUNDING)
    others = np.arange(6890) != 7
    np.testing.assert_allclose(body.skin_weight[others], model["weights"][others], atol=ROUNDING)


def test_left_and_right_are_each_others_mirror(smpl):
    body = load.load_body(smpl[1])
    image = body.vertices[body.mirror] * [-1, 1, 1]
    gap = np.linalg.norm(image - body.vertices, axis=1)
    assert np.median(gap) < 0.005 and gap.max() < 0.03  # vertices lie a centimetre or two apart


# --- what comes from the free body ---


def test_the_carried_joints_are_the_free_bodys(smpl):
    """On the free body's own skin the regressor must find its joints, whoever's shape it has."""
    rows = load.load_body(smpl[1]).h36m_regressor
    free, placement = carry_over.free_body(), carry_over.smpl_placement()
    np.testing.assert_allclose(rows.sum(axis=1), 1.0, atol=1e-5)
    assert rows.min() >= 0 and np.count_nonzero(rows, axis=1).max() <= 3 * 32
    with np.load(load.ASSETS / "synthetic_people.npz") as people:
        shapes = [free["vertices"], *people["vertices"].astype(np.float64)]
    for shape in shapes:
        place = np.einsum("nc,ncx->nx", placement.barycentric, shape[free["faces"][placement.face]])
        gap = np.linalg.norm(rows @ place - free["h36m_regressor"] @ shape, axis=1)
        assert gap.max() < 2 * JOINT_GAP and gap.mean() < JOINT_GAP


def test_the_carried_chart_shows_each_face_where_it_is(smpl):
    """The free body's chart read at a face's (part, u, v) is a point near the face."""
    body, free = load.load_body(smpl[1]), carry_over.free_body()
    assert set(body.part.tolist()) == set(range(1, 25))
    placement = carry_over.smpl_placement()
    position = placement.position[body.faces]
    small = np.ptp(position, axis=1).max(axis=1) < 0.05  # made-up triangles, not those that join afar
    for number in range(1, 25):
        rows = np.flatnonzero((body.part == number) & small)[::7]
        area = np.flatnonzero(free["part"] == number)
        flat = np.concatenate([free["uv"][area], np.zeros((len(area), 3, 1))], axis=2)
        centre = np.append(body.uv[rows].mean(axis=1), np.zeros((len(rows), 1)), axis=1).astype(np.float64)
        face, weight = triangles.nearest(centre, flat)
        shown = np.einsum("pc,pcx->px", weight, free["vertices"][free["faces"][area[face]]])
        gap = np.linalg.norm(shown - position[rows].mean(axis=1), axis=1)
        assert np.median(gap) < 0.01 and gap.max() < 0.05


# --- what is wrong with a file ---


def _refusal(path, pose_blendshapes=False):
    with pytest.raises(InputError) as caught:
        load.load_body(path, pose_blendshapes=pose_blendshapes)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


def _changed(values, index, value):
    values = values.astype(np.float64 if isinstance(value, float) else values.dtype)
    values[index] = value
    return values


WRONG = {
    "a missing field": ({"weights": lambda a: None}, "field 'weights' is missing"),
    "no blendshapes": ({"posedirs": lambda a: None}, "field 'posedirs' is missing"),
    "a vertex less": ({"v_template": lambda a: a[:-1]}, "field 'v_template' has shape (6889, 3)"),
    "NaN": ({"v_template": lambda a: _changed(a, (5, 1), np.nan)}, "field 'v_template' holds values that are not"),
    "NaN weights": ({"weights": lambda a: _changed(a, (5, 1), np.nan)}, "field 'weights' holds values that are not"),
    "an infinite blendshape": ({"posedirs": lambda a: _changed(a, (5, 1, 3), np.inf)}, "field 'posedirs' holds"),
    "SMPL-X's joints": ({"kintree_table": lambda a: np.zeros((2, 55), np.int64)}, "(2, 55), expected (2, 24)"),
    "a joint less": ({"kintree_table": lambda a: a[:, :-1]}, "only SMPL and SMPL-H"),
    "another tree": ({"kintree_table": lambda a: _changed(a, (0, 4), 2)}, "gives joint 4 the parent 2, expected 1"),
    "a face's vertex": ({"f": lambda a: _changed(a, (3, 0), 6890)}, "field 'f' has a value outside 0..6889"),
    "half a vertex": ({"f": lambda a: a + 0.5}, "field 'f' holds float64"),
    "a vertex without face": ({"f": lambda a: np.zeros_like(a)}, "field 'f' leaves out 6889"),
    "weights that do not sum": ({"weights": lambda a: 2 * a}, "field 'weights' has a row"),
    "joints of another mesh": ({"J_regressor": lambda a: a[:, 1:]}, "field 'J_regressor' has shape (24, 6889)"),
    "centimetres": ({"v_template": lambda a: 100 * a}, "expected a person in metres"),
    "blendshapes of SMPL-H": ({"posedirs": lambda a: np.zeros((6890, 3, 459))}, "field 'posedirs' has shape"),
    "text": ({"v_template": lambda a: np.array(["x"] * 6890)}, "field 'v_template'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_field_is_one_line(smpl, tmp_path, name):
    changes, told = WRONG[name]
    model = dict(smpl[0]) if "posedirs" in changes else {**smpl[0], "posedirs": None}
    model |= {field: change(model[field]) for field, change in changes.items()}
    path = tmp_path / "wrong.npz"
    np.savez(path, **{field: values for field, values in model.items() if values is not None})
    assert told in _refusal(path, pose_blendshapes="posedirs" in changes)


def test_a_pickled_regressor_in_an_archive_is_read_by_our_own_unpickler(smpl, tmp_path):
    """What `np.savez(**pickle.load(file))` makes of the official pickle; a call in that place is not made."""
    model = {name: values for name, values in smpl[0].items() if name != "posedirs"}
    np.savez(tmp_path / "made.npz", **model | {"J_regressor": scipy.sparse.csc_matrix(model["J_regressor"])})
    np.testing.assert_array_equal(load.load_body(tmp_path / "made.npz").joints, load.load_body(smpl[1]).joints)
    np.savez(tmp_path / "trap.npz", **model | {"J_regressor": np.array(_Trap(tmp_path), dtype=object)})
    with pytest.raises(InputError, match="field 'J_regressor': names '.*system'"):
        load.load_body(tmp_path / "trap.npz")
    assert not (tmp_path / "ran").exists()


class _Trap:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.system, (f"touch {self.folder}/ran",)


def test_a_pickle_that_would_run_something_is_refused_by_name(smpl, tmp_path):
    few = {name: smpl[0][name][:2] for name in smpl[0]}
    for value, name in ((_Trap(tmp_path), "system"), (_Eval(), "eval")):
        path = smpl_files.write_pickle(tmp_path / "trap.pkl", few, bs_type=value)
        message = _refusal(path)
        assert message.startswith("names '") and name in message and "nothing of it was run" in message
    assert not (tmp_path / "ran").exists()


class _Eval:
    def __reduce__(self):
        return eval, ("1 + 1",)


def test_a_value_that_a_pickle_does_not_hold_is_named(smpl, tmp_path):
    few = {name: smpl[0][name][:2] for name in smpl[0]}
    path = smpl_files.write_pickle(tmp_path / "product.pkl", few, v_template=MatVecMult({}))
    assert _refusal(path).startswith("field 'v_template': not a readable file: holds chumpy's 'MatVecMult'")


def test_files_that_are_no_models(smpl, tmp_path):
    whole = smpl[2].read_bytes()
    for name, content in (
        ("cut", whole[: len(whole) // 2]),
        ("none", b""),
        ("text", b"SMPL\n"),
        ("list", b"]."),
    ):
        path = tmp_path / f"{name}.pkl"
        path.write_bytes(content)
        assert "not a readable " in _refusal(path)
    assert "cannot be read: No such file" in _refusal(tmp_path / "absent.pkl")
    (tmp_path / "cut.npz").write_bytes(smpl[1].read_bytes()[: 10**6])
    _refusal(tmp_path / "cut.npz")
    damaged = bytearray(smpl[1].read_bytes())
    damaged[damaged.index(b"v_template.npy") + 400] ^= 255
    (tmp_path / "crc.npz").write_bytes(damaged)
    assert _refusal(tmp_path / "crc.npz").startswith("field 'v_template': not a readable .npz")


def test_mirror_finds_a_symmetric_meshs_images():
    free = carry_over.free_body()
    np.testing.assert_array_equal(carry_over.mirror(free["vertices"]), free["mirror"])
