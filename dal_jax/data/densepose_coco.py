"""DensePose-COCO by its official files: densepose_coco_2014_{train,minival,valminusminival}.json, COCO's pictures."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from dal_jax.correspondences import person as person_lib
from dal_jax.data import coco_style, files as files_lib
from dal_jax.data.recording import source as source_lib
from dal_jax.runtime import errors

_SPLITS = {"train": "train2014", "minival": "val2014", "valminusminival": "val2014"}
"""The folder of each split's pictures."""


@dataclasses.dataclass(frozen=True)
class DensePoseCoco:
    """About 50,000 annotated people of COCO 2014; a `recording.source.Source`. docs/densepose_coco.md."""

    files: files_lib.Files
    units_a_chunk: int = 100

    name = "densepose_coco"
    config = ""
    unit = "photograph"
    description = "People of COCO 2014 with surface points, part masks and key points that humans annotated."

    def digest(self) -> str:
        """Return a name of annotation, chart, body, options, and the photographs' names and sizes."""
        found = self._found()
        folders = {self._images(split) for split in found}
        return self.files.digest(found.values(), sorted(folders))

    def options(self) -> dict[str, Any]:
        """Return chart, body and size of the crops."""
        return self.files.options()

    def splits(self) -> Mapping[str, list[coco_style.Photograph]]:
        """Return the photographs of the splits whose file is there."""
        return {split: coco_style.photographs(path, self._images(split)) for split, path in self._found().items()}

    def read(
        self, unit: coco_style.Photograph
    ) -> Iterator[source_lib.Example | person_lib.Rejected | source_lib.Noted]:
        """Yield a photograph's people."""
        return coco_style.read_photograph(unit, coco_style.Reading(self.files))

    def _found(self) -> dict[str, pathlib.Path]:
        """Return each split's annotation, in the folder or in annotations/ below it."""
        folder = self.files.folder
        names = {split: f"densepose_coco_2014_{split}.json" for split in _SPLITS}
        places = {split: [folder / name, folder / "annotations" / name] for split, name in names.items()}
        found = {
            split: next(path for path in paths if path.is_file())
            for split, paths in places.items()
            if any(path.is_file() for path in paths)
        }
        if not found:
            raise errors.InputError(f"{folder}: has none of {', '.join(names.values())}, nor has annotations/")
        return found

    def _images(self, split: str) -> pathlib.Path:
        folder = self.files.folder / _SPLITS[split]
        if not folder.is_dir():
            raise errors.InputError(f"{folder}: no such folder; COCO's photographs of '{split}' lie in {folder.name}/")
        return folder
