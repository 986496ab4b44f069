"""Whole IUV pictures: the nearest vertex of every pixel, against brute force; ties; the real chart and picture."""

import itertools

import jax
import numpy as np
import PIL.Image
import pytest

from benchmarks import vertex_table
from dal_jax.body.formats import load
from dal_jax.observations.chart import Chart, body_chart, load_densepose_chart
from tests.observations import annotation_files

SAME = 1e-12  # of squared distances in units of u and v: the rounding of float64
PIXEL = 1 / 255  # of u and v


@pytest.fixture(scope="module")
def chart():
    return body_chart(load.load_body())


@pytest.fixture(scope="module")
def table(chart):
    return vertex_table.build(chart)


def _pictures(count=2, size=(40, 56), seed=0):
    pictures = np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)
    pictures[..., 2] %= 25
    return pictures


def _brute_force(chart, pictures):
    """Return the least squared distance from each pixel to a corner of its part."""
    corner = chart.uv.reshape(-1, 2)
    part = np.repeat(chart.part, 3)
    least = np.full(pictures.shape[:-1], np.nan)
    for number in range(1, 25):
        rows = np.nonzero(pictures[..., 2] == number)
        uv = pictures[rows][:, [1, 0]] / 255
        own = corner[part == number]
        least[rows] = ((uv[:, None] - own[None]) ** 2).sum(axis=-1).min(axis=1)
    return least


def _check(chart, table, pictures):
    vertex = np.asarray(vertex_table.decode(table, pictures))
    seen = pictures[..., 2] > 0
    np.testing.assert_array_equal(vertex == vertex_table.BACKGROUND, ~seen)
    pixels = pictures[seen]
    np.testing.assert_array_equal(table.part[vertex[seen]], pixels[:, 2])
    place = _exact_places(chart, table)
    squared = ((pixels[:, [1, 0]] / 255 - place[vertex[seen]]) ** 2).sum(axis=1)
    np.testing.assert_allclose(squared, _brute_force(chart, pictures)[seen], atol=SAME)


def _exact_places(chart, table):
    """Return (u, v) of the table's vertices in float64."""
    places = {}
    for part, uv in zip(np.repeat(chart.part, 3), chart.uv.reshape(-1, 2), strict=True):
        places[int(part), *np.float32(uv).tolist()] = uv
    return np.array([places[int(p), *uv] for p, uv in zip(table.part, table.uv.tolist(), strict=True)])


def test_no_vertex_of_the_part_is_nearer(chart, table):
    _check(chart, table, _pictures())


def test_every_vertex_is_its_own_nearest(chart, table):
    """The pixel at a vertex decodes to it, or to one as near as a pixel's rounding."""
    uv = np.round(255 * np.asarray(table.uv)).astype(np.uint8)
    picture = np.column_stack([uv[:, 1], uv[:, 0], table.part]).astype(np.uint8)[None, None]
    found = np.asarray(vertex_table.decode(table, picture))[0, 0]
    assert np.linalg.norm(table.uv[found] - table.uv, axis=1).max() <= np.sqrt(2) * PIXEL + 1e-6
    assert (found == np.arange(len(found))).mean() > 0.9


def test_vertices_are_the_templates(chart, table):
    """Of a body's own chart: one corner of a face, and every vertex of the body."""
    faces = np.asarray(load.load_body().faces)
    assert set(np.unique(table.barycentric)) == {0.0, 1.0}
    vertex = faces[table.face, np.argmax(table.barycentric, axis=1)]
    np.testing.assert_array_equal(np.unique(vertex), np.arange(faces.max() + 1))
    np.testing.assert_array_equal(chart.part[table.face], table.part)


def _made_up(uv, part=1):
    """A chart of one triangle: its corners in this order are the corners of face 0."""
    return Chart(
        part=np.array([part]),
        uv=np.array([uv], np.float64),
        corner_face=np.zeros((1, 3), int),
        corner_barycentric=np.eye(3)[None],
        body=np.zeros((1, 3, 3)),
    )


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_ties_go_to_smaller_u_then_smaller_v(order):
    places = np.array([[0.2, 0.8], [0.2, 0.2], [0.8, 0.5]])
    table = vertex_table.build(_made_up(places[list(order)]))
    np.testing.assert_allclose(table.uv, [[0.2, 0.2], [0.2, 0.8], [0.8, 0.5]], atol=1e-7)
    square = vertex_table.build(_made_up(np.array([[0, 1], [1, 0], [0, 0.0]])[list(order)]))
    # the pixel (255, 255) is as far from (0, 1) as from (1, 0), to the last bit
    pixel = np.array([[[[255, 255, 1]]]], np.uint8)
    assert np.asarray(vertex_table.decode(square, pixel))[0, 0, 0] == 1  # (0, 0), (0, 1), (1, 0)


def test_what_is_no_part_of_the_chart_is_background():
    table = vertex_table.build(_made_up(np.eye(3)[:, :2], part=7))
    parts = np.arange(256, dtype=np.uint8)
    picture = np.stack([parts, parts[::-1], parts], axis=-1)[None, None]
    found = np.asarray(vertex_table.decode(table, picture))[0, 0]
    np.testing.assert_array_equal(np.flatnonzero(found != vertex_table.BACKGROUND), [7])


def test_one_picture_and_many_are_the_same(table):
    pictures = _pictures(3, (8, 9), seed=4)
    one_by_one = [vertex_table.nearest_vertices(table, picture) for picture in jax.numpy.asarray(pictures)]
    np.testing.assert_array_equal(vertex_table.decode(table, pictures), np.stack(one_by_one))


@annotation_files.needs_real_data
def test_the_real_chart_and_picture():
    """DensePose's chart has 7829 vertices; no vertex is nearer to a pixel of the real picture than the table's."""
    template = load.load_body()
    chart = load_densepose_chart(annotation_files.real("chart/UV_Processed.mat"), template)
    table = vertex_table.build(chart)
    assert len(table.part) == 7829
    picture = np.asarray(PIL.Image.open(annotation_files.real("densepose_demo") / "demo_im_IUV.png"))
    _check(chart, table, picture[None, ::3, ::3])
    _check(chart, table, _pictures(seed=5))
    # the nearest vertex lies near the point inside the chart's triangle
    pixels = picture[picture[..., 2] > 0][::50]
    vertex = np.asarray(vertex_table.decode(table, pixels[None, None]))[0, 0]
    corners = np.asarray(template.vertices)[np.asarray(template.faces)]
    at_vertex = np.einsum("pc,pcx->px", table.barycentric[vertex], corners[table.face[vertex]])
    face, weight = chart.to_surface(pixels[:, 2].astype(int), pixels[:, 1::-1] / 255)
    gap = np.linalg.norm(at_vertex - np.einsum("pc,pcx->px", weight, corners[face]), axis=1)
    assert np.median(gap) < 0.012 and gap.max() < 0.06
