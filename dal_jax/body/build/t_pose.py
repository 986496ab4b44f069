"""Pose Anny's rest shapes into SMPL's T-pose with Anny's own rig (linear blend skinning in its 104 bones)."""

import numpy as np
from jaxtyping import Float
from scipy.spatial import transform

from dal_jax.body.build import anny_mesh

# Share of the arm's elevation (about 48 degrees) taken by the shoulder girdle, as the scapula does in life.
_CLAVICLE_SHARE, _SHOULDER_SHARE = 0.15, 0.3
_LEG_TILT = np.radians(3.0)  # hip -> ankle, outwards from the vertical


def t_pose(
    body: anny_mesh.AnnyBody, vertices: Float[np.ndarray, "v 3"], heads: Float[np.ndarray, "bones 3"]
) -> tuple[Float[np.ndarray, "v 3"], Float[np.ndarray, "bones 3"]]:
    """Arms along +-x with palms down, legs nearly vertical, feet flat."""
    turn = _bone_turns(body, heads)
    moved = heads.copy()
    for b, p in enumerate(body.parents):
        if p >= 0:
            moved[b] = moved[p] + turn[p] @ (heads[b] - heads[p])
    posed = np.zeros_like(vertices)
    for b in range(len(heads)):
        w = body.weights[:, b]
        on = w > 0
        posed[on] += w[on, None] * ((vertices[on] - heads[b]) @ turn[b].T + moved[b])
    return posed, moved


def _bone_turns(body: anny_mesh.AnnyBody, heads: np.ndarray) -> Float[np.ndarray, "bones 3 3"]:
    """World rotation of every bone relative to Anny's rest pose; the right side mirrors the left."""
    at = {name: heads[i] for i, name in enumerate(body.bones)}
    chosen = _left_arm(at) | _left_leg(at)
    turns = np.tile(np.eye(3), (len(body.bones), 1, 1))
    flip = np.diag([-1.0, 1.0, 1.0])
    for b, (name, parent) in enumerate(zip(body.bones, body.parents, strict=True)):
        left = name[:-2] + ".L" if name.endswith(".R") else name
        if left in chosen:
            turns[b] = chosen[left] if left == name else flip @ chosen[left] @ flip
        elif parent >= 0:
            turns[b] = turns[parent]
    return turns


def _left_arm(at: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    x = np.array([1.0, 0.0, 0.0])
    upper = at["lowerarm01.L"] - at["upperarm01.L"]
    lower = at["wrist.L"] - at["lowerarm01.L"]
    knuckles = [at[f"finger{i}-1.L"] for i in (2, 3, 4, 5)]
    hand = np.mean(knuckles, axis=0) - at["wrist.L"]
    elevation = -np.arctan2(upper[1], upper[0])
    clavicle = _about("z", _CLAVICLE_SHARE * elevation)
    shoulder = _about("z", _SHOULDER_SHARE * elevation) @ clavicle
    upperarm = _align(shoulder @ upper, x) @ shoulder
    forearm = _align(upperarm @ lower, x) @ upperarm
    wrist = _align(forearm @ hand, x) @ forearm
    across = wrist @ (knuckles[3] - knuckles[0])  # index -> little finger: backwards when the palm faces down
    twist = np.arctan2(-across[1], across[2]) - np.pi
    twist = (twist + np.pi) % (2 * np.pi) - np.pi
    return {
        "clavicle.L": clavicle,
        "shoulder01.L": shoulder,
        "upperarm01.L": upperarm,
        "lowerarm01.L": _about("x", twist / 4) @ forearm,
        "lowerarm02.L": _about("x", twist * 0.7) @ forearm,  # the radius turns about the ulna along the forearm
        "wrist.L": _about("x", twist) @ wrist,
    }


def _left_leg(at: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    leg = at["foot.L"] - at["upperleg01.L"]
    lean = np.arctan2(leg[0], -leg[1])
    return {"upperleg01.L": _about("z", _LEG_TILT - lean), "foot.L": np.eye(3)}


def _about(axis: str, angle: float) -> np.ndarray:
    return transform.Rotation.from_euler(axis, angle).as_matrix()


def _align(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Smallest rotation that turns direction a into direction b."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    axis = np.cross(a, b)
    angle = np.arctan2(np.linalg.norm(axis), a @ b)
    return transform.Rotation.from_rotvec(angle * axis / max(np.linalg.norm(axis), 1e-12)).as_matrix()
