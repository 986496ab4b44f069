import struct
import zlib

import numpy as np
import PIL.Image
import pytest
import scipy.io
import scipy.sparse

from dal_jax.body.formats import carry_over, load
from dal_jax.observations import densepose, iuv
from dal_jax.observations.chart import body_chart, load_densepose_chart, read_mat
from dal_jax.runtime.errors import InputError
from tests import damage
from tests.body import smpl_files
from tests.observations import annotation_files

UV_ROUND_OFF = 1e-6
SURFACE_ROUND_OFF_M = 1e-5
UV_ROUND_TRIP = 1e-5  # float32 barycentric coordinates, stretched at most thirty times
CHART_GAP = 0.03  # real clicks in a part's margin, outside its charted area, in units of u and v


@pytest.fixture(scope="module")
def template():
    return load.load_body()


@pytest.fixture(scope="module")
def smpl_body(tmp_path_factory):
    """Return a made-up model of SMPL's form as a body, and the model; with SMPL's triangles where they are at hand."""
    model = smpl_files.model()
    del model["posedirs"]
    if annotation_files.REAL_DATA:
        model["f"] = annotation_files.smpls_triangles()
    return load.load_body(smpl_files.write_npz(tmp_path_factory.mktemp("smpl") / "smpl.npz", model)), model


def _rest(template, face, barycentric):
    return np.einsum("pc,pcx->px", barycentric, np.asarray(template.vertices)[np.asarray(template.faces)[face]])


def test_a_bodys_own_chart_is_inverted(template):
    """Surface point -> (part, u, v) -> the same surface point: the chart is one to one."""
    rng = np.random.default_rng(0)
    face = rng.integers(0, len(template.faces), 500)
    barycentric = rng.dirichlet(np.ones(3), 500)
    uv = np.einsum("pc,pcd->pd", barycentric, np.asarray(template.uv, np.float64)[face])
    found_face, found = body_chart(template).to_surface(np.asarray(template.part)[face], uv)
    gap = np.linalg.norm(_rest(template, found_face, found) - _rest(template, face, barycentric), axis=1)
    assert np.quantile(gap, 0.99) < 1e-3
    assert np.all(np.asarray(template.part)[found_face] == np.asarray(template.part)[face])


def _round_trip(chart, count=2000):
    """Return the gap in (u, v) of (part, u, v) -> surface point -> (part, u, v), for points inside the triangles."""
    rng = np.random.default_rng(2)
    triangle = rng.integers(0, len(chart.part), count)
    inside = 0.05 + 0.85 * rng.dirichlet(np.ones(3), count)  # a border belongs to two parts
    part, uv = chart.part[triangle], np.einsum("pc,pcd->pd", inside, chart.uv[triangle])
    found_part, found = chart.from_surface(*chart.to_surface(part, uv))
    return np.where(found_part == part, np.linalg.norm(found - uv, axis=1), np.inf)


def test_chart_to_surface_and_back_is_the_same_chart_point(template):
    assert _round_trip(body_chart(template)).max() < UV_ROUND_TRIP


def test_a_model_of_smpls_form_is_charted_by_the_free_body(smpl_body):
    """Carried over, the chart is nearly one to one: all but the seams come back."""
    body, _ = smpl_body
    gap = _round_trip(body_chart(body))
    assert np.quantile(gap, 0.5) < UV_ROUND_TRIP


def test_outside_the_charted_area_the_nearest_point_is_taken(template):
    chart = body_chart(template)
    part, uv = np.repeat(np.arange(1, 25), 4), np.tile([[0.0, 0], [0, 1], [1, 0], [1, 1]], (24, 1))
    triangle, weight, distance = chart.locate(part, uv)
    nearest = np.einsum("pc,pcd->pd", weight, chart.uv[triangle])
    np.testing.assert_allclose(np.linalg.norm(nearest - uv, axis=1), distance, atol=UV_ROUND_OFF)
    for row in range(len(part)):  # no corner of the part is nearer
        corners = chart.uv[chart.part == part[row]].reshape(-1, 2)
        assert distance[row] <= np.linalg.norm(corners - uv[row], axis=1).min() + UV_ROUND_OFF


