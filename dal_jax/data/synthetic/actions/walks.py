"""The actions done while walking: Walking, WalkDog, WalkTogether."""

import numpy as np

from dal_jax.data.synthetic import figure as figure_lib, take as take_lib
from dal_jax.data.synthetic.actions import gestures, stances, upright


def _swing(figure: figure_lib.Figure, side: str, take: take_lib.Take, phase: float, vigour: float = 1.0) -> None:
    """Swing an arm against its leg: it is furthest back when the leg of its side strikes."""
    own = phase + (0.0 if side == "left" else 0.5)
    forward = -np.cos(2 * np.pi * (own - 0.03))
    amplitude = vigour * take.between(0.26, 0.45)
    elbow = take.between(0.15, 0.40) + 0.22 * vigour * max(0.0, 0.6 + forward)
    figure.arm_bent(side, 0.06 + amplitude * forward, take.between(0.12, 0.2), elbow, inward=0.25 * max(forward, 0))


def walking(figure: figure_lib.Figure, take: take_lib.Take) -> None:
    """Walk, the arms swinging against the legs."""
    phase = stances.walk(figure, take)
    for side in figure_lib.SIDES:
        _swing(figure, side, take, phase)
    figure.look(take.drift(0.2, 5.0), 0.06 + take.drift(0.06))


def walk_dog(figure: figure_lib.Figure, take: take_lib.Take) -> None:
    """Walk with a leash in one hand; now and then bend down to the dog."""
    side = take.pick(*figure_lib.SIDES)
    sign = figure_lib.outward(side)
    if take.chance(0.2):
        amount = 0.4 + 0.6 * take.hold(5.0)
        stances.stand(figure, take, stride=0.2, flexion=0.95 * amount, drop=0.12 * amount)
        shoulder = figure.frame(f"{side}_shoulder")[1]
        reach = gestures.arm_length(figure, side) * np.array([sign * 0.12, -0.78, 0.42])
        figure.arm_to(side, shoulder + reach, np.array([sign * 0.5, 0.0, -1.0]), np.array([-sign, -0.3, 0.0]), curl=0.3)
        idle = upright.other(side)
        gestures.on_thigh(figure, idle, take, along=0.85)
        figure.look(sign * 0.15, 0.55 * amount)
        return
    phase = stances.walk(figure, take, vigour=0.85)
    pull = take.between(0.28, 0.46) + take.drift(0.06, 2.0)
    height = take.between(-0.30, -0.12) + take.drift(0.05, 1.7)
    gestures.ahead(figure, side, height, pull, take.between(0.10, 0.24), np.array([-0.4 * sign, -1.0, 0.0]), 0.9)
    _swing(figure, upright.other(side), take, phase, 0.8)
    figure.look(sign * take.between(-0.1, 0.4) + take.drift(0.15), take.between(0.05, 0.35))


def walk_together(figure: figure_lib.Figure, take: take_lib.Take) -> None:
    """Walk beside somebody: turned towards them, talking, or arm in arm."""
    side = take.pick(*figure_lib.SIDES)  # where the other person is
    sign = figure_lib.outward(side)
    phase = stances.walk(figure, take, vigour=0.8)
    way = take.pick("swing", "talk", "linked")
    _swing(figure, upright.other(side), take, phase, 0.8)
    if way == "linked":
        gestures.ahead(figure, side, -0.20, 0.20, 0.22 + take.drift(0.02), np.array([-sign, -0.3, 0.0]), 0.5, elbow=1.2)
    elif way == "talk":
        gestures.ahead(
            figure, side, -0.16 + take.drift(0.08, 2.0), 0.30, 0.17 + take.drift(0.06, 2.5), np.array([-sign, 0.5, 0.0])
        )
    else:
        _swing(figure, side, take, phase, 0.8)
    figure.look(sign * np.clip(take.between(0.2, 0.8) + take.drift(0.3, 5.0), -0.2, 0.95), 0.03 + take.drift(0.06))
