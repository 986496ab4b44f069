"""The chart: (part, u, v) of an annotation to a point (face, barycentric) of the body's surface (section 6.1)."""

import dataclasses
import functools
import pathlib

import numpy as np
import scipy.spatial
from jaxtyping import Float, Int

from dal_jax.body import triangles
from dal_jax.body.formats import carry_over, load, smpl
from dal_jax.body.template import Template
from dal_jax.observations import mat_file
from dal_jax.runtime.errors import InputError

PARTS = 24
_LARGEST = 1e9  # of numbers in a chart's file, before they are taken for whole ones


@dataclasses.dataclass(frozen=True, eq=False)
class Chart:
    """Triangles in (u, v), part by part, and the body surface point under each of their corners.

    part: DensePose's part of a triangle, 1 to 24; uv: its corners in the part's chart, [0, 1].
    corner_face, corner_barycentric: the corners on the body; several chart corners may show one body point.
    body: corners of the body's faces in its rest pose, metres.
    """

    part: Int[np.ndarray, "t"]
    uv: Float[np.ndarray, "t 3 2"]
    corner_face: Int[np.ndarray, "t 3"]
    corner_barycentric: Float[np.ndarray, "t 3 3"]
    body: Float[np.ndarray, "m 3 3"]

    @functools.cached_property
    def triangles_of_part(self) -> tuple[Int[np.ndarray, "_"], ...]:
        """The triangles of each part; entry 0 is empty, so that the index is DensePose's number."""
        return tuple(np.flatnonzero(self.part == part) for part in range(PARTS + 1))

    def locate(
        self, part: Int[np.ndarray, "p"], uv: Float[np.ndarray, "p 2"]
    ) -> tuple[Int[np.ndarray, "p"], Float[np.ndarray, "p 3"], Float[np.ndarray, "p"]]:
        """Return (triangle, barycentric, distance): the nearest point of the part's charted area to each (u, v).

        The distance, in units of u and v, is 0 inside a triangle. The search is exact, over every triangle of the part.
        """
        triangle = np.zeros(len(part), np.int64)
        barycentric = np.zeros((len(part), 3))
        distance = np.zeros(len(part))
        for number in np.unique(part):
            rows, candidates = np.flatnonzero(part == number), self.triangles_of_part[number]
            if not len(candidates):
                raise InputError(f"the chart has no triangle of part {number}")
            best, barycentric[rows], inside = triangles.containing(uv[rows], self.uv[candidates])
            triangle[rows] = candidates[best]
            outside = rows[~inside]
            if len(outside):  # one point in a hundred: worth the slower search only there
                weights, squared = triangles.closest(uv[outside, None], self.uv[candidates][None])
                row, best = np.arange(len(outside)), np.argmin(squared, axis=1)
                triangle[outside], barycentric[outside] = candidates[best], weights[row, best]
                distance[outside] = np.sqrt(squared[row, best])
        return triangle, barycentric, distance

    def to_surface(
        self, part: Int[np.ndarray, "p"], uv: Float[np.ndarray, "p 2"]
    ) -> tuple[Int[np.ndarray, "p"], Float[np.ndarray, "p 3"]]:
        """Return (face, barycentric) on the body of annotated points.

        Inside a chart triangle the three body points are blended and the blend is put back on the rest surface.
        Note: the paper takes the nearest vertex; on real annotation that is 7 mm away in the median, 25 mm at worst.
        """
        triangle, weight, _ = self.locate(part, uv)
        face, barycentric = self.corner_face[triangle], self.corner_barycentric[triangle]
        blended = np.einsum("pc,pcb->pb", weight, barycentric)  # exact where all three corners lie on one face
        apart = np.flatnonzero((face != face[:, :1]).any(axis=1))
        position = np.einsum("pc,pcb,pcbx->px", weight[apart], barycentric[apart], self.body[face[apart]])
        surface_face = face[:, 0].copy()
        if len(apart):
            found = triangles.nearest(position, self.body, self._face_centres, face[apart])
            surface_face[apart], blended[apart] = found
        return surface_face.astype(np.int32), blended.astype(np.float32)

    def from_surface(
        self, face: Int[np.ndarray, "p"], barycentric: Float[np.ndarray, "p 3"]
    ) -> tuple[Int[np.ndarray, "p"], Float[np.ndarray, "p 2"]]:
        """Return (part, uv) of body points: the inverse of `to_surface`, in the chart triangle nearest in space.

        Exact where the chart's triangles are the body's faces (a body's own chart, DensePose's on SMPL), but for points
        on a border, which belong to several parts. DensePose's chart on the free body is exact to half a centimetre.
        """
        position = np.einsum("pc,pcx->px", barycentric, self.body[face])
        others = self._triangle_of_face[face][:, None]
        triangle, weight = triangles.nearest(position, self._places, self._place_centres, others)
        return self.part[triangle], np.einsum("pc,pcd->pd", weight, self.uv[triangle])

    @functools.cached_property
    def _places(self) -> Float[np.ndarray, "t 3 3"]:
        """The chart's triangles on the body in its rest pose."""
        return np.einsum("tcb,tcbx->tcx", self.corner_barycentric, self.body[self.corner_face])

    @functools.cached_property
    def _triangle_of_face(self) -> Int[np.ndarray, "m"]:
        """A triangle with all its corners on the face, the first triangle where there is none."""
        found = np.zeros(len(self.body), np.int64)
        whole = np.flatnonzero((self.corner_face == self.corner_face[:, :1]).all(axis=1))[::-1]
        found[self.corner_face[whole, 0]] = whole
        return found

    @functools.cached_property
    def _place_centres(self) -> scipy.spatial.KDTree:
        return scipy.spatial.KDTree(self._places.mean(axis=1))

    @functools.cached_property
    def _face_centres(self) -> scipy.spatial.KDTree:
        return scipy.spatial.KDTree(self.body.mean(axis=1))


