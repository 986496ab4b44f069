"""Files of SMPL's and SMPL-H's true formats, with made-up numbers: no number of a licensed model is in them.

The surface is the free body's, read at the places of SMPL's vertices, shaken a little; triangles join neighbours.
Pickles are written as the official ones were: by Python 2, holding chumpy's and SciPy's objects of that age.
"""

import io
import pathlib
import pickle
import struct
import sys
import types

import numpy as np
import scipy.sparse

from dal_jax.body import skeleton
from dal_jax.body.formats import carry_over
from dal_jax.body.template import Fields

PELVIS = np.array([-0.002, -0.22, 0.03])  # where SMPL's pelvis is, about
_FACES = 13776


def model(joints: int = 24, seed: int = 0) -> Fields:
    """Return a model's fields: `joints` is 24 (SMPL) or 52 (SMPL-H)."""
    rng = np.random.default_rng(seed)
    placement, free = carry_over.smpl_placement(), carry_over.free_body()
    vertices = placement.position + rng.normal(0, 5e-4, (6890, 3))
    parents = np.array(skeleton.SMPL_PARENTS) if joints == 24 else SMPLH_PARENTS
    weights = _weights(free, placement, vertices, rng, joints)
    return {
        "v_template": vertices + PELVIS,
        "f": _faces(free, placement).astype(np.uint32),
        "weights": weights,
        "J_regressor": _regressor(vertices, weights, free["joints"]),
        "kintree_table": np.stack([parents, np.arange(joints)]).astype(np.uint32),
        "posedirs": (0.004 * rng.standard_normal((6890, 3, 9 * (joints - 1)), np.float32)).astype(np.float64),
        "shapedirs": rng.normal(0, 0.01, (6890, 3, 10)),
    }


# SMPL-H: after the 22 joints of the body, each hand's index, middle, pinky, ring, thumb of three joints
SMPLH_PARENTS = np.array(
    [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19]
    + [20, 22, 23, 20, 25, 26, 20, 28, 29, 20, 31, 32, 20, 34, 35]
    + [21, 37, 38, 21, 40, 41, 21, 43, 44, 21, 46, 47, 21, 49, 50]
)
SMPLH_FINGERS = {20: range(22, 34), 21: range(37, 49)}  # all but the thumb, by wrist
SMPLH_THUMBS = {20: range(34, 37), 21: range(49, 52)}


def write_npz(path: pathlib.Path, fields: Fields) -> pathlib.Path:
    """Write as the official archives are: plain arrays, the regressor written out; texts among them."""
    np.savez(path, **fields, bs_style=np.array("lbs"), bs_type=np.array("lrotmin"))
    return path


def write_pickle(path: pathlib.Path, fields: Fields, **changes: object) -> pathlib.Path:
    """Write as `basicModel_*_lbs_10_207_0_v1.0.0.pkl` is: Python 2's protocol 2, chumpy, csc matrices of old SciPy."""
    select = {"a": Ch(fields["posedirs"]), "idxs": np.arange(fields["posedirs"].size)}
    select["preferred_shape"] = fields["posedirs"].shape
    content = {
        **{name: fields[name] for name in ("f", "kintree_table")},
        "v_template": Ch(fields["v_template"]),
        "shapedirs": Ch(fields["shapedirs"]),
        "weights": Ch(fields["weights"]),
        "posedirs": Select(select),
        "J": MatVecMult({"mtx": scipy.sparse.csc_matrix(fields["J_regressor"])}),
        "J_regressor": scipy.sparse.csc_matrix(fields["J_regressor"]),
        "J_regressor_prior": scipy.sparse.csc_matrix(fields["J_regressor"]),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
        "vert_sym_idxs": np.arange(6890),
    }
    path.write_bytes(old_pickle({name: value for name, value in (content | changes).items() if value is not None}))
    return path


