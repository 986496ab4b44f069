import numpy as np
import PIL.Image
import pytest

from dal_jax.observations import iuv
from dal_jax.runtime.errors import InputError
from tests.observations import annotation_files


@pytest.fixture
def save(tmp_path):
    def write(name, pixels):
        PIL.Image.fromarray(pixels).save(tmp_path / name)
        return tmp_path / name

    return write


def _two_people():
    """A person of parts 1 and 2 on the left, one of part 3 on the right, and a splinter of 4 pixels."""
    pixels, owner = np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80), np.uint8)
    pixels[10:30, 5:25] = (51, 102, 1)  # v, u, part
    pixels[30:50, 5:25] = (0, 255, 2)
    pixels[20:40, 50:70] = (255, 0, 3)
    pixels[0:2, 78:80] = (9, 9, 4)
    owner[10:50, 5:25], owner[20:40, 50:70], owner[0:2, 78:80] = 7, 9, 11
    return pixels, owner


def test_the_part_is_the_last_channel_and_v_the_first(save):
    pixels, owner = _two_people()
    found = iuv.read_iuv(save("a_IUV.png", pixels), save("a_INDS.png", owner), file_name="a.jpg", image_id=5)
    left, right = found.people
    assert (left.annotation_id, right.annotation_id, left.image_id, left.file_name) == (7, 9, 5, "a.jpg")
    upper = left.part == 1
    np.testing.assert_allclose(left.uv[upper], np.tile([0.4, 0.2], (upper.sum(), 1)))
    np.testing.assert_allclose(left.uv[~upper], np.tile([1.0, 0.0], ((~upper).sum(), 1)))
    assert set(right.part) == {3}


def test_boxes_and_points_stand_on_the_pixels(save):
    pixels, owner = _two_people()
    left, right = iuv.read_iuv(save("a.png", pixels), save("b.png", owner)).people
    np.testing.assert_array_equal(left.bbox_px, [5, 10, 20, 40])
    np.testing.assert_array_equal(right.bbox_px, [50, 20, 20, 20])
    column, row = np.floor(left.point_px).astype(int).T
    np.testing.assert_array_equal(pixels[row, column, 2], left.part)
    assert np.all(left.point_px % 1 == 0.5)
    assert left.picture_size == (80, 60)


def test_splinters_are_rejected_by_name_not_by_error(save):
    pixels, owner = _two_people()
    found = iuv.read_iuv(save("a.png", pixels), save("b.png", owner))
    (splinter,) = found.rejected
    assert splinter.annotation_id == 11 and "person 11: 4 pixels" in splinter.message


def test_without_inds_pieces_of_one_body_are_one_person_without_key_points(save):
    pixels, _ = _two_people()
    found = iuv.read_iuv(save("a.png", pixels))
    (everybody,) = found.people
    assert set(everybody.part) == {1, 2, 3} and not everybody.keypoints.confidence.any()
    assert found.predicted and not found.notes