def load_chart(path: str | pathlib.Path, template: Template) -> Chart:
    """Return DensePose's chart from its file, or, of an empty path, the body's own chart.

    Raises:
      errors.InputError: as `load_densepose_chart`.
    """
    return load_densepose_chart(path, template) if str(path) else body_chart(template)


def body_chart(template: Template) -> Chart:
    """Return a body's own chart (its file's `part` and `uv`): its triangles are the body's faces."""
    faces = len(template.faces)
    return Chart(
        part=np.asarray(template.part, np.int64),
        uv=np.asarray(template.uv, np.float64),
        corner_face=np.repeat(np.arange(faces)[:, None], 3, axis=1),
        corner_barycentric=np.broadcast_to(np.eye(3), (faces, 3, 3)),
        body=_rest_corners(template),
    )


def load_densepose_chart(path: str | pathlib.Path, template: Template) -> Chart:
    """Read `UV_Processed.mat`, DensePose's chart of the SMPL surface, for the free body or for an SMPL body.

    Raises:
      errors.InputError: the file is missing or is no such chart, or SMPL's vertices are not known on this body.
    """
    fields = _read_mat(path)
    faces = fields["All_Faces"].astype(np.int64) - 1
    vertex = fields["All_vertices"].ravel().astype(np.int64) - 1
    uv = np.stack([fields["All_U_norm"].ravel(), fields["All_V_norm"].ravel()], axis=-1).astype(np.float64)
    part = fields["All_FaceIndices"].ravel().astype(np.int64)
    problem = _chart_problem(faces, part, uv, vertex)
    if problem:
        raise InputError(f"{path}: {problem}")
    corner_face, corner_barycentric = _smpl_corners_on(template, vertex[faces])
    return Chart(part, uv[faces], corner_face, corner_barycentric, _rest_corners(template))


def _rest_corners(template: Template) -> Float[np.ndarray, "m 3 3"]:
    return np.asarray(template.vertices, np.float64)[np.asarray(template.faces)]


def _read_mat(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    names = ("All_Faces", "All_FaceIndices", "All_U_norm", "All_V_norm", "All_vertices")
    fields = mat_file.read(path, names)
    for name in names:
        if name not in fields:
            raise InputError(f"{path}: field '{name}' is missing; expected DensePose's UV_Processed.mat")
        if not np.all(np.abs(fields[name].astype(np.float64)) < _LARGEST):
            raise InputError(f"{path}: field '{name}' holds values that are not finite, or beyond {_LARGEST:g}")
    if fields["All_Faces"].ndim != 2 or fields["All_Faces"].shape[1] != 3:
        raise InputError(f"{path}: field 'All_Faces' has shape {fields['All_Faces'].shape}, expected (faces, 3)")
    for name in ("All_U_norm", "All_V_norm"):
        if fields[name].size != fields["All_vertices"].size:
            raise InputError(
                f"{path}: field '{name}' has {fields[name].size} entries for {fields['All_vertices'].size} "
                "chart vertices"
            )
    return fields


def _chart_problem(faces: np.ndarray, part: np.ndarray, uv: np.ndarray, vertex: np.ndarray) -> str | None:
    if len(part) != len(faces):
        return f"All_FaceIndices has {len(part)} entries for {len(faces)} faces"
    for name, values, low, high in (
        ("All_Faces", faces + 1, 1, len(vertex)), ("All_FaceIndices", part, 1, PARTS),
        ("All_U_norm / All_V_norm", uv, 0, 1), ("All_vertices", vertex + 1, 1, smpl.VERTICES),
    ):  # fmt: skip
        if values.size == 0 or values.min() < low or values.max() > high:
            return f"field '{name}' has a value outside {low}..{high}"
    absent = sorted(set(range(1, PARTS + 1)) - set(part.tolist()))
    return f"no face of part {absent[0]}" if absent else None


def _smpl_corners_on(
    template: Template, vertex: Int[np.ndarray, "t 3"]
) -> tuple[Int[np.ndarray, "t 3"], Float[np.ndarray, "t 3 3"]]:
    """Return (face, barycentric) on a body of triangles of SMPL's vertices."""
    faces = np.asarray(template.faces, np.int64)
    if len(template.vertices) == smpl.VERTICES and len(faces) == smpl.FACES:
        face = _faces_of(faces, vertex)
        return face, (faces[face] == vertex[..., None]).astype(np.float64)
    free = load.load_body()
    if template.faces.shape != free.faces.shape or not np.array_equal(faces, free.faces):
        raise InputError(
            "--chart: UV_Processed.mat charts SMPL's vertices, which are known on the free body and on SMPL bodies "
            f"only; this body has {len(template.vertices)} vertices and needs annotation in its own chart"
        )
    placement = carry_over.smpl_placement()
    return placement.face[vertex], placement.barycentric[vertex]


def _faces_of(faces: Int[np.ndarray, "m 3"], vertex: Int[np.ndarray, "t 3"]) -> Int[np.ndarray, "t 3"]:
    """Return the face that each triangle is, thrice; for a triangle that is none, a face of each corner."""
    of_vertex = np.zeros(smpl.VERTICES, np.int64)
    for corner in range(3):
        of_vertex[faces[:, corner]] = np.arange(len(faces))
    of_triple = {tuple(triple): face for face, triple in enumerate(np.sort(faces, axis=1).tolist())}
    same = [of_triple.get(tuple(triple), -1) for triple in np.sort(vertex, axis=1).tolist()]
    return np.where(np.array(same)[:, None] >= 0, np.array(same)[:, None], of_vertex[vertex])
