"""Rigged glTF humans as bodies: what was written comes back, whatever the rig's names, pose, heading and unit."""

import codecs
import json

import jax
import numpy as np
import pygltflib
import pytest
import scipy.spatial
import yaml
from scipy.spatial import transform

from dal_jax.body import kinematics, skeleton, skinning
from dal_jax.body.formats import gltf_file, load, rig as rig_lib
from dal_jax.runtime.errors import InputError
from tests.body import gltf_files, reference

ROUNDING = 2e-5  # metres: float32 positions behind a chain of float32 matrices
MOVED = 5 * ROUNDING  # a rotation error grows along the arm
SKIN_GAP = 0.003  # metres, between the 17 joints on a skin and carried over to the same skin from its nearest points
NAMES = skeleton.SMPL_JOINT_NAMES
SAME_JOINTS = {
    "hip": "pelvis", "left_knee": "left_knee", "right_foot": "right_ankle", "left_shoulder": "left_shoulder",
    "right_elbow": "right_elbow", "left_wrist": "left_wrist",
}  # fmt: skip


@pytest.fixture(scope="module")
def free():
    return gltf_files.person()


@pytest.fixture(scope="module")
def mixamo(free, tmp_path_factory):
    """The free body as Mixamo would name it, read back."""
    content = gltf_files.build(free, gltf_files.names("mixamo"), prefix="mixamorig:")
    return load.load_body(gltf_files.write(tmp_path_factory.mktemp("rig") / "person.glb", content))


def _order(body, vertices):
    """Return for each of a mesh's vertices the body's vertex at its place."""
    distance, order = scipy.spatial.cKDTree(body.vertices).query(vertices)
    assert distance.max() < ROUNDING and len(np.unique(order)) == len(vertices) == len(body.vertices)
    return order


def test_the_mesh_and_its_rig_come_back(free, mixamo):
    order = _order(mixamo, free["vertices"])
    np.testing.assert_allclose(mixamo.joints, free["joints"], atol=ROUNDING)
    faces = {tuple(np.roll(face, -face.argmin())) for face in mixamo.faces}
    assert faces == {tuple(np.roll(face, -face.argmin())) for face in order[free["faces"]]}
    np.testing.assert_allclose(mixamo.skin_weight[order], load.load_body().skin_weight, atol=1e-6)
    np.testing.assert_array_equal(mixamo.mirror[order], order[free["mirror"]])


def test_its_chart_and_joints_are_the_free_bodys(free, mixamo):
    centre = scipy.spatial.cKDTree(free["vertices"][free["faces"]].mean(axis=1))
    _, same = centre.query(mixamo.vertices[mixamo.faces].mean(axis=1))
    assert np.mean(mixamo.part == free["part"][same]) > 0.97  # vertices on a border belong to either part
    own = mixamo.part == free["part"][same]
    gap = np.abs(mixamo.uv.mean(axis=1) - free["uv"][same].mean(axis=1)).max(axis=1)[own]
    assert np.quantile(gap, 0.95) < 1e-4
    found, expected = mixamo.h36m_regressor @ mixamo.vertices, free["h36m_regressor"] @ free["vertices"]
    np.testing.assert_allclose(found, expected, atol=SKIN_GAP)


def test_it_moves_as_the_free_body_does(free, mixamo, pose_free):
    problem = reference.random_problem(3).single()

    @jax.jit
    def posed(*problem):
        return skinning.skin_vertices(mixamo, kinematics.pose_skeleton(mixamo, *problem))

    np.testing.assert_allclose(posed(*problem)[_order(mixamo, free["vertices"])], pose_free(*problem)[1], atol=MOVED)


@pytest.mark.parametrize("rig", yaml.safe_load(rig_lib.RIGS.read_text()))
@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
def test_the_names_of_known_rigs(free, tmp_path, rig, suffix):
    prefix = {"rigify": "DEF-", "mixamo": "mixamorig1:", "smpl": "m_avg_"}.get(rig, "")
    path = tmp_path / f"person{suffix}"
    mesh = gltf_file.read(gltf_files.write(path, gltf_files.build(free, gltf_files.names(rig), prefix=prefix)))
    nodes = rig_lib.find(path, mesh)
    assert {joint: len(found) for joint, found in nodes.items()} == dict.fromkeys(NAMES, 1)
    np.testing.assert_allclose(rig_lib.joints(mesh.heads, nodes), free["joints"], atol=ROUNDING)


