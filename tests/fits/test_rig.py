"""Rigs, read again by readers that know nothing of our body: their skins and joints are ours."""

import functools
import os
import pathlib
import subprocess
import warnings

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dal_jax.body import kinematics, skeleton, skinning
from dal_jax.body.formats import load
from dal_jax.body.kinematics import BodyParameters, t_pose
from dal_jax.body.template import Template
from dal_jax.data.motions import bvh as bvh_file
from dal_jax.fits import rig as rigs, rig_files
from tests.body import smpl_files
from tests.fits.gltf_scene import Scene

EXACT = 1e-4  # metres
TIMES_S = np.array([0.0, 0.04, 0.08])
POSITION = np.array([[0.3, -0.2, 4.0], [0.4, -0.2, 4.1], [0.5, -0.1, 4.0]])
VIEWER = np.array([1.0, -1.0, -1.0])


@pytest.fixture(scope="module")
def body() -> Template:
    return load.load_body()


def moving(shapes: int = 1, anisotropic: bool = False) -> BodyParameters:
    """Return a body over three frames: odd proportions, wide, in strong poses, turned by more than half a turn."""
    rng = np.random.default_rng(0)
    turn = Rotation.from_euler("y", [[0], [160], [300]], degrees=True).as_matrix()
    scale = np.exp(rng.normal(0, 0.15, (shapes, 24)))
    return BodyParameters(
        pose=rng.normal(0, 0.6, (3, 23, 3)).astype(np.float32),
        segment_scale=np.broadcast_to(scale, (3, 24)).astype(np.float32),
        rotation=(np.asarray(t_pose().rotation) @ turn).astype(np.float32),
        camera_scale=np.ones(3, np.float32),
        translation=np.zeros((3, 2), np.float32),
        girth=np.full(3, 1.15, np.float32),
        segment_girth=np.exp(rng.normal(0, 0.2, (3, 24, 2))).astype(np.float32) if anisotropic else None,
    )


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, 0))
def _posed(template, parameters):
    segments = kinematics.pose_segments(template, parameters)
    return segments.position, skinning.skin_vertices(template, segments)


def ours(template: Template, parameters: BodyParameters) -> tuple[np.ndarray, np.ndarray]:
    """Return joints and vertices of three frames at `POSITION`, in the axes of scenes."""
    joints, vertices = _posed(template, parameters)
    return (np.asarray(joints) + POSITION[:, None]) * VIEWER, (np.asarray(vertices) + POSITION[:, None]) * VIEWER


def assert_same_surface(scene: Scene, expected: np.ndarray, template: Template, person: int = 0) -> None:
    """Compare corner by corner: a file's vertices are cut where the parts of the chart meet."""
    vertices, faces = scene.skinned(person)
    np.testing.assert_allclose(vertices[faces], expected[template.faces], atol=EXACT)


@pytest.fixture(scope="module")
def scene(body, tmp_path_factory) -> pathlib.Path:
    """Return a file of two people before a camera."""
    parameters = moving()
    people = {
        name: rigs.make(body, jax.tree.map(lambda leaf, k=k: leaf[k : k + 1], parameters), POSITION[k : k + 1])
        for k, name in enumerate(("first", "second"))
    }
    path = tmp_path_factory.mktemp("scene") / "scene.glb"
    path.write_bytes(rig_files.glb(body, people, (0.8, 1.5)))
    return path


