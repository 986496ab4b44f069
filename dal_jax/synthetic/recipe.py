"""What a synthetic data set is made of: every number that its images and annotations depend on."""

import dataclasses
import hashlib
import json

from dal_jax.body.formats import load
from dal_jax.synthetic import motions
from dal_jax.synthetic.shapes import SUBJECT_SHAPES

TRAIN_SUBJECTS = ("S1", "S5", "S6", "S7", "S8")
TEST_SUBJECTS = ("S9", "S11")
ROUTES = ("annotator", "mosh", "densepose")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One data set; the same recipe gives the same bytes, whenever and in whatever order its people are made.

    route: how surface points are annotated. 'annotator': a person clicks, and errs by a little; 'mosh': exact
    projections (paper, 6.1: bodies from MoSh); 'densepose': taken from a degraded IUV prediction.
    """

    name: str
    train_count: int
    test_count: int
    image_size: int  # px, of the square crop
    seed: int = 2019
    route: str = "annotator"
    heading_spread_deg: float = 180.0  # the person faces the camera within this angle; 180: any heading
    takes: int = 24  # recordings of each action by each subject
    supersample: int = 2  # rays a pixel along each axis
    click_noise: float = 0.004  # standard deviation of an annotator's click, as a share of the crop's side
    surface_noise_m: float = 0.012  # of the surface point chosen for it, along each tangent direction
    outlier_rate: float = 0.01  # share of points put anywhere on their part
    keypoint_noise: float = 0.007  # standard deviation of a visible key point, as a share of the crop's side
    hidden_keypoint_noise: float = 0.014  # of a key point that the annotator had to guess
    clutter: float = 1.0  # how busy the walls are; 0: plain, with a gradient of light
    occluder_rate: float = 0.10  # share of people with something in front of them
    motions: str = ""  # folder of AMASS's .npz, whose moments are taken in the place of the fifteen actions
    true_vertices: str = "test"  # 'none', 'test' or 'all': whose true vertices are kept (40 kB each)

    def subjects(self, split: str) -> tuple[str, ...]:
        """Return the names of a split's subjects (Human3.6M's protocol 1)."""
        return TRAIN_SUBJECTS if split == "train" else TEST_SUBJECTS

    def count(self, split: str) -> int:
        """Return how many people a split has."""
        return self.train_count if split == "train" else self.test_count

    def of_recordings(self, folder: str) -> "Recipe":
        """Return the same recipe, under another name, of people who do what is recorded in a folder."""
        return dataclasses.replace(self, name=f"{self.name}_recorded", motions=folder)

    def digest(self) -> str:
        """Return a short name of everything the data depends on: the recipe, the bodies, the version of the code."""
        values = dataclasses.asdict(self)
        if values.pop("motions"):
            values["motions"] = motions.recordings_digest(self.motions)  # wherever the folder is
        text = json.dumps(values, sort_keys=True) + VERSION
        content = hashlib.sha256(text.encode())
        for file in (load.FREE_BODY, SUBJECT_SHAPES):
            content.update(file.read_bytes())
        return content.hexdigest()[:12]


VERSION = "1.0.0"
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("tiny", train_count=24, test_count=12, image_size=64, true_vertices="all", occluder_rate=0.25),
        Recipe("demo", 12_000, 1_000, image_size=64, route="mosh", heading_spread_deg=90.0, clutter=0.4),
        Recipe("full", train_count=100_000, test_count=10_000, image_size=224),
    )
}
"""tiny: tests. demo: what a small network learns in minutes. full: the paper's number of images, any heading."""
