"""SMPL's model files (`.npz`, `.pkl`; SMPL-H's too) to plain arrays, in SMPL's own names; nothing of them is run."""

import io
import pathlib
import pickle
import zipfile

import numpy as np

from dal_jax.body import array_pickle, body_file
from dal_jax.runtime import errors

VERTICES, FACES = 6890, 13776
_JOINTS = (24, 52)  # SMPL, SMPL-H
_NEEDED = ("v_template", "f", "weights", "J_regressor", "kintree_table")
_UNREADABLE = (*body_file.UNREADABLE, *array_pickle.UNREADABLE)


def is_smpl(path: pathlib.Path) -> bool:
    """Return whether a file is an archive with SMPL's fields; what cannot be opened is not."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "v_template.npy" in archive.namelist()
    except _UNREADABLE:
        return False


def read(path: pathlib.Path, pose_blendshapes: bool = False, shapes: int = 0) -> body_file.Fields:
    """Read `v_template`, `f`, `weights`, `J_regressor` (dense), `kintree_table`, and `posedirs` if asked for.

    shapes: how many of `shapedirs` to read, too; a model may have fewer.

    Joints are SMPL's 24 or SMPL-H's 52, as many as `kintree_table` has columns.

    Raises:
      errors.InputError: the file is unreadable, names something that is not on the list of `array_pickle`, or a field
        is missing, misshaped or not finite; one line with file and field.
    """
    names = _NEEDED + ("posedirs",) * pose_blendshapes + ("shapedirs",) * bool(shapes)
    fields = _read_pickle(path, names) if path.suffix.lower() == ".pkl" else _read_archive(path, names)
    for name in names:
        if name not in fields:
            raise errors.InputError(f"{path}: field '{name}' is missing; expected a model of SMPL or SMPL-H")
    problem = _first_problem(fields)
    if problem:
        raise errors.InputError(f"{path}: {problem}")
    if shapes:
        fields["shapedirs"] = fields["shapedirs"][..., :shapes]
    return fields


def _read_pickle(path: pathlib.Path, names: tuple[str, ...]) -> body_file.Fields:
    entry = ""
    try:
        model = array_pickle.load(path.read_bytes())
        if not isinstance(model, dict):
            raise ValueError(f"holds a {type(model).__name__}, expected a dictionary of fields")
        fields = {}
        for name in names:
            if name in model:
                entry = f"field '{name}': "
                fields[name] = array_pickle.array_of(model[name])
    except _UNREADABLE as error:
        raise errors.InputError(f"{path}: {entry}{_reason(error)}") from error
    return fields


def _read_archive(path: pathlib.Path, names: tuple[str, ...]) -> body_file.Fields:
    fields, entry = {}, ""
    try:
        with zipfile.ZipFile(path) as archive:
            held = set(archive.namelist())
            for name in names:
                if f"{name}.npy" in held:
                    entry = f"field '{name}': "
                    fields[name] = _array(archive.read(f"{name}.npy"))
    except _UNREADABLE as error:
        raise errors.InputError(f"{path}: {entry}{_reason(error)}") from error
    return fields


def _array(content: bytes) -> np.ndarray:
    """Read an entry of an archive; one that NumPy had to pickle goes through our own unpickler.

    AMASS's own code opens the official archives without pickles; those that people make of the `.pkl` have a pickled
    sparse J_regressor.
    """
    stream = io.BytesIO(content)
    if np.lib.format.read_magic(stream) == (1, 0):
        _, _, dtype = np.lib.format.read_array_header_1_0(stream)
        if dtype.hasobject:
            return array_pickle.array_of(array_pickle.load(stream.read()))
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    text = " ".join(str(error).split())[:200] or type(error).__name__
    # A refusal is a sentence of its own; what a damaged file raises is not.
    return text if isinstance(error, pickle.UnpicklingError) and "names '" in text else f"not a readable file: {text}"


def _first_problem(fields: body_file.Fields) -> str | None:
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


def _value_problem(fields: body_file.Fields) -> str | None:
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