def _fields():
    """A chart of the true format: two triangles a part, over made-up SMPL vertices."""
    rng = np.random.default_rng(0)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]])
    first = 4 * np.arange(24)[:, None] + 1
    faces = np.stack([first + [0, 1, 2], first + [0, 2, 3]], axis=1).reshape(-1, 3)
    return {
        "All_Faces": faces.astype(np.uint32),
        "All_FaceIndices": np.repeat(np.arange(1, 25), 2)[:, None].astype(np.uint8),
        "All_U_norm": np.tile(corners[:, :1], (24, 1)),
        "All_V_norm": np.tile(corners[:, 1:], (24, 1)),
        "All_vertices": rng.integers(1, 6891, (1, 96)).astype(np.uint32),
    }


def test_a_densepose_chart_takes_corners_to_smpls_vertices(tmp_path, template):
    fields = _fields()
    scipy.io.savemat(tmp_path / "chart.mat", fields)
    chart = load_densepose_chart(tmp_path / "chart.mat", template)
    part = np.repeat(np.arange(1, 25), 4)
    uv = np.concatenate([fields["All_U_norm"], fields["All_V_norm"]], axis=1)
    face, barycentric = chart.to_surface(part, uv)
    with np.load(carry_over.SMPL_TO_FREE_BODY) as archive:
        vertex = fields["All_vertices"].ravel().astype(int) - 1
        expected = _rest(template, archive["face_index"][vertex], archive["barycentric"][vertex])
    np.testing.assert_allclose(_rest(template, face, barycentric), expected, atol=SURFACE_ROUND_OFF_M)


def test_inside_a_densepose_triangle_the_point_is_on_the_surface_near_the_blend(tmp_path, template):
    """Three body points a few centimetres apart: the nearest surface point is nearer than any of them."""
    fields = _fields()
    smpl = np.load(carry_over.SMPL_TO_FREE_BODY)
    place = _rest(template, smpl["face_index"], smpl["barycentric"])
    seeds = np.random.default_rng(1).integers(0, 6890, 24)
    nearest = np.argsort(np.linalg.norm(place[seeds][:, None] - place[None], axis=-1), axis=1)[:, [0, 3, 6, 9]]
    fields["All_vertices"] = (nearest.reshape(1, -1) + 1).astype(np.uint32)
    scipy.io.savemat(tmp_path / "chart.mat", fields)
    chart = load_densepose_chart(tmp_path / "chart.mat", template)
    face, barycentric = chart.to_surface(np.arange(1, 25), np.tile([[0.6, 0.3]], (24, 1)))
    blend = np.einsum("pcx,c->px", place[nearest[:, :3]], [0.4, 0.3, 0.3])
    gap = np.linalg.norm(_rest(template, face, barycentric) - blend, axis=1)
    assert np.all(gap <= np.linalg.norm(place[nearest[:, :3]] - blend[:, None], axis=-1).min(axis=1) + 1e-9)
    everywhere = np.asarray(template.vertices)  # no vertex of the whole body is nearer: the search missed nothing
    assert np.all(gap <= np.linalg.norm(everywhere[None] - blend[:, None], axis=-1).min(axis=1) + 1e-6)


