"""Bodies of people in photographs, a batch at a time; what is done is kept on disk, so a killed run goes on.

While the network works on a batch, threads read and cut the next. Every batch has one shape, the last is filled up.
"""

import concurrent.futures
import dataclasses
import itertools
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jaxtyping import UInt8

from dal_jax.body import parameters as parameters_lib
from dal_jax.correspondences import person as person_lib
from dal_jax.data import pictures
from dal_jax.loop import fit_output, trained as trained_lib
from dal_jax.regressor import model as regressor_model
from dal_jax.runtime import atomic, errors

_READERS = min(8, os.cpu_count() or 1)  # decoding is what waits: a large JPEG takes ten times as long as the network
_FIELDS = tuple(field.name for field in dataclasses.fields(parameters_lib.BodyParameters))
_EXAMPLE = jax.tree.map(np.asarray, parameters_lib.t_pose())


@dataclasses.dataclass(frozen=True)
class Predicted:
    """parameters: stacked over people (host arrays), NaN where there is a problem; problems: a line or nothing each."""

    parameters: parameters_lib.BodyParameters
    problems: list[str]


def predict(
    trained: trained_lib.Trained,
    path_of: fit_output.PathOf,
    people: Sequence[person_lib.AnnotatedPerson],
    done: pathlib.Path,
    *,
    batch: int = 64,
    skip_invalid: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Predicted:
    """Predict the body in every person's square crop.

    Args:
      path_of: where a person's photograph lies.
      done: folder of the batches that are done; they are not done again.
      batch: people at once; fewer people make a smaller batch.
      progress: called with the number of people of each batch that is done.
    Raises:
      errors.InputError: a photograph cannot be read or a crop not be cut and, unless `skip_invalid`, the first such.
    """
    batch = min(batch, 1 << (len(people) - 1).bit_length())
    chunks = [people[first : first + batch] for first in range(0, len(people), batch)]
    paths = [done / f"{number:06d}.npz" for number in range(len(chunks))]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    with concurrent.futures.ThreadPoolExecutor(_READERS) as readers:
        ahead = _read_ahead(readers, [chunks[number] for number in missing], path_of, trained.config.image_size)
        for number, path in enumerate(paths):
            if number in missing:
                _write(path, _predict_chunk(trained, next(ahead), batch, skip_invalid))
            if progress is not None:
                progress(len(chunks[number]))
    parts = [_read(path) for path in paths]
    parameters = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(part.parameters for part in parts))
    return Predicted(parameters, [problem for part in parts for problem in part.problems])


Crop = UInt8[np.ndarray, "s s 3"]


def _read_ahead(readers, chunks, path_of, size: int) -> Iterator[list[Crop | str]]:
    """Yield each chunk's crops, or what is wrong with them; the next chunk is read meanwhile."""

    def begin(chunk) -> list[concurrent.futures.Future]:
        groups = itertools.groupby(chunk, key=lambda one: (one.file_name, one.picture_size))
        return [readers.submit(_crops, path_of, list(group), size) for _, group in groups]

    following = begin(chunks[0]) if chunks else []
    for chunk in [*chunks[1:], []]:
        ready, following = following, begin(chunk)
        yield [crop for future in ready for crop in future.result()]


def _crops(path_of, people: list[person_lib.AnnotatedPerson], size: int) -> list[Crop | str]:
    """Cut the people of one photograph out of it."""
    try:
        photograph = pictures.read_picture(path_of(people[0]), people[0].picture_size)
    except errors.InputError as error:
        return [str(error)] * len(people)
    return [_crop(photograph, one, size) for one in people]


def _crop(photograph, one: person_lib.AnnotatedPerson, size: int) -> Crop | str:
    try:
        return pictures.crop(photograph, one.crop_px, size)
    except errors.InputError as error:
        return f"{one.file_name}: person {one.annotation_id}: {error}"


def _predict_chunk(trained: trained_lib.Trained, crops: list[Crop | str], batch: int, skip_invalid: bool) -> Predicted:
    problems = [crop if isinstance(crop, str) else "" for crop in crops]
    if not skip_invalid and any(problems):
        raise errors.InputError(next(filter(None, problems)))
    parameters = jax.tree.map(lambda leaf: np.full((len(crops), *leaf.shape), np.nan, np.float32), _EXAMPLE)
    good = [row for row, problem in enumerate(problems) if not problem]
    if good:
        images = np.stack([crops[row] for row in good])
        bodies = regressor_model.predict(trained.config, trained.learned, images, batch)
        for name in _FIELDS:
            getattr(parameters, name)[good] = getattr(bodies, name)
    return Predicted(parameters, problems)


def _write(path: pathlib.Path, predicted: Predicted) -> None:
    arrays = {name: getattr(predicted.parameters, name) for name in _FIELDS}
    atomic.savez(path, problems=np.array(predicted.problems, np.str_), **arrays)


def _read(path: pathlib.Path) -> Predicted:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            parameters = parameters_lib.BodyParameters(**{name: archive[name] for name in _FIELDS})
            return Predicted(parameters, archive["problems"].tolist())
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise errors.InputError(f"{path}: is damaged ({type(error).__name__}); run the command again") from error
