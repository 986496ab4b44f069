"""The nodes of a glTF file: who hangs on whom, and where each is in the scene."""

import numpy as np
import pygltflib
from jaxtyping import Float, Int

from dal_jax.body import gltf_accessor


def parents(nodes: list[pygltflib.Node]) -> Int[np.ndarray, "nodes"]:
    """Return the parent of each node, -1 at a root; ValueError where a node has two."""
    found = np.full(len(nodes), -1)
    for number, node in enumerate(nodes):
        for child in node.children or ():
            gltf_accessor.item(nodes, child, f"nodes[{number}].children")
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
        return gltf_accessor.numbers(node.matrix, 16, f"{entry}.matrix").reshape(4, 4).T
    transform = np.eye(4)
    x, y, z, w = gltf_accessor.numbers(node.rotation or [0, 0, 0, 1], 4, f"{entry}.rotation")
    norm = x * x + y * y + z * z + w * w
    if norm < 1e-12:
        raise ValueError(f"{entry}.rotation: is no rotation")
    transform[:3, :3] = np.eye(3) + 2 / norm * np.array([
        [-y * y - z * z, x * y - w * z, x * z + w * y],
        [x * y + w * z, -x * x - z * z, y * z - w * x],
        [x * z - w * y, y * z + w * x, -x * x - y * y],
    ])  # fmt: skip
    transform[:3, :3] *= gltf_accessor.numbers(node.scale or [1, 1, 1], 3, f"{entry}.scale")
    transform[:3, 3] = gltf_accessor.numbers(node.translation or [0, 0, 0], 3, f"{entry}.translation")
    return transform
