"""Rigged glTF humans for tests, written by pygltflib: the free body or another person on its mesh, in any names."""

import base64
import pathlib

import numpy as np
import pygltflib
import yaml
from scipy.spatial import transform

from dal_jax.body import skeleton
from dal_jax.body.formats import carry_over
from dal_jax.body.formats.rig import RIGS
from dal_jax.body.template import Fields

_FLOAT, _UINT16, _UINT32 = 5126, 5123, 5125


def person(vertices: np.ndarray | None = None, joints: np.ndarray | None = None) -> Fields:
    """Return the free body's fields, in another person's shape if one is given."""
    fields = dict(carry_over.free_body())
    if vertices is not None:
        fields |= {"vertices": vertices.astype(np.float64), "joints": joints.astype(np.float64)}
    return fields


def names(rig: str) -> dict[str, str]:
    """Return one bone a joint in the names of a known rig."""
    table = yaml.safe_load(RIGS.read_text())[rig]
    return {joint: bones[0] if isinstance(bones, list) else bones for joint, bones in table.items()}


def build(
    fields: Fields,
    bones: dict[str, str],
    *,
    bind: np.ndarray | None = None,
    turn: np.ndarray | None = None,
    unit: float = 1.0,
    prefix: str = "",
) -> pygltflib.GLTF2:
    """Return a file's content: a node a bone in SMPL's tree under an armature, one mesh, one skin.

    Args:
      bones: joints the rig has, and their bones' names; skin of the others hangs on the nearest above.
      bind: turns (24, 3, 3) of the segments between the bind pose, which the mesh has, and the pose of the nodes.
      turn: of the armature. unit: the armature's scale; bones are so much smaller (0.01: in centimetres).
    """
    order = [joint for joint in skeleton.SMPL_JOINT_NAMES if joint in bones]
    owner = [order.index(_present(joint, bones)) for joint in skeleton.SMPL_JOINT_NAMES]
    heads = dict(zip(skeleton.SMPL_JOINT_NAMES, fields["joints"], strict=True))
    bind = np.tile(np.eye(3), (24, 1, 1)) if bind is None else bind
    writer = _Writer()
    content = writer.content
    armature = pygltflib.Node(name="Armature", children=[1, len(order) + 1], scale=[unit] * 3)
    if turn is not None:
        armature.rotation = turn.tolist()
    content.nodes.append(armature)
    inverse = []
    for joint in order:
        above = _above(joint, bones)
        offset = (heads[joint] - (heads[above] if above else 0)) / unit
        node = pygltflib.Node(name=prefix + bones[joint], translation=offset.tolist())
        node.rotation = transform.Rotation.from_matrix(bind[skeleton.SMPL_JOINT_NAMES.index(joint)]).as_quat().tolist()
        node.children = [1 + order.index(child) for child in order if _above(child, bones) == joint]
        content.nodes.append(node)
        matrix = np.eye(4)
        matrix[:3, :3] /= unit
        matrix[:3, 3] = -heads[joint] / unit
        inverse.append(matrix.T.ravel())
    content.nodes.append(pygltflib.Node(name="Body", mesh=0, skin=0))
    index = np.array(owner)[fields["skin_index"]]
    primitive = pygltflib.Primitive(attributes=pygltflib.Attributes(), mode=4)
    primitive.attributes.POSITION = writer.add(fields["vertices"], "VEC3", _FLOAT)
    primitive.attributes.JOINTS_0 = writer.add(index, "VEC4", _UINT16)
    primitive.attributes.WEIGHTS_0 = writer.add(fields["skin_weight"], "VEC4", _FLOAT)
    primitive.indices = writer.add(fields["faces"].reshape(-1, 1), "SCALAR", _UINT32)
    content.meshes.append(pygltflib.Mesh(primitives=[primitive]))
    skin = pygltflib.Skin(joints=list(range(1, len(order) + 1)))
    skin.inverseBindMatrices = writer.add(np.array(inverse), "MAT4", _FLOAT)
    content.skins.append(skin)
    content.scenes.append(pygltflib.Scene(nodes=[0]))
    content.scene = 0
    writer.finish()
    return content


def write(path: pathlib.Path, content: pygltflib.GLTF2) -> pathlib.Path:
    """Write `.glb` with its buffer inside, `.gltf` with a data URI."""
    if path.suffix == ".gltf":
        blob = content.binary_blob()
        content.buffers[0].uri = "data:application/octet-stream;base64," + base64.b64encode(blob).decode()
        path.write_text(content.gltf_to_json())
        content.buffers[0].uri = None
    else:
        path.write_bytes(b"".join(content.save_to_bytes()))
    return path


def _present(joint: str, bones: dict[str, str]) -> str:
    return joint if joint in bones else _above(joint, bones)


def _above(joint: str, bones: dict[str, str]) -> str | None:
    at = skeleton.SMPL_PARENTS[skeleton.SMPL_JOINT_NAMES.index(joint)]
    while at >= 0 and skeleton.SMPL_JOINT_NAMES[at] not in bones:
        at = skeleton.SMPL_PARENTS[at]
    return skeleton.SMPL_JOINT_NAMES[at] if at >= 0 else None


class _Writer:
    def __init__(self):
        self.content = pygltflib.GLTF2(asset=pygltflib.Asset(version="2.0"))
        self._blob = b""

    def add(self, values: np.ndarray, kind: str, component: int) -> int:
        dtype = {_FLOAT: np.float32, _UINT16: np.uint16, _UINT32: np.uint32}[component]
        data = np.ascontiguousarray(values, dtype).tobytes()
        view = pygltflib.BufferView(buffer=0, byteOffset=len(self._blob), byteLength=len(data))
        self._blob += data + bytes(-len(data) % 4)
        accessor = pygltflib.Accessor(
            bufferView=len(self.content.bufferViews), componentType=component, count=len(values), type=kind
        )
        self.content.bufferViews.append(view)
        self.content.accessors.append(accessor)
        return len(self.content.accessors) - 1

    def finish(self) -> None:
        self.content.buffers.append(pygltflib.Buffer(byteLength=len(self._blob)))
        self.content.set_binary_blob(self._blob)
