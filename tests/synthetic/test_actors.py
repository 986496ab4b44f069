import itertools

import numpy as np
import pytest

from dal_jax.synthetic import actors
from dal_jax.synthetic.figure import Figure, Take, largest_angle, rotate, rotation_matrix, rotation_vector

EXACT = 1e-9
FLAT_M = 0.03  # a sole is soft: the heel's lowest vertex and the toes' may differ by this much
ROUNDING = 1e-6
SUBJECTS = ("S1", "S7", "S11")
MOMENTS = tuple((seed, time) for seed, time in zip(range(6), np.linspace(0.3, 19.0, 6), strict=True))


def _perform(action, subject, seed, time):
    actor = actors.subject(subject)
    return actor, actors.perform(action, actor.joints, actor.landmarks, (seed, 5), time)


def _figure():
    actor = actors.subject("S6")
    return Figure(actor.joints, actor.landmarks)


@pytest.mark.parametrize("action", actors.ACTIONS)
def test_every_moment_of_every_action_is_within_the_joints_limits(action):
    for subject, (seed, time) in itertools.product(SUBJECTS, MOMENTS):
        _, posture = _perform(action, subject, seed, time)
        assert np.isfinite(posture.pose).all()
        assert np.linalg.det(posture.root) == pytest.approx(1.0, abs=EXACT)
        assert (np.linalg.norm(posture.pose, axis=-1) <= largest_angle() + ROUNDING).all()


@pytest.mark.parametrize("action", actors.ACTIONS)
def test_knees_and_elbows_bend_one_way_only(action):
    """Flexion is a turn about +x at the knee, and about -y (left) or +y (right) at the elbow."""
    axes = {3: (0, 1), 4: (0, 1), 17: (1, -1), 18: (1, 1)}  # joint less the pelvis: (axis, sign)
    for subject, (seed, time) in itertools.product(SUBJECTS, MOMENTS):
        _, posture = _perform(action, subject, seed, time)
        for joint, (axis, sign) in axes.items():
            assert sign * posture.pose[joint, axis] > -ROUNDING


@pytest.mark.parametrize("action", ["Waiting", "Directions", "Discussion", "Posing"])
def test_who_stands_has_both_feet_on_the_ground(action):
    for subject, (seed, time) in itertools.product(SUBJECTS, MOMENTS):
        actor, posture = _perform(action, subject, seed, time)
        vertices, _ = actors.pose(actor, posture.root, posture.pose)
        surface = actors.surface()
        lowest = [vertices[np.unique(surface.faces[surface.part == part]), 1].min() for part in (5, 6)]
        assert abs(lowest[0] - lowest[1]) < FLAT_M
        assert min(lowest) == pytest.approx(vertices[:, 1].min())


def test_an_action_changes_smoothly():
    """No joint turns faster than a quick human movement: 12 rad/s."""
    step = 0.02
    for action in actors.ACTIONS:
        for time in (2.0, 7.7):
            _, before = _perform(action, "S8", 3, time)
            _, after = _perform(action, "S8", 3, time + step)
            for one, two in zip(before.pose, after.pose, strict=True):
                turned = rotation_vector(rotation_matrix(one).T @ rotation_matrix(two))
                assert np.linalg.norm(turned) < 12.0 * step, (action, time)


def test_arms_swing_against_the_legs():
    """Over a walk, the left hand is forward when the left foot is back."""
    hands, feet = [], []
    for time in np.linspace(0, 6, 40):
        actor, posture = _perform("Walking", "S7", 1, time)
        _, joints = actors.pose(actor, posture.root, posture.pose)
        hands.append(joints[20, 2] - joints[21, 2])
        feet.append(joints[7, 2] - joints[8, 2])
    assert np.corrcoef(hands, feet)[0, 1] < -0.8


def test_a_phoning_hand_is_at_the_ear():
    for subject, (seed, time) in itertools.product(SUBJECTS, MOMENTS):
        actor, posture = _perform("Phoning", subject, seed, time)
        _, joints = actors.pose(actor, posture.root, posture.pose)
        hand_to_head = np.linalg.norm(joints[[22, 23]] - joints[15], axis=1).min()
        assert hand_to_head < 0.22


def test_a_limb_reaches_what_it_can_reach():
    """Two-bone geometry is exact: the wrist is where it was led, with the elbow on the side of the pole."""
    figure = _figure()
    for target in ([0.30, 0.30, 0.25], [0.15, 0.62, 0.30], [0.35, 0.05, 0.10]):
        figure.arm_to("left", np.array(target), np.array([1.0, -1.0, -0.2]))
        assert figure.frame("left_wrist")[1] == pytest.approx(target, abs=ROUNDING)
    figure.leg_to("right", np.array([-0.1, -0.55, 0.2]), np.array([0.0, 0.0, 1.0]))
    hip, knee, ankle = (figure.frame(f"right_{name}")[1] for name in ("hip", "knee", "ankle"))
    assert ankle == pytest.approx([-0.1, -0.55, 0.2], abs=ROUNDING)
    assert knee[2] > (hip[2] + ankle[2]) / 2


def test_a_foot_stays_flat_whatever_the_leg_does():
    figure = _figure()
    figure.pelvis(0.3, 0.1, 0.2)
    figure.leg_to("left", np.array([0.2, -0.6, 0.1]), np.array([0.3, 0.0, 1.0]), toe_out=0.4)
    assert figure.frame("left_ankle")[0] == pytest.approx(rotate("Y", 0.4), abs=EXACT)


def test_rotation_vectors_come_back():
    vectors = np.random.default_rng(0).uniform(-1.7, 1.7, (50, 3))
    vectors[0] = 0.0
    back = rotation_vector(np.stack([rotation_matrix(vector) for vector in vectors]))
    assert back == pytest.approx(vectors, abs=1e-7)


def test_style_belongs_to_the_take_and_not_to_the_moment():
    early, late = Take((1, 2), 0.0), Take((1, 2), 9.0)
    assert early.between(0, 1) == late.between(0, 1)
    assert early.drift(1.0) != late.drift(1.0)
    assert early.pick(*range(1000)) == late.pick(*range(1000))
