"""Whole runs by name: `paper` (faithful numbers), `demo` (minutes on a laptop), `best` (ours).

A recipe says what it costs and what to expect; the figures are in the README with the commands that made them.
"""

import dataclasses

from dal_jax.body.parameters import BodyParameters
from dal_jax.body.template import Template
from dal_jax.data.files import Files
from dal_jax.lifting import config as config_lib
from dal_jax.observations.observation import Observation
from dal_jax.registration import energy, priors, schedules
from dal_jax.registration.energy import EnergyWeights, Objective
from dal_jax.registration.priors import PosePrior
from dal_jax.registration.register import RegistrationConfig
from dal_jax.regressor import model
from dal_jax.regressor.model import RegressorConfig
from dal_jax.uncertainty.noise import estimate, initial, robust_weights
from dal_jax.uncertainty.sandwich import Precisions


@dataclasses.dataclass
class Config:
    """A run of deform-and-learn; one group a stage, defined beside the code that reads it."""

    preset: str = "demo"  # demo, paper or best
    seed: int = 0  # of every random number of the run
    data: str = "synthetic"  # synthetic (embedded people), or a data set made from files: docs/NAME.md
    source: str = ""  # a data set made from files: their folder; empty: what prepare_data has made of it
    synthetic: str = "demo"  # configuration of the embedded people: tiny, demo, full
    motions: str = ""  # data=synthetic: folder of AMASS's .npz, to do what is recorded there; docs/poses.md
    chart: str = ""  # DensePose's UV_Processed.mat, for annotation in it; without it the body's own chart
    body: str = ""  # body file, SMPL model or rigged glTF human (docs/smpl.md); empty: the free body
    rounds: int = 3  # the paper iterates "several times"
    refit: bool = True  # False: the control of section 6.3, which keeps round 1's fits and only trains on
    in_loop: bool = False  # register every batch before it teaches; in a phase of its own only in round 1 (paper: off)
    keep_better: bool = True  # refine the old fit too and keep the one of lower energy (paper: always the new)
    lifting_checkpoint_steps: int = 2000  # steps of the cGAN between two checkpoints
    first_rest_pose: str = "tpose"  # what L_joint pulls to in round 1: tpose (paper) or usual (as people stand)
    rest_pose: str = "tpose"  # in later rounds: tpose (paper), usual, learned (from the last round's fits)
    trust: str = "none"  # weight of a fit in learning: none (paper), residual, posterior (and its deviations)
    learning_checkpoint_steps: int = 1000  # steps of the ConvNet between two checkpoints inside an epoch; 0: none
    lifting: config_lib.Config = dataclasses.field(default_factory=config_lib.kudo)  # the cGAN
    first_registration: RegistrationConfig = dataclasses.field(
        default_factory=RegistrationConfig
    )  # registration in round 1
    first_weights: EnergyWeights = dataclasses.field(default_factory=energy.stiff_weights)  # eq. 2 in round 1
    registration: RegistrationConfig = dataclasses.field(
        default_factory=lambda: RegistrationConfig(starts="given")
    )  # registration in later rounds
    weights: EnergyWeights = dataclasses.field(default_factory=EnergyWeights)  # eq. 2 in later rounds
    regressor: RegressorConfig = dataclasses.field(default_factory=RegressorConfig)  # the ConvNet

    def files(self) -> Files:
        """Return what a data set is made from, where its name is in `data.catalogue`."""
        return Files(self.source, self.chart, self.body)


def paper() -> Config:
    """The paper's numbers: ResNet50 at 224 px, Adam everywhere, T-pose start, the new fit always replaces the old.

    Note: the paper gives neither the number of Adam steps (ours: 300, where its energy has settled) nor of rounds. Its
    ConvNet starts from ImageNet's weights: name their file in `regressor.pretrained`.
    Cost: GPU days on 100,000 images (paper: 2-3 days on three P6000).
    """
    return Config(
        preset="paper",
        synthetic="full",
        keep_better=False,
        lifting=config_lib.kudo(),
        first_registration=RegistrationConfig("adam", 300, 0.1, "tpose", 10),
        registration=RegistrationConfig("adam", 300, 0.1, "given", 10),
        regressor=model.paper(),
    )


def demo() -> Config:
    """The loop on 64 px pictures of synthetic people, on two CPU cores, within twelve minutes.

    Registration is as the paper has it, but with Levenberg-Marquardt: round 1 from the T-pose with stiff weights, then
    from the ConvNet's predictions. These rounds have `pose_prior` weights (`registration.schedules`): joints are
    pulled to how the people held them in the last round's fits, not to the T-pose. Key points, and with them lifted
    depths, pull thirty times harder than in the paper in all rounds.
    """
    return Config(
        preset="demo",
        lifting=config_lib.demo(),
        rest_pose="learned",
        first_registration=RegistrationConfig("lm", 20, starts="tpose"),
        first_weights=dataclasses.replace(energy.stiff_weights(), keypoint=schedules.pose_prior_weights().keypoint),
        registration=RegistrationConfig("lm", 20, starts="given"),
        weights=schedules.pose_prior_weights(),
        regressor=model.demo(),
    )


def best() -> Config:
    """What we would run: four headings in every round, a pose prior from the start, the better fit stays."""
    return Config(
        preset="best",
        synthetic="full",
        lifting=config_lib.best(),
        first_rest_pose="usual",
        rest_pose="learned",
        first_registration=RegistrationConfig("lm", 20, starts="headings4"),
        first_weights=schedules.pose_prior_weights(),
        registration=RegistrationConfig("lm", 20, starts="headings4"),
        weights=schedules.pose_prior_weights(),
        regressor=model.best(),
    )


PRESETS = {"demo": demo, "paper": paper, "best": best}


# What a round's registration weighs with: eq. 2's weights of the round, and the rest pose that L_joint pulls to.
#
# tpose      the paper's usual      how synthetic people hold their joints (`registration.poses`) learned    in later
# rounds: how the run's own people held theirs in the last round's fits. No 3D truth is read

REST_POSES = {"first_rest_pose": ("tpose", "usual"), "rest_pose": ("tpose", "usual", "learned")}
"""What `Config` may ask for."""


def objective(config: Config, first: bool, learned: PosePrior) -> Objective:
    """Return the objective of the first round, or of a later one; `learned` is read where that is asked for."""
    plain, rest_pose = (config.first_weights, config.first_rest_pose) if first else (config.weights, config.rest_pose)
    if rest_pose == "tpose":
        return Objective(plain)
    return Objective(plain, learned if rest_pose == "learned" else priors.population())


def learn_poses(
    template: Template,
    observations: Observation,
    fits: BodyParameters,
    used: Objective,
) -> PosePrior:
    """Return how people hold their joints in fits that were made with the objective `used`."""
    seen = robust_weights(template, observations, fits, used.weights.outlier)
    noise = initial()
    for _ in range(_ESTIMATES):
        noise = estimate(template, seen, fits, Precisions.of_objective(used), noise)
    return noise.poses


_ESTIMATES = 2  # the spread of poses needs the levels of noise, and they need it
