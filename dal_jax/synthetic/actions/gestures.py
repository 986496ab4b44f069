"""What an arm does: hang, rest on the hip, fold, reach for the ear, the mouth, a lap, a point."""

import numpy as np

from dal_jax.synthetic.figure import SIDES, Figure, Take, outward


def hang(figure: Figure, side: str, take: Take, elbow: float | None = None) -> None:
    """Let the arm hang at the side."""
    elbow = take.between(0.15, 0.5) if elbow is None else elbow
    figure.arm_bent(side, take.between(-0.08, 0.12) + take.drift(0.05), take.between(0.14, 0.26), elbow)


def pocket(figure: Figure, side: str, take: Take) -> None:
    """Put the hand into the trousers' pocket."""
    sign = outward(side)
    hip = figure.landmarks["hip_width"]
    wrist = figure.at("pelvis", np.array([sign * (hip + 0.035), -0.01 + take.between(-0.02, 0.03), 0.05]))
    figure.arm_to(side, wrist, np.array([0.5 * sign, 0.0, -1.0]), np.array([-sign, 0.0, 0.0]), curl=0.2)


def hand_on_hip(figure: Figure, side: str, take: Take) -> None:
    """Set the hand on the hip, the elbow out."""
    sign = outward(side)
    width = figure.landmarks["waist_width"]
    wrist = figure.at("pelvis", np.array([sign * (width + 0.055), 0.10 + take.between(-0.02, 0.03), -0.01]))
    figure.arm_to(side, wrist, np.array([sign, 0.0, -0.45]), np.array([-0.4 * sign, -1.0, 0.0]), 0.5, bend=-0.5)


def fold(figure: Figure, take: Take) -> None:
    """Cross both arms on the chest."""
    top = take.pick(*SIDES)
    height = take.between(-0.05, 0.02)
    for side in SIDES:
        sign = outward(side)
        upper = side == top
        chest = figure.landmarks["chest"]
        over = [-0.085 * sign, -0.02, 0.085] if upper else [-0.06 * sign, -0.055, 0.05]
        rest = chest + over + [0.0, height, 0.0]
        figure.arm_to(
            side, figure.at("spine3", rest), np.array([0.8 * sign, -1.0, 0.0]), np.array([0.0, -0.3, -1.0]), 0.3
        )


def to_ear(figure: Figure, side: str, take: Take) -> None:
    """Hold a phone at the ear."""
    sign = outward(side)
    ear = figure.landmarks["ear"] * [sign, 1.0, 1.0]
    wrist = figure.at("head", ear + [sign * 0.062, -0.098 + take.between(-0.01, 0.01), 0.072])
    elbow = np.array([sign * take.between(0.3, 0.9), -1.0, take.between(-0.2, 0.3)])
    head, _ = figure.frame("head")
    palm, fingers = head @ [-sign, 0.0, -0.15], head @ [-0.05 * sign, 0.8, -0.6]
    figure.arm_to(side, wrist, elbow, palm, curl=0.6, fingers=fingers)


def to_mouth(figure: Figure, side: str, take: Take, amount: float, rest_point: np.ndarray) -> None:
    """Move the hand between `rest_point` (amount 0) and the mouth (amount 1), on an arc."""
    sign = outward(side)
    mouth = figure.landmarks["mouth"]
    wrist = figure.at("head", mouth + [sign * 0.055, -0.085, 0.075])
    point = rest_point + (wrist - rest_point) * amount
    point = point + np.array([sign * 0.05, 0.0, 0.06]) * np.sin(np.pi * amount)
    elbow = np.array([sign * take.between(0.5, 0.9), -1.0, -0.1])
    palm = (1 - amount) * np.array([-0.6 * sign, -0.4, 0.2]) + amount * np.array([-0.5 * sign, 0.2, -1.0])
    figure.arm_to(side, point, elbow, palm, curl=0.7, bend=0.25 * amount)


