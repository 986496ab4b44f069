"""A glTF file (`.glb`, `.gltf`, VRM included) to one skinned mesh and its bones, as a viewer shows them at rest.

The JSON is read by pygltflib; what it says of sizes and places is checked here before a number is read.
"""

import base64
import dataclasses
import pathlib
import urllib.parse
import warnings
from collections.abc import Sequence

import numpy as np
import pygltflib
from jaxtyping import Float, Int

from dal_jax.runtime import door, files
from dal_jax.runtime.errors import InputError

_COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTH = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}


def item(items: Sequence, index: object, entry: str):
    """Return an item by the index that a file gives for it; ValueError that names the entry if there is none."""
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(items):
        raise ValueError(f"{entry}: there is no number {str(index)[:40]} among {len(items)}")
    return items[index]


def whole(value: object, entry: str) -> int:
    """Return a size or an offset; ValueError that names the entry if it is none."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**40:
        raise ValueError(f"{entry} is {str(value)[:40]}, expected a whole number")
    return value


def numbers(values: object, count: int, entry: str) -> Float[np.ndarray, "count"]:
    """Return a list of so many finite numbers; ValueError that names the entry if it is none."""
    array = np.array(values, np.float64)
    if array.shape != (count,) or not np.all(np.isfinite(array)):
        raise ValueError(f"{entry}: expected {count} finite numbers")
    return array


# --- The nodes of a glTF file: their tree, and where each is in the scene ---


def parents(nodes: list[pygltflib.Node]) -> Int[np.ndarray, "nodes"]:
    """Return the parent of each node, -1 at a root; ValueError where a node has two."""
    found = np.full(len(nodes), -1)
    for number, node in enumerate(nodes):
        for child in node.children or ():
            item(nodes, child, f"nodes[{number}].children")
            if found[child] != -1:
                raise ValueError(f"nodes[{number}].children: node {child} has two parents")
            found[child] = number
    return found


def transforms(nodes: list[pygltflib.Node], parents: Int[np.ndarray, "nodes"]) -> Float[np.ndarray, "nodes 4 4"]:
    """Return each node's transform to the scene, whatever their order; ValueError where one is above itself."""
    placed = np.stack([_local(node, f"nodes[{number}]") for number, node in enumerate(nodes)])
    done = parents == -1
    while not done.all():
        ready = np.flatnonzero(~done & done[parents])
        if not len(ready):
            raise ValueError(f"nodes[{np.argmin(done)}]: is its own ancestor")
        placed[ready] = placed[parents[ready]] @ placed[ready]
        done[ready] = True
    return placed


def _local(node: pygltflib.Node, entry: str) -> Float[np.ndarray, "4 4"]:
    if node.matrix is not None:
        return numbers(node.matrix, 16, f"{entry}.matrix").reshape(4, 4).T
    transform = np.eye(4)
    x, y, z, w = numbers(node.rotation or [0, 0, 0, 1], 4, f"{entry}.rotation")
    norm = x * x + y * y + z * z + w * w
    if norm < 1e-12:
        raise ValueError(f"{entry}.rotation: is no rotation")
    transform[:3, :3] = np.eye(3) + 2 / norm * np.array([
        [-y * y - z * z, x * y - w * z, x * z + w * y],
        [x * y + w * z, -x * x - z * z, y * z - w * x],
        [x * z - w * y, y * z + w * x, -x * x - y * y],
    ])  # fmt: skip
    transform[:3, :3] *= numbers(node.scale or [1, 1, 1], 3, f"{entry}.scale")
    transform[:3, 3] = numbers(node.translation or [0, 0, 0], 3, f"{entry}.translation")
    return transform


# --- The file ---

_COMPRESSED = ("KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression")
_TRIANGLES = 4
_LARGEST_FILE = 1 << 30
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
    except door.UNREADABLE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            raise InputError(f"{error.filename or path}: cannot be read: {error.strerror}") from error
        raise InputError(f"{path}: {reason}") from error


