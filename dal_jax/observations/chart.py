"""The chart: (part, u, v) of an annotation to a point (face, barycentric) of the body's surface (section 6.1).

The last part reads the file that DensePose's chart comes in, MATLAB's version 5: full arrays of real numbers by name,
every size checked before its bytes are read. SciPy's own reader trusts the tags of the file: 248 bytes in the wrong
order end the process.
"""

import dataclasses
import functools
import math
import pathlib
import zlib
from collections.abc import Collection, Iterator

import numpy as np
import scipy.spatial
from jaxtyping import Float, Int

from dal_jax.body import triangles
from dal_jax.body.formats import carry_over, load, smpl
from dal_jax.body.template import Template
from dal_jax.runtime import door
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
    fields = _densepose_fields(path)
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


def _densepose_fields(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    names = ("All_Faces", "All_FaceIndices", "All_U_norm", "All_V_norm", "All_vertices")
    fields = read_mat(path, names)
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


_LARGEST_FILE = 1 << 28
_LARGEST_ELEMENT = 1 << 26  # bytes of an array; DensePose's whole chart has a million
_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_STORED = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
"""NumPy's types of what a data element holds, by MATLAB's numbers (miINT8 to miUINT64)."""
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
"""NumPy's types of arrays, by MATLAB's numbers (mxDOUBLE_CLASS to mxUINT64_CLASS)."""
_COMPLEX = 0x0800
_NAME_WITHIN = 512  # bytes of an array before which its flags, shape and name end

_Element = tuple[int, memoryview]
"""Kind and content of a data element."""


def read_mat(path: str | pathlib.Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """Return those of the named arrays that a file has; whatever else it holds is passed over.

    Raises:
      errors.InputError: it cannot be read, is no such file, or an array is damaged; names file and array.
    """
    path, entry = pathlib.Path(path), ""
    try:
        held = memoryview(door.contents(path, _LARGEST_FILE))
        order = {b"IM": "<", b"MI": ">"}.get(bytes(held[126:_HEADER]))
        if order is None:
            raise ValueError("does not begin like one of version 5")
        fields = {}
        for kind, content in _elements(held[_HEADER:], order):
            name = _name(kind, content, order)
            if name in names:
                entry = f"field '{name}': "
                fields[name] = _array(_whole(kind, content, order)[1], order)
            entry = ""
        return fields
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, zlib.error) as error:
        raise InputError(f"{path}: {entry}not a MATLAB file: {error}") from error


def _elements(content: memoryview, order: str) -> Iterator[_Element]:
    """Yield the elements that follow one another: a tag (kind, bytes) and the bytes, padded to eight."""
    place = 0
    while place < len(content):
        if len(content) - place < 8:
            raise ValueError(f"cut off in the tag of an element, {len(content) - place} bytes")
        kind, size = (int(number) for number in np.frombuffer(content, f"{order}u4", 2, place))
        start = place + 8
        if kind >> 16:  # a small element: size and kind in the first four bytes, its bytes in the others
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
            place += 8
            if size > 4:
                raise ValueError(f"a small element of {size} bytes")
        else:
            # Arrays that are compressed are not padded.
            place = start + size + (-size % 8 if kind != _COMPRESSED else 0)
        if size > len(content) - start:
            raise ValueError(f"an element of {size} bytes where {len(content) - start} are left")
        yield kind, content[start : start + size]


def _whole(kind: int, content: memoryview, order: str, most: int = _LARGEST_ELEMENT) -> _Element:
    """Return an element as it is without compression; of no more than `most` bytes, unless less of it will do."""
    if kind != _COMPRESSED:
        return kind, content
    unpack = zlib.decompressobj()
    tag = unpack.decompress(content, 8)
    if len(tag) < 8:
        raise ValueError("a compressed element without a tag")
    kind, size = (int(number) for number in np.frombuffer(tag, f"{order}u4", 2))
    if size > _LARGEST_ELEMENT:
        raise ValueError(f"an element of {size} bytes, at most {_LARGEST_ELEMENT}")
    wanted = min(size, most)
    unpacked = unpack.decompress(unpack.unconsumed_tail, wanted) if wanted else b""
    if len(unpacked) < wanted:
        raise ValueError(f"an element of {size} bytes holds {len(unpacked)}")
    return kind, memoryview(unpacked)


def _name(kind: int, content: memoryview, order: str) -> str:
    """Return the name of an array, '' of what is none."""
    kind, content = _whole(kind, content, order, _NAME_WITHIN)
    if kind != _MATRIX:
        return ""
    try:
        parts = _elements(content[:_NAME_WITHIN], order)
        _, _, (_, name) = next(parts), next(parts), next(parts)
    except StopIteration:
        raise ValueError("an array without a name") from None
    return bytes(name).decode("latin1")


def _array(content: memoryview, order: str) -> np.ndarray:
    parts = list(_elements(content, order))
    if len(parts) < 4:
        raise ValueError(f"an array of {len(parts)} parts, expected flags, shape, name and numbers")
    (flags_kind, flags), (shape_kind, shape), _, (stored_kind, data) = parts[:4]
    if flags_kind != 6 or len(flags) != 8 or shape_kind != 5 or len(shape) % 4:
        raise ValueError("an array whose flags or shape are damaged")
    word = int(np.frombuffer(flags, f"{order}u4", 1)[0])
    sizes = tuple(int(size) for size in np.frombuffer(shape, f"{order}i4"))
    if word & 0xFF not in _CLASSES or word & _COMPLEX or stored_kind not in _STORED:
        raise ValueError("holds values that are not real numbers, all written out")
    stored = np.dtype(_STORED[stored_kind]).newbyteorder(order)  # pyright: ignore[reportArgumentType]: "<" or ">"
    if not 1 <= len(sizes) <= 8 or min(sizes) < 0 or math.prod(sizes) * stored.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes for an array of shape {sizes}")
    values = np.frombuffer(data, stored).reshape(sizes, order="F")
    # Whole numbers of any class are stored in the least bytes that hold them.
    return values.astype(_CLASSES[word & 0xFF])
