"""A glTF file (`.glb`, `.gltf`, VRM included) to one skinned mesh and its bones, as a viewer shows them at rest.

The JSON is read by pygltflib; what it says of sizes and places is checked here before a number is read.
"""

import base64
import binascii
import dataclasses
import pathlib
import struct
import urllib.parse
import warnings

import numpy as np
import pygltflib
from jaxtyping import Float, Int

from dal_jax.body import gltf_accessor, gltf_nodes
from dal_jax.runtime import errors

_UNREADABLE = (
    OSError, ValueError, TypeError, AttributeError, LookupError, OverflowError, MemoryError, RecursionError,
    struct.error, binascii.Error, np.linalg.LinAlgError,
)  # fmt: skip
_COMPRESSED = ("KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression")
_TRIANGLES = 4
_FARTHEST_M = 1e6


@dataclasses.dataclass(frozen=True, eq=False)
class SkinnedMesh:
    """All skinned triangles of a file, in the pose that its nodes have; metres, glTF's axes (y up).

    bones: names of all nodes; parents: of the nodes, -1 at a root; heads: where the nodes are; is_joint: those that
    move skin. skin_node, skin_weight: nodes that move each vertex (k slots); rows sum to 1.
    humanoid: node of each bone that VRM's own table names; empty in other files.
    """

    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "m 3"]
    skin_node: Int[np.ndarray, "n k"]
    skin_weight: Float[np.ndarray, "n k"]
    bones: tuple[str, ...]
    parents: tuple[int, ...]
    heads: Float[np.ndarray, "bones 3"]
    is_joint: tuple[bool, ...]
    humanoid: dict[str, int]


def read(path: pathlib.Path) -> SkinnedMesh:
    """Read every triangle mesh that has a skin; others (props, eyes on a bone) and morph targets are left out.

    Raises:
      errors.InputError: the file is no glTF, is compressed, refers outside its folder, or has no skin; one line.
    """
    try:
        content = _load(path)
        for name in content.extensionsRequired or ():
            if name in _COMPRESSED:
                raise ValueError(f"extension {name}: the mesh is compressed; export it without compression")
        with np.errstate(over="ignore", invalid="ignore"):  # looked at when all is done
            return _Reader(path, content).mesh()
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            raise errors.InputError(f"{error.filename or path}: cannot be read: {error.strerror}") from error
        raise errors.InputError(f"{path}: {reason}") from error


def _load(path: pathlib.Path) -> pygltflib.GLTF2:
    data = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about chunks and extensions that no mesh needs
        try:
            if data[:4] == b"glTF":
                content = pygltflib.GLTF2.load_from_bytes(data)
            else:
                content = pygltflib.GLTF2.gltf_from_json(data.decode("utf-8"))
        except _UNREADABLE as error:
            raise ValueError(f"not a readable glTF file: {error}") from error
    if content is None or not isinstance(content.asset, pygltflib.Asset):
        raise ValueError("not a readable glTF file: no JSON in it")
    return content


