"""The fifteen actions of Human3.6M, each a natural motion whose moments can be asked for one by one."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dal_jax.data.synthetic import figure as figure_lib, take as take_lib
from dal_jax.data.synthetic.actions import everyday, upright, walks

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
    "WalkDog": walks.walk_dog,
    "Walking": walks.walking,
    "WalkTogether": walks.walk_together,
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
    figure = figure_lib.Figure(joints, landmarks)
    ACTIONS[action](figure, take_lib.Take(seed, time))
    return Posture(*figure.pose(), figure.sits_on_chair)
