"""Make a data set on disk, once; killed and started again, it goes on where it was.

python -m experiments.prepare_data --dataset=synthetic_people/demo --data_dir=DIR [--workers=2]
"""

from absl import flags

from dal_jax.data.synthetic import builder as builder_lib
from dal_jax.runtime import cli, errors

_DATASET = flags.DEFINE_string("dataset", "synthetic_people/demo", "synthetic_people/ and tiny, demo or full.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder for data sets.", required=True)
_WORKERS = flags.DEFINE_integer("workers", None, "Processes that render; by default one a core.", lower_bound=0)


def main(_: list[str]) -> None:
    """Prepare the data set and say where it is."""
    name, _, config = _DATASET.value.partition("/")
    if name != builder_lib.NAME:
        raise errors.InputError(f"--dataset={_DATASET.value}: no such data set; there is {builder_lib.NAME}")
    builder = builder_lib.prepare(config or "demo", _DATA_DIR.value, _WORKERS.value)
    counts = ", ".join(f"{split.num_examples} {name}" for name, split in builder.info.splits.items())
    size = builder.info.dataset_size
    print(f"{builder.data_dir}: {counts} people, {size / 1e6:.0f} MB")


if __name__ == "__main__":
    cli.run(main)