def _body(height=60, width=20):
    """A person of six bands, one of each of parts 2, 3, 7, 8, 11 and 12, with a smooth u and v."""
    pixels = np.zeros((height + 4, width + 4, 3), np.uint8)
    rows, columns = np.mgrid[:height, :width]
    pixels[2:-2, 2:-2, 0], pixels[2:-2, 2:-2, 1] = 20 + 200 * (rows % 10) // 10, 20 + 200 * columns // width
    pixels[2:-2, 2:-2, 2] = np.array([2, 3, 7, 8, 11, 12])[6 * rows // height]
    return pixels


def test_without_inds_bodies_apart_are_people(save):
    both = np.concatenate([_body(), _body()], axis=1)
    found = iuv.read_iuv(save("a.png", both))
    left, right = found.people
    assert left.bbox_px[0] == 2 and right.bbox_px[0] == 26
    assert found.notes[0].endswith("bodies lie at 2 places, so 2 people are taken (--inds would tell them apart)")


def test_a_body_cut_in_two_is_one_beside_another(save):
    """The lower half is like the whole person's, but what the upper half lacks."""
    whole, cut = _body(120, 40), _body(120, 40)
    cut[60:66] = 0
    _, owner = iuv.read_pictures(save("a.png", np.concatenate([whole, cut], axis=1)))
    assert set(owner[:, 2:42][whole[:, 2:42, 2] > 0]) == {1}
    assert set(owner[:, 46:86][cut[:, 2:42, 2] > 0]) == {2}


def test_points_are_taken_inside_parts(save):
    pixels = _body()
    (one,) = iuv.read_iuv(save("a.png", pixels)).people
    column, row = np.floor(one.point_px).astype(int).T
    for up, left in ((-2, -2), (-2, 2), (2, -2), (2, 2)):
        np.testing.assert_array_equal(pixels[row + up, column + left, 2], one.part)
    np.testing.assert_array_equal(one.bbox_px, [2, 2, 20, 60])  # the box is that of all pixels


def test_blended_labels_are_not_taken(save):
    sharp = _body()
    height, width = sharp.shape[:2]
    image = PIL.Image.fromarray(sharp).resize((3 * width, 3 * height), PIL.Image.Resampling.BILINEAR)
    found = iuv.read_iuv(save("a.png", np.asarray(image)))
    column, row = np.floor(found.people[0].point_px).astype(int).T
    np.testing.assert_array_equal(found.people[0].part, sharp[row // 3, column // 3, 2])
    assert "labels are blended at borders" in found.notes[0]
    nearest = PIL.Image.fromarray(sharp).resize((3 * width, 3 * height), PIL.Image.Resampling.NEAREST)
    assert not iuv.read_iuv(save("b.png", np.asarray(nearest))).notes


def test_values_that_were_cast_from_below_zero_are_not_taken(save):
    pixels = _body()
    pixels[4:10, 8:14, 0], pixels[4:10, 4:18, 1] = 5, 5
    pixels[5:9, 9:13, 0] = 253  # -3
    found = iuv.read_iuv(save("a.png", pixels))
    assert np.all(found.people[0].uv[:, 1] < 0.95)
    assert found.notes[0].endswith("u or v of 16 pixels passed 0 or 255 (cast to 8 bits): not used")


def test_the_sample_is_the_same_every_time_and_well_spread():
    row, column = np.nonzero(np.ones((100, 50), bool))
    position, part = np.stack([column, row], axis=1), np.ones(5000, np.int64)
    chosen = iuv.sample_pixels(position, part, 50)
    np.testing.assert_array_equal(chosen, iuv.sample_pixels(position, part, 50))
    assert len(set(chosen.tolist())) == 50
    gap = np.min(np.linalg.norm(position[:, None] - position[chosen][None], axis=-1), axis=1)
    assert gap.max() < 13  # 50 points on 100 x 50 pixels have a pitch of 10


def test_small_parts_get_more_than_their_area():
    part = np.repeat([1, 2], [9900, 100])
    position = np.stack([np.arange(10_000) % 100, np.arange(10_000) // 100], axis=1)
    chosen = iuv.sample_pixels(position, part, 110)
    assert len(chosen) == 110
    assert np.sum(part[chosen] == 2) == 10  # the square root of 1% is 10%


def test_no_more_points_than_pixels():
    position = np.stack([np.arange(30), np.zeros(30, int)], axis=1)
    np.testing.assert_array_equal(iuv.sample_pixels(position, np.ones(30, int), 180), np.arange(30))


def test_wrong_pictures_are_refused(save, tmp_path):
    pixels, owner = _two_people()
    good, inds = save("good.png", pixels), save("inds.png", owner)
    wrong = pixels.copy()
    wrong[3, 4, 2] = 25
    text = tmp_path / "text.png"
    text.write_text("no picture")
    cut = tmp_path / "cut.png"
    cut.write_bytes(good.read_bytes()[:100])
    for arguments, told in (
        ((save("part.png", wrong),), r"pixel \(4, 3\).* is 25"),
        ((save("grey.png", owner),), "expected 3 channel"),
        ((text,), "cannot be read as a picture"),
        ((cut,), "cannot be read as a picture"),
        ((tmp_path / "absent.png",), "cannot be read as a picture"),
        ((good, save("small.png", owner[:10])), "80x10 px"),
        ((good, save("colour.png", pixels)), "expected 1 channel"),
    ):
        with pytest.raises(InputError, match=told) as caught:
            iuv.read_iuv(*arguments)
        assert "\n" not in str(caught.value)
    assert iuv.read_iuv(good, inds).people


@annotation_files.needs_real_data
def test_every_person_of_the_real_photograph():
    folder = annotation_files.real("densepose_demo")
    found = iuv.read_iuv(folder / "demo_im_IUV.png", folder / "demo_im_INDS.png")
    assert [one.annotation_id for one in found.people] == [7, 8, 9, 10, 12, 13, 14, 15, 16, 17, 18, 19]
    assert [one.annotation_id for one in found.rejected] == [11]  # two pixels
    assert all(len(one.part) >= 64 for one in found.people)