def _load(path: pathlib.Path) -> pygltflib.GLTF2:
    data = door.contents(path, _LARGEST_FILE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about chunks and extensions that no mesh needs
        try:
            if data[:4] == b"glTF":
                content = pygltflib.GLTF2.load_from_bytes(data)
            else:
                content = pygltflib.GLTF2.gltf_from_json(data.decode("utf-8-sig"))
        except door.UNREADABLE as error:
            raise ValueError(f"not a readable glTF file: {error}") from error
    if content is None or not isinstance(content.asset, pygltflib.Asset):
        raise ValueError("not a readable glTF file: no JSON in it")
    return content


class _Reader:
    """One file's nodes, buffers, accessors and skins."""

    def __init__(self, path: pathlib.Path, content: pygltflib.GLTF2):
        self.content = content
        self.buffers = [_buffer(path.parent, content, number) for number in range(len(content.buffers))]
        self.parents = parents(content.nodes)
        self.transforms = transforms(content.nodes, self.parents)

    def mesh(self) -> SkinnedMesh:
        parts, joints = [], set()
        for number, node in enumerate(self.content.nodes):
            if node.mesh is None or node.skin is None:
                continue
            mesh = item(self.content.meshes, node.mesh, f"nodes[{number}].mesh")
            skin = item(self.content.skins, node.skin, f"nodes[{number}].skin")
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
        for node in skin.joints or ():
            item(self.content.nodes, node, f"{entry}.joints")
        nodes = np.array(skin.joints or (), np.int64)
        if not len(nodes):
            raise ValueError(f"{entry}.joints: is empty")
        transforms = self.transforms[nodes]
        if skin.inverseBindMatrices is None:
            return transforms, nodes
        inverse = self._numbers(skin.inverseBindMatrices, f"{entry}.inverseBindMatrices", "MAT4")
        if len(inverse) < len(nodes):
            raise ValueError(f"{entry}.inverseBindMatrices: has {len(inverse)} matrices for {len(nodes)} joints")
        return transforms @ inverse[: len(nodes)].reshape(-1, 4, 4).transpose(0, 2, 1), nodes  # stored by columns

    def _primitive(self, primitive: pygltflib.Primitive, matrices: np.ndarray, nodes: np.ndarray, entry: str):
        """Return (vertices, faces, skin_node, skin_weight)."""
        read, attributes = self._numbers, primitive.attributes
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
            corners = self._numbers(primitive.indices, f"{entry}.indices", "SCALAR")[:, 0].astype(np.int64)
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

    def _numbers(self, index: object, entry: str, kind: str) -> Float[np.ndarray, "count width"]:
        """Return an accessor's numbers as float64, normalised integers in [-1, 1].

        Raises:
          ValueError: it is of another kind or leaves its buffer, or a number is not finite; names `entry`.
        """
        accessor = item(self.content.accessors, index, entry)
        where = f"{entry}: accessors[{index}]"
        if accessor.type != kind or accessor.componentType not in _COMPONENTS:
            raise ValueError(f"{where} is {accessor.type} of type {accessor.componentType}, expected {kind}")
        if accessor.sparse is not None or accessor.bufferView is None:
            raise ValueError(f"{where} is sparse, which is not read")
        stored = self._stored(accessor, np.dtype(_COMPONENTS[accessor.componentType]), _WIDTH[kind], where)
        values = stored.astype(np.float64)
        if accessor.normalized and stored.dtype.kind in "iu":
            values = np.maximum(values / np.iinfo(stored.dtype).max, -1.0)
        if not np.all(np.isfinite(values)):
            raise ValueError(f"{where} holds values that are not finite")
        return values

    def _stored(self, accessor: pygltflib.Accessor, dtype: np.dtype, width: int, where: str) -> np.ndarray:
        view = item(self.content.bufferViews, accessor.bufferView, f"{where}.bufferView")
        buffer = item(self.buffers, view.buffer, f"{where}: bufferViews[{accessor.bufferView}].buffer")
        count = whole(accessor.count, f"{where}.count")
        offset = whole(accessor.byteOffset or 0, f"{where}.byteOffset")
        start, length = (whole(value or 0, f"{where}: its view") for value in (view.byteOffset, view.byteLength))
        size = width * dtype.itemsize
        stride = whole(view.byteStride or size, f"{where}: its stride")
        end = offset + (stride * (count - 1) + size if count else 0)
        if end > length or start + length > len(buffer):
            raise ValueError(f"{where} ends beyond its buffer")
        return np.ndarray((count, width), dtype, buffer, start + offset, (stride, dtype.itemsize))


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
    try:
        path = files.below(folder, name)
    except InputError:
        raise ValueError(f"buffers[{number}].uri {name[:60]!r} leaves the file's folder") from None
    return door.contents(path, _LARGEST_FILE)


def _humanoid(content: pygltflib.GLTF2) -> dict[str, int]:
    """Return VRM's table of bones: version 1 has a dictionary, version 0 a list."""
    extensions = content.extensions or {}
    bones = (extensions.get("VRMC_vrm") or extensions.get("VRM") or {}).get("humanoid", {}).get("humanBones", {})
    if isinstance(bones, list):
        bones = {bone["bone"]: bone for bone in bones}
    for name, bone in bones.items():
        item(content.nodes, bone["node"], f"VRM's bone '{name}'")
    return {name: bone["node"] for name, bone in bones.items()}