def ahead(
    figure: Figure, side: str, hand: tuple[float, float, float],
    palm: np.ndarray | None = None, curl: float = 0.35, elbow: float = 0.5,
) -> None:  # fmt: skip
    """Hold the hand in front; hand: height above the chest joint, forward from it, sideways outwards, metres."""
    height, forward, across = hand
    sign = outward(side)
    chest, origin = figure.frame("spine3")
    length = arm_length(figure, side)
    wrist = origin + chest @ (np.array([sign * across, height, forward]) * length / 0.52)
    figure.arm_to(side, wrist, np.array([sign * elbow, -1.0, -0.4]), palm, curl)


def point(figure: Figure, side: str, azimuth: float, elevation: float, reach: float, elbow_out: float) -> None:
    """Stretch the arm: azimuth from straight ahead outwards, elevation above horizontal, reach in arm lengths."""
    sign = outward(side)
    level = np.cos(elevation)
    direction = np.array([sign * np.sin(azimuth) * level, np.sin(elevation), np.cos(azimuth) * level])
    shoulder = figure.frame(f"{side}_shoulder")[1]
    wrist = shoulder + reach * arm_length(figure, side) * direction
    palm = np.array([-0.5 * sign, -1.0, 0.0])
    figure.arm_to(side, wrist, np.array([sign * elbow_out, -1.0, -0.2]), palm, curl=0.15)


def on_thigh(figure: Figure, side: str, take: Take, along: float | None = None) -> None:
    """Rest the hand on the thigh of a sitting figure; along: 0 at the hip, 1 at the knee."""
    sign = outward(side)
    along = take.between(0.55, 0.85) if along is None else along
    hip, knee = figure.frame(f"{side}_hip")[1], figure.frame(f"{side}_knee")[1]
    wrist = hip + along * (knee - hip) + [sign * take.between(-0.03, 0.03), 0.095, -0.03]
    figure.arm_to(side, wrist, np.array([sign, -0.6, -0.7]), np.array([0.0, -1.0, 0.0]), curl=0.3, bend=0.15)


def in_lap(figure: Figure, take: Take) -> None:
    """Lay both hands together in the lap."""
    knees = [figure.frame(f"{side}_knee")[1] for side in SIDES]
    hips = [figure.frame(f"{side}_hip")[1] for side in SIDES]
    middle = 0.55 * np.mean(hips, axis=0) + 0.45 * np.mean(knees, axis=0) + [0, 0.10, 0.0]
    for side in SIDES:
        sign = outward(side)
        figure.arm_to(
            side, middle + [sign * 0.055, 0.0, 0.0], np.array([sign, -0.6, -0.5]), np.array([-0.7 * sign, -0.7, 0]), 0.5
        )


def prop_behind(figure: Figure, side: str, take: Take, floor: float) -> None:
    """Lean on the hand behind the back; floor: the ground's height in the figure's frame."""
    sign = outward(side)
    shoulder = figure.frame(f"{side}_shoulder")[1]
    reach = 0.985 * arm_length(figure, side)
    drop = shoulder[1] - floor - 0.05
    flat = np.sqrt(max(reach**2 - drop**2, 0.01))
    spread = take.between(0.2, 0.6)
    wrist = np.array([shoulder[0] + sign * flat * np.sin(spread), floor + 0.05, shoulder[2] - flat * np.cos(spread)])
    figure.arm_to(side, wrist, np.array([0.3 * sign, 0.0, -1.0]), np.array([0.0, -1.0, 0.0]), curl=0.05, bend=-1.1)


def arm_length(figure: Figure, side: str) -> float:
    """Return shoulder to wrist, m."""
    shoulder, elbow, wrist = (figure.rest(f"{side}_{name}") for name in ("shoulder", "elbow", "wrist"))
    return float(np.linalg.norm(elbow - shoulder) + np.linalg.norm(wrist - elbow))