@pytest.fixture(scope="module")
def animated(body, tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("animation") / "walk.glb"
    rig_files.animation(body, moving(shapes=3), TIMES_S, path, POSITION)
    return path


def test_everybody_in_a_scene_has_our_skin_and_our_joints(scene, body):
    joints, vertices = ours(body, moving())
    read = Scene(scene)
    for person in range(2):
        assert_same_surface(read, vertices[person], body, person)
    for joint, name in enumerate(skeleton.SMPL_JOINT_NAMES):
        np.testing.assert_allclose(read.place(name), joints[0, joint], atol=EXACT)
        np.testing.assert_allclose(read.place(f"{name}_scale"), joints[0, joint], atol=EXACT)


def test_scales_along_each_axis_shear_no_child(body, tmp_path):
    """In glTF a scale is passed on to children: no joint hangs on a node that scales, and the skin is ours."""
    path, parameters = tmp_path / "wide.glb", moving(anisotropic=True)
    rig_files.animation(body, parameters, TIMES_S, path, POSITION)
    joints, vertices = ours(body, parameters)
    read = Scene(path)
    assert_same_surface(read, vertices[0], body)
    for node in read.content.nodes:
        assert node.scale in (None, [1, 1, 1]) or not node.children
    for joint, name in enumerate(skeleton.SMPL_JOINT_NAMES):
        np.testing.assert_allclose(read.place(name), joints[0, joint], atol=EXACT)


def test_the_mesh_of_a_rig_is_the_template_in_its_rest_pose(scene, body):
    content = Scene(scene)
    assert len(content.content.meshes) == 1, "people of one template share it"
    primitive = content.content.meshes[0].primitives[0]
    faces = content.numbers(primitive.indices).reshape(-1, 3)
    np.testing.assert_array_equal(content.numbers(primitive.attributes.POSITION)[faces], body.vertices[body.faces])
    np.testing.assert_allclose(np.linalg.norm(content.numbers(primitive.attributes.NORMAL), axis=1), 1.0, atol=1e-5)


def test_texture_coordinates_are_the_chart_in_densepose_s_atlas(scene, body):
    content = Scene(scene)
    primitive = content.content.meshes[0].primitives[0]
    texture = content.numbers(primitive.attributes.TEXCOORD_0)[content.numbers(primitive.indices).reshape(-1, 3)]
    column, row = np.divmod(np.asarray(body.part) - 1, 6)
    u, v = texture[..., 0] * 4 - column[:, None], 1 - (texture[..., 1] * 6 - row[:, None])
    np.testing.assert_allclose(np.stack([u, v], axis=-1), body.uv, atol=1e-5)


def test_an_animation_is_our_body_at_every_frame_whatever_changes(animated, body):
    joints, vertices = ours(body, moving(shapes=3))
    for frame, time_s in enumerate(TIMES_S.astype(np.float32)):
        read = Scene(animated, time_s)
        assert_same_surface(read, vertices[frame], body)
        np.testing.assert_allclose(read.place("left_hand"), joints[frame, 22], atol=EXACT)


def test_an_animation_takes_the_short_way_from_frame_to_frame(animated):
    read = Scene(animated)
    (animation,) = read.content.animations
    for channel in animation.channels:
        if channel.target.path == "rotation":
            turns = read.numbers(animation.samplers[channel.sampler].output)
            assert (np.sum(turns[1:] * turns[:-1], axis=1) >= 0).all()


def test_a_track_of_one_shape_animates_turns_and_the_place_alone(body, tmp_path):
    rig_files.animation(body, moving(), TIMES_S, tmp_path / "walk.glb", POSITION)
    content = Scene(tmp_path / "walk.glb").content
    moved = [(content.nodes[c.target.node].name, c.target.path) for c in content.animations[0].channels]
    assert sorted(moved) == sorted([("pelvis", "translation"), *((n, "rotation") for n in skeleton.SMPL_JOINT_NAMES)])


def test_khronos_validator_finds_nothing(scene, animated):
    """Run `gltf-validator` of npm on files of every kind."""
    try:
        root = subprocess.run(["npm", "root", "--global"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("node and npm are not installed")
    if not (pathlib.Path(root) / "gltf-validator").exists():
        pytest.skip("npm install --global gltf-validator")
    program = """
const validator = require('gltf-validator'), fs = require('fs');
for (const path of process.argv.slice(1)) validator.validateBytes(new Uint8Array(fs.readFileSync(path))).then(
  (report) => console.log(report.issues.numErrors, report.issues.numWarnings, JSON.stringify(report.issues.messages)));
"""
    command = ["node", "-e", program, str(scene), str(animated)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"NODE_PATH": root}, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and all(line.startswith("0 0 ") for line in lines), done.stdout


def test_bvh_has_our_joints(body, tmp_path):
    """By bvhio, which knows nothing of us, and by the project's own reader."""
    joints, _ = ours(body, moving())
    path = tmp_path / "walk.bvh"
    rig_files.animation(body, moving(), TIMES_S, path, POSITION)
    tracks = bvh_file.read(path)
    rows = [tracks.names.index(name) for name in skeleton.SMPL_JOINT_NAMES]
    np.testing.assert_allclose(tracks.positions[:, rows], joints, atol=EXACT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports PyGLM by a name of before
        import bvhio
    root = bvhio.readAsHierarchy(str(path))
    for frame in range(3):
        root.loadPose(frame)
        for joint, name in enumerate(skeleton.SMPL_JOINT_NAMES):
            (found,) = root.filter(name, isEqual=True)
            np.testing.assert_allclose(np.array(found.PositionWorld), joints[frame, joint], atol=EXACT)


def test_usd_s_own_skinning_gives_our_vertices(body, tmp_path):
    pytest.importorskip("pxr", reason="pip install 'dal_jax[usd]'")
    from pxr import Usd, UsdGeom, UsdSkel, Vt

    _, vertices = ours(body, moving())
    rig_files.animation(body, moving(), TIMES_S, tmp_path / "2nd walk.usd", POSITION)
    stage = Usd.Stage.Open(str(tmp_path / "2nd walk.usd"))
    root = stage.GetDefaultPrim()
    cache = UsdSkel.Cache()
    cache.Populate(UsdSkel.Root(root), Usd.PrimDefaultPredicate)
    skeleton = cache.GetSkelQuery(UsdSkel.Skeleton(root.GetChild("skeleton")))
    mesh = UsdGeom.Mesh(root.GetChild("body"))
    for frame in range(3):
        transforms = skeleton.ComputeSkinningTransforms(Usd.TimeCode(frame))
        points = Vt.Vec3fArray(mesh.GetPointsAttr().Get())
        assert cache.GetSkinningQuery(mesh.GetPrim()).ComputeSkinnedPoints(transforms, points, Usd.TimeCode(frame))
        np.testing.assert_allclose(np.array(points), vertices[frame], atol=EXACT)
    assert abs(stage.GetTimeCodesPerSecond() - 25) < 1e-3 and UsdGeom.GetStageUpAxis(stage) == "Y"


@pytest.mark.parametrize(
    ("shapes", "times_s", "name", "told"),
    [
        (3, TIMES_S, "walk.bvh", "one skeleton"),
        (1, [0.0, 0.04, 0.2], "walk.bvh", "evenly"),
        (1, [0.0, 0.04, 0.04], "walk.glb", "must increase"),
        (1, [0.0, 0.04], "walk.glb", "for 3 frames"),
        (1, TIMES_S, "walk.fbx", "is a .glb, a .bvh or a .usd"),
    ],
)
def test_what_cannot_be_an_animation_is_refused(body, tmp_path, shapes, times_s, name, told):
    with pytest.raises(ValueError, match=told):
        rig_files.animation(body, moving(shapes), times_s, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_smpl_posed_by_its_own_parameters_is_our_body(tmp_path):
    """SMPL's skinning in its own frame, written out here, at our poses and place."""
    model = smpl_files.model()
    template = load.load_body(smpl_files.write_npz(tmp_path / "basicModel_f_lbs.npz", model))
    parameters = moving()
    parameters = parameters.replace(segment_scale=np.ones((3, 24), np.float32), girth=np.ones(3, np.float32))
    fields = rigs.smpl(template, rigs.make(template, parameters, POSITION))
    assert fields["poses"].shape == (3, 72) and str(fields["gender"]) == "female"
    rest = model["J_regressor"] @ model["v_template"]
    turns = Rotation.from_rotvec(fields["poses"].reshape(-1, 3)).as_matrix().reshape(3, 24, 3, 3)
    _, vertices = ours(template, parameters)
    for frame in range(3):
        rotation, place = turns[frame], rest.copy()
        for joint, parent in enumerate(skeleton.SMPL_PARENTS[1:], start=1):
            place[joint] = place[parent] + rotation[parent] @ (rest[joint] - rest[parent])
            rotation[joint] = rotation[parent] @ rotation[joint]
        moved = np.einsum("kij,nkj->nki", rotation, model["v_template"][:, None] - rest) + place
        posed = np.einsum("nk,nki->ni", model["weights"], moved) + fields["trans"][frame]
        np.testing.assert_allclose(posed, vertices[frame], atol=EXACT)


def test_pose_blendshapes_are_in_the_mesh_of_a_still(tmp_path):
    template = load.load_body(
        smpl_files.write_npz(tmp_path / "SMPL_NEUTRAL.npz", smpl_files.model()), pose_blendshapes=True
    )
    parameters = moving()
    _, vertices = ours(template, parameters)
    first = jax.tree.map(lambda leaf: leaf[:1], parameters)
    (tmp_path / "a.glb").write_bytes(rig_files.glb(template, {"a": rigs.make(template, first, POSITION[:1])}))
    assert_same_surface(Scene(tmp_path / "a.glb"), vertices[0], template)
