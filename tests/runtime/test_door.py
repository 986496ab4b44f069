"""What is opened is a regular file of a bearable size, inside its folder; JSON is as deep as it says."""

import json
import os

import numpy as np
import pytest

from dal_jax.observations import photographs
from dal_jax.runtime import archives, door, files
from dal_jax.runtime.errors import InputError


def test_pipes_and_devices_are_refused_at_once(tmp_path):
    """A pipe without a writer would be waited for; a device does not end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        for read in (files.read_json, files.read_text, archives.read, archives.read_npy, photographs.read_picture):
            with pytest.raises(InputError, match="is no file|is a folder"):
                read(path)


def test_a_file_above_the_limit_is_not_read(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk
    with pytest.raises(OSError, match="1099511627776 bytes, at most 1000 are read"):
        door.contents(tmp_path / "sparse", 1000)


def test_names_and_links_stay_in_the_folder(tmp_path):
    """The folder itself may be a link; what it holds may link to each other."""
    for name in ("inside", "outside"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_text("")
    (tmp_path / "images").symlink_to("inside")
    (tmp_path / "inside" / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "inside" / "out.jpg").symlink_to("../outside/a.jpg")
    (tmp_path / "inside" / "loop.jpg").symlink_to("loop.jpg")
    for name in ("a.jpg", "b.jpg", "absent.jpg", "below\\absent.jpg"):
        assert files.below(tmp_path / "images", name).parent.name in ("images", "below")
    for name in ("out.jpg", "loop.jpg", "../outside/a.jpg", "/etc/passwd", "C:\\a.jpg", "a\0.jpg"):
        with pytest.raises(InputError, match="leaves the folder"):
            files.below(tmp_path / "images", name)


@pytest.mark.parametrize("letters", ['[]{}"\\ ', '[]"\\a,'])
def test_depth_is_that_of_the_parsed_value(letters, monkeypatch):
    """By a walk over what the library's parser made of it."""

    def depth(value: object) -> int:
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return 1 + max(map(depth, inside), default=0) if isinstance(value, dict | list) else 0

    rng, parsed = np.random.default_rng(0), 0
    monkeypatch.setattr(door, "_CHUNK", 64)
    for _ in range(60):
        value: object = "".join(rng.choice(list(letters), 5))
        for _ in range(rng.integers(8)):
            text = "".join(rng.choice(list(letters), rng.integers(6)))
            value = [text, value] if rng.random() < 0.5 else {text: value}
        for indent in (None, 1):
            assert door.depth_of_json(json.dumps(value, indent=indent).encode()) == depth(value)
            parsed += 1
    assert parsed == 120
    assert files.parse_json(b"[" * 64 + b"]" * 64)
    for content in (b"[" * 65 + b"]" * 65, b"[" * 10**6, '{"a":' * 100_000, ("[" * 65).encode("utf-16")):
        with pytest.raises(ValueError, match="nested too deep"):
            files.parse_json(content)
