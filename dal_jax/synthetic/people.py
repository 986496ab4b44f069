"""The embedded people as a data set: a recipe is the source, a person a unit of work.

A person follows from (recipe, split, index) alone: posed, photographed, annotated, measured.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from dal_jax.body import skeleton
from dal_jax.data import preparing, schema
from dal_jax.data.schema import DatasetBuilder, Example, Source, check_choices
from dal_jax.observations import human36m_cameras, photographs
from dal_jax.observations.human36m_cameras import Extrinsics
from dal_jax.runtime import progress
from dal_jax.runtime.errors import InputError
from dal_jax.synthetic import actors, annotator, rendering, view as view_lib
from dal_jax.synthetic.annotator import RECIPES, TRAIN_SUBJECTS, Recipe
from dal_jax.synthetic.figure import rotate
from dal_jax.synthetic.rendering import draw_light
from dal_jax.synthetic.view import View
from dal_jax.viewing.raycast import Points, exact_points, pixel_grid_px

NAME = "synthetic_people"
_SPLITS = ("train", "test")
_CROP = 1.2  # side of the crop over that of the key points, of which annotators err by a share
_DAYS = 12  # with clothes of their own, of each subject
_TAKE, _CLOTHES, _MOMENT = 12, 13, 15  # streams of random numbers that several examples share


def source(recipe: Recipe) -> Source:
    """Return the source of rendered people of seven subjects in fifteen actions."""
    return Source(
        name=NAME,
        config=recipe.name,
        description="Rendered people of seven subjects in fifteen actions, with 2D annotation, and with 3D truth for "
        "evaluation.",
        unit="person",
        units_a_chunk=250,
        digest=recipe.digest,
        options=functools.partial(_options, recipe),
        splits=functools.partial(_splits, recipe),
        read=functools.partial(_read, recipe),
    )


def _options(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe; of a folder of recordings its name."""
    return dataclasses.asdict(recipe) | {"motions": pathlib.Path(recipe.motions).name}


def _splits(recipe: Recipe) -> Mapping[str, list[tuple[str, int]]]:
    """Return (split, number) of each person."""
    return {split: [(split, index) for index in range(recipe.count(split))] for split in _SPLITS}


def _read(recipe: Recipe, unit: tuple[str, int]) -> Iterator[Example]:
    yield make_person(recipe, *unit)


def prepare(recipe: str | Recipe, data_dir: str | os.PathLike[str], workers: int | None = None) -> DatasetBuilder:
    """Return a data set that is on disk, rendered first if it is not; a killed run is resumed.

    Args:
      recipe: 'tiny', 'demo', 'full', or a recipe of your own.
      data_dir: folder of data sets.
      workers: processes that render; by default one a core, but none for a few people.

    Raises:
      errors.InputError: there is no such recipe, or the folder holds one of this name made differently.
    """
    builder, _ = preparing.prepare(source(named(recipe)), data_dir, workers)
    return builder


def load(recipe: str | Recipe, data_dir: str | os.PathLike[str]) -> DatasetBuilder:
    """Return a data set that has been rendered.

    Raises:
      errors.InputError: it has not, or it was made differently.
    """
    recipe = named(recipe)
    builder, _ = preparing.load(NAME, recipe.name, data_dir, recipe.digest())
    return builder


def source_of(config: str, choices: Mapping[str, Any]) -> Source:
    """Return the source of a recipe's name ('': the demo's).

    choices: `motions`, a folder of recordings; by default the people do the fifteen actions.

    Raises:
      errors.InputError: there is no such recipe or choice.
    """
    recipe = named(config or "demo")
    check_choices(f"{NAME}/{recipe.name}", choices, ["motions"])
    return source(recipe.of_recordings(choices["motions"]) if choices.get("motions") else recipe)


