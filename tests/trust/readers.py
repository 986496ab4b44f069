"""Every public reader, and a good file for it: what `tests.trust.fuzz` damages."""

import base64
import dataclasses
import io
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.ExifTags
import PIL.Image

from dal_jax.runtime import files

ROOT = pathlib.Path(__file__).parents[2]

Write = Callable[[pathlib.Path], pathlib.Path]
Read = Callable[[pathlib.Path], object]


@dataclasses.dataclass(frozen=True)
class Reader:
    """write: makes a good file in a folder and returns its path. read: the public reader.

    flags: of a binary that reads it, with {path} and {out}.
    """

    write: Write
    read: Read
    flags: tuple[str, ...] = ()


def readers() -> dict[str, Reader]:
    """Return every public reader by name. Imports are here: a batch imports them once."""
    import jax
    import pygltflib
    import safetensors.numpy
    import scipy.io

    from dal_jax.body.formats import array_pickle, gltf_file, load, rig
    from dal_jax.data.motions import collection
    from dal_jax.evaluation import poses_3d as scored
    from dal_jax.fits import file as fits_file
    from dal_jax.lifting import folder as lifter_folder, poses, training
    from dal_jax.lifting.config import LiftingConfig
    from dal_jax.loop import prediction
    from dal_jax.observations import chart, detections, human36m_cameras as cameras, iuv, photographs
    from dal_jax.observations.annotations import read_annotations
    from dal_jax.regressor import resnet
    from dal_jax.runtime import progress
    from tests.body import smpl_files
    from tests.data.human36m import release
    from tests.data.motions import motion_files
    from tests.observations import pose_formats

    sample = ROOT / "examples" / "sample"
    body = load.load_body()
    pictures = sorted((sample / "photos").glob("*.jpg"))
    lift = ("experiments.lift", "--poses={path}", "--checkpoint=shipped", "--out={out}.npz")
    prepare = ("experiments.prepare_poses", "--source={path}", "--out={out}.npz")
    register = ("experiments.register", "--out={out}", "--noquality", "--holdout=0", "--nolifting")
    people = f"--annotations={sample / 'people.json'}"

    def copy(source: pathlib.Path) -> Write:
        return lambda folder: pathlib.Path(written(folder / source.name, source.read_bytes()))

    def array(name: str, **fields: Any) -> Write:
        def write(folder: pathlib.Path) -> pathlib.Path:
            np.savez(folder / name, **fields)
            return folder / name

        return write

    def of(write: Callable, name: str | None = None) -> Write:
        def call(folder: pathlib.Path) -> pathlib.Path:
            made = write(folder)
            return made if name is None else made / name

        return call

    def picture(kind: str, pixels: np.ndarray) -> Write:
        stream = io.BytesIO()
        PIL.Image.fromarray(pixels).save(stream, kind)
        return lambda folder: written(folder / f"a.{kind.lower()}", stream.getvalue())

    def with_exif(folder: pathlib.Path) -> pathlib.Path:
        exif = PIL.Image.Exif()
        exif.get_ifd(PIL.ExifTags.IFD.Exif)[PIL.ExifTags.Base.FocalLengthIn35mmFilm] = 28
        PIL.Image.new("RGB", (60, 40)).save(folder / "a.jpg", exif=exif)
        return folder / "a.jpg"

    def tabled(folder: pathlib.Path) -> pathlib.Path:
        return written(folder / "a.yaml", b"left_knee: LeftLeg\nright_knee: [RightLeg, RightLeg2]\nhead: Head\n")

    def annotations(path: pathlib.Path) -> object:
        of_sample = [sample / "photos"] if path.name == "people.json" else []
        places = [*of_sample, path.parent / "photos", path.parent.parent / "photos"]
        return read_annotations(path, next((one for one in places if one.is_dir()), None))

    def acclaim(name: str) -> Write:
        def write(folder: pathlib.Path) -> pathlib.Path:
            bones = ["root", *(one for one, _, _ in motion_files.acclaim_bones())]
            still = {one: np.zeros((2, 3)) for one in bones} | {"root": np.zeros((2, 6))}
            motion_files.write_acclaim(folder, still, {one: np.zeros(3) for one in bones})
            return folder / name

        return write

    def bvh(folder: pathlib.Path) -> pathlib.Path:
        motion_files.write_bvh(folder / "a.bvh", np.zeros((2, 24, 3)))
        return folder / "a.bvh"

    def moved(folder: pathlib.Path) -> pathlib.Path:
        content = {"poses": np.zeros((2, 72)), "trans": np.zeros((2, 3)), "betas": np.zeros(10)}
        return written(folder / "a.pkl", smpl_files.old_pickle(content))

    def charted(folder: pathlib.Path) -> pathlib.Path:
        first = 4 * np.arange(24)[:, None] + 1
        faces = np.stack([first + [0, 1, 2], first + [0, 2, 3]], axis=1).reshape(-1, 3)
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]])
        fields = {
            "All_Faces": faces.astype(np.uint32), "All_U_norm": np.tile(corners[:, :1], (24, 1)),
            "All_FaceIndices": np.repeat(np.arange(1, 25), 2)[:, None].astype(np.uint8),
            "All_V_norm": np.tile(corners[:, 1:], (24, 1)), "All_vertices": np.arange(1, 97)[None].astype(np.uint32),
        }  # fmt: skip
        scipy.io.savemat(folder / "chart.mat", fields, do_compression=True)
        return folder / "chart.mat"

    def skinned(folder: pathlib.Path) -> pathlib.Path:
        return _small_gltf(folder / "a.gltf", pygltflib)

    def densepose(folder: pathlib.Path) -> pathlib.Path:
        pixels = np.zeros((24, 16, 3), np.uint8)
        pixels[4:20, 4:12] = np.random.default_rng(0).integers(1, 24, (16, 8, 3))
        stream = io.BytesIO()
        PIL.Image.fromarray(pixels).save(stream, "PNG")
        entry = {
            "image_id": "a.jpg", "category_id": 1, "bbox": [0, 0, 16, 24], "score": 0.9, "uv_shape": [3, 24, 16],
            "uv_data": base64.encodebytes(stream.getvalue()).decode(),
        }  # fmt: skip
        return written(folder / "results.json", json.dumps([entry]).encode())

    def dumped(folder: pathlib.Path) -> pathlib.Path:
        with np.load(ROOT / "tests/body/formats/torch_files.npz") as archive:
            return written(folder / "results.pkl", archive["archive"].tobytes())

    def lifter(folder: pathlib.Path) -> pathlib.Path:
        config = LiftingConfig(width=8)
        lifter_folder.save(folder / "a.npz", config, training.initial_state(config, jax.random.key(0)).lifter, {})
        return folder / "a.npz"

    def configured(folder: pathlib.Path) -> pathlib.Path:
        from dal_jax.config import demo

        content = json.dumps(dataclasses.asdict(demo()), indent=1)
        return written(folder / "config.json", content.encode())

    def logged(folder: pathlib.Path) -> pathlib.Path:
        lines = [{"step": row, "round": 1, "loss": 0.5 / row} for row in range(1, 9)]
        return written(folder / "metrics.jsonl", "".join(json.dumps(one) + "\n" for one in lines).encode())

    def weights(folder: pathlib.Path) -> pathlib.Path:
        safetensors.numpy.save_file({"conv1.weight": np.zeros((4, 3, 7, 7), np.float32)}, folder / "a.safetensors")
        return folder / "a.safetensors"

    def fitted(folder: pathlib.Path) -> pathlib.Path:
        fields = {name: np.zeros((2, *shape), np.float32) for name, shape in fits_file._SHAPES.items()}
        fields |= {name: np.zeros(2, bool) for name in ("valid", "converged")}
        fields |= {"image_id": np.arange(2), "annotation_id": np.arange(2), "file_name": np.array(["a.jpg", "b.jpg"])}
        fields["valid"][:] = True
        fields["rotation"][:] = np.diag([1, -1, -1])
        np.savez(folder / "fits.npz", **fields)
        return folder / "fits.npz"

    def boxes(folder: pathlib.Path) -> pathlib.Path:
        return _boxes(folder, pictures)

    rng = np.random.default_rng(0)
    iuv_pixels = np.zeros((60, 40, 3), np.uint8)
    iuv_pixels[5:55, 5:35] = rng.integers(1, 24, (50, 30, 3))
    keypoints = rng.uniform(0, 200, (5, 17, 2))
    joints = rng.normal(0, 300, (3, 17, 3))
    evaluate = ("experiments.evaluate", "--poses_3d={path}", "--truth={path}")
    found: dict[str, Reader] = {
        "annotation": Reader(copy(sample / "people.json"), annotations, (*register, "--annotations={path}")),
        "iuv": Reader(picture("PNG", iuv_pixels), lambda path: iuv.read_iuv(path, None), (*register, "--iuv={path}")),
        "photograph_jpg": Reader(copy(pictures[0]), photographs.read_picture),
        "photograph_png": Reader(picture("PNG", iuv_pixels), photographs.read_picture),
        "photograph_webp": Reader(picture("WEBP", iuv_pixels), photographs.read_picture),
        "focal": Reader(with_exif, photographs.focal_px),
        "chart": Reader(
            charted, lambda path: chart.load_densepose_chart(path, body), (*register, people, "--chart={path}")
        ),
        "mat": Reader(charted, lambda path: chart.read_mat(path, ("All_Faces", "All_U_norm"))),
        "body_npz": Reader(copy(load.FREE_BODY), load.load_body.__wrapped__, (*register, people, "--body={path}")),
        "body_pickle": Reader(moved, lambda path: array_pickle.read_fields(path, ("poses", "trans", "betas"))),
        "gltf": Reader(skinned, gltf_file.read, (*register, people, "--body={path}")),
        "rig_table": Reader(tabled, rig._read),
        "boxes": Reader(boxes, lambda path: detections.people(pictures, detections.read_boxes(path, pictures))),
        "keypoints": Reader(boxes, lambda path: detections.people(pictures, detections.read_keypoints(path, pictures))),
        "densepose_json": Reader(densepose, annotations, (*register, "--annotations={path}")),
        "densepose_dump": Reader(dumped, annotations),
        "fits": Reader(fitted, fits_file.read, (*register, people, "--initial={path}")),
        "poses_3d": Reader(array("a.npz", joints=joints, unit=np.array("mm")), scored.read, evaluate),
        "poses_2d_npz": Reader(
            array("a.npz", keypoints=keypoints, visible=np.ones((5, 17), bool)), poses.read, lift
        ),
        "poses_2d_npy": Reader(lambda folder: _npy(folder / "a.npy", keypoints.reshape(5, 34)), poses.read, lift),
        "poses_2d_json": Reader(pose_formats.coco, poses.read, lift),
        "lifter": Reader(lifter, lifter_folder.load),
        "bvh": Reader(bvh, lambda path: collection.read(path, 120.0), prepare),
        "amc": Reader(acclaim("07_01.amc"), lambda path: collection.read(path, 120.0), prepare),
        "asf": Reader(acclaim("07.asf"), lambda path: collection.read(path.with_name("07_01.amc"), 120.0)),
        "amass": Reader(
            lambda folder: motion_files.write_amass(folder / "a.npz", np.zeros((2, 3)), np.zeros((2, 23, 3)), width=72),
            lambda path: collection.read(path, 120.0), prepare,
        ),
        "mosh": Reader(moved, lambda path: collection.read(path, 120.0), prepare),
        "config": Reader(configured, prediction._read_config),
        "metrics": Reader(logged, progress.read_metrics),
        "json": Reader(configured, files.read_json),
        "safetensors": Reader(weights, resnet._read),
        "metadata_xml": Reader(lambda folder: release.write_metadata(folder / "metadata.xml"), cameras.read_metadata),
    }  # fmt: skip
    formats = (
        "coco_wholebody", "results", "results_wholebody", "alphapose", "alphapose_open", "openpose", "mmpose",
        "mmpose_demo", "ultralytics", "yolo", "mediapipe",
    )  # fmt: skip
    for name in formats:
        found[f"format_{name}"] = Reader(_one_file(getattr(pose_formats, name)), annotations)
    return found


