"""What a training step is fed with: which people make up each batch of an epoch, and their pictures and annotation.

The order is drawn from a key alone, so a run that goes on in the middle of an epoch takes up the rest of the same
order, whether pictures lie in memory or are decoded on the way. Batches are gathered while the device works.
"""

import concurrent.futures
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template
from dal_jax.observations import residuals
from dal_jax.observations.observation import Observation
from dal_jax.observations.residuals import Target
from dal_jax.runtime import machine, mesh as mesh_lib, struct
from dal_jax.runtime.errors import needs_extra

_AHEAD = 2  # batches decoded before they are asked for

Images = UInt8[np.ndarray, "people s s 3"] | Sequence
"""Square crops: an array, or a sequence that decodes what is indexed by a number, in several threads at once."""


@struct.dataclass
class Sample:
    """One training example: an image with its supervision (leading axes batch). The crop's frame is [-1, 1], y down.

    image: 0 to 255.
    target: the annotation. Its surface points are rest positions and skinning weights, which a mirror maps exactly
      whatever the triangles are.
    fit: the registered body, theta-bar of eq. 6.
    weight: of this example in every loss (paper: 1).
    """

    image: Float[Array, "*batch s s 3"]
    target: Target
    fit: BodyParameters
    weight: Float[Array, "*batch"]


def make_sample(
    template: Template,
    image: UInt8[Array, "*batch s s 3"],
    observation: Observation,
    fit: BodyParameters,
    weight: Float[Array, "*batch"],
) -> Sample:
    """Look the observed surface points up on the template (any leading axes)."""
    return Sample(image.astype("float32"), residuals.make_target(template, observation), fit, weight)


def epoch_order(
    key: PRNGKeyArray, weight: Float[np.ndarray, "people"], batch: int
) -> Int[np.ndarray, "steps some_people"]:
    """Draw which people make up each batch of an epoch; the last batch is filled up from the first.

    People of weight 0 are left out, so batch statistics ignore them too.

    Raises:
      ValueError: all weights are 0.
    """
    shown = np.flatnonzero(weight)
    if not len(shown):
        raise ValueError("no one is left to learn from: all weights are 0")
    drawn = shown[np.asarray(jax.random.permutation(key, len(shown)))]
    return in_batches(drawn, batch)


def in_batches(people: Int[np.ndarray, "people"], batch: int) -> Int[np.ndarray, "steps some_people"]:
    """Return numbers of people in rows of `batch`, or of all of them if they are fewer; the first fill up the last."""
    batch = min(batch, len(people))
    return np.resize(people, (math.ceil(len(people) / batch), batch))


def images_shown(weight: Float[np.ndarray, "people"], batch: int, first: int, end: int) -> int:
    """Return how many people the steps from `first` to before `end` of an epoch show for the first time."""
    people = int(np.count_nonzero(weight))
    return min(end * batch, people) - min(first * batch, people)


def feed(
    order: Int[np.ndarray, "steps batch"], images: Images, rest: tuple[Any, ...], mesh: Mesh
) -> Iterator[tuple[tuple[Any, ...], float]]:
    """Yield each batch, (images, *rest), on the devices, and the seconds that the iterating thread has waited for it.

    The next batch is gathered meanwhile, so the wait is 0 where the input keeps up. Of several processes each reads and
    decodes what its own devices hold.

    Args:
      order: numbers of people, a row a batch.
      images: of all people.
      rest: pytrees of host arrays, stacked over people.
      mesh: the devices that a batch is split between.
    """
    count = order.shape[1]
    order = np.stack([mesh_lib.share(rows, mesh) for rows in order])
    pictures = (images[rows] for rows in order) if isinstance(images, np.ndarray) else decoded(images, order)

    def gather(rows: Int[np.ndarray, "some"]) -> tuple[Any, ...]:
        return mesh_lib.batch((next(pictures), *jax.tree.map(lambda leaf: leaf[rows], rest)), count, mesh)

    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as worker:
        following = worker.submit(gather, order[0])
        for rows in [*order[1:], None]:
            asked = time.monotonic()
            ready = following.result()
            waited_s = time.monotonic() - asked
            if rows is not None:
                following = worker.submit(gather, rows)
            yield ready, waited_s


def decoded(
    images: Sequence, order: Int[np.ndarray, "steps batch"], threads: int | None = None
) -> Iterator[UInt8[np.ndarray, "batch s s 3"]]:
    """Return an iterator over the pictures of each row of `order`, decoded ahead in threads by Grain.

    Threads are enough: decoding leaves Python's lock alone.

    Args:
      images: decodes what is indexed by a number, in several threads at once.
      order: numbers of pictures, a row a batch.
      threads: that decode; by default one a core.

    Raises:
      errors.InputError: Grain is not installed.
    """
    with needs_extra("data"):
        import grain
    batch = order.shape[1]
    pictures = grain.MapDataset.source(order.ravel().tolist()).map(lambda row: images[row])
    options = grain.ReadOptions(num_threads=threads or machine.cores(), prefetch_buffer_size=max(_AHEAD * batch, 1))
    return iter(pictures.to_iter_dataset(options).batch(batch))
