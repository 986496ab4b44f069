"""Predict bodies from photographs with the regressor of a run.

Of a checkpoint only the regressor is read. While the network works on a batch, threads read and cut the next. Every
batch has one shape, the last is filled up. Finished batches can be kept on disk, so that a killed command goes on.
"""

import concurrent.futures
import dataclasses
import functools
import itertools
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from dal_jax.body.formats.load import FREE_BODY, load_body
from dal_jax.body.kinematics import BodyParameters, t_pose
from dal_jax.body.template import Template
from dal_jax.fits.fits import Fits
from dal_jax.loop.folder import find, read
from dal_jax.observations import detections, photographs
from dal_jax.observations.observations import Observations
from dal_jax.observations.person import AnnotatedPerson, Annotations, Rejected
from dal_jax.regressor import model, theta
from dal_jax.regressor.model import Learned, RegressorConfig
from dal_jax.runtime import configs, door, files, machine, progress
from dal_jax.runtime.checkpoints import Checkpoints
from dal_jax.runtime.errors import InputError
from dal_jax.runtime.files import PathLike

_READERS = min(8, os.cpu_count() or 1)  # decoding takes the time: of a large JPEG ten times as long as the network


@dataclasses.dataclass(frozen=True)
class TrainedRegressor:
    """The regressor of a run's checkpoint.

    config: that it was trained with.
    learned: its weights and codec, on the device.
    body: the body file of its run, '' for the free body.
    folder: of its run.
    step: the number of its checkpoint.
    training_steps: that it has taken.
    data: the data set of its run, '' where the run does not say.
    """

    config: RegressorConfig
    learned: Learned
    body: str
    folder: pathlib.Path
    step: int
    training_steps: int
    data: str = ""


Predicted = tuple[BodyParameters, list[str]]
"""Bodies of people in photographs (host arrays), NaN where there is a problem; for each person its line, or ''."""


def load(path: PathLike) -> TrainedRegressor:
    """Load the last checkpoint of a `deform_and_learn` run.

    Args:
      path: the run's folder (--workdir), or the checkpoints/ in it.

    Raises:
      errors.InputError: it is no such folder, has no checkpoint or an untrained regressor, or is damaged.
    """
    config_path = find(path)
    config, body, data = _read_config(config_path)
    run = config_path.parent
    saved = Checkpoints(run / "checkpoints")
    state, _, step = saved.resume(lambda _: _example(config), partial=True)
    regressor = state["regressor"]
    steps = int(regressor["step"])
    if steps == 0:
        raise InputError(f"{run}: its regressor is not trained yet; the run stands before its first epoch")
    learned = Learned(regressor[_predicting(config)], regressor["codec"])
    return TrainedRegressor(config, learned, body, run, step, steps, data)


def _example(config: RegressorConfig) -> dict[str, Any]:
    """Return the wanted leaves of a `algorithm.LoopState` as shapes, by the names they are saved under.

    A dict, because Orbax takes a field that is None for an empty one, not for one left out.
    """
    return {
        "regressor": {
            "step": jax.ShapeDtypeStruct((), "int32"),
            _predicting(config): model.variable_shapes(config),
            "codec": jax.eval_shape(functools.partial(theta.plain_codec, config.rotations, config.scales)),
        }
    }


def _predicting(config: RegressorConfig) -> str:
    """Return the field of `training.TrainState` that predicts (see its property `learned`)."""
    return "average" if config.average_decay else "trained"


def _read_config(path: pathlib.Path) -> tuple[RegressorConfig, str, str]:
    """Return the regressor's configuration, the body file and the data set of a run's config.json."""
    content = read(path)
    body = content.get("body", "")
    if not isinstance(body, str):
        raise InputError(f"{path}: body is {body!r}, not the path of a file")
    config = configs.with_values(RegressorConfig(), content["regressor"], path, "config.regressor")
    try:
        model.validate(config)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return config, body, str(content.get("data", ""))


def predict(
    images: PathLike,
    checkpoint: PathLike,
    boxes: PathLike | None = None,
    *,
    people: Annotations | None = None,
    batch: int = 64,
    skip_invalid: bool = False,
) -> Fits:
    """Predict the bodies of people in photographs with the regressor of a run.

    Example:
        bodies = dal.predict("photos", checkpoint="runs/demo", boxes="boxes.json")
        bodies.save("out", formats=("glb",))

    Args:
      images: folder of the photographs, or one photograph.
      checkpoint: folder of a `deform_and_learn` run.
      boxes: JSON with the people's boxes; None: each picture shows one person, who fills it.
      people: from `read_annotations`, instead of `boxes`.
      batch: people that the network sees at once.
      skip_invalid: run the good pictures and entries where there are bad ones.

    Raises:
      errors.InputError: a picture, a box or the checkpoint cannot be used; one line.
    """
    machine.configure()
    if people is None:
        pictures = detections.list_photographs(images)
        found = None if boxes is None else detections.read_boxes(boxes, pictures)
        people = detections.people(pictures, found, skip_invalid)
    trained = load(checkpoint)
    with tempfile.TemporaryDirectory() as done:
        return predict_people(trained, people, load_body(trained.body or FREE_BODY), done, batch, skip_invalid)


def predict_people(
    trained: TrainedRegressor,
    people: Annotations,
    template: Template,
    done: PathLike,
    batch: int = 64,
    skip_invalid: bool = False,
) -> Fits:
    """Predict annotated people; finished batches stay in the folder `done`, so that a killed command goes on.

    Raises:
      errors.InputError: no photograph can be read; without `skip_invalid`, also the first that cannot.
    """
    people, parameters = _without_problems(people, *predict_crops(trained, people, done, batch, skip_invalid))
    return Fits.of(Observations.of_annotations(people, template), template, parameters, annotations=people)


