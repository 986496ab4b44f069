"""Whose body stands before the camera: a body file's, or a model of SMPL in the person's own shape."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float, Int

from dal_jax.body import carry_over, template as template_lib
from dal_jax.runtime import errors


@dataclasses.dataclass(frozen=True)
class Bodies:
    """The body that points are on, and the model of SMPL, if there is one, that is posed in its place.

    body, smpl: files; '' for the free body, and for none.
    """

    body: str = ""
    smpl: str = ""

    def of(self, betas: tuple[float, ...]) -> tuple[template_lib.Template, bool]:
        """Return what is posed, and whether it has the shape that betas tell, which only a model of SMPL can take.

        Raises:
          errors.InputError: a file is no body, or points of SMPL cannot be carried over to the body.
        """
        posed = self.smpl or self.body
        template, shaped = _shaped(posed, betas)
        target = _load(self.body)
        if not _same_faces(template, target) and not _same_faces(target, template_lib.load_template()):
            raise errors.InputError(f"--smpl={self.smpl}: is known on the free body alone, not on {self.body}")
        return template, shaped

    def carry(
        self, posed: template_lib.Template, face: Int[np.ndarray, "p"], barycentric: Float[np.ndarray, "p 3"]
    ) -> tuple[Int[np.ndarray, "p"], Float[np.ndarray, "p 3"]]:
        """Return where surface points of what was posed are on the body."""
        target = _load(self.body)
        if _same_faces(posed, target) or not len(face):
            return face, barycentric
        rest = np.einsum("pc,pcx->px", barycentric, _smpl_on_free_body()[np.asarray(posed.faces)[face]])
        return carry_over.nearest(rest, np.asarray(target.vertices, np.float64)[np.asarray(target.faces)])


@functools.lru_cache(2)
def _shaped(body: str, betas: tuple[float, ...]) -> tuple[template_lib.Template, bool]:
    if betas and body and template_lib.is_smpl(body):
        return template_lib.load_shape(body, betas), True
    return _load(body), False


def _load(body: str) -> template_lib.Template:
    return template_lib.load_template(body or template_lib.FREE_BODY)


def _same_faces(one: template_lib.Template, other: template_lib.Template) -> bool:
    return np.array_equal(one.faces, other.faces)


@functools.cache
def _smpl_on_free_body() -> Float[np.ndarray, "6890 3"]:
    return carry_over.smpl_placement().position
