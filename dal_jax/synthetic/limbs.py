"""What limbs do in any action: the lower body stands, walks, sits, kneels, squats; arms hang, fold, reach, point."""

import numpy as np
from scipy import interpolate

from dal_jax.synthetic.figure import SIDES, Figure, Take, outward, rotate


def stand(
    figure: Figure, take: Take, stride: float = 0.08, flexion: float = 0.0, drop: float = 0.0,
    width: float | None = None,
) -> None:  # fmt: skip
    """Stand with both feet flat, the weight on one leg more than on the other, swaying a little.

    stride: how far one foot may stand before the other, m; flexion: how far the trunk bends forward; drop: how far the
    pelvis sinks into the knees, m.
    """
    weight = np.clip(take.between(-1, 1) + take.drift(0.35, 6.0), -1, 1)  # +1: all on the left leg
    width = take.between(0.02, 0.10) if width is None else width
    ahead = take.between(-stride, stride)
    toe_out = [take.between(0.05, 0.35) for _ in SIDES]
    sway = np.array([0.055 * weight + take.drift(0.008, 3.0), 0.0, take.drift(0.012, 3.5)])
    twist = take.drift(0.10, 7.0)
    figure.pelvis(0.35 * flexion + take.between(0.0, 0.08), -0.07 * weight, twist)
    figure.trunk(
        0.65 * flexion + take.between(-0.08, 0.05) + take.drift(0.02), 0.11 * weight + take.drift(0.02), -0.5 * twist
    )
    back = 0.35 * np.sin(flexion)  # bending forward moves the hips back, to stay above the feet
    feet = {}
    for side, out in zip(SIDES, toe_out, strict=True):
        sign = outward(side)
        hip, ankle = figure.rest(f"{side}_hip"), figure.rest(f"{side}_ankle")
        free = 0.5 - 0.5 * sign * weight  # 0: bears the weight, 1: relaxed
        feet[side] = (
            np.array([hip[0] + sign * (width + 0.03 * free), ankle[1], ankle[2] + sign * ahead + 0.05 * free + back])
            - sway,
            out + 0.15 * free,
        )
    lowered = _pelvis_height(figure, {side: feet[side][0] for side in SIDES}, slack=0.008 + drop)
    for side in SIDES:
        target, out = feet[side]
        sign = outward(side)
        figure.leg_to(side, target + [0, lowered, 0], np.array([sign * np.sin(out), 0.0, np.cos(out)]), out)


def _pelvis_height(figure: Figure, ankles: dict[str, np.ndarray], slack: float) -> float:
    """Return how much to raise the ankle targets so that the straighter leg is just not straight."""
    lift = []
    for side, ankle in ankles.items():
        names = [f"{side}_{name}" for name in ("hip", "knee", "ankle")]
        rest = [figure.rest(name) for name in names]
        length = np.linalg.norm(rest[1] - rest[0]) + np.linalg.norm(rest[2] - rest[1])
        hip = figure.frame(names[0])[1]
        flat = (ankle - hip)[[0, 2]]
        reachable = np.sqrt(max(length**2 - flat @ flat, 0.01)) - 0.004
        lift.append((hip[1] - ankle[1]) - reachable)
    return max(lift) + slack


# Hip, knee and ankle angles over one gait cycle from heel strike, degrees: the published averages of healthy adults,
# read off at a few knots (hip and knee: flexion; ankle: toes down).
_KNOTS = np.array([0, 0.08, 0.16, 0.30, 0.42, 0.52, 0.62, 0.73, 0.85, 0.94, 1.0])
_HIP = np.array([29, 27, 23, 9, -4, -11, -4, 17, 31, 32, 29])
_KNEE = np.array([4, 13, 18, 9, 6, 12, 36, 62, 36, 6, 4])
_ANKLE = np.array([1, 6, 1, -6, -9, -6, 17, 9, 0, -1, 1])


def _gait(values: np.ndarray, phase: float) -> float:
    return float(np.radians(interpolate.CubicSpline(_KNOTS, values, bc_type="periodic")(phase % 1.0)))


