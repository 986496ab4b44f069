"""Make a data set on disk, once; killed and started again, it goes on where it was.

    python -m experiments.prepare_data --dataset=synthetic_people/demo --data_dir=DIR
    python -m experiments.prepare_data --dataset=densepose_coco --source=coco --data_dir=DIR --chart=UV_Processed.mat
    python -m experiments.prepare_data --dataset=human36m --source=h36m --data_dir=DIR --frame_step=5 --dense=mosh

What a data set's folder must hold stands in docs/NAME.md. The last line counts the people left out, and why.
"""

import sys

from absl import flags

from dal_jax.data import catalogue
from dal_jax.data.files import Files
from dal_jax.data.preparing import prepare
from dal_jax.runtime import cli
from dal_jax.synthetic import people as synthetic_people

_DATASET = flags.DEFINE_string(
    "dataset",
    "synthetic_people/demo",
    f"synthetic_people/ and tiny, small, demo, views or full; or {', '.join(catalogue.FROM_FILES)}.",
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder for data sets.", required=True)
_SOURCE = flags.DEFINE_string("source", "", "Folder of the files that the data set is made from.")
_CHART = flags.DEFINE_string("chart", "", "DensePose's UV_Processed.mat; without it the body's own chart.")
_BODY = flags.DEFINE_string("body", "", "Body file that surface points are on; by default the free body.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 224, "Pixels of the crops of data sets made from files.", 16, 1024)
_CHOICES = (
    flags.DEFINE_enum("dense", None, ["mosh", "iuv"], "human36m: MoSh's parameters or DensePose's predictions."),
    flags.DEFINE_integer("frame_step", None, "human36m: every how many frames of 50 a second; by default 5.", 1),
    flags.DEFINE_string("smpl", None, "human36m: model of SMPL that is posed by MoSh's parameters, in its shape."),
    flags.DEFINE_string(
        "cameras",
        None,
        "coco_folder: calibration of the cameras that photographed the same moments; docs/several_cameras.md.",
    ),
    flags.DEFINE_string("motions", None, "synthetic_people: folder of AMASS's .npz, to do what is recorded there."),
)
_WORKERS = flags.DEFINE_integer(
    "workers", None, "Processes; 0: this one; by default one a core, this one for a few people.", lower_bound=0
)


def main(_: list[str]) -> None:
    """Prepare the data set, say where it is and how many people were left out."""
    files = Files(_SOURCE.value, _CHART.value, _BODY.value, _IMAGE_SIZE.value)
    choices = {flag.name: flag.value for flag in _CHOICES if flag.value is not None}
    name, recipe = (*_DATASET.value.split("/", 1), "")[:2]
    if name == synthetic_people.NAME:
        source = synthetic_people.source_of(recipe, choices)
    else:
        source = catalogue.source_of(_DATASET.value, files, choices)
    builder, summary = prepare(source, _DATA_DIR.value, _WORKERS.value)
    for kind, line in summary.first.items():
        print(f"skipped, {kind}, for instance: {line}", file=sys.stderr)
    counts = ", ".join(f"{split.num_examples} {name}" for name, split in builder.info.splits.items())
    print(f"{builder.data_dir}: {counts} people, {builder.info.dataset_size / 1e6:.0f} MB")
    print(summary)


if __name__ == "__main__":
    cli.run(main, "what is finished is kept; the same command goes on")
