import json

import pytest

from dal_jax.body import skeleton
from dal_jax.observations import coco


def _read(tmp_path, **content):
    path = tmp_path / "people.json"
    path.write_text(json.dumps({"images": [], "annotations": []} | content))
    return coco.read(path)


def test_the_person_s_category_names_the_key_points(tmp_path):
    dog = {"id": 18, "name": "dog", "keypoints": ["tail"]}
    person = {"id": 1, "name": "person", "keypoints": ["nose", "head_top"]}
    found = _read(tmp_path, categories=[dog, person])
    assert found.keypoint_names == ("nose", "head_top") and found.person_ids == {1}
    assert _read(tmp_path, categories=[dog]).keypoint_names == ("tail",)


@pytest.mark.parametrize("categories", [None, 7, [], [7], [{}], [{"name": "person"}], [{"id": [], "name": "person"}]])
def test_without_proper_categories_key_points_are_coco_s_and_everybody_is_a_person(tmp_path, categories):
    found = _read(tmp_path, categories=categories)
    assert found.keypoint_names == skeleton.COCO_NAMES and not found.person_ids


def test_a_size_that_no_picture_has_is_unknown():
    assert coco.picture_size({"width": 640, "height": 480}) == (640, 480)
    for wrong in (0, -1, True, "640", 640.0, 10**400, None):
        assert coco.picture_size({"width": wrong, "height": 480}) is None