@pytest.mark.parametrize(
    ("name", "spoil", "told"),
    [
        ("All_Faces", lambda a: a + 97, "All_Faces"),
        ("All_FaceIndices", lambda a: a + 1, "outside 1..24"),
        ("All_FaceIndices", lambda a: a[:-1], "47 entries for 48 faces"),
        ("All_U_norm", lambda a: a * 300, "outside 0..1"),
        ("All_V_norm", lambda a: a * np.nan, "not finite"),
        ("All_vertices", lambda a: a * 0, "outside 1..6890"),
        ("All_V_norm", lambda a: a * 1e300, "'All_V_norm' holds values"),
        ("All_vertices", lambda a: a[:, :-1], "chart vertices"),
        ("All_U_norm", lambda a: a[:-1], "'All_U_norm' has 95 entries for 96"),
        ("All_Faces", lambda a: a[:1, :1], r"'All_Faces' has shape \(1, 1\)"),
        ("All_Faces", lambda a: a.ravel()[:-1], r"'All_Faces' has shape \(1, 143\)"),
        ("All_U_norm", None, "'All_U_norm' is missing"),
    ],
)
def test_a_wrong_chart_is_named(tmp_path, template, name, spoil, told):
    fields = _fields()
    if spoil is None:
        del fields[name]
    else:
        fields[name] = spoil(fields[name])
    scipy.io.savemat(tmp_path / "chart.mat", fields)
    with pytest.raises(InputError, match=told) as caught:
        load_densepose_chart(tmp_path / "chart.mat", template)
    assert "chart.mat" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_no_chart_is_named(tmp_path, template):
    for content in (b"", b"no chart at all, but long enough to be read as a header " * 10):
        (tmp_path / "chart.mat").write_bytes(content)
        with pytest.raises(InputError, match="chart.mat") as caught:
            load_densepose_chart(tmp_path / "chart.mat", template)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="absent.mat"):
        load_densepose_chart(tmp_path / "absent.mat", template)


def test_another_body_cannot_use_smpls_chart(tmp_path, template):
    scipy.io.savemat(tmp_path / "chart.mat", _fields())
    other = template.replace(faces=np.asarray(template.faces)[:-1])
    with pytest.raises(InputError, match="own chart"):
        load_densepose_chart(tmp_path / "chart.mat", other)


@annotation_files.needs_real_data
def test_the_real_chart_to_surface_and_back(template, smpl_body):
    """On SMPL's own triangles exact; on the free body, whose faces are others, the surface point comes back."""
    path = annotation_files.real("chart/UV_Processed.mat")
    on_smpl = load_densepose_chart(path, smpl_body[0])
    assert (on_smpl.corner_face == on_smpl.corner_face[:, :1]).all(), "every chart triangle is one of the body's"
    assert _round_trip(on_smpl).max() < UV_ROUND_TRIP
    on_free_body = load_densepose_chart(path, template)
    gap = _round_trip(on_free_body)
    assert np.median(gap) < 1e-3 and np.quantile(gap, 0.99) < CHART_GAP


@annotation_files.needs_real_data
def test_on_smpls_triangles_the_carried_joints_are_the_free_bodys(template, smpl_body):
    body, model = smpl_body
    pelvis = model["J_regressor"][0] @ model["v_template"] - smpl_files.PELVIS
    found = body.h36m_regressor @ body.vertices + pelvis
    gap = np.linalg.norm(found - template.h36m_regressor @ template.vertices, axis=1)
    assert gap.max() < 0.005


@annotation_files.needs_real_data
def test_on_smpls_triangles_the_carried_chart_agrees_with_densepose(smpl_body):
    """Part numbers of whole triangles: those inside a part are the same, borders are drawn by another rule."""
    body, _ = smpl_body
    densepose = load_densepose_chart(annotation_files.real("chart/UV_Processed.mat"), body)
    assert np.mean(body.part[densepose.corner_face[:, 0]] == densepose.part) > 0.9


@annotation_files.needs_real_data
def test_every_real_point_decodes_to_a_chart_triangle(template):
    chart = load_densepose_chart(annotation_files.real("chart/UV_Processed.mat"), template)
    for part, uv, count in _real_points():
        assert len(part) == count
        triangle, weight, distance = chart.locate(part, uv)
        np.testing.assert_array_equal(chart.part[triangle], part)
        np.testing.assert_allclose(weight.sum(axis=1), 1.0)
        assert distance.max() < CHART_GAP
        face, barycentric = chart.to_surface(part, uv)
        assert face.max() < len(template.faces) and barycentric.min() >= -1e-6


