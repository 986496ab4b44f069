import numpy as np
import pytest

from dal_jax.body import triangles

ROUND_OFF = 1e-9


def _brute_force(point, corner, cells=200):
    """The nearest of a fine grid of the triangle's points: an independent, slow reference."""
    first, second = np.meshgrid(np.arange(cells + 1), np.arange(cells + 1))
    inside = first + second <= cells
    y, z = first[inside] / cells, second[inside] / cells
    grid = np.stack([1 - y - z, y, z], axis=1) @ corner
    return np.min(np.sum((grid - point) ** 2, axis=1))


@pytest.mark.parametrize("dimension", [2, 3])
def test_agrees_with_brute_force(dimension):
    rng = np.random.default_rng(0)
    corner = rng.normal(size=(30, 3, dimension))
    point = rng.normal(size=(30, dimension)) * 1.5
    _, squared = triangles.closest(point, corner)
    reference = np.array([_brute_force(p, c) for p, c in zip(point, corner, strict=True)])
    spacing = np.abs(corner).max() * 2 / 200  # the grid misses the nearest point by at most its spacing
    assert np.all(np.sqrt(squared) <= np.sqrt(reference) + ROUND_OFF)
    assert np.all(np.sqrt(reference) <= np.sqrt(squared) + spacing)


def test_points_of_a_triangle_come_back():
    rng = np.random.default_rng(1)
    corner = rng.normal(size=(50, 3, 2))
    weight = rng.dirichlet(np.ones(3), size=50)
    found, squared = triangles.closest(np.einsum("pc,pcd->pd", weight, corner), corner)
    np.testing.assert_allclose(found, weight, atol=1e-6)
    assert squared.max() < ROUND_OFF


def test_weights_are_barycentric_even_on_slivers_and_points():
    corner = np.array([[[0.0, 0], [1, 0], [2, 0]], [[1.0, 1], [1, 1], [1, 1]]])  # a line and a point
    weight, squared = triangles.closest(np.array([[1.5, 1.0], [0.0, 1.0]]), corner)
    assert weight.min() >= 0
    np.testing.assert_allclose(weight.sum(axis=1), 1.0)
    np.testing.assert_allclose(squared, [1.0, 1.0])


def test_one_point_against_many_triangles_broadcasts():
    corner = np.random.default_rng(2).normal(size=(4, 3, 3))
    weight, squared = triangles.closest(np.zeros((5, 1, 3)), corner[None])
    assert weight.shape == (5, 4, 3) and squared.shape == (5, 4)


def test_the_triangle_that_holds_a_point_is_found():
    rng = np.random.default_rng(3)
    corner = rng.uniform(0, 1, (40, 3, 2)) + 2 * np.arange(40)[:, None, None]  # none overlaps another
    weight = rng.dirichlet(np.ones(3), 40)
    found, barycentric, inside = triangles.containing(np.einsum("pc,pcd->pd", weight, corner), corner)
    np.testing.assert_array_equal(found, np.arange(40))
    np.testing.assert_allclose(barycentric, weight, atol=1e-6)
    assert inside.all()


def test_points_outside_and_triangles_without_area_are_told():
    corner = np.array([[[0.0, 0], [1, 0], [0, 1]], [[2.0, 2], [3, 3], [4, 4]]])
    found, _, inside = triangles.containing(np.array([[0.2, 0.2], [0.9, 0.9], [3.0, 3.0]]), corner)
    assert inside.tolist() == [True, False, False] and found[0] == 0