def walk(figure: Figure, take: Take, vigour: float = 1.0) -> float:
    """Walk; return the left leg's phase of the gait cycle (0: its heel strikes).

    vigour scales the stride: 1 is a brisk walk.
    """
    phase = take.cycle(1.15)
    vigour = vigour * take.between(0.75, 1.1)
    swing = 2 * np.pi * phase
    figure.pelvis(take.between(0.02, 0.09), 0.05 * np.sin(swing - 0.6) * vigour, -0.09 * vigour * np.cos(swing))
    figure.trunk(take.between(-0.06, 0.08), -0.06 * np.sin(swing - 0.6) * vigour, 0.20 * vigour * np.cos(swing))
    out = take.between(0.02, 0.18)
    narrow = take.between(-0.06, -0.015)
    for side, shift in (("left", 0.0), ("right", 0.5)):
        hip, knee, ankle = (_gait(values, phase + shift) for values in (_HIP, _KNEE, _ANKLE))
        figure.leg_bent(side, vigour * hip, 0.05 + (0.45 + 0.55 * vigour) * knee, vigour * ankle, narrow, out)
        _roll_foot(figure, side, out, phase + shift)
    return phase


def _roll_foot(figure: Figure, side: str, out: float, phase: float) -> None:
    """Lay the foot flat on the ground while it bears the weight, and bend the toes at push-off."""
    phase = phase % 1.0
    bearing = np.interp(phase, [0.0, 0.06, 0.14, 0.36, 0.48, 1.0], [0.0, 0.3, 1.0, 1.0, 0.0, 0.0])
    bend = np.interp(phase, [0.0, 0.42, 0.56, 0.64, 1.0], [0.0, 0.0, 0.42, 0.0, 0.0])
    own = figure.frame(f"{side}_ankle")[0]
    shank = figure.frame(f"{side}_knee")[0]
    pitch = np.arctan2(-own[1, 2], np.hypot(own[0, 2], own[2, 2]))  # toes down > 0
    flat = rotate("YX", outward(side) * out, (1 - bearing) * pitch)
    figure.rotate(f"{side}_ankle", shank.T @ flat)
    figure.rotate(f"{side}_foot", rotate("X", -bend))


def sit_chair(figure: Figure, take: Take, legs: str | None = None, flexion: float | None = None) -> None:
    """Sit on a chair.

    legs: 'square', 'reached', 'tucked', 'ankles' (crossed) or 'knees' (crossed); drawn where none is given.

    flexion: the trunk's, > 0 forward; by default upright to leaning back.
    """
    figure.sits_on_chair = True
    legs = legs or take.pick("square", "square", "reached", "tucked", "ankles", "knees")
    flexion = take.between(-0.22, 0.12) if flexion is None else flexion
    figure.pelvis(-0.16 + 0.55 * flexion, take.drift(0.03, 6.0), take.drift(0.06, 8.0))
    figure.trunk(0.22 + 0.45 * flexion + take.drift(0.03, 5.0), take.drift(0.05, 5.0), take.drift(0.08, 6.0))
    apart = take.between(0.02, 0.14)
    reach = {"square": 0.0, "reached": take.between(0.12, 0.26), "tucked": -0.13, "ankles": 0.16, "knees": 0.05}[legs]
    over = take.pick(*SIDES)
    for side in sorted(SIDES, key=lambda name: name == over):  # the leg on top is placed last
        sign = outward(side)
        hip, thigh, shank = leg(figure, side)
        knee = np.array([0.25 * sign, 0.5, 1.0])
        target = hip + [sign * apart, -shank * (0.98 - 0.25 * abs(reach)), 0.95 * thigh + reach * thigh / 0.42]
        if legs == "ankles":
            target[0] = hip[0] * 0.2 - sign * 0.035
            target[2] += 0.05 if side == over else 0.0
            knee = np.array([0.55 * sign, 0.5, 1.0])
        if legs == "knees" and side == over:
            other = figure.frame(f"{SIDES[side == 'left']}_knee")[1]
            target = other + [-sign * 0.10, -0.26, 0.20]
            figure.leg_to(side, target, np.array([0.1 * sign, 1.0, 0.5]), foot_pitch=None, ankle_flexion=0.35)
            continue
        pitch = 0.35 if legs == "tucked" else 0.0
        figure.leg_to(side, target, knee, take.between(0.0, 0.3), foot_pitch=pitch)


