"""Whole runs by name: `paper` (faithful numbers), `demo` (minutes on a laptop), `best` (ours).

`paper_small` and `best_small` are `paper` and `best` at the demo's size, each with as many training steps.

A recipe says what it costs and what to expect; the figures are in the README with the commands that made them.
"""

import dataclasses
from typing import Any, Literal

from dal_jax.data.files import Files
from dal_jax.lifting import config as lifting_config
from dal_jax.registration import energy, priors, schedules
from dal_jax.registration.energy import EnergyWeights, Objective
from dal_jax.registration.priors import PosePrior
from dal_jax.registration.register import RegistrationConfig
from dal_jax.regressor import model
from dal_jax.regressor.model import RegressorConfig
from dal_jax.runtime.configs import check_choices, check_range
from dal_jax.runtime.errors import InputError


@dataclasses.dataclass
class Round:
    """How a round registers the training people: the solver, and the objective (eq. 2) that it minimises."""

    registration: RegistrationConfig = dataclasses.field(default_factory=RegistrationConfig)  # the solver
    weights: EnergyWeights = dataclasses.field(default_factory=EnergyWeights)  # of the terms of eq. 2
    prior: Literal["tpose", "population", "learned"] = "tpose"  # what L_joint pulls to; learned: from the last fits

    def objective(self, learned: PosePrior | None = None, scales: str = "isotropic") -> Objective:
        """Return what the round minimises; a weight `shape` asks for the shipped prior on proportions.

        Args:
          learned: how the run's own people held their joints in the last round's fits; read where `prior` asks for it.
          scales: of segments, those of the run's regressor.
        """
        weights: Any = {name: _float(value) for name, value in dataclasses.asdict(self.weights).items()}
        prior = {"tpose": None, "population": priors.population(), "learned": learned}[self.prior]
        shape = None if self.weights.shape is None else priors.population_shapes(scales)
        return Objective(EnergyWeights(**weights), prior, shape, scales=scales)


def _float(weight: float | None) -> float | None:
    """Return a weight as a checkpoint holds it, even if the configuration has a whole number."""
    return None if weight is None else float(weight)


@dataclasses.dataclass
class Config:
    """A run of deform-and-learn; one group a stage, defined beside the code that reads it."""

    preset: str = "demo"  # demo, paper, best, paper_small or best_small
    seed: int = 0  # of every random number of the run
    data: str = "synthetic"  # synthetic (embedded people), or a data set made from files: docs/NAME.md
    source: str = ""  # a data set made from files: their folder; empty: what prepare_data has made of it
    synthetic: str = "demo"  # configuration of the embedded people: tiny, small, demo, large, views, full
    route: Literal["default", "annotator", "mosh", "densepose"] = "default"  # data=synthetic: who annotates
    motions: str = ""  # data=synthetic: folder of AMASS's .npz, to do what is recorded there; docs/poses.md
    chart: str = ""  # DensePose's UV_Processed.mat, for annotation in it; without it the body's own chart
    scored: Literal["test", "validation"] = "test"  # validation: subject S8 is scored and not trained on, for choices
    camera: Literal["weak", "perspective"] = "weak"  # perspective: where the data know it (paper: weak)
    body: str = ""  # body file, SMPL model or rigged glTF human (docs/smpl.md); empty: the free body
    rounds: int = 3  # the paper iterates "several times"
    refit: bool = True  # False: the control of section 6.3, which keeps round 1's fits and only trains on
    lifted_depth: Literal["plain", "turns", "none"] = "plain"  # of eq. 4 (paper: plain); turns: may turn in common
    several_views: bool = False  # register what several cameras see of a moment as one body (paper: off)
    online_fitting: bool = False  # after round 1, register each batch before it teaches, not in a phase (paper: off)
    keep_better: bool = True  # refine the old fit too and keep the one of lower energy (paper: always the new)
    lifting_checkpoint_steps: int = 2000  # steps of the lifter between two checkpoints
    learning_checkpoint_steps: int = 1000  # steps of the regressor between two checkpoints inside an epoch; 0: none
    sample_weight: Literal["none", "residual", "posterior"] = "none"  # of a fit in learning (paper: none)
    first: Round = dataclasses.field(
        default_factory=lambda: Round(weights=energy.stiff_weights())
    )  # registration in round 1
    later: Round = dataclasses.field(
        default_factory=lambda: Round(RegistrationConfig(starts="given"))
    )  # registration in later rounds
    lifting: lifting_config.LiftingConfig = dataclasses.field(default_factory=lifting_config.kudo)  # the lifter
    regressor: RegressorConfig = dataclasses.field(default_factory=RegressorConfig)  # the regressor

    def files(self) -> Files:
        """Return what a data set is made from, where its name is in `data.catalogue`."""
        return Files(self.source, self.chart, self.body)

    def check(self) -> None:
        """Refuse values that would fail only after hours.

        Raises:
          errors.InputError: names the field, its value and what it may be.
        """
        check_choices(self)
        check_range(self, "config", ("rounds", "lifting_checkpoint_steps"), 1)
        check_range(self, "config", ("seed", "learning_checkpoint_steps"), 0)
        for name, plan in (("config.first", self.first), ("config.later", self.later)):
            check_range(plan.registration, f"{name}.registration", ("steps", "batch"), 1)
            check_range(plan.registration, f"{name}.registration", ("learning_rate", "devices"), 0)
            check_range(plan.registration, f"{name}.registration", ("tolerance",), 0, most=1)
        lifting_config.validate(self.lifting, "config.lifting")
        if self.first.prior == "learned":
            raise InputError("config.first.prior is 'learned': one of tpose, population")
        if self.online_fitting and not (self.refit and self.keep_better):
            raise InputError("config.online_fitting refits and keeps the better: needs config.refit and .keep_better")
        if self.several_views and (self.online_fitting or self.camera != "perspective"):
            raise InputError("config.several_views needs config.camera=perspective, without config.online_fitting")
        model.check(self.regressor)


