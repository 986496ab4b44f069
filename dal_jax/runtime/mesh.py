"""The devices that a run works on: one mesh with one axis, `data`, over which people are spread.

What is the same for everybody (weights, the body, an objective) lies on every device; what belongs to people is split
between them, and XLA's partitioner adds the sums and means over people that a program asks for. One device, several,
and several processes (`jax.distributed`) run the same lines. A second axis, for splitting weights, would serve nothing:
a ResNet50 and Adam's moments are 0.3 GB.

Every process gives the same host arrays, of which it sends what its own devices hold, and gets the same ones back.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from dal_jax.runtime import machine

T = TypeVar("T")

_AXIS = "data"
SPLIT, WHOLE = PartitionSpec(_AXIS), PartitionSpec()
"""How arrays lie on a mesh: their leading axis, people, in equal parts; or all of them on every device."""
_CHUNK = 4096


def of(count: int = 0) -> Mesh:
    """Return the mesh of so many devices; 0: of all, or of `jax.default_device` alone where the caller has set one.

    Raises:
      ValueError: there are fewer, or several processes would not all have a part.
    """
    available: Any = jax.devices()
    if count > len(available):
        raise ValueError(f"devices {count}: JAX sees {len(available)}")
    if 0 < count < len(available) and jax.process_count() > 1:
        raise ValueError(f"devices {count}: several processes use all of their {len(available)} devices")
    if not count and isinstance(chosen := jax.config.jax_default_device, jax.Device):  # pyright: ignore[reportAttributeAccessIssue]
        available = [chosen]
    return _mesh(tuple(available[: count or None]))


def of_networks() -> Mesh:
    """Return the mesh that networks learn and predict on: that of all devices.

    Where this package has made each core of a processor a device (`machine.configure`), it is the first of each
    process: a network's products use all cores from there, and gain nothing from being cut in smaller ones.
    """
    whole = of()
    if not machine.has_device_a_core():
        return whole
    return _mesh(tuple({device.process_index: device for device in whole.devices.flat[::-1]}.values())[::-1])


@functools.cache
def _mesh(devices: tuple[Any, ...]) -> Mesh:
    return Mesh(np.array(devices), (_AXIS,))


def everywhere(tree: T, mesh: Mesh) -> T:
    """Return arrays that lie whole on every device of a mesh."""
    return _all_placed(NamedSharding(mesh, WHOLE), tree)


def split(tree: T, mesh: Mesh) -> T:
    """Return stacked arrays, of a multiple of the mesh's size of people, split between its devices."""
    return _all_placed(NamedSharding(mesh, SPLIT), tree)


def _all_placed(sharding: Sharding, tree: T) -> T:
    if sharding.is_fully_addressable:  # at once: leaf by leaf takes twice as long
        return jax.device_put(tree, sharding)
    return jax.tree.map(functools.partial(placed, sharding), tree)


def placed(sharding: Sharding, leaf: Any) -> jax.Array:
    """Return an array that lies as a sharding says, over several processes too."""
    if sharding.is_fully_addressable or (isinstance(leaf, jax.Array) and not leaf.is_fully_addressable):
        return jax.device_put(leaf, sharding)
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(placed(sharding, jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda part: host[part])


def _of_batch(count: int, mesh: Mesh) -> NamedSharding:
    """Return how a batch lies on a mesh: whole where it cannot be split into equal parts."""
    return NamedSharding(mesh, WHOLE if count % mesh.size else SPLIT)


def share(rows: np.ndarray, mesh: Mesh) -> np.ndarray:
    """Return those of a batch's rows that this process's devices hold; a batch that has no equal parts, all hold."""
    parts = _of_batch(len(rows), mesh).addressable_devices_indices_map((len(rows),)).values()
    bounds = [part[0].indices(len(rows)) for part in parts if part is not None]
    return rows[min(first for first, *_ in bounds) : max(end for _, end, _ in bounds)]


def batch(shares: T, count: int, mesh: Mesh) -> T:
    """Return a batch of `count` people, of which each process gives the arrays of its `share`."""
    sharding = _of_batch(count, mesh)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(sharding, leaf, (count, *leaf.shape[1:])), shares
    )


def constrained(tree: T, mesh: Mesh) -> T:
    """Split, inside a program, stacked arrays between the devices, where they have equal parts."""
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, _of_batch(len(leaf), mesh)), tree)


def fetch(tree: T) -> T:
    """Return host arrays, whole in every process."""
    leaves, structure = jax.tree.flatten(tree)
    apart = [row for row, leaf in enumerate(leaves) if isinstance(leaf, jax.Array) and _is_apart(leaf)]
    if apart:  # in one program: leaf by leaf the processes wait for each other once for each
        whole = NamedSharding(leaves[apart[0]].sharding.mesh, WHOLE)
        for row, leaf in zip(apart, jax.jit(list, out_shardings=whole)([leaves[row] for row in apart]), strict=True):
            leaves[row] = leaf
    return jax.tree.unflatten(structure, map(np.asarray, leaves))


def _is_apart(leaf: jax.Array) -> bool:
    return not (leaf.is_fully_addressable or leaf.is_fully_replicated)


def in_chunks(function: Callable[[Any], Any], people: Any, mesh: Mesh) -> Any:
    """Return a jitted function of stacked people, some at a time, as host arrays: memory does not grow with them.

    Args:
      function: maps a pytree of arrays stacked over people to another; people do not see each other.
      people: host arrays.
      mesh: the devices that share the work.
    """
    count = len(jax.tree.leaves(people)[0])
    size = -(-min(count, _CHUNK) // mesh.size) * mesh.size

    def parts() -> Iterator[Any]:
        for rows, taken in chunks(count, size):
            part = function(split(jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[rows], people), mesh))
            yield jax.tree.map(lambda leaf, taken=taken: leaf[:taken], fetch(part))

    return end_to_end(parts(), count)


def end_to_end(parts: Iterable[T], count: int) -> T:
    """Return host arrays stacked over `count` people from such of some people each, holding one of them at a time."""
    whole: Any = None
    done = 0
    for part in parts:
        if whole is None:
            whole = jax.tree.map(lambda leaf: np.empty((count, *leaf.shape[1:]), leaf.dtype), part)
        leaves = jax.tree.leaves(part)
        for target, leaf in zip(jax.tree.leaves(whole), leaves, strict=True):
            target[done : done + len(leaf)] = leaf
        done += len(leaves[0])
    return whole


def chunks(people: int, size: int) -> Iterator[tuple[slice | np.ndarray, int]]:
    """Yield the rows of each chunk, and how many of them count: the last chunk repeats its last person."""
    for first in range(0, people - size + 1, size):
        yield slice(first, first + size), size
    rest = people % size
    if rest:
        yield np.minimum(np.arange(people - rest, people - rest + size), people - 1), rest


# --- Processes ---


def is_first() -> bool:
    """Return whether this process writes what a run leaves: the first of several, or the only one."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def meet(place: str) -> None:
    """Wait until all processes are at a place of this name."""
    if jax.distributed.is_initialized():
        multihost_utils.sync_global_devices(place)
