"""Pose the body: a template, a pose, a mesh."""

import jax
import jax.numpy as jnp

import dal_jax as dal
from dal_jax.body import kinematics, skinning
from dal_jax.body.skeleton import SMPL_JOINT_NAMES


def main() -> None:
    """Bend an elbow by 90 degrees and say how far the hand moved."""
    body = dal.load_body()
    straight = kinematics.t_pose()
    bent = straight.replace(
        pose=straight.pose.at[SMPL_JOINT_NAMES.index("left_elbow") - 1].set(jnp.array([0.0, -jnp.pi / 2, 0.0]))
    )

    @jax.jit
    def mesh(person):
        segments = kinematics.pose_segments(body, person)
        return skinning.skin_vertices(body, segments), segments.position  # (7199, 3), (24, 3): metres, camera axes

    (_, before), (vertices, after) = mesh(straight), mesh(bent)
    print(f"{vertices.shape[0]} vertices, {body.faces.shape[0]} faces")
    print(f"the left hand moved by {100 * jnp.linalg.norm(after[22] - before[22]):.0f} cm")

    # everything is a pure function of one person: a crowd is a vmap, a gradient is a grad
    crowd = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (8, *leaf.shape)), bent)
    print("eight people at once:", jax.vmap(mesh)(crowd)[0].shape)
    height = jax.grad(lambda pose: mesh(straight.replace(pose=pose))[1][22, 1])(straight.pose)
    print(f"the hand's height changes most with joint {int(jnp.abs(height).sum(axis=1).argmax()) + 1}")


if __name__ == "__main__":
    main()
