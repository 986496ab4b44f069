"""Frames of videos: each is the one that was encoded, upright; what is no video is one line."""

import numpy as np
import pytest

from dal_jax.observations import video
from dal_jax.runtime.errors import InputError
from tests.data.human36m import release as made

_GREY = 3  # what H.264 changes in a frame of one grey


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return made.write_video(tmp_path_factory.mktemp("clip") / "a.mp4", frames=8, size=(64, 48))


@pytest.mark.parametrize("step", [1, 3])
def test_every_frame_asked_for_is_the_one_that_was_encoded(clip, step):
    read = dict(video.frames(clip, step))
    assert list(read) == list(range(0, 8, step))
    for number, pixels in read.items():
        assert pixels.shape == (48, 64, 3)
        assert np.abs(pixels.astype(int) - made.grey_of(number)).max() <= _GREY


def test_a_damaged_video_is_one_line(tmp_path, clip):
    broken = tmp_path / "broken.mp4"
    for content in (b"no video", clip.read_bytes()[:200], b""):
        broken.write_bytes(content)
        with pytest.raises(InputError, match="broken.mp4: frame 0: cannot be read as a video: ") as caught:
            list(video.frames(broken))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="absent.mp4: no such file"):
        list(video.frames(tmp_path / "absent.mp4"))


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_frames_stand_upright_as_the_files_matrix_says(tmp_path, clip, degrees):
    """The matrix of ISO 14496-12's track header, written by hand, turns stored frames clockwise by `degrees`."""
    cosine, sine = round(np.cos(np.radians(degrees))), round(np.sin(np.radians(degrees)))
    content = bytearray(clip.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    matrix = np.array([cosine, sine, 0, -sine, cosine, 0, 0, 0, 16384]) * 65536
    content[at : at + 36] = matrix.astype(">i4").tobytes()
    path = tmp_path / "turned.mp4"
    path.write_bytes(bytes(content))
    stored, shown = (next(iter(video.frames(one)))[1] for one in (clip, path))
    np.testing.assert_array_equal(shown, np.rot90(stored, -degrees // 90))


def test_frames_by_number_are_those_of_the_video_in_any_order(clip):
    every, read = dict(video.frames(clip)), video.Reader(clip)
    for number in (2, 2, 5, 0, 7):
        np.testing.assert_array_equal(read(number), every[number])
    with pytest.raises(InputError, match="a.mp4: has no frame 8"):
        read(8)
    assert video.frame_name(clip, 123) == "a_000123" and video.frame_number("a_000123") == 123


def test_a_playlist_that_is_called_a_video_opens_nothing(tmp_path, clip):
    path = tmp_path / "list.mp4"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{clip}\n#EXT-X-ENDLIST\n")
    with pytest.raises(InputError, match="list.mp4: frame 0: cannot be read as a video: "):
        list(video.frames(path))
