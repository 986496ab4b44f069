"""The photograph of a person: light on skin and cloth, in front of a backdrop; and the exact map of its surface."""

from collections.abc import Callable

import numpy as np
import scipy.ndimage
from jaxtyping import Float, UInt8

from dal_jax.data.synthetic import shapes, view as view_lib, wardrobe
from dal_jax.viewing import raycast


class Light:
    """A lamp, a weaker one from elsewhere, and light from all around; drawn once a picture."""

    def __init__(self, up: Float[np.ndarray, "3"], random: np.random.Generator):
        """up: the world's upward direction in the camera's frame."""
        self._up = up
        self._lamps = []
        for strength in (random.uniform(0.45, 0.85), random.uniform(0.0, 0.3)):
            towards = 0.6 * up + [0.0, 0.0, -0.5] + random.normal(0, 0.55, 3)
            self._lamps.append((strength, towards / np.linalg.norm(towards)))
        self._ambient = random.uniform(0.30, 0.55)
        self._tint = random.normal(1.0, 0.04, 3)

    def shade(self, normal: Float[np.ndarray, "p 3"]) -> Float[np.ndarray, "p 3"]:
        """Return how much light a surface of that normal sends back, before its own colour (Lambert)."""
        total = self._ambient * (0.75 + 0.25 * normal @ self._up)
        for strength, towards in self._lamps:
            total = total + strength * np.maximum(normal @ towards, 0.0)
        return total[:, None] * self._tint


def paint(
    view: view_lib.View, hits: raycast.Hits, outfit: wardrobe.Outfit, light: Light, furniture: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "*b 3"]:
    """Return the colours, 0..1, of what rays met; furniture: the colour of chairs. Black where they met nothing."""
    face, barycentric = hits.face.ravel(), hits.barycentric.reshape(-1, 3)
    body = np.flatnonzero((face >= 0) & (face < view.body_faces))
    colour = np.zeros((len(face), 3))
    met, weight = face[body], barycentric[body]
    surface = shapes.surface()
    rest = np.einsum("pc,pcd->pd", weight, surface.corner[met])
    normal = np.einsum("pc,pcd->pd", weight, view.normals[surface.faces[met]])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    colour[body] = outfit.colour(met, rest) * light.shade(normal)
    other = np.flatnonzero(face >= view.body_faces)
    if len(other):
        shade = np.array([0.8, 0.8, 0.55, 0.65, 1.0, 0.9])[(face[other] - view.body_faces) % 12 // 2]
        colour[other] = furniture * shade[:, None]
    return colour.reshape(*hits.face.shape, 3)


def photograph(
    view: view_lib.View,
    centres: raycast.Hits,
    grid_px: Float[np.ndarray, "s s 2"],
    fine: int,
    shade: Callable[[raycast.Hits], Float[np.ndarray, "k f 3"]],
) -> tuple[Float[np.ndarray, "s s 3"], Float[np.ndarray, "s s"]]:
    """Return (colours times coverage, coverage) of the crop, fine x fine rays a pixel.

    centres: what the rays through the pixels' centres met; only pixels there and next to there are looked at again.
    """
    near = scipy.ndimage.binary_dilation(centres.mask, np.ones((3, 3), bool))
    step = grid_px[0, 1, 0] - grid_px[0, 0, 0]
    offset = ((np.arange(fine) + 0.5) / fine - 0.5) * step
    inside = np.stack(np.meshgrid(offset, offset), axis=-1).reshape(1, -1, 2)
    hits = view.cast(grid_px[near][:, None] + inside)
    image, cover = np.zeros((*near.shape, 3)), np.zeros(near.shape)
    image[near], cover[near] = shade(hits).mean(axis=1), hits.mask.mean(axis=1)
    return image, cover


def iuv_map(view: view_lib.View, hits: raycast.Hits) -> UInt8[np.ndarray, "s s 3"]:
    """Return DensePose's picture of the surface: part (0: none), and u and v times 255."""
    image = np.zeros((*hits.face.shape, 3), np.uint8)
    body = (hits.face >= 0) & (hits.face < view.body_faces)
    face, weight = hits.face[body], hits.barycentric[body]
    surface = shapes.surface()
    image[body, 0] = surface.part[face]
    image[body, 1:] = np.round(255 * np.clip(np.einsum("pc,pcd->pd", weight, surface.uv[face]), 0, 1))
    return image
