"""The actions done standing, seated or on the way: Eating, Phoning, Smoking, Sitting, SittingDown."""

import numpy as np

from dal_jax.synthetic.actions import gestures, stances, upright
from dal_jax.synthetic.figure import SIDES, Figure, Take, outward


def _settle(figure: Figure, take: Take, seated: float) -> bool:
    """Sit on a chair with that probability, else stand; say which."""
    if take.chance(seated):
        stances.sit_chair(figure, take)
        return True
    stances.stand(figure, take)
    return False


def _idle_arm(figure: Figure, side: str, take: Take, sits: bool) -> None:
    (gestures.on_thigh if sits else upright.spare_arm)(figure, side, take)


def eating(figure: Figure, take: Take) -> None:
    """Eat from a plate in the other hand, or at a table."""
    sits = _settle(figure, take, 0.6)
    side = take.pick(*SIDES)
    amount = take.hold(3.5, moving=0.5)
    figure.look(take.drift(0.15), 0.28 - 0.2 * amount + take.drift(0.06))
    plate = take.chance(0.7)
    sign = outward(side)
    dish = figure.at("spine3", figure.landmarks["chest"] + [0.0, -0.17, 0.25])
    gestures.to_mouth(figure, side, take, amount, dish + [sign * 0.10, 0.04, 0.0])
    idle = upright.other(side)
    if plate:
        palm = np.array([0.0, 1.0, 0.1])
        figure.arm_to(idle, dish + [-sign * 0.11, -0.02, -0.02], np.array([-sign * 0.5, -1.0, -0.3]), palm, curl=0.3)
    else:
        _idle_arm(figure, idle, take, sits)


def phoning(figure: Figure, take: Take) -> None:
    """Talk on the phone: standing, strolling or seated."""
    way = take.pick("stand", "stand", "stroll", "sit")
    if way == "stroll":
        stances.walk(figure, take, vigour=0.5)
    elif way == "sit":
        stances.sit_chair(figure, take)
    else:
        stances.stand(figure, take)
    side = take.pick(*SIDES)
    sign = outward(side)
    figure.look(take.drift(0.35, 6.0), 0.08 + take.drift(0.10), sign * 0.10 + take.drift(0.05))
    gestures.to_ear(figure, side, take)
    idle = upright.other(side)
    if take.chance(0.35):
        gestures.ahead(figure, idle, (-0.18 + take.drift(0.07, 2.0), 0.30, 0.12 + take.drift(0.06, 2.4)))
    else:
        _idle_arm(figure, idle, take, way == "sit")


def smoking(figure: Figure, take: Take) -> None:
    """Smoke: one hand goes to the mouth and away; the other arm hangs, or props the elbow."""
    sits = _settle(figure, take, 0.4)
    side = take.pick(*SIDES)
    sign = outward(side)
    amount = take.hold(4.0, moving=0.45)
    figure.look(take.drift(0.3, 6.0), take.drift(0.10) - 0.05 * amount)
    prop = take.chance(0.35)
    if prop:
        idle = upright.other(side)
        belly = figure.at("spine3", figure.landmarks["chest"] + [sign * 0.07, -0.11, 0.09])
        figure.arm_to(idle, belly, np.array([-sign * 0.9, -1.0, 0.0]), np.array([0.0, -0.3, -1.0]), curl=0.4)
    rest = [sign * 0.24, 0.02, 0.20] if prop else [sign * 0.27, -0.20, 0.22]
    away = figure.at("spine3", figure.landmarks["chest"] + rest)
    gestures.to_mouth(figure, side, take, amount, away)
    if not prop:
        _idle_arm(figure, upright.other(side), take, sits)


def sitting(figure: Figure, take: Take) -> None:
    """Sit on a chair, the hands on the thighs, in the lap, folded or talking."""
    stances.sit_chair(figure, take)
    way = take.pick("thighs", "thighs", "lap", "folded", "talk", "knees")
    if way == "knees":  # bent forward, the forearms on the thighs
        flexion = take.between(0.35, 0.6)
        stances.sit_chair(figure, take, legs=take.pick("square", "reached"), flexion=flexion)
    if way == "folded":
        gestures.fold(figure, take)
    elif way == "lap":
        gestures.in_lap(figure, take)
    else:
        for side in SIDES:
            talks = way == "talk" and take.chance(0.7)
            height = -0.20 + take.drift(0.08, 2.2)
            if talks:
                gestures.ahead(figure, side, (height, 0.33, 0.14 + take.drift(0.06, 2.5)))
            else:
                gestures.on_thigh(figure, side, take, along=0.85 if way == "knees" else None)
    figure.look(take.drift(0.5, 6.0), 0.06 + take.drift(0.15, 4.0), take.drift(0.08))


def sitting_down(figure: Figure, take: Take) -> None:
    """Be on the floor: legs crossed, stretched or drawn up, kneeling, or on the way down."""
    way = take.pick("crossed", "crossed", "extended", "drawn", "mixed", "kneel", "squat")
    if way == "squat":
        stances.squat(figure, take, take.between(0.5, 1.0), take.between(0.3, 0.6))
        for side in SIDES:
            gestures.on_thigh(figure, side, take, along=0.9)
    elif way == "kneel":
        stances.kneel(figure, take)
        for side in SIDES:
            gestures.on_thigh(figure, side, take, along=0.55)
    else:
        stances.sit_floor(figure, take, way)
        ground = min(figure.frame(f"{side}_hip")[1][1] for side in SIDES) - stances.SEAT
        _hands_on_floor(figure, take, way, ground)
    figure.look(take.drift(0.45, 6.0), 0.05 + take.drift(0.15, 4.0), take.drift(0.08))


def _hands_on_floor(figure: Figure, take: Take, way: str, ground: float) -> None:
    embrace = way == "drawn" and take.chance(0.6)
    for side in SIDES:
        sign = outward(side)
        if embrace:
            knee = figure.frame("left_knee")[1] / 2 + figure.frame("right_knee")[1] / 2
            shin = knee + [sign * 0.06, -0.10, 0.10]
            figure.arm_to(side, shin, np.array([sign, -0.5, -0.2]), np.array([0, 0, -1.0]), 0.4)
        elif way == "crossed":
            gestures.on_thigh(figure, side, take, along=take.between(0.75, 0.95))
        else:
            gestures.prop_behind(figure, side, take, ground)
