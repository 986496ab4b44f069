"""What a data set made from somebody's files is made of: their folder, the chart, the body, the size of the crops."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from dal_jax.body import template as template_lib
from dal_jax.correspondences import chart as chart_lib
from dal_jax.data import schema
from dal_jax.runtime import errors

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".webp", ".bmp")
_VERSION = "1"  # of how examples are made from files: raise it and every data set is recorded anew


@dataclasses.dataclass(frozen=True)
class Files:
    """Where a data set's files are, and how its people are cut out.

    source: the folder, laid out as docs/NAME.md says. chart: DensePose's UV_Processed.mat; '': the annotation is in the
    body's own chart. body: a body file; '': the free body. image_size: px, of the square crops.
    """

    source: str
    chart: str = ""
    body: str = ""
    image_size: int = 224

    @property
    def folder(self) -> pathlib.Path:
        """The folder of the files.

        Raises:
          errors.InputError: it is not there.
        """
        folder = pathlib.Path(self.source)
        if not self.source or not folder.is_dir():
            raise errors.InputError(f"{self.source}: no such folder")
        return folder

    def load_chart(self) -> chart_lib.Chart:
        """Return the chart that dense points are read in; once a process."""
        return _load_chart(self.chart, self.body)

    def options(self) -> dict[str, Any]:
        """Return what later users of the data set must know of it."""
        chart = pathlib.Path(self.chart).name if self.chart else "the body's own"
        return {"chart": chart, "body": body_digest(self.body), "image_size": self.image_size}

    def digest(self, contents: Iterable[pathlib.Path], listed: Iterable[pathlib.Path]) -> str:
        """Return a short name of options, contents of files, and names and sizes of others (the photographs)."""
        found = hashlib.sha256(json.dumps([_VERSION, schema.VERSION, self.options()]).encode())
        for path in [*contents, *([pathlib.Path(self.chart)] if self.chart else [])]:
            found.update(path.name.encode())
            with _opened(path) as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        for folder in listed:
            for name, size in sorted(_sizes(folder)):
                found.update(f"{name} {size}\n".encode())
        return found.hexdigest()[:12]


def body_digest(body: str) -> str:
    """Return a short name of a body file's content ('': the free body's)."""
    with _opened(pathlib.Path(body or template_lib.FREE_BODY)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def photograph_of(folder: pathlib.Path, stem: str) -> pathlib.Path:
    """Return the photograph of `{stem}_IUV.png`: of that stem and any ending, in the folder or in images/ below it."""
    for place in (folder, folder / "images"):
        for ending in PICTURE_ENDINGS:
            if (path := place / f"{stem}{ending}").is_file():
                return path
    raise errors.InputError(f"{folder}: no photograph {stem}.jpg or {stem}.png for {stem}_IUV.png")


@functools.lru_cache(1)
def _load_chart(chart: str, body: str) -> chart_lib.Chart:
    template = template_lib.load_template(body or template_lib.FREE_BODY)
    return chart_lib.load_densepose_chart(chart, template) if chart else chart_lib.body_chart(template)


def _opened(path: pathlib.Path):
    try:
        return path.open("rb")
    except OSError as error:
        raise errors.InputError(f"{path}: cannot be read: {error.strerror}") from error


def _sizes(folder: pathlib.Path) -> Iterator[tuple[str, int]]:
    """Yield name below the folder and size of each picture in it."""
    for place, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = pathlib.Path(place, name)
            if path.suffix in PICTURE_ENDINGS and path.exists():
                yield str(path.relative_to(folder)), path.stat().st_size
