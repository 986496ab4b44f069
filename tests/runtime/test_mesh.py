"""The mesh: what is split and what is whole, over one device and two; a function of everybody, some at a time."""

import jax
import numpy as np
import pytest

from dal_jax.runtime import machine, mesh

ROWS = np.array([7, 3, 5, 1])


@pytest.fixture(params=[1, 2])
def devices(request):
    return mesh.of(request.param)


def test_a_batch_is_split_where_it_has_equal_parts(devices):
    for count in (4, 3):
        rows = ROWS[:count]
        whole = mesh.batch({"row": mesh.share(rows, devices)}, count, devices)["row"]
        np.testing.assert_array_equal(whole, rows)
        part = count // devices.size if count % devices.size == 0 else count
        assert {shard.data.shape for shard in whole.addressable_shards} == {(part,)}


def test_what_everybody_shares_lies_on_every_device(devices):
    (placed,) = mesh.everywhere([np.arange(3)], devices)
    assert placed.sharding.is_fully_replicated and len(placed.sharding.device_set) == devices.size
    np.testing.assert_array_equal(mesh.fetch(placed), np.arange(3))


def test_everybody_is_taken_some_at_a_time(devices, monkeypatch):
    """Seven people, by four at most; a program for the chunks, the last of which is filled up."""
    monkeypatch.setattr(mesh, "_CHUNK", 4)
    sizes = []

    @jax.jit
    def double(people):
        sizes.append(len(people["x"]))
        return {"twice": 2 * people["x"]}

    x = np.arange(14.0, dtype=np.float32).reshape(7, 2)
    found = mesh.in_chunks(double, {"x": x}, devices)["twice"]
    assert isinstance(found, np.ndarray) and sizes == [4]
    np.testing.assert_array_equal(found, 2 * x)


def test_devices_are_those_that_are_there_and_the_caller_s_choice():
    assert mesh.of().size == 1, "jax.default_device, which the tests set"
    assert mesh.of(2).size == 2
    with pytest.raises(ValueError, match="devices 3: JAX sees 2"):
        mesh.of(3)


def test_networks_use_the_first_of_the_cores(monkeypatch):
    with jax.default_device(None):
        assert mesh.of_networks().size == 2, "the tests have said that there are two"
        monkeypatch.setattr(machine, "has_device_a_core", lambda: True)
        assert mesh.of_networks().devices.tolist() == [jax.devices()[0]] and mesh.of().size == 2


def test_alone_is_the_first():
    assert mesh.is_first()
    mesh.meet("nobody else comes")
