"""The fifteen actions of Human3.6M, each a function that poses a figure at a take's moment.

First those done on one's feet, then those done standing, seated or on the way, from `eating` on.
"""

import numpy as np

from dal_jax.synthetic import limbs
from dal_jax.synthetic.figure import SIDES, Figure, Take, outward


def directions(figure: Figure, take: Take) -> None:
    """Point the way: one arm goes out and comes back; the head follows it."""
    limbs.stand(figure, take)
    side = take.pick(*SIDES)
    amount = take.hold(5.0)
    azimuth = take.between(-0.1, 1.3) + take.drift(0.15)
    elevation = take.between(-0.15, 0.45) + take.drift(0.10)
    reach = 0.55 + (take.between(0.36, 0.44)) * amount
    lifted = -1.0 + (1.0 + elevation) * (0.35 + 0.65 * amount)
    limbs.point(figure, side, azimuth, lifted, reach, 0.5)
    limbs.spare_arm(figure, limbs.other(side), take)
    figure.look(outward(side) * azimuth * (0.3 + 0.4 * amount) + take.drift(0.15), 0.05 + take.drift(0.1))


def discussion(figure: Figure, take: Take) -> None:
    """Talk with both hands, or with one."""
    limbs.stand(figure, take)
    both = take.chance(0.7)
    leader = take.pick(*SIDES)
    for side in SIDES:
        moves = both or side == leader
        height = take.between(-0.24, -0.06) + take.drift(0.10, 2.2)
        forward = take.between(0.26, 0.36) + take.drift(0.07, 1.8)
        across = take.between(0.08, 0.24) + take.drift(0.08, 2.6)
        turned = take.between(-1.0, 0.6) + take.drift(0.6, 2.0)
        sign = outward(side)
        if moves:
            palm = np.array([-sign * np.cos(turned), np.sin(turned), 0.2])
            limbs.ahead(figure, side, (height, forward, across), palm, curl=take.between(0.15, 0.5))
        else:
            limbs.spare_arm(figure, side, take)
    figure.look(take.drift(0.45, 5.0), 0.05 + take.drift(0.12, 2.5), take.drift(0.08))


def greeting(figure: Figure, take: Take) -> None:
    """Wave, shake hands, or bow."""
    way = take.pick("wave", "wave", "shake", "bow")
    side = "right" if take.chance(0.75) else "left"
    sign = outward(side)
    amount = take.hold(4.0)
    if way == "bow":
        flexion = take.between(0.45, 0.9) * amount
        limbs.stand(figure, take, stride=0.03, flexion=flexion)
        for one in SIDES:
            figure.arm_bent(one, -0.2 * flexion, 0.10, take.between(0.1, 0.3))
        figure.look(take.drift(0.05), 0.9 * flexion)
        return
    limbs.stand(figure, take, stride=0.14)
    if way == "wave":
        beat = np.sin(2 * np.pi * take.cycle(0.8))
        shoulder = figure.frame(f"{side}_shoulder")[1]
        length = limbs.arm_length(figure, side)
        height, wide = take.between(0.05, 0.45), take.between(0.42, 0.62)
        raised = shoulder + length * np.array([sign * (wide + 0.14 * beat), height, 0.33])
        low = shoulder + length * np.array([sign * 0.25, -0.75, 0.25])
        wrist = low + (raised - low) * (0.25 + 0.75 * amount)
        figure.arm_to(side, wrist, np.array([sign * 0.9, -1.0, -0.2]), np.array([0.0, 0.1, 1.0]), curl=0.08)
    else:
        height = -0.17 + take.drift(0.05, 0.9)
        limbs.ahead(figure, side, (height, 0.24 + 0.22 * amount, 0.10), np.array([-sign, 0.0, 0.0]), 0.2)
    limbs.spare_arm(figure, limbs.other(side), take)
    figure.look(take.drift(0.15), take.drift(0.10), take.drift(0.06))


def photo(figure: Figure, take: Take) -> None:
    """Hold a camera before the face with both hands, standing or in a crouch."""
    low = take.between(0.25, 0.6) if take.chance(0.25) else 0.0
    if low:
        limbs.squat(figure, take, low, 0.25)
    else:
        limbs.stand(figure, take, stride=0.14, flexion=take.between(0.0, 0.22))
    figure.look(take.drift(0.10), 0.12 + take.drift(0.10), take.drift(0.05))
    amount = 0.2 + 0.8 * take.hold(6.0, moving=0.25)
    away = take.between(0.14, 0.28)
    flare = take.between(0.25, 0.8)
    for side in SIDES:
        sign = outward(side)
        face = figure.at("head", figure.landmarks["eyes"] + [sign * 0.085, -0.10, away])
        belly = figure.at("spine3", figure.landmarks["chest"] + [sign * 0.075, -0.14, 0.20])
        wrist = belly + (face - belly) * amount
        palm, fingers = np.array([-0.8 * sign, 0.1, -0.5]), np.array([-0.35 * sign, 0.9, 0.3])
        figure.arm_to(side, wrist, np.array([sign * flare, -1.0, 0.1]), palm, curl=0.7, fingers=fingers)


