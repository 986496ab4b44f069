"""SMPL's model files (`.npz`, `.pkl`; SMPL-H's too) to plain arrays, in SMPL's own names; nothing of them is run."""

import pathlib

import numpy as np
from jaxtyping import Float, Integer

from dal_jax.body import skeleton
from dal_jax.body.formats import array_pickle, carry_over, pickles
from dal_jax.body.template import Fields
from dal_jax.runtime import door
from dal_jax.runtime.errors import InputError

VERTICES, FACES = 6890, 13776
_JOINTS = (24, 52)  # SMPL, SMPL-H
_NEEDED = ("v_template", "f", "weights", "J_regressor", "kintree_table")


def read_model(path: pathlib.Path, pose_blendshapes: bool = False, shapes: int = 0) -> Fields:
    """Read `v_template`, `f`, `weights`, `J_regressor` (dense), `kintree_table`, and `posedirs` if asked for.

    shapes: how many of `shapedirs` to read, too; a model may have fewer.

    Joints are SMPL's 24 or SMPL-H's 52, as many as `kintree_table` has columns.

    Raises:
      errors.InputError: the file is unreadable, names something that is not on the list of `pickles`, or a field
        is missing, misshaped or not finite; one line with file and field.
    """
    names = _NEEDED + ("posedirs",) * pose_blendshapes + ("shapedirs",) * bool(shapes)
    is_pickle = path.suffix.lower() == ".pkl"
    fields = array_pickle.read_fields(path, names) if is_pickle else door.read_npz(path, names, _unpickled)
    for name in names:
        if name not in fields:
            raise InputError(f"{path}: field '{name}' is missing; expected a model of SMPL or SMPL-H")
    problem = _first_problem(fields)
    if problem:
        raise InputError(f"{path}: {problem}")
    if shapes:
        fields["shapedirs"] = fields["shapedirs"][..., :shapes]
    return fields


def _unpickled(content: bytes) -> np.ndarray:
    """Read an entry of an archive that NumPy had to pickle, by our own unpickler.

    AMASS's own code opens the official archives without pickles; those that people make of the `.pkl` have a pickled
    sparse J_regressor.
    """
    try:
        return array_pickle.array_of(pickles.load(content))
    except door.UNREADABLE as error:
        raise InputError(array_pickle.reason(error)) from error


def _first_problem(fields: Fields) -> str | None:
    count = fields["kintree_table"].shape[-1] if fields["kintree_table"].ndim == 2 else 0
    if count not in _JOINTS:
        return f"field 'kintree_table' has shape {fields['kintree_table'].shape}, expected (2, 24) or (2, 52): " + (
            "only SMPL and SMPL-H are read"
        )
    shapes = {
        "kintree_table": (2, count), "v_template": (VERTICES, 3), "f": (FACES, 3), "weights": (VERTICES, count),
        "J_regressor": (count, VERTICES), "posedirs": (VERTICES, 3, 9 * (count - 1)),
        "shapedirs": (VERTICES, 3, *fields.get("shapedirs", np.zeros(0)).shape[2:3]),
    }  # fmt: skip
    for name, values in fields.items():
        if values.shape != shapes[name]:
            return f"field '{name}' has shape {values.shape}, expected {shapes[name]}"
        if values.dtype.kind not in ("iu" if name in ("f", "kintree_table") else "iuf"):
            return f"field '{name}' holds {values.dtype}, expected numbers"
        if not np.all(np.isfinite(values)):
            return f"field '{name}' holds values that are not finite"
    return _value_problem(fields)


def _value_problem(fields: Fields) -> str | None:
    if fields["f"].min() < 0 or fields["f"].max() >= VERTICES:
        return f"field 'f' has a value outside 0..{VERTICES - 1}"
    if len(np.unique(fields["f"])) < VERTICES:
        return f"field 'f' leaves out {VERTICES - len(np.unique(fields['f']))} of the {VERTICES} vertices"
    for name, low in (("weights", 0), ("J_regressor", -1)):  # SMPL's regressor may have small negative entries
        if fields[name].min() < low or np.abs(fields[name].sum(axis=1) - 1).max() > 1e-3:
            return f"field '{name}' has a row that is negative or does not sum to 1"
    height = float(np.ptp(fields["v_template"][:, 1]))
    if not 0.5 < height < 3:
        return f"field 'v_template' is {height:.3g} high, expected a person in metres with y up"
    return None


# --- A model of SMPL or SMPL-H as a body: our frame, our 24 joints; what SMPL lacks comes from the free body ---

