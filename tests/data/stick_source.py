"""A data set of made-up numbers, small and quick: units hold a person each, a rejected one, or something noted."""

import dataclasses
import io
import time

import numpy as np
import PIL.Image

from dal_jax.data import schema
from dal_jax.observations.person import Rejected


@dataclasses.dataclass(frozen=True)
class Sticks:
    """`people` train units, of which every fifth is rejected and every third noted, and two test units."""

    people: int = 10
    seed: int = 0
    pause_s: float = 0.0  # of each unit after the first two
    units_a_chunk: int = 2
    config: str = ""

    name = "sticks"
    description = "Made-up numbers."
    unit = "stick"

    def digest(self) -> str:
        """Return a name of what the people depend on: neither of the pause nor of the chunks."""
        return f"{self.people}-{self.seed}"

    def options(self) -> dict:
        """Return the options."""
        return {"people": self.people}

    def splits(self) -> dict[str, list[int]]:
        """Return numbers."""
        return {"train": list(range(self.people)), "test": [1001, 1002]}

    def read(self, unit: int):
        """Yield one person or none."""
        if 2 <= unit < self.people:
            time.sleep(self.pause_s)
        if unit % 3 == 0:
            yield "threes"
        if unit % 5 == 0:
            yield Rejected(unit, unit, "", "fives", f"stick {unit}: is a multiple of five")
        else:
            yield example(unit, self.seed)


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