def old_pickle(value: object, protocol: int = 2) -> bytes:
    """Pickle as Python 2 did, under the names that modules had then."""
    modules = {name: types.ModuleType(name) for name in ("chumpy", "chumpy.ch", "chumpy.reordering")}
    for kind in (Ch, MatVecMult):
        setattr(modules["chumpy.ch"], kind.__name__, kind)
    modules["chumpy.reordering"].Select = Select
    path = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        stream = io.BytesIO()
        _Python2(stream, protocol).dump(value)
        content = stream.getvalue()
    finally:
        for name, module in path.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})
    for new, old in ((b"cnumpy._core.", b"cnumpy.core."), (b"cscipy.sparse._csc\n", b"cscipy.sparse.csc\n")):
        content = content.replace(new, old)
    return content


class _Chumpy:
    """A class of chumpy as its pickles know it: a state, its weak dictionaries left out."""

    def __init__(self, state: dict):
        self.__dict__.update(state, _dirty_vars=set(), _itr=None, _status="new", debug=False)


class Ch(_Chumpy):
    """An array."""

    def __init__(self, x: np.ndarray):
        super().__init__({"x": x})


class MatVecMult(_Chumpy):
    """A product, whose value a pickle does not hold."""


class Select(_Chumpy):
    """What indexing an array gives."""


Ch.__module__ = MatVecMult.__module__ = "chumpy.ch"
Select.__module__ = "chumpy.reordering"


class _Python2(pickle._Pickler):
    """Text and bytes as Python 2's `str`: they were the same."""

    dispatch = {**pickle._Pickler.dispatch}  # noqa: RUF012

    def _string(self, value: bytes | str) -> None:
        content = value.encode("latin1") if isinstance(value, str) else value
        binary = b"T" + struct.pack("<i", len(content)) + content
        self.write(binary if self.proto else b"S" + repr(content).encode()[1:] + b"\n")
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = _string


def _weights(free, placement, vertices, rng, joints: int) -> np.ndarray:
    """Return rows of at most four segments that sum to 1, SMPL-H's finger joints with a share of the hands'."""
    dense = np.zeros((len(free["vertices"]), 24))
    np.add.at(dense, (np.arange(len(dense))[:, None], free["skin_index"]), free["skin_weight"])
    weights = np.einsum("nc,nck->nk", placement.barycentric, dense[free["faces"][placement.face]])
    if joints == 52:
        whole = np.zeros((len(weights), 52))
        whole[:, :22] = weights[:, :22]
        for column, wrist in ((22, 20), (23, 21)):
            finger = rng.choice([*SMPLH_FINGERS[wrist], *SMPLH_THUMBS[wrist]], len(weights))
            whole[np.arange(len(weights)), finger] += weights[:, column]
        weights = whole
    smallest = np.sort(weights, axis=1)[:, -4:-3]
    weights = np.where(weights >= smallest, weights, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def _regressor(vertices, weights, joints) -> np.ndarray:
    """Return rows that blend thirty vertices around each joint, a finger joint those that it moves most."""
    rows = np.zeros((weights.shape[1], len(vertices)))
    for joint, row in enumerate(rows):
        if len(rows) == 24 or joint < 22:
            chosen = np.argsort(np.linalg.norm(vertices - joints[joint], axis=1))[:30]
        else:
            chosen = np.argsort(-weights[:, joint], kind="stable")[:5]
        row[chosen] = 1 / len(chosen)
    return rows


def _faces(free, placement) -> np.ndarray:
    """Return SMPL's number of triangles: the free body's between nearest SMPL vertices, and one at least a vertex."""
    place = placement.position
    nearest = scipy.spatial.cKDTree(place).query(free["vertices"])[1]
    faces = nearest[free["faces"]]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    alone = np.setdiff1d(np.arange(len(place)), faces)
    added = scipy.spatial.cKDTree(place).query(place[alone], k=3)[1]
    added[:, 0] = alone
    faces = np.concatenate([added, faces])
    kept = np.concatenate([faces, faces[: max(0, _FACES - len(faces))]])[:_FACES]
    assert len(np.unique(kept)) == len(place)
    return kept