def preset(name: str) -> Config:
    """Return a whole configuration, of PRESETS.

    Raises:
      errors.InputError: another name.
    """
    if name not in PRESETS:
        raise InputError(f"config.preset is '{name}': one of {', '.join(PRESETS)}")
    return PRESETS[name]()


def paper() -> Config:
    """The paper's numbers: ResNet50 at 224 px, Adam everywhere, T-pose start, the new fit always replaces the old.

    Note: the paper gives neither the number of Adam steps (ours: 300, where its energy has settled) nor of rounds. Its
    regressor starts from ImageNet's weights: name their file in `regressor.pretrained`.
    Cost: GPU days on 100,000 images (paper: 2-3 days on three P6000).
    """
    return Config(
        preset="paper",
        synthetic="full",
        keep_better=False,
        first=Round(RegistrationConfig("adam", 300, 0.1, "tpose", 10), energy.stiff_weights()),
        later=Round(RegistrationConfig("adam", 300, 0.1, "given", 10)),
        lifting=lifting_config.kudo(),
        regressor=model.paper(),
    )


def demo() -> Config:
    """The loop on 64 px pictures of synthetic people, on two CPU cores, within twelve minutes.

    Registration is as the paper has it, but with Levenberg-Marquardt: round 1 from the T-pose with stiff weights, then
    from the regressor's predictions. These rounds have a pose prior (`_soft`): joints are pulled to how the people held
    them in the last round's fits, not to the T-pose. Key points, and with them lifted depths, pull thirty times harder
    than in the paper in all rounds.
    """
    soft = _soft()
    stiff = dataclasses.replace(energy.stiff_weights(), keypoint=soft.keypoint)
    return Config(
        preset="demo",
        camera="perspective",
        first=Round(RegistrationConfig("lm", 20, starts="tpose"), stiff),
        later=Round(RegistrationConfig("lm", 20, starts="given"), soft, "learned"),
        lifting=lifting_config.demo(),
        regressor=model.demo(),
    )


def _soft() -> energy.EnergyWeights:
    """Return weights that go with a pose prior, without one on proportions.

    With a weak camera what is far off looks smaller, which scales may explain; where proportions are held,
    shins bend instead (1,500 training people of the demo: 45.5 mm without that prior, 48.6 with it, feet 28 and 59 mm
    too far off).
    """
    return dataclasses.replace(schedules.pose_prior_weights(), scale=10.0, shape=None)


def best() -> Config:
    """What we would run: four azimuths in every round, a pose prior from the start, the better fit stays."""
    return Config(
        preset="best",
        synthetic="full",
        camera="perspective",
        first=Round(RegistrationConfig("lm", 20, starts="headings4"), _soft(), "population"),
        later=Round(RegistrationConfig("lm", 20, starts="headings4"), _soft(), "learned"),
        lifting=lifting_config.best(),
        regressor=model.best(),
    )


def paper_small() -> Config:
    """`paper` in all but size: the demo's people and network, three epochs, a cGAN of 10,000 steps, random weights.

    People of a chunk do not know of each other, so that registration takes more than the paper's 10 at once.
    """
    config = paper()
    config.preset, config.synthetic = "paper_small", "demo"
    config.first.registration.batch = config.later.registration.batch = 256
    config.lifting.steps = 10_000
    config.regressor = dataclasses.replace(config.regressor, width=16, image_size=64, epochs=3)
    return config


def best_small() -> Config:
    """`best` at the size of `paper_small`: as many people, training images and rounds, the same network.

    The regressor is the demo's, which augments little: epochs are few.
    """
    return dataclasses.replace(
        best(), preset="best_small", synthetic="demo", lifting=lifting_config.demo(), regressor=model.demo()
    )


PRESETS = {"demo": demo, "paper": paper, "best": best, "paper_small": paper_small, "best_small": best_small}