def written(path: pathlib.Path, content: bytes) -> pathlib.Path:
    path.write_bytes(content)
    return path


def _npy(path: pathlib.Path, values: np.ndarray) -> pathlib.Path:
    np.save(path, values)
    return path


def _one_file(write: Callable) -> Write:
    """Return what writes a format and its photographs, and names one file of it, where it is a folder of files."""
    from tests.observations import pose_formats

    def call(folder: pathlib.Path) -> pathlib.Path:
        pose_formats.write_pictures(folder / "photos")
        path = write(folder)
        return sorted(one for one in path.rglob("*") if one.is_file())[-1] if path.is_dir() else path

    return call


def _boxes(folder: pathlib.Path, pictures: list[pathlib.Path]) -> pathlib.Path:
    standing = [value for joint in range(17) for value in (50.0 + 2 * joint, 30.0 + 5 * joint, 2)]
    images = [{"id": row, "file_name": path.name} for row, path in enumerate(pictures)]
    entries = [
        {"id": row, "image_id": row, "category_id": 1, "bbox": [20, 20, 90, 120], "keypoints": standing}
        for row in range(len(pictures))
    ]
    content = {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "person"}]}
    return written(folder / "boxes.json", json.dumps(content).encode())


def _small_gltf(path: pathlib.Path, gltf: Any) -> pathlib.Path:
    """Write a triangle with a skin of two joints."""
    places = np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    joints, weight, faces = np.zeros((3, 4), np.uint8), np.float32([[1, 0, 0, 0]] * 3), np.uint16([0, 1, 2, 0])
    blob, views, accessors = b"", [], []
    for values, kind, component, count in (
        (places, "VEC3", 5126, 3), (joints, "VEC4", 5121, 3), (weight, "VEC4", 5126, 3), (faces, "SCALAR", 5123, 3)
    ):  # fmt: skip
        views.append(gltf.BufferView(buffer=0, byteOffset=len(blob), byteLength=values.nbytes))
        accessors.append(gltf.Accessor(bufferView=len(views) - 1, componentType=component, count=count, type=kind))
        blob += values.tobytes()
    content = gltf.GLTF2(
        asset=gltf.Asset(version="2.0"), scenes=[gltf.Scene(nodes=[0])], scene=0, accessors=accessors,
        nodes=[gltf.Node(children=[1, 2]), gltf.Node(name="hip"), gltf.Node(mesh=0, skin=0)], bufferViews=views,
        skins=[gltf.Skin(joints=[0, 1])],
        meshes=[gltf.Mesh(primitives=[gltf.Primitive(
            attributes=gltf.Attributes(POSITION=0, JOINTS_0=1, WEIGHTS_0=2), indices=3)])],
        buffers=[gltf.Buffer(
            byteLength=len(blob), uri="data:application/octet-stream;base64," + base64.b64encode(blob).decode())],
    )  # fmt: skip
    path.write_text(content.gltf_to_json())
    return path
