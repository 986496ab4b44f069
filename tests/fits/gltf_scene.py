"""A .glb as a viewer shows it: nodes, cameras, skins and animations evaluated from the file alone, by glTF's rules."""

import pathlib

import numpy as np
import pygltflib
from scipy.spatial.transform import Rotation, Slerp

_DTYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class Scene:
    """The file at a moment of its animation: `nodes`, by name the first of that name; `matrix` of each in the scene."""

    def __init__(self, path: pathlib.Path, time_s: float | None = None):
        self.content = pygltflib.GLTF2.load_binary(path)
        self._blob = self.content.binary_blob()
        moved = {} if time_s is None else self._animated(time_s)
        self.matrix = [np.eye(4)] * len(self.content.nodes)
        todo = [(node, np.eye(4)) for node in self.content.scenes[self.content.scene].nodes]
        while todo:
            number, above = todo.pop()
            self.matrix[number] = above @ _local(self.content.nodes[number], moved.get(number, {}))
            todo += [(child, self.matrix[number]) for child in self.content.nodes[number].children or ()]

    def numbers(self, accessor: int) -> np.ndarray:
        """Return an accessor's numbers, (count, width)."""
        one = self.content.accessors[accessor]
        view = self.content.bufferViews[one.bufferView]
        dtype, width = np.dtype(_DTYPES[one.componentType]), _WIDTHS[one.type]
        return np.frombuffer(self._blob, dtype, one.count * width, view.byteOffset or 0).reshape(one.count, width)

    def skinned(self, person: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return the vertices (n, 3) and faces of the person-th skinned mesh, by linear blend skinning."""
        node = [node for node in self.content.nodes if node.skin is not None][person]
        skin = self.content.skins[node.skin]
        inverse = self.numbers(skin.inverseBindMatrices).reshape(-1, 4, 4).swapaxes(1, 2).astype(np.float64)
        matrices = np.stack([self.matrix[joint] for joint in skin.joints]) @ inverse
        primitive = self.content.meshes[node.mesh].primitives[0]
        rest, joints, weights = (
            self.numbers(getattr(primitive.attributes, name)) for name in ("POSITION", "JOINTS_0", "WEIGHTS_0")
        )
        blended = np.einsum("nk,nkij->nij", weights.astype(np.float64), matrices[joints])
        vertices = np.einsum("nij,nj->ni", blended[:, :3, :3], rest) + blended[:, :3, 3]
        return vertices, self.numbers(primitive.indices).reshape(-1, 3)

    def place(self, name: str) -> np.ndarray:
        """Return where the first node of a name is."""
        return self.matrix[[node.name for node in self.content.nodes].index(name)][:3, 3]

    def _animated(self, time_s: float) -> dict[int, dict[str, np.ndarray]]:
        moved: dict[int, dict[str, np.ndarray]] = {}
        (animation,) = self.content.animations
        for channel in animation.channels:
            sampler = animation.samplers[channel.sampler]
            assert sampler.interpolation == "LINEAR"
            times, values = self.numbers(sampler.input)[:, 0], self.numbers(sampler.output).astype(np.float64)
            if channel.target.path == "rotation":
                value = Slerp(times, Rotation.from_quat(values))(time_s).as_quat()
            else:
                value = np.array([np.interp(time_s, times, column) for column in values.T])
            moved.setdefault(channel.target.node, {})[channel.target.path] = value
        return moved


def _local(node: pygltflib.Node, moved: dict[str, np.ndarray]) -> np.ndarray:
    matrix = np.eye(4)
    rotation = moved.get("rotation", node.rotation or [0, 0, 0, 1])
    matrix[:3, :3] = Rotation.from_quat(rotation).as_matrix() * moved.get("scale", np.array(node.scale or [1, 1, 1]))
    matrix[:3, 3] = moved.get("translation", node.translation or [0, 0, 0])
    return matrix