def _without_problems(
    people: Annotations, parameters: BodyParameters, problems: list[str]
) -> tuple[Annotations, BodyParameters]:
    """Return the entries, rejecting those whose crop could not be made, and the bodies of the others."""
    problem_of = dict(zip([id(one) for one in people.people], problems, strict=True))
    entries = [
        Rejected(one.image_id, one.annotation_id, one.file_name, "unreadable picture", problem_of[id(one)])
        if problem_of.get(id(one))
        else one
        for one in people.entries
    ]
    good = [row for row, problem in enumerate(problems) if not problem]
    if not good:
        raise InputError(f"{problems[0]} (none of {len(entries)} people can be used)")
    return dataclasses.replace(people, entries=entries), jax.tree.map(lambda leaf: leaf[good], parameters)


def predict_crops(
    trained: TrainedRegressor, shown: Annotations, done: PathLike, batch: int = 64, skip_invalid: bool = False
) -> Predicted:
    """Predict the body in every person's square crop.

        shown = detections.people(detections.list_photographs("photos"))
        parameters, _ = predict_crops(load("runs/demo"), shown, "bodies/predicted")
        parameters.pose[0]  # (23, 3) rad, of the first of shown.people

    Args:
      trained: the regressor.
      shown: people in photographs.
      done: folder of the finished batches; they are not predicted again.
      batch: people at once; fewer people make a smaller batch.
      skip_invalid: turn a photograph that cannot be read, or a crop that cannot be cut, into a problem.

    Raises:
      errors.InputError: the first such problem, unless `skip_invalid`.
    """
    people = shown.people
    batch = min(batch, 1 << (len(people) - 1).bit_length())
    chunks = [people[first : first + batch] for first in range(0, len(people), batch)]
    paths = [pathlib.Path(done) / f"{number:06d}.npz" for number in range(len(chunks))]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    size, unread = trained.config.image_size, [chunks[number] for number in missing]
    with (
        concurrent.futures.ThreadPoolExecutor(_READERS) as readers,
        progress.bar("predict", total=len(people), unit="person") as bar,
    ):
        ahead = _read_ahead(readers, unread, shown.photograph, size)
        for number, path in enumerate(paths):
            if number in missing:
                _write(path, *_predict_chunk(trained, next(ahead), batch, skip_invalid))
            bar.update(len(chunks[number]))
    bodies, problems = zip(*(_read(path) for path in paths), strict=True)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *bodies), list(itertools.chain(*problems))


Crop = UInt8[np.ndarray, "s s 3"]


def _read_ahead(readers, chunks, path_of, size: int) -> Iterator[list[Crop | str]]:
    """Yield each chunk's crops, or the line of their problem; the next chunk is read meanwhile."""

    def begin(chunk) -> list[concurrent.futures.Future]:
        groups = itertools.groupby(chunk, key=lambda one: (one.file_name, one.picture_size))
        return [readers.submit(_crops, path_of, list(group), size) for _, group in groups]

    following = begin(chunks[0]) if chunks else []
    for chunk in [*chunks[1:], []]:
        ready, following = following, begin(chunk)
        yield [crop for future in ready for crop in future.result()]


def _crops(path_of, people: list[AnnotatedPerson], size: int) -> list[Crop | str]:
    """Cut the people of one photograph out of it."""
    try:
        photograph = photographs.read_picture(path_of(people[0]), people[0].picture_size)
    except InputError as error:
        return [str(error)] * len(people)
    return [_crop(photograph, one, size) for one in people]


def _crop(photograph, one: AnnotatedPerson, size: int) -> Crop | str:
    try:
        return photographs.crop(photograph, one.crop_px, size)
    except InputError as error:
        return f"{one.file_name}: person {one.annotation_id}: {error}"


def _predict_chunk(trained: TrainedRegressor, crops: list[Crop | str], batch: int, skip_invalid: bool) -> Predicted:
    problems = [crop if isinstance(crop, str) else "" for crop in crops]
    if not skip_invalid and any(problems):
        raise InputError(next(filter(None, problems)))
    one = dataclasses.replace(
        t_pose(), segment_girth=np.ones((24, 2)) if trained.config.scales == "anisotropic" else None
    )
    parameters = jax.tree.map(lambda leaf: np.full((len(crops), *leaf.shape), np.nan, np.float32), one)
    good = [row for row, problem in enumerate(problems) if not problem]
    if good:
        images = np.stack([crop for crop in crops if not isinstance(crop, str)])
        bodies = model.predict(trained.config, trained.learned, images, batch)
        for name, values in _predicted(parameters).items():
            values[good] = getattr(bodies, name)
    return parameters, problems


def _write(path: pathlib.Path, parameters: BodyParameters, problems: list[str]) -> None:
    files.savez(path, problems=np.array(problems, np.str_), **_predicted(parameters))


def _predicted(parameters: BodyParameters) -> dict[str, np.ndarray]:
    """Return the fields that bodies have; a girth is not predicted, segment girths of anisotropic scales."""
    return {name: values for name, values in vars(parameters).items() if values is not None}


def _read(path: pathlib.Path) -> Predicted:
    try:
        arrays = door.read_npz(path)
        problems = arrays.pop("problems").tolist()
        return BodyParameters(**arrays), problems
    except (InputError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is damaged ({type(error).__name__}); run the command again") from error