def _turns(**degrees):
    """Return turns (24, 3, 3) about z of the named joints, their mirror images on the right."""
    turns = np.tile(np.eye(3), (24, 1, 1))
    for joint, angle in degrees.items():
        for side, sign in (("left", 1), ("right", -1)):
            turn = transform.Rotation.from_euler("z", sign * angle, degrees=True).as_matrix()
            turns[NAMES.index(f"{side}_{joint}")] = turn
    return turns


def test_an_a_pose_in_centimetres_with_its_back_to_us(free, tmp_path):
    """Nodes stand with hanging arms and legs apart: the T-pose comes back, but for what blended skin has lost."""
    turn = transform.Rotation.from_euler("y", 170, degrees=True).as_quat()
    bind = _turns(shoulder=-50, hip=10)
    content = gltf_files.build(free, gltf_files.names("unreal"), bind=bind, turn=turn, unit=0.01)
    body = load.load_body(gltf_files.write(tmp_path / "person.glb", content))
    feet = [NAMES.index(f"{side}_foot") for side in ("left", "right")]  # feet stay as they stand
    others = [joint for joint in range(24) if joint not in feet]
    np.testing.assert_allclose(body.joints[others], free["joints"][others], atol=ROUNDING)
    gap = scipy.spatial.cKDTree(body.vertices).query(free["vertices"])[0]
    assert np.quantile(gap, 0.4) < ROUNDING and np.quantile(gap, 0.9) < 0.01
    found, expected = body.h36m_regressor @ body.vertices, free["h36m_regressor"] @ free["vertices"]
    np.testing.assert_allclose(found, expected, atol=2 * SKIN_GAP)


@pytest.mark.parametrize("number", [0, 6])
def test_another_person_has_joints_inside(tmp_path, number):
    """A thinner or heavier person: the carried regressor finds the joints of that person's own rig."""
    with np.load(load.ASSETS / "synthetic_people.npz") as people:
        person = gltf_files.person(people["vertices"][number], people["joints"][number])
    content = gltf_files.build(person, gltf_files.names("rigify"), prefix="DEF-")
    body = load.load_body(gltf_files.write(tmp_path / "person.glb", content))
    found, free_body = body.h36m_regressor @ body.vertices, load.load_body()
    for h36m, joint in SAME_JOINTS.items():
        row, joint_row = skeleton.H36M_JOINT_NAMES.index(h36m), NAMES.index(joint)
        gap = found[row] - body.joints[joint_row]
        own = (free_body.h36m_regressor @ free_body.vertices)[row] - free_body.joints[joint_row]
        assert np.linalg.norm(gap - own) < 0.03, h36m


def test_joints_that_a_rig_lacks_lie_where_the_free_bodys_do(free, tmp_path):
    """Of the free body's own proportions: exactly; and no skin hangs on them."""
    has = {*rig_lib.REQUIRED, "spine1"}
    bones = {joint: bone for joint, bone in gltf_files.names("mixamo").items() if joint in has}
    body = load.load_body(gltf_files.write(tmp_path / "few.glb", gltf_files.build(free, bones)))
    hands = [NAMES.index(f"{side}_hand") for side in ("left", "right")]
    others = [joint for joint in range(24) if joint not in hands]
    np.testing.assert_allclose(body.joints[others], free["joints"][others], atol=ROUNDING)
    np.testing.assert_allclose(body.joints[hands], free["joints"][hands], atol=0.02)  # in line with the forearm
    lacking = [index for index, joint in enumerate(NAMES) if joint not in bones]
    assert not body.skin_weight[:, lacking].any()
    np.testing.assert_allclose(body.skin_weight.sum(axis=1), 1.0, atol=1e-6)