_FINGERS = {"index": "hand", "middle": "hand", "pinky": "hand", "ring": "hand", "thumb": "wrist"}
_HANDS = tuple(f"{side}_{finger}" for side in ("left", "right") for finger in _FINGERS for _ in range(3))
_SMPLH_NAMES = skeleton.SMPL_JOINT_NAMES[:22] + _HANDS
_SMPLH_PARENTS = skeleton.SMPL_PARENTS[:22] + tuple(
    wrist if bone == 0 else 22 + 15 * hand + 3 * finger + bone - 1
    for hand, wrist in enumerate((20, 21)) for finger in range(5) for bone in range(3)
)  # fmt: skip
_BODY_FEATURES = 9 * 21  # of the pose blendshapes: those of the joints that SMPL and SMPL-H share


def read(path: pathlib.Path, pose_blendshapes: bool = False, betas: tuple[float, ...] = ()) -> Fields:
    """Read a model as the fields of a body file: its mean shape, or the shape of `betas`, as far as it has such.

    The skeleton is `J_regressor` times the shape; the pelvis goes to the origin; SMPL's axes are ours. `mirror` is the
    vertex nearest to the mirror image. `part`, `uv` and the regressors of key points, which SMPL has not, are the free
    body's, carried over by the map of SMPL's vertices (`carry_over`): annotation in DensePose's chart needs --chart.

    Note: SMPL-H has no hand joints but fifteen finger joints a hand. Our choice: `hand` lies midway between the bases
    of the index and the middle finger, fingers go with it and the thumb with the wrist (as the free body's), and
    fingers do not move; of the pose blendshapes the fingers' are dropped and the hands' are zero.

    Raises:
      errors.InputError: as `smpl_file.read`, or the tree is another; one line with file and field.
    """
    model = read_model(path, pose_blendshapes, len(betas))
    _check_tree(path, model["kintree_table"])
    vertices = model["v_template"].astype(np.float64)
    if betas:
        vertices = vertices + model["shapedirs"] @ np.array(betas[: model["shapedirs"].shape[2]])
    joints = model["J_regressor"].astype(np.float64) @ vertices
    weights = model["weights"].astype(np.float64)
    if len(joints) > len(skeleton.SMPL_PARENTS):
        joints, weights = _without_fingers(joints, weights)
    pelvis = joints[0]
    vertices, joints = vertices - pelvis, joints - pelvis
    faces = model["f"].astype(np.int64)
    fields = carry_over.body_fields(vertices, faces, joints, weights, carry_over.smpl_placement())
    fields["smpl_pelvis"] = pelvis
    if pose_blendshapes:
        fields["pose_blendshapes"] = _body_blendshapes(model["posedirs"])
    return fields


def _check_tree(path: pathlib.Path, table: Integer[np.ndarray, "2 joints"]) -> None:
    expected = skeleton.SMPL_PARENTS if table.shape[1] == len(skeleton.SMPL_PARENTS) else _SMPLH_PARENTS
    parents = table[0].astype(np.int64)
    if parents[0] in (2**32 - 1, 2**16 - 1):  # -1 in unsigned numbers
        parents[0] = -1
    if tuple(parents.tolist()) != expected or not np.array_equal(table[1], np.arange(len(expected))):
        joint = next((k for k, (a, b) in enumerate(zip(parents, expected, strict=True)) if a != b), 0)
        raise InputError(
            f"{path}: field 'kintree_table' gives joint {table[1, joint]} the parent {table[0, joint]}, "
            f"expected {expected[joint]}: another tree than SMPL's"
        )


def _without_fingers(joints: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 24 joints and their weights of SMPL-H's 52."""
    names = skeleton.SMPL_JOINT_NAMES
    owner = [names.index(_segment(name)) for name in _SMPLH_NAMES]
    folded = np.zeros((len(weights), len(names)))
    np.add.at(folded.T, owner, weights.T)
    hands = [
        (joints[_SMPLH_NAMES.index(f"{side}_index")] + joints[_SMPLH_NAMES.index(f"{side}_middle")]) / 2
        for side in ("left", "right")
    ]
    return np.concatenate([joints[:22], hands]), folded


def _segment(name: str) -> str:
    side, _, finger = name.partition("_")
    return f"{side}_{_FINGERS[finger]}" if finger in _FINGERS else name


def _body_blendshapes(posedirs: Float[np.ndarray, "n 3 features"]) -> Float[np.ndarray, "n 3 207"]:
    if posedirs.shape[2] == 207:
        return posedirs
    kept = np.zeros((*posedirs.shape[:2], 207))
    kept[..., :_BODY_FEATURES] = posedirs[..., :_BODY_FEATURES]
    return kept
