"""One training example on the device: the pixels, what they were annotated with, and the body registered to them."""

import concurrent.futures
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import flax.struct
import jax
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from dal_jax.body import skinning
from dal_jax.body.parameters import BodyParameters
from dal_jax.body.skinning import SurfacePoints
from dal_jax.body.template import Template
from dal_jax.observations.observation import Observation
from dal_jax.runtime import pipeline


@flax.struct.dataclass
class Sample:
    """An image with its supervision (leading axes batch). The crop's frame is [-1, 1], y down.

    image: 0 to 255. points: the annotated surface points by rest position and skinning weights, which a mirror maps
    exactly whatever the triangles are; point_* and keypoint_*, depth_* as in `observations.Observation`.
    fit: the registered body, theta-bar of eq. 6. weight: of this example in every loss (paper: 1).
    """

    image: Float[Array, "*batch s s 3"]
    points: SurfacePoints
    point_position: Float[Array, "*batch points 2"]
    point_confidence: Float[Array, "*batch points"]
    keypoint_position: Float[Array, "*batch 17 2"]
    keypoint_confidence: Float[Array, "*batch 17"]
    depth: Float[Array, "*batch 17"]
    depth_confidence: Float[Array, "*batch 17"]
    fit: BodyParameters
    weight: Float[Array, "*batch"]


def make_sample(
    template: Template,
    image: Array,
    observation: Observation,
    fit: BodyParameters,
    weight: Float[Array, "*batch"],
) -> Sample:
    """Look the observed surface points up on the template (any leading axes)."""
    return Sample(
        image=image.astype("float32"),
        points=skinning.surface_points(template, observation.point_face, observation.point_barycentric),
        point_position=observation.point_position,
        point_confidence=observation.point_confidence,
        keypoint_position=observation.keypoint_position,
        keypoint_confidence=observation.keypoint_confidence,
        depth=observation.depth,
        depth_confidence=observation.depth_confidence,
        fit=fit,
        weight=weight,
    )


# --- What a training step is fed with: an epoch's order, and its batches, gathered while the device works ---
#
# The order is drawn from a key alone, so a run that goes on in the middle of an epoch takes up the rest of the same
# order, whether pictures lie in memory or are decoded on the way.


def epoch_order(
    key: PRNGKeyArray, weight: Float[np.ndarray, "people"], batch: int
) -> Int[np.ndarray, "steps some_people"]:
    """Draw which people make up each batch of an epoch; the last batch is filled up from the first.

    Who has no weight is not shown: not even batch normalisation sees them.

    Raises:
      ValueError: nobody has a weight.
    """
    shown = np.flatnonzero(weight)
    if not len(shown):
        raise ValueError("nobody is left to learn from: all weights are 0")
    drawn = shown[np.asarray(jax.random.permutation(key, len(shown)))]
    batch = min(batch, len(shown))
    return np.resize(drawn, (math.ceil(len(shown) / batch), batch))


def images_shown(weight: Float[np.ndarray, "people"], batch: int, first: int, end: int) -> int:
    """Return how many people an epoch's steps from `first` to before `end` show that the steps before have not."""
    people = int(np.count_nonzero(weight))
    return min(end * batch, people) - min(first * batch, people)


class Feed:
    """Iterate over (images, *rest) of each batch, on the device; the next one is gathered meanwhile.

    waited_s: how long the iterating thread has waited for batches so far: 0 where the input keeps up.
    """

    def __init__(
        self,
        order: Int[np.ndarray, "steps batch"],
        images: UInt8[np.ndarray, "people s s 3"] | Sequence,
        rest: Any,
    ):
        """Prepare to read.

        Args:
          images: an array, or a sequence that decodes what is indexed by a number, in several threads at once.
          rest: a tuple of pytrees of host arrays, stacked over people.
        """
        self._order, self._rest = order, rest
        self._pictures = (
            (images[rows] for rows in order) if isinstance(images, np.ndarray) else pipeline.batches(images, order)
        )
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[tuple]:
        with concurrent.futures.ThreadPoolExecutor(max_workers=1) as worker:
            following = worker.submit(self._gather, self._order[0])
            for rows in [*self._order[1:], None]:
                asked = time.monotonic()
                ready = following.result()
                self.waited_s += time.monotonic() - asked
                if rows is not None:
                    following = worker.submit(self._gather, rows)
                yield ready

    def _gather(self, rows: Int[np.ndarray, "batch"]) -> tuple:
        return jax.device_put((next(self._pictures), *jax.tree.map(lambda leaf: leaf[rows], self._rest)))
