"""What a training of the lifter is told."""

from pydantic import Field

from schemas.config import Config
from stages.recovery.lifter.network import NetworkConfig
from stages.training.lifter.augment import Shares


class Augmentation(Config):
    """How motions, bodies, cameras and keypoints are varied."""

    slowest: float = Field(default=0.67, gt=0)
    """Least speed at which a motion is played, 1 is its own."""
    fastest: float = Field(default=1.5, gt=0)
    """Greatest speed."""
    gestures: float = Field(default=0.3, ge=0, le=1)
    """Share of windows in which the arms do something made up."""
    kicks: float = Field(default=0.12, ge=0, le=1)
    """Share of windows in which a leg does."""
    recombined: float = Field(default=0.2, ge=0, le=1)
    """Share of windows whose upper body is another window's."""
    perturbed: float = Field(default=0.6, ge=0, le=1)
    """Share of windows in which all joints are turned a little, smoothly, and the whole leans."""
    backs: float = Field(default=0.4, ge=0, le=1)
    """Share of windows in which the back is more bent or straighter throughout."""
    shape_spread: float = Field(default=1.0, ge=0)
    """Deviation of the betas."""
    moving_cameras: float = Field(default=0.3, ge=0, le=1)
    """Share of windows whose camera pans, shakes or is carried along."""
    focal_guessed: float = Field(default=0.35, ge=0, le=1)
    """Share of windows whose focal length is taken to be the image's diagonal, as nobody told it."""
    focal_error: float = Field(default=0.25, ge=0)
    """Greatest deviation of the log of the focal length that is assumed in the others; how much it is, the lifter is told."""
    noise: float = Field(default=1.0, ge=0)
    """Factor on what the keypoint noise model does (`stages.training.lifter.noise`); 0 shows the truth."""
    detector: float = Field(default=0.0, ge=0, le=1)
    """Share of the degraded windows whose keypoints err as was learned of a detector (`stages.training.lifter.detector_errors`)."""
    closeup: float = Field(default=0.0, ge=0, le=1)
    """Share of those windows in which it looked closer (`stages.perception.closeup`), and told depths too."""

    def shares(self) -> Shares:
        """Those of the windows' variation."""
        return Shares(self.gestures, self.kicks, self.recombined, self.perturbed, self.backs)


class LossWeights(Config):
    """What the terms of the loss count for (`stages.training.lifter.losses`)."""

    rotation: float = 5.0
    """Local rotations, squared Frobenius distance a joint."""
    root: float = 0.7
    """The pelvis in the camera and in the level world, likewise."""
    joints_body: float = 12.0
    """Joints in the pelvis' own axes, metres."""
    joints_camera: float = 8.0
    """Joints relative to the pelvis in the camera's axes, metres."""
    joints_level: float = 3.0
    """The same in the level world."""
    hands: float = 2.0
    """Factor on elbows, wrists and ankles in the three terms above."""
    tilt: float = 2.0
    """Distance of the vertical as the pelvis has it."""
    vertical: float = 1.0
    """Distance of the vertical as the camera has it."""
    reprojection: float = 1.0
    """Keypoints in the picture, half boxes."""
    place: float = 0.4
    """Pelvis in the picture (half boxes) and its depth (log)."""
    velocity: float = 0.4
    """Of the pelvis, metres a second."""
    path: float = 0.2
    """Change of place over a half and a whole second by the velocities, metres."""
    joint_velocity: float = 0.15
    """Of joints in the level world, relative to the pelvis, metres a second."""
    contacts: float = 0.15
    """Cross entropy of the contacts."""
    slide: float = 0.1
    """Speed of points that stand, by pose, orientation and velocity together, metres a second."""
    betas: float = 0.05
    """Squared distance."""
    noise: float = 0.02
    """Likelihood of the keypoints' errors."""
    sigma: float = 0.02
    """Likelihood of the joint errors; the errors themselves get no gradient from it."""


class LifterTraining(Config):
    """Training of the lifter."""

    output: str = "runs/lifter"
    """Folder for checkpoints, metrics.jsonl and curve.png."""
    mocap: list[str] = []
    """Folders with motion capture to train on; only what may be shipped, if the weights are to be."""
    held_out: float = Field(default=0.05, ge=0, lt=1)
    """Share of those files that is kept for validation."""
    start: str = ""
    """Checkpoint (.pt) whose averaged weights a training begins with, or exported ones (.safetensors); empty: random ones."""
    cache: str = "runs/lifter_bank"
    """Folder in which motion capture is kept once it is read."""
    studio_share: float = Field(default=0.25, ge=0, le=1)
    """Share of windows from the studio's made-up motions; all of them where `mocap` is empty."""
    studio_seeds: int = Field(default=24, gt=0)
    """How often the studio makes each of its actions."""
    emphasis: dict[str, float] = {}
    """Name or part of the name of a motion -> how many times as often its frames are drawn."""
    network: NetworkConfig = NetworkConfig()
    """The lifter's shape."""
    augmentation: Augmentation = Augmentation()
    """Variation of motions, bodies, cameras, keypoints."""
    weights: LossWeights = LossWeights()
    """Of the loss terms."""
    window: int = Field(default=80, gt=1)
    """Frames of a training window, and of one at inference."""
    short_window: int = Field(default=32, gt=1)
    """Frames of a window in the first part of the training; a batch then holds as many frames in more windows."""
    short_share: float = Field(default=0.6, ge=0, le=1)
    """Share of the steps that makes the first part."""
    batch_size: int = Field(default=16, gt=0)
    """Windows of full length a step."""
    steps: int = Field(default=6000, gt=0)
    """Optimiser steps in all."""
    learning_rate: float = Field(default=1.5e-3, gt=0)
    """At its highest; a cosine takes it to a fiftieth."""
    warmup_steps: int = Field(default=200, ge=0)
    """Steps in which the learning rate rises."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of Muon and AdamW."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    average: float = Field(default=0.998, ge=0, lt=1)
    """Decay of the running average of the weights, which is what is evaluated and exported."""
    bf16: bool = True
    """Run the network in bfloat16; about five times quicker on CPUs that know it."""
    threads: int = Field(default=1, gt=0)
    """CPU threads."""
    device: str = "auto"
    """`auto` takes a GPU where there is one; else `cpu`, `cuda:1`, ..."""
    seed: int = 0
    """Of weights and examples."""
    log_every: int = Field(default=50, gt=0)
    """Steps between lines of metrics."""
    validate_every: int = Field(default=500, gt=0)
    """Steps between measurements on the held-out motions."""
    save_every_s: float = Field(default=180.0, gt=0)
    """Seconds between checkpoints; the last step always makes one."""
    resume: bool = True
    """Go on from the checkpoint in `output`, if there is one of the same network."""
