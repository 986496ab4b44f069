r"""Deform-and-learn, the whole loop: 2D annotation in, a regressor that sees 3D bodies out.

    python -m experiments.deform_and_learn --workdir=runs/demo
    python -m experiments.deform_and_learn --workdir=runs/mine --config.preset=best --config.data=coco_folder \
        --config.source=mine --config.chart=UV_Processed.mat
    python -m experiments.deform_and_learn --workdir=runs/coco --config.preset=best --config.data=densepose_coco \
        --config.source=coco --config.chart=UV_Processed.mat

Writes WORKDIR/history.json (one entry a round), metrics.jsonl, checkpoints/ and report/index.html. The same command
goes on where a killed run stopped.
"""

from absl import flags

from dal_jax import config
from dal_jax.evaluation import metrics
from dal_jax.loop import run
from dal_jax.runtime import cli, machine

_CONFIG = cli.define_config(config.demo(), config.PRESETS)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; an existing run goes on.", required=True)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder where data sets are kept once rendered or prepared; default: 'data' beside --workdir."
)
cli.define_processes()
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Throw away the run in --workdir and start anew.")


def main(_: list[str]) -> None:
    """Run or go on, then print the history and where the report is."""
    with machine.compiling("deform_and_learn", "two minutes over the first round"):
        result = run.deform_and_learn(_CONFIG.value, _WORKDIR.value, _DATA_DIR.value, overwrite=_OVERWRITE.value)
    print(metrics.history_table(result.history))
    for name, value in result.scores.items():
        print(f"{name}: {metrics.cell_text(value)}")
    print(f"report: {result.report}")


if __name__ == "__main__":
    cli.run(main, cli.GOES_ON)