def posing(figure: Figure, take: Take) -> None:
    """Strike a pose and hold it."""
    limbs.stand(figure, take, stride=0.18, width=take.between(0.04, 0.16))
    way = take.pick("akimbo", "akimbo", "folded", "one hip", "behind head", "wide", "flex")
    lead = take.pick(*SIDES)
    if way == "folded":
        limbs.fold(figure, take)
    for side in SIDES if way != "folded" else ():
        sign = outward(side)
        if way == "akimbo" or (way in ("one hip", "behind head") and side != lead):
            limbs.hand_on_hip(figure, side, take)
        elif way == "one hip":
            limbs.hang(figure, side, take)
        elif way == "behind head":
            nape = figure.at("head", figure.landmarks["ear"] * [0.85 * sign, 1, 1] + [sign * 0.055, 0.03, -0.075])
            figure.arm_to(side, nape, np.array([sign, 0.5, 0.1]), np.array([-sign, 0.0, 0.4]), curl=0.3)
        elif way == "wide":
            limbs.point(figure, side, take.between(1.1, 1.5), take.between(-0.35, 0.5) + take.drift(0.05), 0.96, 0.2)
        else:
            shoulder = figure.frame(f"{side}_shoulder")[1]
            length = limbs.arm_length(figure, side)
            wrist = shoulder + length * np.array([0.44 * sign, 0.43, 0.05])
            figure.arm_to(side, wrist, np.array([sign, -0.25, -0.1]), np.array([-sign, 0.0, -0.3]), curl=0.9)
    figure.look(take.between(-0.5, 0.5) + take.drift(0.05), take.between(-0.12, 0.12), take.between(-0.1, 0.1))


def purchases(figure: Figure, take: Take) -> None:
    """Take things from a shelf, high or low, a bag in the other hand."""
    level = take.between(-0.75, 0.45)  # the shelf's height against the shoulder, in arm lengths
    amount = 0.25 + 0.75 * take.hold(4.5)
    deep = np.clip(-level - 0.15, 0.0, 0.6) * amount
    if level < -0.5 and take.chance(0.5):
        limbs.squat(figure, take, 0.7 * amount, 0.5)
    else:
        limbs.stand(figure, take, stride=0.16, flexion=1.1 * deep, drop=0.10 * deep)
    side = take.pick(*SIDES)
    sign = outward(side)
    length = limbs.arm_length(figure, side)
    shoulder = figure.frame(f"{side}_shoulder")[1]
    out = take.between(-0.1, 0.6)
    far = shoulder + length * np.array([sign * 0.9 * np.sin(out), level + 0.25 * deep, 0.88 * np.cos(out)])
    near = figure.at("spine3", figure.landmarks["chest"] + [sign * 0.16, -0.16, 0.24])
    wrist = near + (far - near) * amount
    figure.arm_to(side, wrist, np.array([sign * 0.6, -1.0, -0.1]), np.array([-0.5 * sign, -1.0, 0.0]), curl=0.45)
    if take.chance(0.6):  # a bag over the bent forearm
        limbs.ahead(figure, limbs.other(side), (-0.20, 0.22, 0.17), np.array([sign * 0.4, 0.9, 0.0]), curl=0.9)
    else:
        limbs.hang(figure, limbs.other(side), take)
    target = wrist - figure.frame("head")[1]
    figure.look(
        np.clip(np.arctan2(target[0], target[2]), -0.9, 0.9) * 0.7,
        np.clip(np.arctan2(-target[1], np.hypot(target[0], target[2])), -0.5, 0.9) * 0.7,
    )