def named(recipe: str | Recipe) -> Recipe:
    """Return the recipe of a name; a recipe is its own."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise InputError(f"{NAME}/{recipe}: no such configuration; there are {', '.join(RECIPES)}")
    return RECIPES[recipe]


# --- 2D poses alone, which lifters learn from ---

_LOOK_DOWN_DEG, _DISTANCE_M = (0.0, 20.0), (3.0, 7.0)  # of the cameras: nobody photographs people from one height
_GUESSED = 0.2  # share of key points that an annotator has to guess, as of the rendered people's
_POSES = 14  # stream of random numbers


def poses_2d(rows: Sequence[int], seed: int = 0) -> dict[str, Float[np.ndarray, "n k 2"]]:
    """Return key points of people of the training subjects, px, y down, annotated under each set's name.

    Unlike the rendered people each is before a camera of its own, which looks down by anything from 0 to 20 degrees,
    3 to 7 metres away. Nothing is rendered, so a key point is guessed at random.

    Args:
      rows: which people; a row gives the same person whatever the others.
      seed: of all of them.
    """
    recipe = Recipe("poses_2d", train_count=max(rows) + 1, test_count=0, image_size=1, seed=seed)
    people = [_pose_2d(recipe, row) for row in progress.bar("2D poses", rows, unit="person")]
    return {name: np.stack([one[name] for one in people]) for name in skeleton.KEYPOINT_SETS}


def _pose_2d(recipe: Recipe, index: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng((recipe.seed, _POSES, index))
    scene = stage(recipe, "train", index, random)
    down = np.arcsin(-scene.camera[2, 1])  # how far the scene's camera looks down already
    tilt = rotate("X", np.radians(random.uniform(*_LOOK_DOWN_DEG)) - down)
    ahead = np.array([0.0, 0.0, random.uniform(*_DISTANCE_M)])
    hip, annotated = scene.joints_h36m[0], {}
    for name in skeleton.KEYPOINT_SETS:
        points = np.asarray(actors.surface().regressor(name)) @ scene.vertices
        points_px = view_lib.project((points - hip) @ tilt.T + ahead)
        side_px = _CROP * np.ptp(points_px, axis=0).max()
        visible = random.random(len(points_px)) >= _GUESSED
        annotated[name] = annotator.keypoints(points_px, visible, side_px, recipe, random).astype(np.float32)
    return annotated


# --- One person ---


class StagedPerson(NamedTuple):
    """A posed person before a camera, everything in the camera's frame, metres."""

    name: str
    subject: str
    action: str
    camera: Extrinsics
    vertices: Float[np.ndarray, "n 3"]
    joints: Float[np.ndarray, "24 3"]
    joints_h36m: Float[np.ndarray, "17 3"]
    furniture: Float[np.ndarray, "b 8 3"]
    feet_world: Float[np.ndarray, "f 2"]
    rotation: Float[np.ndarray, "3 3"]
    pose: Float[np.ndarray, "23 3"]
    clothes_seed: tuple[int, ...]
    day: int | None  # of the clothes; None: drawn with the picture


def make_person(recipe: Recipe, split: str, index: int) -> dict[str, object]:
    """Return the example's features (`schema.features`), the same whenever it is made."""
    random = np.random.default_rng((recipe.seed, _SPLITS.index(split), index))
    scene = stage(recipe, split, index, random)
    view = View(scene.vertices, scene.furniture)
    outline_px = view_lib.project(np.concatenate([scene.vertices[::7], scene.joints, scene.joints_h36m]))
    box_px = view_lib.square_box(outline_px, random)
    grid_px = pixel_grid_px(box_px, recipe.image_size)
    image, iuv, in_front = _photograph(recipe, scene, view, grid_px, random)
    seen = view.sees_keypoints(scene.joints_h36m) & ~_covered(in_front, view_lib.project(scene.joints_h36m), box_px)
    keypoints_px = annotator.keypoints(view_lib.project(scene.joints_h36m), seen, box_px[2], recipe, random)
    points = _annotate(recipe, view, iuv, grid_px, box_px[2], random)
    kept = recipe.true_vertices == "all" or recipe.true_vertices == split
    relative = scene.vertices - scene.joints[0] if kept else np.zeros((0, 3))
    return {
        "image": photographs.png(image),
        "name": scene.name,
        "subject": scene.subject,
        "action": scene.action,
        "video": "",
        "frame": np.int32(-1),
        "box_px": box_px.astype(np.float32),
        "intrinsics_px": view_lib.INTRINSICS_PX.astype(np.float32),
        "extrinsics_m": scene.camera.astype(np.float32),
        "moment": "" if recipe.views == 1 else f"{split} {index // recipe.views}",
        **schema.keypoint_features("h36m", keypoints_px, np.where(seen, schema.SEEN, schema.HIDDEN)),
        **schema.point_features(*points),
        "iuv": photographs.png(iuv),
        "mask": b"",
        "truth_joints_known": np.uint8(1),
        "truth_body_known": np.uint8(1),
        "truth_joints_mm": (1000 * scene.joints).astype(np.float32),
        "truth_joints_h36m_mm": (1000 * scene.joints_h36m).astype(np.float32),
        "truth_rotation": scene.rotation.astype(np.float32),
        "truth_pose": scene.pose.astype(np.float32),
        "truth_vertices_tenth_mm": np.round(10_000 * relative).astype(np.int16),
    }


