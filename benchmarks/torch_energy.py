"""The registration energy of eq. 2 in PyTorch, written from its definition: it shares no code with dal_jax.

    E = 1000 sum_i c_i |x_i - p_i|^2                                  dense matches, the crop's [-1, 1]
      + w_KP sum_j c_j |x_j - p_j|^2 + d_j (z_j - depth_j)^2          key points; z relative to the pelvis
      + w_scale sum_edges (log s_child - log s_parent)^2 + w_joint sum_j |a_j|^2 + w_det max(0, 1 - det R)^2

with x = s (R X)_xy + t, z = s (R X)_z, R nine free numbers whose rows went through Gram-Schmidt, det R their
determinant before that, and X the body posed by linear blend skinning: G_c = G_p A_c, p_c = p_p + s_p G_p (J_c - J_p),
X = sum_k w_k (p_k + s_k G_k (v - J_k)).

Two programs for the same number. `mesh="full"` is what one writes around a body model: all vertices are posed, one
joint after the other, then indexed. `mesh="points"` is what one writes when it must be fast: only the matched vertices,
the tree level by level, and the 17 key points, which are linear in the transforms, as a constant matrix.
"""

import dataclasses
import typing

import numpy as np
import torch

UNKNOWNS = ("pose", "log_segment_scale", "raw_rotation", "log_camera_scale", "translation")
Unknowns = dict[str, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Weights:
    """Of eq. 2; the defaults are the paper's of the first round, which make the body stiff."""

    dense: float = 1000.0
    keypoint: float = 1.0
    scale: float = 100.0
    joint: float = 1.0
    det: float = 1.0


class Body:
    """A rigged body as tensors of one type."""

    def __init__(self, template: typing.Any, dtype: torch.dtype = torch.float32):
        """template: anything with vertices, joints, skin_weight, h36m_regressor and parents."""
        self.parents = template.parents
        self.vertices = _tensor(template.vertices, dtype)
        self.joints = _tensor(template.joints, dtype)
        self.skin_weight = _tensor(template.skin_weight, dtype)
        self.regressor = _tensor(template.h36m_regressor, dtype)
        homogeneous = torch.cat([self.vertices, torch.ones_like(self.vertices[:, :1])], dim=1)
        stacked = (self.skin_weight[:, :, None] * homogeneous[:, None, :]).flatten(1)
        self.joint_matrix = self.regressor @ stacked
        depth = [0] * len(self.parents)
        for child in range(1, len(self.parents)):
            depth[child] = depth[self.parents[child]] + 1
        self.levels = [[j for j in range(len(depth)) if depth[j] == level] for level in range(max(depth) + 1)]
        self.order = torch.tensor(np.argsort([joint for level in self.levels for joint in level]))


class Energy:
    """Eq. 2 of a batch of observed people, as a function of their unknowns."""

    def __init__(self, body: Body, observed: typing.Any, vertex: np.ndarray, weights: Weights, mesh: str):
        """observed: anything with the fields of an observation, stacked; vertex: (people, points), what is matched."""
        dtype = body.vertices.dtype
        self.body, self.weights, self.mesh = body, weights, mesh
        self.vertex = torch.from_numpy(np.ascontiguousarray(vertex, np.int64))
        fields = ("point_position", "point_confidence", "keypoint_position", "keypoint_confidence", "depth")
        self.seen = {name: _tensor(getattr(observed, name), dtype) for name in (*fields, "depth_confidence")}
        if mesh == "points":
            self.point_weight = body.skin_weight[self.vertex]
            self.point_rest = body.vertices[self.vertex]

    def __call__(self, unknowns: Unknowns) -> torch.Tensor:
        """Return everybody's energy, (people,)."""
        points, joints = self._pose(unknowns)
        scale = unknowns["log_camera_scale"].exp()[:, None, None]
        shift = unknowns["translation"][:, None]
        seen, weights = self.seen, self.weights
        dense = (scale * points[..., :2] + shift - seen["point_position"]).square().sum(-1)
        planar = (scale * joints[..., :2] + shift - seen["keypoint_position"]).square().sum(-1)
        trusted = seen["depth_confidence"]
        depth = scale[..., 0] * joints[..., 2] - seen["depth"]
        mean = (trusted * depth).sum(-1, keepdim=True) / trusted.sum(-1, keepdim=True).clamp(min=1e-9)
        depth = (depth - mean).square()
        log_scale = unknowns["log_segment_scale"]
        stretch = log_scale[:, 1:] - log_scale[:, list(self.body.parents[1:])]
        lack = torch.clamp(1.0 - torch.linalg.det(unknowns["raw_rotation"]), min=0.0)
        return (
            weights.dense * (seen["point_confidence"] * dense).sum(-1)
            + weights.keypoint * (seen["keypoint_confidence"] * planar + trusted * depth).sum(-1)
            + weights.scale * stretch.square().sum(-1)
            + weights.joint * unknowns["pose"].square().sum((-1, -2))
            + weights.det * lack.square()
        )

    def _pose(self, unknowns: Unknowns) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the matched points and the 17 key points, camera axes, metres."""
        root, relative = gram_schmidt(unknowns["raw_rotation"]), rodrigues(unknowns["pose"])
        scale = unknowns["log_segment_scale"].exp()
        if self.mesh == "full":
            transforms = _joint_after_joint(self.body, root, relative, scale)
            each_vertex = torch.matmul(self.body.skin_weight, transforms.flatten(2)).unflatten(2, (3, 4))
            homogeneous = torch.cat([self.body.vertices, torch.ones_like(self.body.vertices[:, :1])], dim=1)
            vertices = torch.matmul(each_vertex, homogeneous[None, :, :, None])[..., 0]
            people = torch.arange(len(vertices))[:, None]
            return vertices[people, self.vertex], torch.matmul(self.body.regressor, vertices)
        transforms = _level_after_level(self.body, root, relative, scale)
        blended = torch.bmm(self.point_weight, transforms.flatten(2)).unflatten(2, (3, 4))
        points = (blended[..., :3] * self.point_rest[:, :, None]).sum(-1) + blended[..., 3]
        stacked = transforms.transpose(2, 3).reshape(len(transforms), -1, 3)
        return points, torch.matmul(self.body.joint_matrix, stacked)


def _joint_after_joint(body: Body, root, relative, scale) -> torch.Tensor:
    """Return [s G | p - s G J] of every segment, (people, 24, 3, 4)."""
    turn, place = [root], [torch.zeros_like(root[:, 0])]
    for child in range(1, len(body.parents)):
        parent = body.parents[child]
        bone = body.joints[child] - body.joints[parent]
        place.append(place[parent] + scale[:, parent, None] * (turn[parent] @ bone))
        turn.append(turn[parent] @ relative[:, child - 1])
    return _affine(body, torch.stack(turn, dim=1), torch.stack(place, dim=1), scale)


def _level_after_level(body: Body, root, relative, scale) -> torch.Tensor:
    """Return the same, all joints of a level at once."""
    turn, place = [root[:, None]], [torch.zeros_like(root[:, :1])]
    for above, level in zip(body.levels, body.levels[1:], strict=False):
        parents = [body.parents[child] for child in level]
        rows = [above.index(parent) for parent in parents]
        bone = body.joints[level] - body.joints[parents]
        before = turn[-1][:, rows]
        place.append(place[-1][:, rows] + scale[:, parents, None] * (before * bone[None, :, None]).sum(-1))
        turn.append(before @ relative[:, [child - 1 for child in level]])
    return _affine(body, torch.cat(turn, dim=1)[:, body.order], torch.cat(place, dim=1)[:, body.order], scale)


def _affine(body: Body, turn: torch.Tensor, place: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    linear = scale[:, :, None, None] * turn
    offset = place - (linear * body.joints[None, :, None]).sum(-1)
    return torch.cat([linear, offset[..., None]], dim=-1)


def rodrigues(axis_angle: torch.Tensor) -> torch.Tensor:
    """Return the rotation matrices of rotation vectors; smooth at zero (series below a thousandth of a radian)."""
    squared = axis_angle.square().sum(-1)[..., None, None]
    small = squared < 1e-6
    safe = torch.where(small, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    sine = torch.where(small, 1 - squared / 6, angle.sin() / angle)
    cosine = torch.where(small, 0.5 - squared / 24, (1 - angle.cos()) / safe)
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    return torch.eye(3, dtype=axis_angle.dtype) + sine * cross + cosine * (cross @ cross)


def gram_schmidt(matrix: torch.Tensor) -> torch.Tensor:
    """Orthonormalise the rows, first to last."""
    rows: list[torch.Tensor] = []
    for row in matrix.unbind(-2):
        for earlier in rows:
            row = row - (row * earlier).sum(-1, keepdim=True) * earlier
        rows.append(row / row.square().sum(-1, keepdim=True).sqrt())
    return torch.stack(rows, dim=-2)


def matched_vertices(faces: np.ndarray, observed: typing.Any) -> np.ndarray:
    """Return the vertex that each point of the benchmark's people shows, (people, points)."""
    barycentric = np.asarray(observed.point_barycentric)
    corner = barycentric.argmax(axis=-1)
    if not np.array_equal(barycentric, np.eye(3)[corner]):
        raise ValueError("a point lies between vertices; the full-mesh program indexes vertices")
    return np.take_along_axis(np.asarray(faces)[np.asarray(observed.point_face)], corner[..., None], axis=-1)[..., 0]


def unknowns_at(parameters: dict[str, np.ndarray], dtype: torch.dtype = torch.float32) -> Unknowns:
    """Return the free numbers at given ones, ready for autograd (copies)."""
    return {name: _tensor(parameters[name], dtype).clone().requires_grad_() for name in UNKNOWNS}


def _tensor(values: typing.Any, dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(np.array(values), dtype=dtype)