def leg(figure: Figure, side: str) -> tuple[np.ndarray, float, float]:
    """Return where a leg's hip is now, and its lengths of thigh and shank."""
    rest = [figure.rest(f"{side}_{name}") for name in ("hip", "knee", "ankle")]
    thigh, shank = (float(np.linalg.norm(rest[row + 1] - rest[row])) for row in (0, 1))
    return figure.frame(f"{side}_hip")[1], thigh, shank


# --- Low down: sitting on the floor, kneeling, squatting ---

SEAT = 0.115  # height of the hip joints above the floor when sitting on it, m
ANKLE = 0.065  # height of an ankle joint above the floor, m


def sit_floor(figure: Figure, take: Take, legs: str) -> None:
    """Sit on the floor with the legs 'crossed', 'extended', 'drawn' (knees up) or 'mixed' (one of each)."""
    lean = {"crossed": 0.05, "extended": -0.30, "drawn": -0.05, "mixed": -0.22}[legs] + take.between(-0.08, 0.08)
    figure.pelvis(-0.30 + 0.6 * lean, take.drift(0.03), take.drift(0.08, 7.0))
    figure.trunk(0.42 + 0.4 * lean + take.drift(0.03), take.drift(0.05), take.drift(0.08))
    front = take.pick(*SIDES)
    apart = take.between(0.03, 0.12)
    for side in SIDES:
        sign = outward(side)
        hip, thigh, shank = leg(figure, side)
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


def kneel(figure: Figure, take: Take) -> None:
    """Kneel on both knees and sit back on the heels."""
    figure.pelvis(take.between(0.0, 0.12), 0.0, take.drift(0.05))
    figure.trunk(take.between(0.0, 0.15) + take.drift(0.03), take.drift(0.04), take.drift(0.08))
    apart = take.between(0.05, 0.16)
    sink = take.between(1.25, 1.5)
    for side in SIDES:
        figure.leg_bent(side, hip=sink, knee=min(1.57 + sink - 0.42, 2.5), ankle=0.85, abduction=apart, out=0.0)


def squat(figure: Figure, take: Take, depth: float, flexion: float) -> None:
    """Squat with both feet flat: depth 0 stands, 1 sits on the heels nearly; flexion: the trunk's."""
    figure.pelvis(0.15 + 0.45 * flexion, take.drift(0.02), take.drift(0.08))
    figure.trunk(0.1 + 0.45 * flexion, take.drift(0.05), take.drift(0.10))
    width = take.between(0.06, 0.14)
    out = take.between(0.15, 0.45)
    for side in SIDES:
        sign = outward(side)
        hip, thigh, shank = leg(figure, side)
        height = (1.0 - 0.56 * depth) * (thigh + shank) - 0.01
        target = hip + [sign * width, -height, (0.10 + 0.16 * flexion) * min(1.0, 2 * depth)]
        figure.leg_to(side, target, np.array([sign * 0.55, 0.2, 1.0]), out)


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


def other(side: str) -> str:
    """Return the other side's name."""
    return "right" if side == "left" else "left"


def spare_arm(figure: Figure, side: str, take: Take) -> None:
    """Give an arm that the action does not need something usual to do."""
    way = take.pick("hang", "hang", "pocket", "hip")
    {"hang": hang, "pocket": pocket, "hip": hand_on_hip}[way](figure, side, take)


def settle(figure: Figure, take: Take, seated: float) -> bool:
    """Sit on a chair with that probability, else stand; say which."""
    if take.chance(seated):
        sit_chair(figure, take)
        return True
    stand(figure, take)
    return False


def idle_arm(figure: Figure, side: str, take: Take, sits: bool) -> None:
    """Lay an arm that the action does not need on the thigh, or leave it to `spare_arm`."""
    (on_thigh if sits else spare_arm)(figure, side, take)
