"""Pose blendshapes: corrections of the rest shape that are linear in the joints' rotations (optional in the paper).

SMPL's files carry them: rest vertices += B vec(R_j - I), j = 1..23, R_j relative to the parent, 207 numbers row by row.
A template has them only where it was loaded with them (`template.load_template(path, pose_blendshapes=True)`).
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import kinematics, template as template_lib


def pose_feature(template: template_lib.Template, segments: kinematics.Segments) -> Float[Array, "207"]:
    """Return vec(R_j - I) of the joints below the pelvis, R_j = G_p' G_j: the global rotation has no part in it."""
    above = segments.rotation[np.array(template.parents[1:])]
    relative = jnp.einsum("jki,jkl->jil", above, segments.rotation[1:], precision="highest")
    return (relative - jnp.eye(3, dtype=relative.dtype)[None]).ravel()


def shape_points(
    rest: Float[Array, "points 3"], basis: Float[Array, "points 3 207"], feature: Float[Array, "207"]
) -> Float[Array, "points 3"]:
    """Return rest positions in the shape that a pose gives them."""
    return rest + jnp.matmul(basis, feature, precision="highest")
