"""A data set of made-up numbers, small and quick: units hold a person each, a rejected one, or something noted."""

import functools
import io
import time

import numpy as np
import PIL.Image

from dal_jax.data import schema
from dal_jax.data.schema import Source
from dal_jax.observations.person import Rejected


def sticks(people: int = 10, seed: int = 0, pause_s: float = 0.0) -> Source:
    """Return `people` train units, of which every fifth is rejected and every third noted, and two test units.

    pause_s: of each unit after the first two. The digest is a name of neither the pause nor the chunks.
    """
    return Source(
        name="sticks",
        description="Made-up numbers.",
        unit="stick",
        units_a_chunk=2,
        digest=functools.partial("{}-{}".format, people, seed),
        options=functools.partial(dict, people=people),
        splits=functools.partial(dict, train=list(range(people)), test=[1001, 1002]),
        read=functools.partial(_read, people, seed, pause_s),
    )


def _read(people: int, seed: int, pause_s: float, unit: int):
    """Yield one person or none."""
    if 2 <= unit < people:
        time.sleep(pause_s)
    if unit % 3 == 0:
        yield "threes"
    if unit % 5 == 0:
        yield Rejected(unit, unit, "", "fives", f"stick {unit}: is a multiple of five")
    else:
        yield example(unit, seed)


def example(number: int, seed: int = 0) -> dict[str, object]:
    """Return an example that tells its number, with as many points as its number says and no truth."""
    random = np.random.default_rng((seed, number))
    points = number % schema.POINTS
    picture = io.BytesIO()
    PIL.Image.fromarray(random.integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(picture, "png")
    return schema.unknown_truth() | {
        "image": picture.getvalue(),
        "name": f"stick{number}",
        "subject": "nobody",
        "action": "",
        "video": "reel",
        "frame": np.int32(number),
        "box_px": np.float32([0, 0, 8, 8]),
        **schema.unknown_camera(),
        **schema.keypoint_features("h36m", random.uniform(0, 8, (17, 2)), np.full(17, 2)),
        **schema.point_features(
            random.uniform(0, 8, (points, 2)), np.arange(points), random.dirichlet(np.ones(3), points)
        ),
        "iuv": b"",
        "mask": b"",
    }