class _Reader:
    """One file's nodes, buffers and skins."""

    def __init__(self, path: pathlib.Path, content: pygltflib.GLTF2):
        self.content = content
        buffers = [_buffer(path.parent, content, number) for number in range(len(content.buffers))]
        self.accessors = gltf_accessor.Accessors(content, buffers)
        self.parents = gltf_nodes.parents(content.nodes)
        self.transforms = gltf_nodes.transforms(content.nodes, self.parents)

    def mesh(self) -> SkinnedMesh:
        parts, joints = [], set()
        for number, node in enumerate(self.content.nodes):
            if node.mesh is None or node.skin is None:
                continue
            mesh = gltf_accessor.item(self.content.meshes, node.mesh, f"nodes[{number}].mesh")
            skin = gltf_accessor.item(self.content.skins, node.skin, f"nodes[{number}].skin")
            matrices, nodes = self._skin(skin, f"skins[{node.skin}]")
            joints.update(nodes.tolist())
            for index, primitive in enumerate(mesh.primitives):
                entry = f"meshes[{node.mesh}].primitives[{index}]"
                if primitive.mode in (None, _TRIANGLES):
                    parts.append(self._primitive(primitive, matrices, nodes, entry))
        if not parts:
            raise ValueError("no triangle mesh with a skin: a body needs a rig")
        return self._joined(parts, joints)

    def _skin(self, skin: pygltflib.Skin, entry: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the transform that each of a skin's joints gives to vertices, and its node."""
        for node in skin.joints:
            gltf_accessor.item(self.content.nodes, node, f"{entry}.joints")
        nodes = np.array(skin.joints, np.int64)
        if not len(nodes):
            raise ValueError(f"{entry}.joints: is empty")
        transforms = self.transforms[nodes]
        if skin.inverseBindMatrices is None:
            return transforms, nodes
        inverse = self.accessors.read(skin.inverseBindMatrices, f"{entry}.inverseBindMatrices", "MAT4")
        if len(inverse) < len(nodes):
            raise ValueError(f"{entry}.inverseBindMatrices: has {len(inverse)} matrices for {len(nodes)} joints")
        return transforms @ inverse[: len(nodes)].reshape(-1, 4, 4).transpose(0, 2, 1), nodes  # stored by columns

    def _primitive(self, primitive: pygltflib.Primitive, matrices: np.ndarray, nodes: np.ndarray, entry: str):
        """Return (vertices, faces, skin_node, skin_weight)."""
        read, attributes = self.accessors.read, primitive.attributes
        for name in ("POSITION", "JOINTS_0", "WEIGHTS_0"):
            if getattr(attributes, name, None) is None:
                raise ValueError(f"{entry}: attribute {name} is missing")
        position = read(attributes.POSITION, f"{entry}.POSITION", "VEC3")
        slots = [k for k in range(8) if getattr(attributes, f"WEIGHTS_{k}", None) is not None]
        index, weight = (
            np.concatenate([read(getattr(attributes, f"{name}_{k}"), f"{entry}.{name}_{k}", "VEC4") for k in slots], 1)
            for name in ("JOINTS", "WEIGHTS")
        )
        if len(index) != len(position) or len(weight) != len(position):
            raise ValueError(f"{entry}: attributes of {len(position)}, {len(index)} and {len(weight)} vertices")
        _check_range(index, len(nodes), f"{entry}.JOINTS")
        index, total = index.astype(np.int64), weight.sum(axis=1)
        if weight.size and (weight.min() < 0 or total.min() <= 0):
            raise ValueError(f"{entry}.WEIGHTS: vertex {np.argmin(total)} hangs on no bone")
        weight = weight / total[:, None]
        faces = self._faces(primitive, len(position), entry)
        return _skinned(position, index, weight, matrices), faces, nodes[index], weight

    def _faces(self, primitive: pygltflib.Primitive, count: int, entry: str) -> Int[np.ndarray, "m 3"]:
        corners = np.arange(count)
        if primitive.indices is not None:
            corners = self.accessors.read(primitive.indices, f"{entry}.indices", "SCALAR")[:, 0].astype(np.int64)
        _check_range(corners, count, f"{entry}.indices")
        if len(corners) % 3:
            raise ValueError(f"{entry}.indices: {len(corners)} corners are no triangles")
        return corners.reshape(-1, 3)

    def _joined(self, parts: list, joints: set[int]) -> SkinnedMesh:
        starts = np.cumsum([0, *(len(part[0]) for part in parts)])
        slots = max(part[2].shape[1] for part in parts)
        pad = lambda values: np.pad(values, ((0, 0), (0, slots - values.shape[1])))  # noqa: E731
        vertices, heads = np.concatenate([part[0] for part in parts]), self.transforms[:, :3, 3]
        for what, places in (("the skin", vertices), ("a bone", heads[sorted(joints)])):
            if not np.all(np.abs(places) < _FARTHEST_M):  # false for NaN too
                raise ValueError(f"{what} lies more than {_FARTHEST_M:.0f} m away")
        names = [node.name if isinstance(node.name, str) else "" for node in self.content.nodes]
        return SkinnedMesh(
            vertices=vertices,
            faces=np.concatenate([part[1] + start for part, start in zip(parts, starts[:-1], strict=True)]),
            skin_node=np.concatenate([pad(part[2]) for part in parts]),
            skin_weight=np.concatenate([pad(part[3]) for part in parts]),
            bones=tuple(names),
            parents=tuple(self.parents.tolist()),
            heads=heads,
            is_joint=tuple(number in joints for number in range(len(names))),
            humanoid=_humanoid(self.content),
        )


def _skinned(position: np.ndarray, index: np.ndarray, weight: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    homogeneous = np.concatenate([position, np.ones_like(position[:, :1])], axis=1)
    posed = np.zeros_like(position)
    for slot in range(index.shape[1]):
        moved = np.einsum("nij,nj->ni", matrices[index[:, slot], :3], homogeneous)
        posed += weight[:, slot, None] * moved
    return posed


def _check_range(values: np.ndarray, count: int, entry: str) -> None:
    if values.size and not (values.min() >= 0 and values.max() < count):
        raise ValueError(f"{entry}: {values.max():.0f} is outside 0..{count - 1}")


def _buffer(folder: pathlib.Path, content: pygltflib.GLTF2, number: int) -> bytes:
    """Return a buffer's bytes: the file's own, a data URI's, or those of a file in the same folder or below it."""
    uri = content.buffers[number].uri
    if uri is None:
        blob = content.binary_blob() if number == 0 else None
        if blob is None:
            raise ValueError(f"buffers[{number}]: has no data")
        return bytes(blob)
    if uri.startswith("data:"):
        header, _, text = uri.partition(",")
        if not header.endswith(";base64"):
            raise ValueError(f"buffers[{number}].uri: a data URI that is not base64")
        return base64.b64decode(text, validate=True)
    name = urllib.parse.unquote(uri)
    relative = pathlib.PurePosixPath(name.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts or ":" in name or not name.isprintable():
        raise ValueError(f"buffers[{number}].uri {name[:60]!r} leaves the file's folder")
    return (folder / relative).read_bytes()


def _humanoid(content: pygltflib.GLTF2) -> dict[str, int]:
    """Return VRM's table of bones: version 1 has a dictionary, version 0 a list."""
    extensions = content.extensions or {}
    bones = (extensions.get("VRMC_vrm") or extensions.get("VRM") or {}).get("humanoid", {}).get("humanBones", {})
    if isinstance(bones, list):
        bones = {bone["bone"]: bone for bone in bones}
    for name, bone in bones.items():
        gltf_accessor.item(content.nodes, bone["node"], f"VRM's bone '{name}'")
    return {name: bone["node"] for name, bone in bones.items()}
