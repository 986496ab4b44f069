"""A small made-up rigged body in the file format: 96 vertices that depend on four segments each, nothing symmetric."""

import numpy as np

from dal_jax.body import skeleton

JOINTS = np.array([
    [0, 0, 0], [0.07, -0.08, 0.01], [-0.06, -0.09, 0], [0, 0.12, -0.02], [0.11, -0.45, 0], [-0.1, -0.47, 0.01],
    [0.01, 0.26, 0], [0.1, -0.86, -0.04], [-0.09, -0.87, -0.03], [0, 0.31, 0.02], [0.12, -0.92, 0.1],
    [-0.11, -0.93, 0.09], [0, 0.52, -0.03], [0.08, 0.43, 0], [-0.09, 0.42, -0.01], [0, 0.61, 0.02], [0.18, 0.45, 0],
    [-0.17, 0.46, -0.02], [0.44, 0.45, -0.02], [-0.43, 0.45, -0.03], [0.69, 0.46, 0], [-0.68, 0.45, 0.01],
    [0.78, 0.45, 0.01], [-0.77, 0.44, 0],
])  # fmt: skip


def fields(seed: int = 0, vertices: int = 96, faces: int = 40) -> dict[str, np.ndarray]:
    """Return the fields of a valid body file, all drawn at random but for the skeleton."""
    rng = np.random.default_rng(seed)
    near = np.arange(vertices) % 24
    weight = rng.dirichlet(np.ones(4), vertices)
    others = np.stack([rng.choice(np.delete(np.arange(24), own), 3, replace=False) for own in near])
    return {
        "vertices": (JOINTS[near] + rng.normal(0, 0.08, (vertices, 3))).astype(np.float32),
        "faces": np.stack([rng.choice(vertices, 3, replace=False) for _ in range(faces)]).astype(np.int32),
        "joints": JOINTS.astype(np.float32),
        "parents": np.array(skeleton.SMPL_PARENTS, np.int32),
        "skin_index": np.concatenate([near[:, None], others], axis=1).astype(np.int32),
        "skin_weight": weight.astype(np.float32),
        "mirror": np.arange(vertices, dtype=np.int32)[::-1].copy(),
        "part": rng.integers(1, 25, faces).astype(np.uint8),
        "uv": rng.uniform(0, 1, (faces, 3, 2)).astype(np.float32),
        "h36m_regressor": rng.dirichlet(np.full(vertices, 0.1), 17).astype(np.float32),
        "joint_names": np.array(skeleton.SMPL_JOINT_NAMES),
        "licence": np.array("CC0"),
        "provenance": np.array("made up"),
    }