def stage(recipe: Recipe, split: str, index: int, random: np.random.Generator) -> StagedPerson:
    """Choose subject, action and place, and pose the person; any prefix is balanced in subjects and actions.

    Where several cameras see a moment, everything but the camera is drawn by the moment alone.
    """
    moment, view = divmod(index, recipe.views)
    drawn = random if recipe.views == 1 else np.random.default_rng((recipe.seed, _MOMENT, _SPLITS.index(split), moment))
    names, actions = recipe.subjects(split), tuple(actors.ACTIONS)
    actor = actors.subject(names[moment % len(names)])
    action = actions[moment // len(names) % len(actions)]
    take, number = int(drawn.integers(recipe.takes)), int(drawn.integers(4))
    seed = (recipe.seed, TRAIN_SUBJECTS.index(actor.name) if split == "train" else 50 + moment % len(names))
    take_seed = (*seed, _TAKE, actions.index(action), take)
    if recipe.motions:
        action, posture = "Recorded", actors.recorded_posture(recipe.motions, split, drawn)
    else:
        time = drawn.uniform(0, actors.LENGTH_S)
        posture = actors.perform(action, actor.joints, actor.landmarks, take_seed, time)
    vertices, joints = actors.pose(actor, posture.root, posture.pose)
    chair = rendering.chair(vertices, drawn) if posture.on_chair else np.zeros((0, 8, 3))
    camera = view_lib.place(number, drawn)
    place = np.array([drawn.normal(0, 0.2), -vertices[:, 1].min(), drawn.normal(0, 0.2)])
    towards = view_lib.position_of(camera) - place
    azimuth = np.arctan2(towards[0], towards[2]) + np.radians(recipe.heading_spread_deg) * drawn.uniform(-1, 1)
    if view:  # the heading is towards the moment's first camera
        number = (number + view) % 4
        camera = view_lib.place(number, random)
    rotation = rotate("Y", azimuth)

    def to_camera(points: np.ndarray) -> np.ndarray:
        return human36m_cameras.to_camera(camera, points @ rotation.T + place)

    low = joints[joints[:, 1] < vertices[:, 1].min() + 0.25]
    vertices_camera = to_camera(vertices.astype(np.float64))
    return StagedPerson(
        name=f"{actor.name}_{action}_{take:02d}_camera{number}_{index:06d}",
        subject=actor.name,
        action=action,
        camera=camera,
        vertices=vertices_camera,
        joints=to_camera(joints),
        joints_h36m=np.asarray(actors.surface().h36m_regressor) @ vertices_camera,
        furniture=to_camera(chair),
        feet_world=(low @ rotation.T + place)[:, [0, 2]],
        rotation=camera[:, :3] @ rotation @ posture.root,
        pose=posture.pose,
        clothes_seed=seed,
        day=None if recipe.views == 1 else moment % _DAYS,
    )


def _photograph(
    recipe: Recipe,
    scene: StagedPerson,
    view: View,
    grid_px: np.ndarray,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (picture, IUV map, mask of what is in front): both maps see the person only where nothing is in front."""
    day = int(random.integers(_DAYS)) if scene.day is None else scene.day
    clothes = rendering.dress(scene.subject, np.random.default_rng((*scene.clothes_seed, _CLOTHES, day)))
    light = draw_light(scene.camera[:, :3] @ np.array([0.0, 1.0, 0.0]), random)
    wood = random.uniform(0.1, 0.8) * np.array([1.0, random.uniform(0.7, 1.0), random.uniform(0.5, 1.0)])
    centres = view.cast(grid_px)
    person, cover = rendering.photograph(
        view, centres, grid_px, recipe.supersample, lambda hits: rendering.paint(view, hits, clothes, light, wood)
    )
    image = person + (1 - cover[..., None]) * rendering.paint_room(
        scene.camera, grid_px, scene.feet_world, recipe.clutter, random
    )
    iuv = rendering.iuv_map(view, centres)
    in_front = np.zeros(iuv.shape[:2], bool)
    if random.random() < recipe.occluder_rate:
        in_front, colour = rendering.occluder(recipe.image_size, random)
        image = np.where(in_front[..., None], colour, image)
        iuv[in_front] = 0
    image = random.uniform(0.85, 1.12) * image + random.normal(0, random.uniform(0.004, 0.02), image.shape)
    return np.round(255 * np.clip(image, 0, 1)).astype(np.uint8), iuv, in_front


def _annotate(
    recipe: Recipe,
    view: View,
    iuv: np.ndarray,
    grid_px: np.ndarray,
    side_px: float,
    random: np.random.Generator,
) -> Points:
    if recipe.route == "densepose":
        return annotator.read_points(annotator.degrade(iuv, random), grid_px, random)
    points = exact_points(view.cast, view.body_faces, iuv[..., 0], grid_px, random)
    return points if recipe.route == "mosh" else annotator.err(points, side_px, recipe, random)


def _covered(in_front: np.ndarray, points_px: np.ndarray, box_px: np.ndarray) -> np.ndarray:
    pixel = np.floor((points_px - box_px[:2]) / box_px[2] * len(in_front)).astype(int)
    column, row = np.clip(pixel, 0, len(in_front) - 1).T
    return in_front[row, column]
