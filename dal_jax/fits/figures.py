"""Figures of fits for a page to look at: views with the joints' deviations, what the fit misses, a scene to turn.

Pictures are addresses of <img>; marks and ellipses are places in a square of 1000, as an SVG over them has it.
"""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dal_jax.body import skeleton
from dal_jax.body.kinematics import BodyParameters
from dal_jax.fits import export, overlays
from dal_jax.observations import photographs, residuals
from dal_jax.observations.observation import Observation
from dal_jax.uncertainty import posterior
from dal_jax.viewing import html

if TYPE_CHECKING:
    from dal_jax.fits.fits import Fits

ERROR_CLASSES_PERCENT = (1.0, 2.0, 4.0)
"""Bounds of errors, of the longer side of the box; the last is near where a report calls them grave."""

_SVG = 1000  # side of the square that marks are drawn in
_DARK = 56  # where there is no photograph
_VIEWS = {"front": "from the front", "side": "from the side", "top": "from above"}


class Figures:
    """Draws people of fits, by their place among the fitted ones."""

    def __init__(self, fits: "Fits", pictures: pathlib.Path | None):
        """Take fits with a body, and the folder of their overlays (`output.draw`), if they are drawn."""
        self._pictures = None if pictures is None else [pictures / f"{name}.png" for name in fits.names()]
        self._fits, self._body, self._rows = fits, fits.known_body(), fits.fitted_rows()
        self._bodies = fits.fitted()
        self._faces = np.asarray(self._body.faces)
        self._size_mm = posterior.template_bone_sum_mm(self._body)
        self._read = fits.annotations.reader() if fits.annotations is not None else None
        observed = fits.observations
        self._observed: Observation | None = None if observed is None else observed.stacked
        if self._observed is not None:
            self._offsets_px = residuals.offsets_px(self._body, self._bodies, self._observed)

    def box_px(self, index: int) -> np.ndarray:
        """Return the square crop."""
        return self._fits.box_px[self._rows[index]]

    def tiles(self, index: int, body: BodyParameters | None, spread: dict[str, list]) -> list[dict[str, Any]]:
        """Return the body over the photograph, where there is one, and from three sides.

        body: another than the fit's own. spread: standard deviations of its joints, mm, by name.
        """
        pinhole = None if self._observed is None else overlays.select(self._observed, index).pinhole
        own, body = body is None, overlays.select(self._bodies, index) if body is None else body
        vertices = overlays.posed_vertices(self._body, body, pinhole)
        if not np.isfinite(vertices).all():
            return []
        drawn = self._drawn(index, vertices) if own else self._draw(index, vertices)
        result: list[dict[str, Any]] = []
        if "over" in drawn:
            result.append({"title": "over the photograph", "src": drawn["over"]})
        centres, half_axes = self._ellipsoids(index, spread)
        centres = np.asarray(overlays.place_in_crop(centres, body, pinhole))
        for view, title in _VIEWS.items():
            place = _in_svg(overlays.in_view(centres, vertices, view)[:, :2])
            radii = half_axes * body.camera_scale / overlays.view_extent(vertices) / 2.0 * _SVG
            across = np.abs(radii @ overlays.VIEWS[view].T)[:, :2]
            ellipses = np.column_stack([place, across]).round().astype(int).tolist()
            result.append({"title": title, "src": drawn[view], "ellipses": list(zip(spread, ellipses, strict=True))})
        return result

    def _drawn(self, index: int, vertices: np.ndarray) -> dict[str, str]:
        """Return the views of `_draw` from the file of an overlay, as far as there is one, else drawn."""
        if self._pictures is None or not self._pictures[index].exists():
            return self._draw(index, vertices)
        _, over, front, side = np.split(photographs.read_picture(self._pictures[index]), 4, axis=1)
        return self._draw(index, vertices, ("top",)) | {
            name: html.picture(one) for name, one in (("over", over), ("front", front), ("side", side))
        }

    def _draw(self, index: int, vertices: np.ndarray, views: Sequence[str] = ("over", *_VIEWS)) -> dict[str, str]:
        """Return pictures by view; that over the photograph where there is one."""
        found = {}
        for view in views:
            if view != "over":
                found[view] = html.picture(overlays.alone(vertices, self._faces, overlays.VIEW_PX, view))
            elif (photograph := self._photograph(index)) is not None:
                found[view] = html.picture(overlays.overlay(photograph, vertices, self._faces))
        return found

    def residuals(self, index: int, side_px: float | None) -> list[dict[str, Any]]:
        """Return the photograph with what was annotated, by how far the body is from it, in shares of a side.

        Nothing where there is neither.
        """
        photograph = self._photograph(index)
        seen = None if self._observed is None else overlays.select(self._observed, index)
        if seen is None or not (np.any(seen.point_confidence > 0) or np.any(seen.keypoint_confidence > 0)):
            return [] if photograph is None else [{"title": "the photograph", "src": html.picture(photograph)}]
        if photograph is None:
            photograph = np.full((16, 16, 3), _DARK, np.uint8)
        tile = {"title": "what the fit misses", "src": html.picture(photograph), "dim": True}
        used, marked = seen.point_confidence > 0, np.flatnonzero(seen.keypoint_confidence > 0)
        points, places = (_in_svg(np.asarray(each)) for each in (seen.point_position, seen.keypoint_position))
        dense_px, keypoint_px = (each[index] for each in self._offsets_px)
        start = np.concatenate([points[used], places[marked]])
        offset_px = np.nan_to_num(np.concatenate([dense_px[used], keypoint_px[marked]]))
        end = start + offset_px / seen.box_px[2] * _SVG
        missed_px = np.linalg.norm(offset_px, axis=-1)
        kind = np.digitize(100.0 * missed_px / (side_px or seen.box_px[2]), ERROR_CLASSES_PERCENT)
        names, count = skeleton.KEYPOINT_SETS[seen.keypoint_set], int(used.sum())
        parents = skeleton.KEYPOINT_PARENTS[seen.keypoint_set]
        bones = [joint for joint in marked if parents[joint] in marked]
        kinds = range(len(ERROR_CLASSES_PERCENT) + 1)
        marks = {
            "bones": _path(places[bones], places[[parents[joint] for joint in bones]]),
            "gaps": [_path(start[kind == one], end[kind == one]) for one in kinds],
            "dots": [_path(*[start[:count][kind[:count] == one]] * 2) for one in kinds],
            "joints": [
                (kind[row], *start[row].round().astype(int).tolist(), names[joint].replace("_", " "), missed_px[row])
                for row, joint in enumerate(marked, count)
            ],
        }
        return [tile | {"marks": marks}]

    def scene(self, index: int, spread: dict[str, list]) -> str | None:
        """Return the body, and the ellipsoids of its joints, for the viewer; None of a body that is not finite."""
        if not self._fits.valid[self._rows[index]]:
            return None
        vertices = export.viewer_vertices(self._body, overlays.select(self._bodies, index))
        centres, half_axes = self._ellipsoids(index, spread)
        to_viewer = np.array([[1.0, -1.0, -1.0]])
        return html.pack(html.scene(vertices, self._faces, overlays.BODY_COLOUR, centres * to_viewer, half_axes))

    def _ellipsoids(self, index: int, spread: dict[str, list]) -> tuple[np.ndarray, np.ndarray]:
        """Return joints (k, 3) and their standard deviations, metres of the fit, camera axes."""
        joints = self._fits.joints_h36m[self._rows[index]]
        parents = np.array(skeleton.H36M_PARENTS[1:])
        size_mm = 1000.0 * np.sum(np.linalg.norm(joints[1:] - joints[parents], axis=-1))
        rows = [skeleton.H36M_JOINT_NAMES.index(name) for name in spread]
        deviations_mm = np.array([[value or 0.0 for value in spread[name]] for name in spread]).reshape(-1, 3)
        return joints[rows], deviations_mm / 1000.0 * size_mm / self._size_mm

    def _photograph(self, index: int) -> np.ndarray | None:
        annotations = self._fits.annotations
        if annotations is None or self._read is None or not annotations.images:
            return None
        picture = self._read(annotations.people[index])
        return photographs.crop(picture, self.box_px(index), overlays.VIEW_PX)


def _in_svg(places: np.ndarray) -> np.ndarray:
    return (places + 1.0) / 2.0 * _SVG


def _path(start: np.ndarray, end: np.ndarray) -> str:
    """Return lines as the path of an SVG; one of no length is a dot."""
    return "".join(f"M{x:.0f} {y:.0f}L{u:.0f} {v:.0f}" for (x, y), (u, v) in zip(start, end, strict=True))
