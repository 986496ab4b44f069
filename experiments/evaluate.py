"""Score 3D poses against the truth: MPJPE, raw and with sizes matched, PA-MPJPE, share of poses reversed in depth.

  python -m experiments.evaluate --poses_3d=lifted.npz --truth=truth.npz --out=scores.json

Both files are .npz with `joints` (n, 17, 3), Human3.6M order, the same people in the same order, and `unit`, 'mm' or
'px'. The truth may name an `action` (n,) for a table by action. Errors are in the unit of the truth; the raw MPJPE is
left out unless both files are in mm. --protocol=elepose gives N-MPJPE and PA-MPJPE as ElePose and LInKs publish them:
sizes matched by the norm, PA free to reflect. Where the truth has `intrinsics_px` (n, 4: fx, fy, cx, cy) and one of the
files `box_px` (n, 4: the square crops the poses were seen in), all scores but PA are also given `turned`: of the poses
rotated from their crops' frames into the cameras'. Takes seconds for 100,000 poses.
"""

import pathlib

from absl import flags

from dal_jax.evaluation import metrics, poses_3d
from dal_jax.runtime import cli, files
from dal_jax.runtime.errors import InputError

_POSES = flags.DEFINE_string("poses_3d", None, "Predicted poses, .npz.", required=True)
_TRUTH = flags.DEFINE_string("truth", None, "True poses, .npz.", required=True)
_OUT = flags.DEFINE_string("out", None, "Where to write the scores as JSON; not written if left out.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the file of --out.")
_PROTOCOL = flags.DEFINE_enum("protocol", "all", ["all", *poses_3d.PROTOCOLS], "Whose scores.")
_CANONICAL = flags.DEFINE_float(
    "canonical_bone_sum",
    None,
    "Bone-length sum of the canonical average skeleton (the training people's), in the truth's unit, for the bone-sum "
    "scaling. Left out: the mean over the truth file.",
    lower_bound=1e-6,
)


def main(_: list[str]) -> None:
    """Read both files, score, print, write."""
    if _OUT.value and pathlib.Path(_OUT.value).exists() and not _OVERWRITE.value:
        raise InputError(f"--out={_OUT.value} exists; --overwrite replaces it")
    poses, truth = poses_3d.read(_POSES.value), poses_3d.read(_TRUTH.value)
    canonical = _CANONICAL.value or metrics.canonical_bone_sum_mm(truth.joints)
    try:
        scores = poses_3d.score(poses, truth, canonical)
    except InputError as error:
        raise InputError(f"{_POSES.value} and {_TRUTH.value}: {error}") from error
    if _PROTOCOL.value != "all":
        scores = {theirs: scores[ours] for ours, theirs in poses_3d.PROTOCOLS[_PROTOCOL.value].items()}
    means = {name: metrics.mean(values) for name, values in scores.items()}
    print(metrics.text_table([f"{len(poses.joints)} poses", f"mean [{truth.unit}]"], list(means.items())))
    if truth.action is not None:
        print("\n" + metrics.per_action_table(scores, truth.action.tolist()))
    if _OUT.value:
        units = {name: "" if name.endswith("_percent") else f"_{truth.unit}" for name in means}
        report = {name + units[name]: value for name, value in means.items()}
        report |= {"poses": len(poses.joints), f"canonical_bone_sum_{truth.unit}": canonical}
        files.write_json(_OUT.value, report)


if __name__ == "__main__":
    cli.run(main)
