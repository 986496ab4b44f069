"""Tracks against frames fitted one by one: jitter and errors on synthetic motion, and frames a second.

    python -m benchmarks.tracks --lifting=none,shipped --out=tracks.json

People of the test subjects do actions before the rendered people's cameras, 30 frames a second. Their key points are
annotated with an error of 1 to 2% of their box, a tenth is missing. `several_cameras --tracks` scores a real person.
Rates are those of seven times as many frames, a long video's. Eight minutes on two cores, a quarter of them compiling.
Rows of a lifter have its own joints, too, frame by frame and smoothed, of Human3.6M's joints annotated as well as that.
"""

import jax
import numpy as np
from absl import flags
from jaxtyping import Float

import dal_jax as dal
from benchmarks import measure, results
from dal_jax.evaluation import metrics
from dal_jax.observations.human36m_cameras import to_camera
from dal_jax.runtime import cli, machine
from dal_jax.synthetic import actors, view
from dal_jax.synthetic.figure import rotate

# allow_override: tests import several benchmarks into one process
_LIFTING = flags.DEFINE_list("lifting", ["none", "shipped"], "Lifters: none, shipped, folders.", allow_override=True)
_FRAMES = flags.DEFINE_integer("frames", 120, "How many a clip.", lower_bound=5, allow_override=True)
_SECONDS = flags.DEFINE_float("seconds", 20.0, "For how long rates are measured.", lower_bound=0, allow_override=True)
_OUT = flags.DEFINE_string("out", None, "JSON to write.", required=True, allow_override=True)

CLIPS = tuple((name, action) for name in ("S9", "S11") for action in ("Walking", "Discussion", "Eating"))
FPS = 30.0
_SEED = 11
_MISSING, _ERROR = 0.1, (0.01, 0.02)
_COPIES = 7  # of every clip where rates are measured: more than 5,000 frames, for which programs are compiled well
_TRUNK_M = 0.95  # of the pelvis above the floor: nobody jumps here


def main(_: list[str]) -> None:
    """Make the clips, fit them under every lifter, score, measure rates."""
    jax.config.update("jax_num_cpu_devices", machine.cores())  # before the first use of a device: a thread each
    made = [clip(*of, number, _FRAMES.value) for number, of in enumerate(CLIPS)]
    keypoints_px = np.concatenate([one[0] for one in made])
    truth_mm = np.stack([one[1] for one in made])
    where = measure.machine(jax.devices()) | {"clips": len(made), "frames": _FRAMES.value}
    joints_px = np.stack([one[2] for one in made])
    rows = (
        _row(keypoints_px, truth_mm, lifting) | _lifted(joints_px, truth_mm, lifting) | where
        for lifting in _LIFTING.value
    )
    results.emit(rows, _OUT.value)


def clip(
    name: str, action: str, number: int, frames: int
) -> tuple[Float[np.ndarray, "frames 25 3"], Float[np.ndarray, "frames 17 3"], Float[np.ndarray, "frames 17 3"]]:
    """Return a person's annotated key points, (x px, y px, whether they are known), and where the joints are, mm.

    Last: Human3.6M's joints, annotated likewise.

    Args:
      name: of the subject.
      action: of `actors.ACTIONS`.
      number: of the clip, from which camera, heading and errors follow.
      frames: how many.
    """
    random = np.random.default_rng((_SEED, number))
    actor, camera = actors.subject(name), view.place(number % 4, random)
    heading, start = rotate("Y", random.uniform(-np.pi, np.pi)), random.uniform(0, actors.LENGTH_S - frames / FPS)
    regressors = [np.asarray(actors.surface().regressor(each)) for each in ("body_25b", "h36m")]
    exact, joints = [], []
    for frame in range(frames):
        posture = actors.perform(action, actor.joints, actor.landmarks, (_SEED, number), start + frame / FPS)
        vertices, _ = actors.pose(actor, posture.root, posture.pose)
        vertices = to_camera(camera, vertices @ heading.T + np.array([0.0, _TRUNK_M, 0.0]))
        exact.append(view.project(regressors[0] @ vertices))
        joints.append(1000 * regressors[1] @ vertices)
    exact_px = np.stack(exact)
    side_px = np.ptp(exact_px, axis=1).max(axis=1)[:, None, None]
    marked = exact_px + random.uniform(*_ERROR) * side_px * random.normal(size=exact_px.shape)
    known = random.random(exact_px.shape[:2]) >= _MISSING
    joints_mm = np.stack(joints)
    exact_px = view.project(joints_mm / 1000)
    joints_px = exact_px + random.uniform(*_ERROR) * side_px * random.normal(size=exact_px.shape)
    joints_px = np.concatenate([joints_px, random.random(exact_px.shape[:2])[..., None] >= _MISSING], axis=-1)
    return np.concatenate([marked, known[..., None]], axis=-1), joints_mm, joints_px