def waiting(figure: Figure, take: Take) -> None:
    """Wait: hands in the pockets, arms folded, or a look at the watch."""
    limbs.stand(figure, take, stride=0.12)
    way = take.pick("pockets", "folded", "watch", "hips", "hang", "clasped")
    look = (take.drift(0.7, 6.0), 0.08 + take.drift(0.15, 5.0), take.drift(0.06))
    if way == "folded":
        limbs.fold(figure, take)
    elif way == "clasped":
        for side in SIDES:
            sign = outward(side)
            front = figure.at("pelvis", np.array([sign * 0.05, -0.06, figure.landmarks["belly"] + 0.05]))
            figure.arm_to(side, front, np.array([sign, -0.2, -0.8]), np.array([-0.3 * sign, 0.0, -1.0]), curl=0.4)
    elif way == "watch":
        amount = take.hold(5.0)
        low = figure.frame("left_shoulder")[1] + [0.12, -0.45, 0.15]
        high = figure.at("spine3", figure.landmarks["chest"] + [0.02, -0.02, 0.22])
        figure.arm_to("left", low + (high - low) * amount, np.array([1.0, -0.4, -0.1]), np.array([0, -0.7, -0.6]), 0.5)
        limbs.hang(figure, "right", take)
        look = (look[0] * (1 - amount) + 0.15 * amount, look[1] * (1 - amount) + 0.5 * amount, 0.0)
    else:
        arm = {"pockets": limbs.pocket, "hips": limbs.hand_on_hip, "hang": limbs.hang}[way]
        for side in SIDES:
            arm(figure, side, take)
    figure.look(*look)


# --- The actions done while walking: Walking, WalkDog, WalkTogether ---


def _swing(figure: Figure, side: str, take: Take, phase: float, vigour: float = 1.0) -> None:
    """Swing an arm against its leg: it is furthest back when the leg of its side strikes."""
    own = phase + (0.0 if side == "left" else 0.5)
    forward = -np.cos(2 * np.pi * (own - 0.03))
    amplitude = vigour * take.between(0.26, 0.45)
    elbow = take.between(0.15, 0.40) + 0.22 * vigour * max(0.0, 0.6 + forward)
    figure.arm_bent(side, 0.06 + amplitude * forward, take.between(0.12, 0.2), elbow, inward=0.25 * max(forward, 0))


def walking(figure: Figure, take: Take) -> None:
    """Walk, the arms swinging against the legs."""
    phase = limbs.walk(figure, take)
    for side in SIDES:
        _swing(figure, side, take, phase)
    figure.look(take.drift(0.2, 5.0), 0.06 + take.drift(0.06))


def walk_dog(figure: Figure, take: Take) -> None:
    """Walk with a leash in one hand; now and then bend down to the dog."""
    side = take.pick(*SIDES)
    sign = outward(side)
    if take.chance(0.2):
        amount = 0.4 + 0.6 * take.hold(5.0)
        limbs.stand(figure, take, stride=0.2, flexion=0.95 * amount, drop=0.12 * amount)
        shoulder = figure.frame(f"{side}_shoulder")[1]
        reach = limbs.arm_length(figure, side) * np.array([sign * 0.12, -0.78, 0.42])
        figure.arm_to(side, shoulder + reach, np.array([sign * 0.5, 0.0, -1.0]), np.array([-sign, -0.3, 0.0]), curl=0.3)
        idle = limbs.other(side)
        limbs.on_thigh(figure, idle, take, along=0.85)
        figure.look(sign * 0.15, 0.55 * amount)
        return
    phase = limbs.walk(figure, take, vigour=0.85)
    pull = take.between(0.28, 0.46) + take.drift(0.06, 2.0)
    height = take.between(-0.30, -0.12) + take.drift(0.05, 1.7)
    limbs.ahead(figure, side, (height, pull, take.between(0.10, 0.24)), np.array([-0.4 * sign, -1.0, 0.0]), 0.9)
    _swing(figure, limbs.other(side), take, phase, 0.8)
    figure.look(sign * take.between(-0.1, 0.4) + take.drift(0.15), take.between(0.05, 0.35))


def walk_together(figure: Figure, take: Take) -> None:
    """Walk beside another person: facing them, talking, or arm in arm."""
    side = take.pick(*SIDES)  # where the other person is
    sign = outward(side)
    phase = limbs.walk(figure, take, vigour=0.8)
    way = take.pick("swing", "talk", "linked")
    _swing(figure, limbs.other(side), take, phase, 0.8)
    if way == "linked":
        limbs.ahead(figure, side, (-0.20, 0.20, 0.22 + take.drift(0.02)), np.array([-sign, -0.3, 0.0]), 0.5, elbow=1.2)
    elif way == "talk":
        limbs.ahead(
            figure, side, (-0.16 + take.drift(0.08, 2.0), 0.30, 0.17 + take.drift(0.06, 2.5)), np.array([-sign, 0.5, 0])
        )
    else:
        _swing(figure, side, take, phase, 0.8)
    figure.look(sign * np.clip(take.between(0.2, 0.8) + take.drift(0.3, 5.0), -0.2, 0.95), 0.03 + take.drift(0.06))