def test_other_bones_go_with_the_joint_above_them(free, tmp_path):
    """Toes on a bone of their own, hair on the head, and a root bone above the pelvis."""
    names = {**gltf_files.names("vrm"), "left_foot": "toe_roll", "neck": "scarf", "spine1": "belt"}
    path = gltf_files.write(tmp_path / "person.glb", gltf_files.build(free, names))
    mesh = gltf_file.read(path)
    nodes = rig_lib.find(path, mesh)
    assert not {"left_foot", "neck", "spine1"} & set(nodes)
    weights = rig_lib.segment_weights(mesh, nodes)
    dense = np.asarray(load.load_body().skin_weight)
    for joint, above in (("left_foot", "left_ankle"), ("neck", "spine3"), ("spine1", "pelvis")):
        both = dense[:, [NAMES.index(joint), NAMES.index(above)]].sum(axis=1)
        np.testing.assert_allclose(weights[:, NAMES.index(above)], both, atol=1e-6)


def test_a_table_beside_the_file_says_which_is_which(free, tmp_path):
    bones = {joint: f"bone {number}" for number, joint in enumerate(NAMES)}
    path = gltf_files.write(tmp_path / "person.gltf", gltf_files.build(free, bones))
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())  # as editors of Windows write text
    mesh = gltf_file.read(path)
    with pytest.raises(InputError, match="no bone is joint 'pelvis'.*person.yaml"):
        rig_lib.find(path, mesh)
    del bones["right_hand"]
    table = {**bones, "left_hand": ["bone 22", "Bone_23"]}
    (tmp_path / "person.yaml").write_bytes(codecs.BOM_UTF8 + yaml.safe_dump(table).encode())
    joints = rig_lib.joints(mesh.heads, rig_lib.find(path, mesh))
    np.testing.assert_allclose(joints[:22], free["joints"][:22], atol=ROUNDING)
    np.testing.assert_allclose(joints[22], free["joints"][[22, 23]].mean(axis=0), atol=ROUNDING)


MIXAMO = yaml.safe_dump({joint: gltf_files.names("mixamo")[joint] for joint in rig_lib.REQUIRED})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("left_toe: bone 3", "'left_toe' is no joint"),
        ("pelvis: nowhere", "joint 'pelvis': 0 bones are called 'nowhere'"),
        ("pelvis: Hips", "no bone is joint 'head'"),
        ("pelvis: 7", "joint 'pelvis': expected a bone's name"),
        ("pelvis: []", "joint 'pelvis': expected a bone's name"),
        (f"{MIXAMO}neck: mixamorig:Head", "bone 'Head' is both 'head' and 'neck'"),
        ("- pelvis", "expected a table"),
        ("pelvis: [", "not a readable table"),
        ("pelvis: !!python/object/apply:os.system ['touch ran']", "not a readable table"),
    ],
)
def test_a_wrong_table_is_one_line(free, tmp_path, monkeypatch, text, told):
    monkeypatch.chdir(tmp_path)
    path = gltf_files.write(tmp_path / "person.glb", gltf_files.build(free, gltf_files.names("mixamo")))
    (tmp_path / "person.yaml").write_text(text)
    message = _refusal(path)
    assert message.startswith(f"{tmp_path}/person.yaml: ") and told in message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("version", ["VRM", "VRMC_vrm"])
def test_vrms_own_table_of_bones(free, tmp_path, version):
    bones = {joint: f"J_Bip_{number}" for number, joint in enumerate(NAMES)}
    content = gltf_files.build(free, bones)
    nodes = {gltf_files.names("vrm")[joint]: 1 + number for number, joint in enumerate(NAMES)}
    table = {name: {"node": node} for name, node in nodes.items()}
    if version == "VRM":
        table = [{"bone": name, "node": node} for name, node in nodes.items()]
    content.extensions = {version: {"humanoid": {"humanBones": table}}}
    path = gltf_files.write(tmp_path / "person.vrm", content)
    mesh = gltf_file.read(path)
    np.testing.assert_allclose(rig_lib.joints(mesh.heads, rig_lib.find(path, mesh)), free["joints"], atol=ROUNDING)


