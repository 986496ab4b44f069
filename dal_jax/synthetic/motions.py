"""The fifteen actions of Human3.6M, each a natural motion whose moments can be asked for one by one."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dal_jax.synthetic.actions import everyday, upright
from dal_jax.synthetic.figure import Figure
from dal_jax.synthetic.take import Take

ACTIONS = {
    "Directions": upright.directions,
    "Discussion": upright.discussion,
    "Eating": everyday.eating,
    "Greeting": upright.greeting,
    "Phoning": everyday.phoning,
    "Photo": upright.photo,
    "Posing": upright.posing,
    "Purchases": upright.purchases,
    "Sitting": everyday.sitting,
    "SittingDown": everyday.sitting_down,
    "Smoking": everyday.smoking,
    "Waiting": upright.waiting,
    "WalkDog": upright.walk_dog,
    "Walking": upright.walking,
    "WalkTogether": upright.walk_together,
}
"""Human3.6M's names -> the function that poses a figure."""

LENGTH_S = 20.0
"""How long a take lasts, seconds."""


class Posture(NamedTuple):
    """One moment: the pelvis' rotation in the figure's frame (y up, heading for +z) and the joints' rotation vectors.

    on_chair: whether a chair belongs under it.
    """

    root: Float[np.ndarray, "3 3"]
    pose: Float[np.ndarray, "23 3"]
    on_chair: bool


def perform(
    action: str,
    joints: Float[np.ndarray, "24 3"],
    landmarks: dict[str, np.ndarray],
    seed: tuple[int, ...],
    time: float,
) -> Posture:
    """Return how the actor with these rest joints stands at `time` seconds into the take that `seed` names."""
    figure = Figure(joints, landmarks)
    ACTIONS[action](figure, Take(seed, time))
    return Posture(*figure.pose(), figure.sits_on_chair)