def eating(figure: Figure, take: Take) -> None:
    """Eat from a plate in the other hand, or at a table."""
    sits = limbs.settle(figure, take, 0.6)
    side = take.pick(*SIDES)
    amount = take.hold(3.5, moving=0.5)
    figure.look(take.drift(0.15), 0.28 - 0.2 * amount + take.drift(0.06))
    plate = take.chance(0.7)
    sign = outward(side)
    dish = figure.at("spine3", figure.landmarks["chest"] + [0.0, -0.17, 0.25])
    limbs.to_mouth(figure, side, take, amount, dish + [sign * 0.10, 0.04, 0.0])
    idle = limbs.other(side)
    if plate:
        palm = np.array([0.0, 1.0, 0.1])
        figure.arm_to(idle, dish + [-sign * 0.11, -0.02, -0.02], np.array([-sign * 0.5, -1.0, -0.3]), palm, curl=0.3)
    else:
        limbs.idle_arm(figure, idle, take, sits)


def phoning(figure: Figure, take: Take) -> None:
    """Talk on the phone: standing, strolling or seated."""
    way = take.pick("stand", "stand", "stroll", "sit")
    if way == "stroll":
        limbs.walk(figure, take, vigour=0.5)
    elif way == "sit":
        limbs.sit_chair(figure, take)
    else:
        limbs.stand(figure, take)
    side = take.pick(*SIDES)
    sign = outward(side)
    figure.look(take.drift(0.35, 6.0), 0.08 + take.drift(0.10), sign * 0.10 + take.drift(0.05))
    limbs.to_ear(figure, side, take)
    idle = limbs.other(side)
    if take.chance(0.35):
        limbs.ahead(figure, idle, (-0.18 + take.drift(0.07, 2.0), 0.30, 0.12 + take.drift(0.06, 2.4)))
    else:
        limbs.idle_arm(figure, idle, take, way == "sit")


def smoking(figure: Figure, take: Take) -> None:
    """Smoke: one hand goes to the mouth and away; the other arm hangs, or props the elbow."""
    sits = limbs.settle(figure, take, 0.4)
    side = take.pick(*SIDES)
    sign = outward(side)
    amount = take.hold(4.0, moving=0.45)
    figure.look(take.drift(0.3, 6.0), take.drift(0.10) - 0.05 * amount)
    prop = take.chance(0.35)
    if prop:
        idle = limbs.other(side)
        belly = figure.at("spine3", figure.landmarks["chest"] + [sign * 0.07, -0.11, 0.09])
        figure.arm_to(idle, belly, np.array([-sign * 0.9, -1.0, 0.0]), np.array([0.0, -0.3, -1.0]), curl=0.4)
    rest = [sign * 0.24, 0.02, 0.20] if prop else [sign * 0.27, -0.20, 0.22]
    away = figure.at("spine3", figure.landmarks["chest"] + rest)
    limbs.to_mouth(figure, side, take, amount, away)
    if not prop:
        limbs.idle_arm(figure, limbs.other(side), take, sits)


def sitting(figure: Figure, take: Take) -> None:
    """Sit on a chair, the hands on the thighs, in the lap, folded or talking."""
    limbs.sit_chair(figure, take)
    way = take.pick("thighs", "thighs", "lap", "folded", "talk", "knees")
    if way == "knees":  # bent forward, the forearms on the thighs
        flexion = take.between(0.35, 0.6)
        limbs.sit_chair(figure, take, legs=take.pick("square", "reached"), flexion=flexion)
    if way == "folded":
        limbs.fold(figure, take)
    elif way == "lap":
        limbs.in_lap(figure, take)
    else:
        for side in SIDES:
            talks = way == "talk" and take.chance(0.7)
            height = -0.20 + take.drift(0.08, 2.2)
            if talks:
                limbs.ahead(figure, side, (height, 0.33, 0.14 + take.drift(0.06, 2.5)))
            else:
                limbs.on_thigh(figure, side, take, along=0.85 if way == "knees" else None)
    figure.look(take.drift(0.5, 6.0), 0.06 + take.drift(0.15, 4.0), take.drift(0.08))


def sitting_down(figure: Figure, take: Take) -> None:
    """Be on the floor: legs crossed, stretched or drawn up, kneeling, or on the way down."""
    way = take.pick("crossed", "crossed", "extended", "drawn", "mixed", "kneel", "squat")
    if way == "squat":
        limbs.squat(figure, take, take.between(0.5, 1.0), take.between(0.3, 0.6))
        for side in SIDES:
            limbs.on_thigh(figure, side, take, along=0.9)
    elif way == "kneel":
        limbs.kneel(figure, take)
        for side in SIDES:
            limbs.on_thigh(figure, side, take, along=0.55)
    else:
        limbs.sit_floor(figure, take, way)
        ground = min(figure.frame(f"{side}_hip")[1][1] for side in SIDES) - limbs.SEAT
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
            limbs.on_thigh(figure, side, take, along=take.between(0.75, 0.95))
        else:
            limbs.prop_behind(figure, side, take, ground)
