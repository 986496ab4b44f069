"""Train the whole loop, lift, deform, learn, on ten lines of configuration; `dal.preset("demo")` alone is the demo."""

import pathlib
import tempfile

import dal_jax as dal


def main() -> None:
    """Run one round on 24 rendered people, with networks and steps far too few to learn anything."""
    config = dal.preset("demo")
    config.synthetic, config.rounds = "tiny", 1
    config.lifting.width, config.lifting.batch, config.lifting.steps = 16, 8, 20
    config.lifting.steps_per_call = config.lifting_checkpoint_steps = 20
    config.first.registration.steps, config.first.registration.batch = 3, 24
    config.regressor.width, config.regressor.depth = 4, 14
    config.regressor.batch, config.regressor.epochs = 8, 1

    folder = pathlib.Path(tempfile.mkdtemp())
    result = dal.deform_and_learn(config, folder / "run", data_dir=folder / "data")
    for name, value in result.history[0].items():
        print(f"{name:40} {value}")
    print("report:", result.report.name)


if __name__ == "__main__":
    main()
