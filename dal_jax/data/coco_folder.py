"""A folder of one's own: photographs, and their 2D labels in a COCO-style file."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from dal_jax.correspondences import person as person_lib
from dal_jax.data import coco_style, files as files_lib
from dal_jax.data.recording import source as source_lib
from dal_jax.runtime import errors


@dataclasses.dataclass(frozen=True)
class CocoFolder:
    """train.json (and test.json), photographs beside them or in images/; a `Source`. docs/coco_folder.md.

    Note: dense points or key points are enough; key points alone leave the shape and much of the pose to the priors.
    """

    files: files_lib.Files
    units_a_chunk: int = 100

    name = "coco_folder"
    config = ""
    unit = "photograph"
    description = "One's own photographs with 2D labels in COCO's form."

    def digest(self) -> str:
        """Return a name of annotation, chart, body, options, and the photographs' names and sizes."""
        return self.files.digest(self._found().values(), [self._images()])

    def options(self) -> dict[str, Any]:
        """Return chart, body and size of the crops."""
        return self.files.options()

    def splits(self) -> Mapping[str, list[coco_style.Photograph]]:
        """Return the photographs of train and, where there is a test.json, of test."""
        return {split: coco_style.photographs(path, self._images()) for split, path in self._found().items()}

    def read(
        self, unit: coco_style.Photograph
    ) -> Iterator[source_lib.Example | person_lib.Rejected | source_lib.Noted]:
        """Yield a photograph's people."""
        return coco_style.read_photograph(unit, coco_style.Reading(self.files, points_needed=False))

    def _found(self) -> dict[str, pathlib.Path]:
        folder = self.files.folder
        train, test = folder / "train.json", folder / "test.json"
        if not train.is_file():
            raise errors.InputError(f"{folder}: has no train.json (2D labels in COCO's form)")
        return {"train": train, "test": test} if test.is_file() else {"train": train}

    def _images(self) -> pathlib.Path:
        below = self.files.folder / "images"
        return below if below.is_dir() else self.files.folder