def test_corners_at_one_place_become_one_vertex(free, tmp_path):
    """As exporters write textured meshes: every face with corners of its own, in two meshes with skins of their own."""
    apart = {name: free[name][free["faces"].ravel()] for name in ("vertices", "skin_index", "skin_weight")}
    apart["faces"] = np.arange(free["faces"].size).reshape(-1, 3)
    content = gltf_files.build(free | apart, gltf_files.names("mixamo"))
    half = content.meshes[0].primitives[0]
    second = pygltflib.Primitive(attributes=half.attributes, indices=half.indices, mode=4)
    content.meshes.append(pygltflib.Mesh(primitives=[second]))
    content.nodes.append(pygltflib.Node(mesh=1, skin=0))
    content.nodes.append(pygltflib.Node(mesh=1, name="a prop without a skin"))
    content.accessors[half.indices].count //= 2  # the first mesh has half of the faces, the second the same half
    content.accessors[half.indices].count -= content.accessors[half.indices].count % 3
    body = load.load_body(gltf_files.write(tmp_path / "person.glb", content))
    used = np.unique(free["faces"][: len(free["faces"]) // 2])
    assert len(body.vertices) == len(used)
    np.testing.assert_allclose(scipy.spatial.cKDTree(body.vertices).query(free["vertices"][used])[0], 0, atol=ROUNDING)


# --- what is wrong with a file ---


def _refusal(path):
    with pytest.raises(InputError) as caught:
        load.load_body(path)
    message = str(caught.value)
    assert "\n" not in message and str(path.parent) in message
    return message


def _primitive(content):
    return content["meshes"][0]["primitives"][0]


def _swap_sides(content):
    for node in content["nodes"]:
        side, other = ("Left", "Right") if node["name"].startswith("Left") else ("Right", "Left")
        node["name"] = node["name"].replace(side, other)


def _circle(content):
    content["nodes"][0]["children"].remove(1)
    content["nodes"][5]["children"].append(1)


def _buffer_at(uri):
    return lambda content: content["buffers"][0].update(uri=uri), "leaves the file's folder"


MIRRORED = ((0, {"scale": [1, 1, -1]}), (11, {"name": "left"}), (12, {"name": "right"}))  # and without bones of toes
WRONG = {
    "no skin": (lambda c: c["nodes"][-1].pop("skin"), "no triangle mesh with a skin"),
    "no weights": (lambda c: _primitive(c)["attributes"].pop("WEIGHTS_0"), "attribute WEIGHTS_0 is missing"),
    "no such accessor": (lambda c: _primitive(c)["attributes"].update(POSITION=99), "POSITION: there is no number 99"),
    "another kind": (lambda c: _primitive(c)["attributes"].update(POSITION=2), "POSITION: accessors[2] is VEC4"),
    "beyond the buffer": (lambda c: c["accessors"][0].update(count=10**9), "accessors[0] ends beyond its buffer"),
    "a negative offset": (lambda c: c["accessors"][0].update(byteOffset=-4), "accessors[0].byteOffset is -4"),
    "fewer vertices": (lambda c: c["accessors"][0].update(count=7000), "attributes of 7000, 7199 and 7199 vertices"),
    "half a face": (lambda c: c["accessors"][3].update(count=4001), ".indices: 4001 corners are no triangles"),
    "another joint": (lambda c: c["skins"][0]["joints"].__delitem__(slice(9, None)), ".JOINTS: 23 is outside 0..8"),
    "two parents": (lambda c: c["nodes"][3]["children"].append(2), "node 2 has two parents"),
    "a circle": (_circle, "is its own ancestor"),
    "NaN": (lambda c: c["nodes"][3].update(translation=[0, float("nan"), 0]), "nodes[3].translation"),
    "no rotation": (lambda c: c["nodes"][3].update(rotation=[0, 0, 0, 0]), "nodes[3].rotation"),
    "text": (lambda c: c["nodes"][3].update(translation="left"), "not a readable glTF file"),
    "compressed": (lambda c: c.update(extensionsRequired=["KHR_draco_mesh_compression"]), "export it without"),
    "sparse": (lambda c: c["accessors"][0].pop("bufferView"), "accessors[0] is sparse"),
    "a giant": (lambda c: c["nodes"][0].update(scale=[100, 100, 100]), "expected a person in metres"),
    "a bone far away": (lambda c: c["nodes"][3].update(translation=[0, 1e300, 0]), "lies more than 1000000 m away"),
    "upside down": (lambda c: c["nodes"][0].update(rotation=[0, 0, 1, 0]), "head lies below the pelvis"),
    "flat": (lambda c: c["nodes"][0].update(scale=[1, 1, 0]), "the skin has no depth"),
    "swapped sides": (_swap_sides, "the feet point backwards"),
    "mirrored": (lambda c: [c["nodes"][node].update(field) for node, field in MIRRORED], "the feet point backwards"),
    "two of a name": (lambda c: c["nodes"][4].update(name="Hips"), "several bones are called 'Hips'"),
    "no knee": (lambda c: c["nodes"][5].update(name="patella"), "no bone is joint 'left_knee' (23 of 24 found"),
    "no matrices": (lambda c: c["accessors"][4].update(count=3), "has 3 matrices for 24 joints"),
    "a buffer elsewhere": _buffer_at("../other.bin"),
    "a buffer by root": _buffer_at("/etc/passwd"),
    "a hidden way out": _buffer_at("a/%2e%2e/%2e%2e/b"),
    "a web address": _buffer_at("https://example.org/b"),
    "a missing buffer": (lambda c: c["buffers"][0].update(uri="absent.bin"), "absent.bin: cannot be read"),
    "a buffer that is none": (lambda c: c["buffers"][0].pop("uri"), "buffers[0]: has no data"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_entry_is_one_line(free, tmp_path, name):
    path = gltf_files.write(tmp_path / "wrong.gltf", gltf_files.build(free, gltf_files.names("mixamo")))
    content = json.loads(path.read_text())
    spoil, told = WRONG[name]
    spoil(content)
    path.write_text(json.dumps(content))
    assert told in _refusal(path)


NO_GLTF = [b"", b"glTF", b"{}", b"[]", b"null", b'{"asset": 3}', b"\xff\xfe{}", b"{" * 50_000]


@pytest.mark.parametrize("content", NO_GLTF)
def test_a_file_that_is_no_gltf(tmp_path, content):
    for suffix in (".glb", ".gltf"):
        (tmp_path / f"person{suffix}").write_bytes(content)
        _refusal(tmp_path / f"person{suffix}")
    assert "cannot be read" in _refusal(tmp_path / "absent.glb")


def test_damage_anywhere_in_the_json_is_one_line_or_harmless(free, tmp_path):
    """Values of the JSON replaced at random: an InputError, never another exception."""
    small = _few_faces(free)
    content = gltf_files.build(small, gltf_files.names("mixamo"))
    path = gltf_files.write(tmp_path / "person.gltf", content)
    whole = json.loads(path.read_text())
    rng, refused = np.random.default_rng(0), 0
    junk = [None, -1, 0, 3, 10**12, 1.5, float("nan"), "x", [], [1], {}, {"a": 1}, True]
    for _ in range(120):
        damaged = json.loads(json.dumps(whole))
        places = list(_places(damaged))
        holder, key = places[rng.integers(len(places))]
        holder[key] = junk[rng.integers(len(junk))]
        path.write_text(json.dumps(damaged))
        try:
            rig_lib.find(path, gltf_file.read(path))
        except InputError:
            refused += 1
    assert refused > 25


def _few_faces(free):
    used = np.unique(free["faces"][:4])
    place = {vertex: row for row, vertex in enumerate(used)}
    few = {name: free[name][used] for name in ("vertices", "skin_index", "skin_weight")}
    return free | few | {"faces": np.vectorize(place.get)(free["faces"][:4])}


def _places(value):
    """Yield every (container, key) of a JSON value."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)
