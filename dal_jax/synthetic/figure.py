"""A posable skeleton, and the take whose style it acts in.

The trunk is bent, the head rotated, and the limbs are led to targets by two-bone geometry. Everything happens in the
figure's frame: y up, the person faces +z, the left is towards +x, the pelvis joint is at the origin; metres and
radians. An action (`actions/`) poses a `Figure` the way an animator does: trunk first, then feet on the ground, then
hands to where the action wants them.
"""

import functools

import numpy as np
from jaxtyping import Float

from dal_jax.body import skeleton

_INDEX = {name: i for i, name in enumerate(skeleton.SMPL_JOINT_NAMES)}
SIDES = ("left", "right")
HINGE = {"knee": (0.02, 2.55), "elbow": (0.04, 2.60)}
"""Flexion of the hinge joints (0: straight)."""

_MOST = {
    "hip": 2.45, "spine1": 0.6, "spine2": 0.6, "spine3": 0.6, "knee": 2.6, "ankle": 0.95, "foot": 0.5, "neck": 0.75,
    "head": 0.75, "collar": 0.65, "shoulder": 2.5, "elbow": 2.75, "wrist": 1.4, "hand": 1.2,
}  # fmt: skip


class Take:
    """Style numbers drawn in a fixed order from a seed, so that every moment of a take has the same style.

    time: seconds into the take.
    """

    def __init__(self, seed: tuple[int, ...], time: float):
        self.time = time
        self._random = np.random.default_rng(seed)

    def between(self, low: float, high: float) -> float:
        """Draw a style number, uniform."""
        return float(self._random.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """Draw a yes or no."""
        return bool(self._random.random() < probability)

    def pick(self, *options):
        """Draw one of the options."""
        return options[int(self._random.integers(len(options)))]

    def drift(self, amplitude: float, period: float = 4.0) -> float:
        """Return a smooth wandering value in about [-amplitude, amplitude] at this moment."""
        p1, p2, f1, f2 = self._random.uniform([0.8, 0.35, 0, 0], [1.3, 0.6, 1, 1])
        slow = np.sin(2 * np.pi * (self.time / (p1 * period) + f1))
        fast = np.sin(2 * np.pi * (self.time / (p2 * period) + f2))
        return float(amplitude * (0.68 * slow + 0.32 * fast))

    def cycle(self, period: float) -> float:
        """Return the phase, 0 to 1, of a repeated motion whose period is near `period` seconds."""
        scale, start = self._random.uniform([0.8, 0.0], [1.25, 1.0])
        return float((self.time / (scale * period) + start) % 1.0)

    def hold(self, period: float, moving: float = 0.35) -> float:
        """Return a value in 0..1 that rests at 0, moves smoothly to 1, rests there and comes back, over and over.

        moving: share of the period spent on the way, both ways together.
        """
        phase = self.cycle(period)
        ramp = moving / 2
        rise = np.clip((phase - 0.0) / ramp, 0, 1) - np.clip((phase - 0.5) / ramp, 0, 1)
        return float(rise * rise * (3 - 2 * rise))


def outward(side: str) -> float:
    """Return the sign of x on that side: +1 left, -1 right."""
    return 1.0 if side == "left" else -1.0


class Figure:
    """One person's skeleton in a pose.

    joints: the subject's rest joints, in the T-pose. local: rotation of each joint in its parent's frame; entry 0 is
    the pelvis in the figure's frame. sits_on_chair: whether the pose needs a chair under it.
    """

    def __init__(self, joints: Float[np.ndarray, "24 3"], landmarks: dict[str, np.ndarray]):
        """landmarks: rest positions of `nose`, `head_top`, `waist` (half width, front z, back z) and the like."""
        self.joints = np.asarray(joints, np.float64)
        self.landmarks = landmarks
        self.local = np.broadcast_to(np.eye(3), (24, 3, 3)).copy()
        self.sits_on_chair = False

    def pose(self) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "23 3"]]:
        """Return the pelvis' rotation and the other joints' rotation vectors, inside the joints' limits."""
        return self.local[0], _clamp(rotation_vector(self.local[1:]))

    def rest(self, joint: str) -> np.ndarray:
        """Return a joint's rest position."""
        return self.joints[_INDEX[joint]]

    def rotate(self, joint: str, rotation: Float[np.ndarray, "3 3"]) -> None:
        """Set a joint's rotation in its parent's frame."""
        self.local[_INDEX[joint]] = rotation

    def frame(self, joint: str) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
        """Return a joint's rotation and position in the figure's frame."""
        chain, j = [], _INDEX[joint]
        while j > 0:
            chain.append(j)
            j = skeleton.SMPL_PARENTS[j]
        rotation, position = self.local[0], np.zeros(3)
        for j in reversed(chain):
            position = position + rotation @ (self.joints[j] - self.joints[skeleton.SMPL_PARENTS[j]])
            rotation = rotation @ self.local[j]
        return rotation, position

    def at(self, joint: str, rest_point: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
        """Return where a rest point that is fixed to a joint has gone."""
        rotation, position = self.frame(joint)
        return position + rotation @ (rest_point - self.rest(joint))

    def pelvis(self, flexion: float = 0.0, lean: float = 0.0, twist: float = 0.0) -> None:
        """Tilt the pelvis forward and sideways (to the left), and rotate it (to the left)."""
        self.local[0] = rotate("YZX", twist, -lean, flexion)

    def trunk(self, flexion: float = 0.0, lean: float = 0.0, twist: float = 0.0) -> None:
        """Bend the spine forward, to the left, and rotate it to the left: a share to each of three joints."""
        for joint, share in (("spine1", 0.3), ("spine2", 0.35), ("spine3", 0.35)):
            self.rotate(
                joint,
                rotate("YZX", share * twist, -share * lean, share * flexion),
            )

    def look(self, yaw: float, pitch: float, roll: float = 0.0) -> None:
        """Rotate the head in the figure's frame: to the left, down, and tilted to the left; neck and head share it.

        What the neck cannot do against the chest stays undone.
        """
        chest, _ = self.frame("spine3")
        wanted = rotate("YZX", yaw, -roll, pitch)
        vector = rotation_vector(chest.T @ wanted)
        vector *= min(1.0, 1.2 / max(np.linalg.norm(vector), 1e-9))
        half = rotation_matrix(vector / 2)
        self.rotate("neck", half)
        self.rotate("head", half)

    def leg_to(
        self, side: str, ankle: Float[np.ndarray, "3"], knee: Float[np.ndarray, "3"], toe_out: float = 0.0,
        foot_pitch: float | None = 0.0, ankle_flexion: float = 0.0,
    ) -> None:  # fmt: skip
        """Lead the ankle to a point, the knee pointing towards the direction `knee`.

        The foot ends flat (foot_pitch 0; > 0: toes down) and rotated out by `toe_out`, or, with foot_pitch None, bent
        by ankle_flexion (> 0: toes down) against the shank.
        """
        self._two_bones(side, ("hip", "knee", "ankle"), ankle, knee, np.array([1.0, 0.0, 0.0]))
        shank, _ = self.frame(f"{side}_knee")
        if foot_pitch is None:
            self.rotate(f"{side}_ankle", rotate("X", ankle_flexion))
        else:
            flat = rotate("YX", outward(side) * toe_out, foot_pitch)
            self.rotate(f"{side}_ankle", shank.T @ flat)

    def leg_bent(
        self, side: str, hip: float, knee: float, ankle: float = 0.0, abduction: float = 0.0, out: float = 0.0
    ) -> None:
        """Bend a leg by anatomical angles: hip and knee flexion, toes down, abduction, outward rotation."""
        sign = outward(side)
        self.rotate(f"{side}_hip", rotate("ZXY", sign * abduction, -hip, sign * out))
        self.rotate(f"{side}_knee", rotate("X", knee))
        self.rotate(f"{side}_ankle", rotate("X", ankle))

    def arm_to(
        self, side: str, wrist: Float[np.ndarray, "3"], elbow: Float[np.ndarray, "3"],
        palm: Float[np.ndarray, "3"] | None = None, curl: float = 0.35, bend: float = 0.0,
        fingers: Float[np.ndarray, "3"] | None = None,
    ) -> None:  # fmt: skip
        """Lead the wrist to a point, the elbow pointing towards `elbow`, the palm facing the direction `palm`.

        The collar gives the reach a share. curl: how far the fingers close; bend: wrist flexion (towards the palm);
        fingers: where they point, as far as the wrist allows.
        """
        self._shrug(side, wrist)
        hinge = np.array([0.0, -outward(side), 0.0])
        self._two_bones(side, ("shoulder", "elbow", "wrist"), wrist, elbow, hinge)
        self._hand(side, palm, curl, bend)
        if fingers is not None:
            self._point_fingers(side, fingers)

    def arm_bent(
        self, side: str, flexion: float, abduction: float, elbow: float, inward: float = 0.0, curl: float = 0.4
    ) -> None:
        """Let an arm hang or swing: forward and sideways from straight down, elbow flexion, forearm rotated inwards."""
        sign = outward(side)
        down = rotate("XZ", -flexion, sign * abduction) @ np.array([0.0, -1.0, 0.0])
        chest, _ = self.frame("spine3")
        down = chest @ down
        length = np.linalg.norm(self.rest(f"{side}_elbow") - self.rest(f"{side}_shoulder"))
        self._shrug(side, self.frame(f"{side}_shoulder")[1] + 2 * length * down)
        back = rotate("Y", sign * (0.25 + inward)) @ np.array([0.0, 0.0, -1.0])
        bend = rotate("Y", -sign * elbow)
        parent, _ = self.frame(f"{side}_collar")
        arm = self.rest(f"{side}_elbow") - self.rest(f"{side}_shoulder")
        hinge = np.array([0.0, -sign, 0.0])
        self.rotate(f"{side}_shoulder", parent.T @ _align(arm, hinge, down, _cross(chest @ back, down)))
        self.rotate(f"{side}_elbow", bend)
        self._hand(side, None, curl, 0.0)

    def _two_bones(
        self, side: str, chain: tuple[str, str, str], target: np.ndarray, pole: np.ndarray, hinge: np.ndarray
    ) -> None:
        """Solve the two-bone chain exactly: |a + R(hinge, phi) b| = distance, then rotate it onto the target."""
        first, second, last = (f"{side}_{name}" for name in chain)
        parent, start = self.frame(skeleton.SMPL_JOINT_NAMES[skeleton.SMPL_PARENTS[_INDEX[first]]])
        start = start + parent @ (self.rest(first) - self.joints[skeleton.SMPL_PARENTS[_INDEX[first]]])
        a, b = self.rest(second) - self.rest(first), self.rest(last) - self.rest(second)
        reach = target - start
        along = (a @ hinge) * (b @ hinge)
        cosine, sine = a @ b - along, a @ _cross(hinge, b)
        wanted = (reach @ reach - a @ a - b @ b) / 2 - along
        phase = np.arctan2(sine, cosine)
        phi = phase + np.arccos(np.clip(wanted / np.hypot(sine, cosine), -1.0, 1.0))
        phi = np.clip(phi, *HINGE[chain[1]])
        bend = rotation_matrix(phi * hinge)
        end = a + bend @ b
        self.rotate(first, parent.T @ _align(end, hinge, reach, _cross(pole, reach)))
        self.rotate(second, bend)

    def _shrug(self, side: str, wrist: np.ndarray) -> None:
        """Let the collar follow the arm: up to 25 degrees up and 20 forward (the shoulder blade's share)."""
        self.rotate(f"{side}_collar", np.eye(3))
        chest, _ = self.frame("spine3")
        shoulder = self.frame(f"{side}_shoulder")[1]
        direction = _unit(chest.T @ (wrist - shoulder))
        sign = outward(side)
        up = np.interp(direction[1], [-1.0, -0.3, 1.0], [-0.10, -0.02, 0.45])
        forward = np.interp(direction[2], [-1.0, 0.0, 1.0], [-0.25, 0.0, 0.30])
        across = np.interp(sign * direction[0], [-1.0, 0.0], [0.15, 0.0])
        self.rotate(f"{side}_collar", rotate("YZ", -sign * (forward + across), sign * up))

    def _hand(self, side: str, palm: np.ndarray | None, curl: float, bend: float) -> None:
        """Rotate the palm by the forearm (up to 80 degrees, half at the elbow), bend the wrist, close the fingers."""
        sign = outward(side)
        axis = _unit(self.rest(f"{side}_wrist") - self.rest(f"{side}_elbow"))
        twist = 0.0
        if palm is not None:
            forearm, _ = self.frame(f"{side}_elbow")
            wanted = forearm.T @ palm  # the palm faces -y at rest
            twist = np.arctan2(wanted @ _cross(axis, np.array([0.0, -1.0, 0.0])), -wanted[1])
            twist = np.clip(twist, -1.4, 1.4)
        half = rotation_matrix(twist / 2 * axis)
        elbow = _INDEX[f"{side}_elbow"]
        self.local[elbow] = self.local[elbow] @ half
        self.rotate(f"{side}_wrist", half @ rotate("Z", -sign * bend))
        self.rotate(f"{side}_hand", rotate("Z", -sign * curl))

    def _point_fingers(self, side: str, fingers: np.ndarray) -> None:
        """Bend the wrist, by at most a radian, until the hand points along `fingers`."""
        wrist = _INDEX[f"{side}_wrist"]
        hand = self.frame(f"{side}_wrist")[0]
        now = _unit(self.rest(f"{side}_hand") - self.rest(f"{side}_wrist"))
        wanted = _unit(hand.T @ fingers)
        axis = _cross(now, wanted)
        angle = np.arctan2(np.linalg.norm(axis), now @ wanted)
        self.local[wrist] = self.local[wrist] @ rotation_matrix(_unit(axis) * min(angle, 1.0))


def largest_angle() -> Float[np.ndarray, "23"]:
    """Return the most that each joint (without the pelvis) may rotate from the T-pose, about any axis."""
    names = (name.removeprefix("left_").removeprefix("right_") for name in skeleton.SMPL_JOINT_NAMES[1:])
    return np.array([_MOST[name] for name in names])


def _clamp(pose: Float[np.ndarray, "23 3"]) -> Float[np.ndarray, "23 3"]:
    """Return the pose with every rotation vector shortened to its joint's largest angle."""
    angle = np.linalg.norm(pose, axis=-1)
    return pose * np.minimum(1.0, largest_angle() / np.maximum(angle, 1e-9))[:, None]


def _cross(a: Float[np.ndarray, "3"], b: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """Return the cross product of two vectors (np.cross takes ten times as long for one pair)."""
    (a0, a1, a2), (b0, b1, b2) = a, b
    return np.array([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0])


def _unit(vector: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """Return the vector at length 1 (a zero vector stays zero)."""
    return vector / max(np.sqrt(vector @ vector), 1e-9)


def _align(
    first: Float[np.ndarray, "3"],
    second: Float[np.ndarray, "3"],
    to_first: Float[np.ndarray, "3"],
    to_second: Float[np.ndarray, "3"],
) -> Float[np.ndarray, "3 3"]:
    """Return the rotation that takes `first` onto `to_first`, and `second` as near `to_second` as that allows."""
    return _frame(to_first, to_second) @ _frame(first, second).T


def _frame(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    x = _unit(first)
    z = _cross(x, second)
    if z @ z < 1e-12:  # parallel: any perpendicular will do, as long as it is always the same one
        z = _cross(x, np.eye(3)[np.argmin(np.abs(x))])
    z = _unit(z)
    return np.stack([x, _cross(z, x), z], axis=1)


# --- Rotations: not SciPy's, whose last bits differ, so that the people of a recipe stay the same bytes ---


def rotate(axes: str, *angles: float) -> Float[np.ndarray, "3 3"]:
    """Return the rotation about moving axes, one after the other; radians: "YX", a, b gives Y(a) X(b)."""
    first, *others = (_about(axis, angle) for axis, angle in zip(axes, angles, strict=True))
    return functools.reduce(np.matmul, others, first)


def rotation_matrix(vector: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """Return the rotation matrix of a rotation vector (Rodrigues)."""
    angle = np.sqrt(vector @ vector)
    x, y, z = vector / max(angle, 1e-12)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def rotation_vector(rotation: Float[np.ndarray, "*batch 3 3"]) -> Float[np.ndarray, "*batch 3"]:
    """Return axis times angle (radians, at most pi) of rotation matrices."""
    skew = np.stack(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        axis=-1,
    )
    sine = np.linalg.norm(skew, axis=-1) / 2
    cosine = (np.trace(rotation, axis1=-2, axis2=-1) - 1) / 2
    angle = np.arctan2(sine, cosine)
    # A joint never rotates by pi, so the ratio is regular except at rest, where it is 1.
    ratio = np.where(sine > 1e-9, angle / np.maximum(2 * sine, 1e-12), 0.5)
    return skew * ratio[..., None]


def _about(axis: str, angle: float) -> Float[np.ndarray, "3 3"]:
    c, s = np.cos(angle), np.sin(angle)
    if axis == "X":
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    if axis == "Y":
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