def _real_points():
    people = densepose.read(annotation_files.real("densepose_coco/densepose_coco_2014_train.boxed.json")).people
    yield people[0].part, people[0].uv, 115
    yield people[1].part, people[1].uv, 70
    demo = annotation_files.demo_annotation()
    yield demo["I"].astype(int), np.stack([demo["U"], demo["V"]], axis=-1), 125


LEFT_PARTS, RIGHT_PARTS = (4, 5, 8, 10, 12, 14, 15, 17, 19, 21), (3, 6, 7, 9, 11, 13, 16, 18, 20, 22)


@annotation_files.needs_real_data
def test_left_parts_land_on_the_bodys_left(template):
    chart = load_densepose_chart(annotation_files.real("chart/UV_Processed.mat"), template)
    for part, uv, _ in _real_points():
        x = _rest(template, *chart.to_surface(part, uv))[:, 0]
        assert np.all(x[np.isin(part, LEFT_PARTS)] > 0)
        assert np.all(x[np.isin(part, RIGHT_PARTS)] < 0)


@annotation_files.needs_real_data
def test_across_the_borders_of_parts_u_and_v_fit_together():
    """Pixels on either side of a border between parts show neighbouring points; turned u or v would tear them apart."""
    fields = scipy.io.loadmat(annotation_files.real("chart/UV_Processed.mat"))
    faces, vertex = fields["All_Faces"].astype(int) - 1, fields["All_vertices"].ravel().astype(int) - 1
    edge = np.concatenate([vertex[faces][:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    graph = scipy.sparse.coo_matrix((np.ones(len(edge)), edge.T), (6890, 6890)).tocsr()
    first, second = _border_pixels()
    hops = {}
    for name, turn in {
        "as it is": lambda uv: uv, "v turned": lambda uv: uv * [1, -1] + [0, 1],
        "u turned": lambda uv: uv * [-1, 1] + [1, 0], "swapped": lambda uv: uv[:, ::-1],
    }.items():  # fmt: skip
        ends = [_nearest_vertex(fields, faces, vertex, p[:, 2], turn(p[:, 1::-1] / 255)) for p in (first, second)]
        starts, row = np.unique(ends[0], return_inverse=True)
        distance = scipy.sparse.csgraph.shortest_path(graph, directed=False, unweighted=True, indices=starts)
        hops[name] = np.median(distance[row, ends[1]])
    assert hops["as it is"] <= 4  # 2 to 3 cm a hop; measured 3 against 11, 23 and 14
    assert 2 * hops["as it is"] < min(hops[name] for name in hops if name != "as it is")


def _border_pixels():
    """Return pairs of horizontally adjacent pixels of the walking man (number 19) that differ in their part."""
    folder = annotation_files.real("densepose_demo")
    pixels = np.asarray(PIL.Image.open(folder / "demo_im_IUV.png"))
    owner = np.asarray(PIL.Image.open(folder / "demo_im_INDS.png"))
    left, right = pixels[:, :-1], pixels[:, 1:]
    both = (owner[:, :-1] == 19) & (owner[:, 1:] == 19) & (left[..., 2] != right[..., 2])
    return left[both], right[both]


def _nearest_vertex(fields, faces, vertex, part, uv):
    """The paper's nearest vertex in u and v, part by part, written without `Chart`."""
    place = np.concatenate([fields["All_U_norm"], fields["All_V_norm"]], axis=1)
    part_of = np.zeros(len(vertex), int)
    part_of[faces.ravel()] = np.repeat(fields["All_FaceIndices"].ravel(), 3)
    found = np.zeros(len(part), int)
    for number in np.unique(part):
        rows, candidates = np.flatnonzero(part == number), np.flatnonzero(part_of == number)
        squared = np.sum((uv[rows][:, None] - place[candidates][None]) ** 2, axis=-1)
        found[rows] = vertex[candidates[np.argmin(squared, axis=1)]]
    return found


@annotation_files.needs_real_data
def test_real_iuv_pixels_lie_inside_the_chart(template):
    chart = load_densepose_chart(annotation_files.real("chart/UV_Processed.mat"), template)
    folder = annotation_files.real("densepose_demo")
    people = iuv.read_iuv(folder / "demo_im_IUV.png", folder / "demo_im_INDS.png").people
    outside = [np.mean(chart.locate(one.part, one.uv)[2] > CHART_GAP) for one in people]
    assert np.median(outside) < 0.01 and np.mean(outside) < 0.03  # a seventh, of one fragment


_ARRAYS = {
    "faces": np.arange(12, dtype=np.uint32).reshape(4, 3),
    "part": np.arange(24, dtype=np.uint8)[:, None],
    "u": np.linspace(0, 1, 7)[:, None],
    "v": np.linspace(0, 1, 7, dtype=np.float32)[None],
    "negative": np.array([[-(2**40), 3]]),
    "one": np.array([[2.0]]),
    "cube": np.arange(24.0).reshape(2, 3, 4),
    "empty": np.zeros((0, 3)),
}


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_are_those_that_were_written(tmp_path, compressed):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, _ARRAYS | {"text": "no number", "record": {"a": 1}}, do_compression=compressed)
    found = read_mat(path, ("absent", *_ARRAYS))
    assert found.keys() == _ARRAYS.keys()
    for name, values in _ARRAYS.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype
    with pytest.raises(InputError, match=r"a\.mat: field 'text': .*not real numbers"):
        read_mat(path, ["text"])


def _element(kind: int, content: bytes, padded: bool = True) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + b"\0" * (-len(content) % 8 * padded)


def _matrix(data: bytes, shape=(2, 3), name: bytes = b"f", flags: int = 6) -> bytes:
    sizes = np.array(shape, "<i4").tobytes()
    return _element(14, _element(6, struct.pack("<II", flags, 0)) + _element(5, sizes) + _element(1, name) + data)


_NUMBERS = _element(9, np.zeros(6).tobytes())
_LONG = zlib.compress(struct.pack("<II", 14, 2**31) + b"\0" * 1000)
_CLAIMS = zlib.compress(_matrix(_element(9, b"\0" * 48), shape=(2**15, 2**15)))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (_matrix(_element(0, b"\0" * 48)), "field 'f': .*not real numbers"),  # a kind that there is not
        (_matrix(_NUMBERS, shape=(2, 2**30)), "field 'f': .*48 bytes for an array of shape"),
        (_matrix(_NUMBERS, shape=(-2, -3)), "field 'f': .*48 bytes for an array of shape"),
        (_matrix(_NUMBERS, flags=1), "field 'f': .*not real numbers"),
        (_matrix(_NUMBERS, flags=0x806), "field 'f': .*not real numbers"),
        (_matrix(b""), "field 'f': .*3 parts"),
        (_element(14, b""), "without a name"),
        (_matrix(_NUMBERS)[:-20], "an element of 104 bytes where 84 are left"),
        (_matrix(_NUMBERS)[:5], "cut off in the tag"),
        (struct.pack("<II", 5 << 16 | 14, 0), "small element of 5 bytes"),
        (_element(15, _LONG, padded=False), "element of 2147483648 bytes"),
        (_element(15, _CLAIMS, padded=False), "48 bytes for an array of shape"),
        (_element(15, b"\x78\x9c nonsense", padded=False), "not a MATLAB file"),
        (_element(15, b"", padded=False), "without a tag"),
    ],
)
def test_sizes_that_lie_are_refused(tmp_path, content, told):
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + content)
    with pytest.raises(InputError, match=told) as caught:
        read_mat(tmp_path / "a.mat", ["f"])
    assert "a.mat" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("compressed", [False, True])
def test_damage_anywhere_is_refused_or_harmless(tmp_path, compressed):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, _ARRAYS, do_compression=compressed)
    assert damage.refusals(path, lambda: read_mat(path, _ARRAYS), copies=300, first=128) > 150
