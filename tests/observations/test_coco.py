import json

import pytest

from dal_jax.observations import coco


def _read(tmp_path, **content):
    path = tmp_path / "people.json"
    path.write_text(json.dumps({"images": [], "annotations": []} | content))
    return coco.read(path).labels


def test_people_are_the_category_of_that_name(tmp_path):
    assert _read(tmp_path, categories=[{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}]).person_ids == {1}


@pytest.mark.parametrize("categories", [None, 7, [], [7], [{}], [{"name": "person"}], [{"id": [], "name": "person"}]])
def test_without_proper_categories_everybody_is_a_person(tmp_path, categories):
    assert not _read(tmp_path, categories=categories).person_ids


def test_a_size_that_no_picture_has_is_unknown():
    assert coco.picture_size({"width": 640, "height": 480}) == (640, 480)
    for wrong in (0, -1, True, "640", 640.0, 10**400, None):
        assert coco.picture_size({"width": wrong, "height": 480}) is None
