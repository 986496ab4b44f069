"""Low down: sitting on the floor, kneeling, squatting."""

import numpy as np

from dal_jax.data.synthetic import figure as figure_lib, take as take_lib
from dal_jax.data.synthetic.actions import stances

SEAT = 0.115  # height of the hip joints above the floor when sitting on it, m
ANKLE = 0.065  # height of an ankle joint above the floor, m


def sit_floor(figure: figure_lib.Figure, take: take_lib.Take, legs: str) -> None:
    """Sit on the floor with the legs 'crossed', 'extended', 'drawn' (knees up) or 'mixed' (one of each)."""
    lean = {"crossed": 0.05, "extended": -0.30, "drawn": -0.05, "mixed": -0.22}[legs] + take.between(-0.08, 0.08)
    figure.pelvis(-0.30 + 0.6 * lean, take.drift(0.03), take.drift(0.08, 7.0))
    figure.trunk(0.42 + 0.4 * lean + take.drift(0.03), take.drift(0.05), take.drift(0.08))
    front = take.pick(*figure_lib.SIDES)
    apart = take.between(0.03, 0.12)
    for side in figure_lib.SIDES:
        sign = figure_lib.outward(side)
        hip, thigh, shank = stances.leg(figure, side)
        way = legs if legs != "mixed" else ("extended" if side == front else "drawn")
        floor = ANKLE - SEAT
        if way == "crossed":
            depth = 0.52 if side == front else 0.40
            target = np.array([-sign * 0.11, hip[1] + floor + 0.0, hip[2] + depth * thigh / 0.42 * 0.85])
            figure.leg_to(side, target, np.array([sign, 0.42, 0.35]), foot_pitch=None, ankle_flexion=0.45)
        elif way == "extended":
            length = 0.985 * (thigh + shank)
            target = hip + [sign * apart, floor - 0.01, length]
            figure.leg_to(side, target, np.array([0.3 * sign, 1.0, 0.0]), foot_pitch=None, ankle_flexion=0.30)
        else:
            target = hip + [sign * apart, floor + 0.02, 0.62 * thigh / 0.42 * take.between(0.72, 0.95)]
            figure.leg_to(side, target, np.array([0.15 * sign, 1.0, 0.4]), take.between(0.0, 0.25))


def kneel(figure: figure_lib.Figure, take: take_lib.Take) -> None:
    """Kneel on both knees and sit back on the heels."""
    figure.pelvis(take.between(0.0, 0.12), 0.0, take.drift(0.05))
    figure.trunk(take.between(0.0, 0.15) + take.drift(0.03), take.drift(0.04), take.drift(0.08))
    apart = take.between(0.05, 0.16)
    sink = take.between(1.25, 1.5)
    for side in figure_lib.SIDES:
        figure.leg_bent(side, hip=sink, knee=min(1.57 + sink - 0.42, 2.5), ankle=0.85, abduction=apart, out=0.0)


def squat(figure: figure_lib.Figure, take: take_lib.Take, depth: float, flexion: float) -> None:
    """Squat with both feet flat: depth 0 stands, 1 sits on the heels nearly; flexion: the trunk's."""
    figure.pelvis(0.15 + 0.45 * flexion, take.drift(0.02), take.drift(0.08))
    figure.trunk(0.1 + 0.45 * flexion, take.drift(0.05), take.drift(0.10))
    width = take.between(0.06, 0.14)
    out = take.between(0.15, 0.45)
    for side in figure_lib.SIDES:
        sign = figure_lib.outward(side)
        hip, thigh, shank = stances.leg(figure, side)
        height = (1.0 - 0.56 * depth) * (thigh + shank) - 0.01
        target = hip + [sign * width, -height, (0.10 + 0.16 * flexion) * min(1.0, 2 * depth)]
        figure.leg_to(side, target, np.array([sign * 0.55, 0.2, 1.0]), out)
