"""The way from photographs to batches measured: recording them as crops, and decoding the crops for the ConvNet."""

import json
import pathlib
import tempfile
from collections.abc import Callable

import jax
import numpy as np
import PIL.Image
from jaxtyping import UInt8

from benchmarks import measure
from dal_jax.data.coco_sets import coco_folder
from dal_jax.data.files import Files
from dal_jax.data.people import LazyImages, reader
from dal_jax.data.preparing import prepare
from dal_jax.regressor import batches
from dal_jax.runtime import machine

CROP_PX = 224
_WIDTH, _HEIGHT = 640, 480  # COCO's
_BOX = (200.0, 60.0, 160.0, 360.0)
_POINTS, _PARTS = 100, 14  # what a person of DensePose-COCO shows, about


def rows(batch: int, photographs: int, seconds: float) -> list[dict[str, object]]:
    """Measure recording (a process), decoding one by one, and Grain with one thread and with one a core.

    The photographs are made up: noise of the size and weight of COCO's, a person with 100 points in each. They are
    recorded once; then decoding is repeated for about `seconds`.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        _write_folder(folder / "photographs", photographs)
        source = coco_folder(Files(str(folder / "photographs"), image_size=CROP_PX))
        list(source.read(source.splits()["train"][0]))  # loads the chart
        items = source.splits()["train"]
        recording = measure.rates({"record": lambda: [list(source.read(one)) for one in items]}, None, seconds)
        builder, _ = prepare(source, folder / "data", workers=0)
        crops = LazyImages(reader(builder, "train", "image"), photographs)
        decoding = measure.rates(_decoders(crops, batch), measure.matmul_probe(jax.devices()[:1]), seconds)
        size = builder.info.dataset_size
    return [
        {
            "work": work,
            "batch": batch if "grain" in work else 1,
            "crop_px": CROP_PX,
            "images": photographs,
            "kilobytes_an_image": size / photographs / 1000,
            "repeats": rate.repeats,
            "images_per_second": photographs / rate.wall_s,
            "images_per_cpu_second": photographs / rate.cpu_s,
            "matmul_gflops": rate.matmul_gflops,
            **measure.machine(jax.devices()[:1]),
        }
        for work, rate in (recording | decoding).items()
    ]


def _decoders(crops: LazyImages, batch: int) -> dict[str, Callable[[], object]]:
    order = np.resize(np.random.default_rng(0).permutation(len(crops)), (-(-len(crops) // batch), batch))

    def grain(threads: int) -> Callable[[], object]:
        return lambda: [len(pictures) for pictures in batches.decoded(crops, order, threads=threads)]

    counts = sorted({1, machine.cores()})
    one_by_one = {"decode, one by one": lambda: [crops[row] for row in range(len(crops))]}
    return one_by_one | {f"decode, grain, {count} threads": grain(count) for count in counts}


def _write_folder(folder: pathlib.Path, count: int) -> None:
    random = np.random.default_rng(0)
    chart = Files("").load_chart()
    shown = np.flatnonzero(chart.part <= _PARTS)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(count):
        PIL.Image.fromarray(_photograph(random)).save(folder / "images" / f"{number}.jpg", quality=90)
        images.append({"id": number, "file_name": f"{number}.jpg", "width": _WIDTH, "height": _HEIGHT})
        triangle = random.choice(shown, _POINTS)
        u, v = chart.uv[triangle].mean(axis=1).T
        points = {"dp_I": chart.part[triangle].tolist(), "dp_U": u.tolist(), "dp_V": v.tolist()}
        points |= {name: random.uniform(0, 255, _POINTS).tolist() for name in ("dp_x", "dp_y")}
        annotations.append({"id": number, "image_id": number, "bbox": list(_BOX), **points})
    (folder / "train.json").write_text(json.dumps({"images": images, "annotations": annotations}))


def _photograph(random: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """Return smooth noise with some grain, which JPEG makes about as heavy as COCO's photographs."""
    coarse = PIL.Image.fromarray(random.integers(0, 256, (_HEIGHT // 16, _WIDTH // 16, 3)).astype(np.uint8))
    smooth = np.asarray(coarse.resize((_WIDTH, _HEIGHT), PIL.Image.Resampling.BICUBIC), np.float32)
    return np.clip(smooth + random.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
