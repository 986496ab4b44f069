"""Ray casting against a sphere's closed form."""

import numpy as np
import pytest
import trimesh

from dal_jax.viewing import raycast
from dal_jax.viewing.raycast import Scene

_FACET = 0.003  # sagitta of a unit sphere's facets at 4 subdivisions, in units of its radius
_FLOAT32 = 1e-5


@pytest.fixture(scope="module")
def sphere() -> trimesh.Trimesh:
    return trimesh.creation.icosphere(subdivisions=4)


def test_depth_of_a_sphere_is_analytic(sphere):
    centre = np.array([0.3, -0.2, 7.0])
    grid = raycast.pixel_centres(101, -1.5, 1.5)
    hits = Scene(sphere.vertices + centre, sphere.faces).cast_grid(grid, 0.8 * grid)
    x, y = np.meshgrid(grid - centre[0], 0.8 * grid - centre[1])
    squared = x**2 + y**2
    assert hits.face.shape == (101, 101)
    assert hits.mask[squared < (1 - _FACET) ** 2].all() and not hits.mask[squared > 1].any()
    inner = squared < 0.8  # nearer to the rim the depth is steep and the facet's error grows without bound
    np.testing.assert_allclose(hits.distance[inner], centre[2] - np.sqrt(1 - squared[inner]), atol=3 * _FACET)


def test_barycentric_distance_and_face_name_the_same_point(sphere):
    """Perspective rays: a fan from one eye, with directions that are not of unit length."""
    rng = np.random.default_rng(0)
    origins = np.tile([0.0, 0.0, -4.0], (500, 1))
    directions = np.stack([*rng.uniform(-1, 1, (2, 500)), np.full(500, 3.0)], axis=1)
    hits = Scene(sphere.vertices, sphere.faces).cast(origins, directions)
    assert 0 < hits.mask.sum() < 500
    corners = sphere.vertices[sphere.faces[hits.face[hits.mask]]]
    by_corner = np.einsum("rc,rci->ri", hits.barycentric[hits.mask], corners)
    along_ray = (origins + hits.distance[:, None] * directions)[hits.mask]
    np.testing.assert_allclose(by_corner, along_ray, atol=_FLOAT32)
    np.testing.assert_allclose(hits.barycentric[hits.mask].sum(axis=1), 1.0, atol=_FLOAT32)
    assert np.isinf(hits.distance[~hits.mask]).all() and not hits.barycentric[~hits.mask].any()


def test_no_ray_slips_between_faces():
    """Rays aimed exactly at the vertices and edge midpoints of a closed mesh all hit."""
    box = trimesh.creation.box()
    aims = np.concatenate([box.vertices, box.vertices[box.edges].mean(axis=1)]) * 0.999
    hits = Scene(box.vertices, box.faces).cast(np.zeros_like(aims), aims)
    assert hits.mask.all()


def test_a_flat_mesh_is_seen_from_either_side():
    vertices = np.array([[-1.0, -1, 2], [1, -1, 2], [0, 1, 2]])
    for faces in ([[0, 1, 2]], [[2, 1, 0]]):
        hits = Scene(vertices, np.array(faces)).cast_grid(np.zeros(1), np.zeros(1))
        assert hits.face.tolist() == [[0]]
        np.testing.assert_allclose(hits.distance, 2.0, atol=_FLOAT32)


@pytest.mark.parametrize(
    ("vertices", "faces", "message"),
    [
        (np.full((3, 3), np.nan), [[0, 1, 2]], "vertex 0 is not finite"),
        (np.zeros((3, 3)), [[0, 1, 3]], "faces name vertices 0..3, but there are 3"),
        (np.zeros((3, 3)), [[-1, 1, 2]], "faces name vertices -1..2"),
        (np.zeros((3, 2)), [[0, 1, 2]], r"vertices must have shape \(n, 3\)"),
        (np.zeros((3, 3)), np.zeros((0, 3), int), r"faces must have shape \(n, 3\)"),
    ],
)
def test_a_mesh_that_would_crash_embree_is_refused(vertices, faces, message):
    with pytest.raises(ValueError, match=message):
        Scene(vertices, np.asarray(faces))


def test_pixel_centres_tile_the_crop():
    assert raycast.pixel_centres(4).tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert raycast.pixel_centres(3, 10, 13).tolist() == [10.5, 11.5, 12.5]