def _lifted(joints_px: np.ndarray, truth_mm: np.ndarray, lifting: str) -> results.Row:
    """Return the errors of what is lifted, each clip at the size that suits it best."""
    if lifting == "none":
        return {}
    clips, frames = truth_mm.shape[:2]
    keypoints_px, known = joints_px[..., :2].reshape(-1, 17, 2), joints_px[..., 2].reshape(-1, 17) > 0
    of_clip = dal.Frames(np.repeat(np.arange(clips), frames), np.tile(np.arange(frames), clips), FPS)
    row: results.Row = {}
    for name, each in {"lifted_frame_by_frame": None, "lifted_smooth": of_clip}.items():
        joints = np.asarray(dal.lift(keypoints_px, lifting, known, frames=each).joints).reshape(truth_mm.shape)
        true = truth_mm - truth_mm[:, :, :1]
        size = np.sum(joints * true, axis=(1, 2, 3)) / np.sum(joints**2, axis=(1, 2, 3))
        row[name] = scores(size[:, None, None, None] * joints, truth_mm)
    return row


def _row(keypoints_px: np.ndarray, truth_mm: np.ndarray, lifting: str) -> results.Row:
    frames = truth_mm.shape[1]
    people, many = _people(keypoints_px, frames), _people(np.tile(keypoints_px, (_COPIES, 1, 1)), frames)
    options = {
        name: dal.FitOptions(tracks=name == "tracks", fps=FPS, quality=False, held_out_share=0.0)
        for name in ("frame_by_frame", "tracks")
    }
    found = {name: dal.fit(people, None, each, lifting=lifting).joints_h36m for name, each in options.items()}
    row: results.Row = {"lifting": lifting, "frames_of_rates": len(many)}
    row |= {name: scores(joints.reshape(truth_mm.shape), truth_mm) for name, joints in found.items()}
    works = {name: lambda each=each: dal.fit(many, None, each, lifting=lifting) for name, each in options.items()}
    for work in works.values():
        work()  # compiles
    for name, rate in measure.rates(works, measure.matmul_probe(jax.devices()), _SECONDS.value).items():
        row[name] |= {
            "frames_per_second": len(many) / rate.wall_s,
            "cpu_s_per_frame": rate.cpu_s / len(many),
            "frames_per_second_per_gflops": len(many) / rate.wall_s / rate.matmul_gflops,
        }
    return row


def _people(keypoints_px: np.ndarray, frames: int) -> dal.Observations:
    """Return everybody in all frames, so many of each."""
    people = dal.Observations.from_points(keypoints_px=keypoints_px, keypoint_set="body_25b")
    tracks = len(people) // frames
    return people.with_frames(np.tile(np.arange(frames), tracks), np.repeat(np.arange(tracks), frames).tolist())


def scores(
    joints: Float[np.ndarray, "clips frames 17 3"], truth_mm: Float[np.ndarray, "clips frames 17 3"]
) -> dict[str, float]:
    """Return means over clips of the acceleration error, and over frames of errors of joints, mm."""
    found, true = (np.asarray(each - each[:, :, :1], np.float32) for each in (joints, truth_mm))
    poses = [each.reshape(-1, *each.shape[2:]) for each in (found, true)]
    each = {
        "acceleration_error_mm": jax.vmap(metrics.acceleration_error_mm)(found, true),
        "scale_matched_mm": jax.vmap(metrics.mpjpe_scale_matched_mm)(*poses),
        "pa_mm": jax.vmap(metrics.pa_mpjpe_mm)(*poses),
    }
    return {name: float(np.mean(values)) for name, values in each.items()}


if __name__ == "__main__":
    cli.run(main)
