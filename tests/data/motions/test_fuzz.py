"""Spoiled motion files: read, or refused by one line; nothing else, whatever the damage."""

import numpy as np
import pytest

from dal_jax.data.motions import collection
from dal_jax.runtime.errors import InputError
from tests.body import smpl_files
from tests.data.motions import motion_files

_SPOILED = 150  # files of each format
_WORDS = (b"nan", b"-1", b"1e400", b"}", b"{", b"JOINT", b":root", b"begin", b"\xff", b"", b"99999999999", b"End Site")


def _bvh(folder):
    motion_files.write_bvh(folder / "a.bvh", np.zeros((2, 24, 3)))
    return folder / "a.bvh", folder / "a.bvh"


def _acclaim(folder):
    names = ["root", *(name for name, _, _ in motion_files.acclaim_bones())]
    still = {name: np.zeros((2, 3)) for name in names} | {"root": np.zeros((2, 6))}
    return motion_files.write_acclaim(folder, still, {name: np.zeros(3) for name in names})


def _amc(folder):
    return _acclaim(folder), folder / "07_01.amc"


def _asf(folder):
    return _acclaim(folder), folder / "07.asf"


def _npz(folder):
    path = motion_files.write_amass(folder / "a.npz", np.zeros((2, 3)), np.zeros((2, 23, 3)), width=72)
    return path, path


def _pickle(folder):
    content = {"poses": np.zeros((2, 72)), "trans": np.zeros((2, 3)), "betas": np.zeros(10)}
    (folder / "a.pkl").write_bytes(smpl_files.old_pickle(content))
    return folder / "a.pkl", folder / "a.pkl"


def _spoil(content: bytes, random: np.random.Generator) -> bytes:
    """Cut the end off, change bytes, or replace, repeat or drop words."""
    kind = random.integers(3)
    if kind == 0:
        return content[: random.integers(len(content))]
    if kind == 1:
        changed = bytearray(content)
        for place in random.integers(len(content), size=3):
            changed[place] = random.integers(256)
        return bytes(changed)
    words = content.split(b" ")
    words[random.integers(len(words))] = _WORDS[random.integers(len(_WORDS))]
    return b" ".join(words)


@pytest.mark.parametrize("make", [_bvh, _amc, _asf, _npz, _pickle])
def test_a_spoiled_file_is_read_or_refused_by_one_line(tmp_path, make):
    motion, spoiled = make(tmp_path)
    content = spoiled.read_bytes()
    random = np.random.default_rng(1)
    refused = []
    for _ in range(_SPOILED):
        spoiled.write_bytes(_spoil(content, random))
        try:
            joints, _ = collection.read(motion, 30.0)
        except InputError as error:
            refused.append(str(error))
        else:
            assert joints.shape[1:] == (17, 3) and np.isfinite(joints).all()
    assert len(refused) > _SPOILED / 4
    assert all("\n" not in line and str(tmp_path) in line for line in refused)
