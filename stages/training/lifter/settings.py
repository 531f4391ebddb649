"""Settings of the lifter's training."""

from pydantic import Field

from schemas.config import Config
from stages.recovery.lifter.network import NetworkConfig
from stages.training.lifter.augment import Shares


class Augmentation(Config):
    """Variation of motions, bodies, cameras and keypoints."""

    slowest: float = Field(default=0.67, gt=0)
    """Lowest playback speed; 1 is the original."""
    fastest: float = Field(default=1.5, gt=0)
    """Highest playback speed."""
    gestures: float = Field(default=0.3, ge=0, le=1)
    """Share of windows with synthetic arm motion."""
    kicks: float = Field(default=0.12, ge=0, le=1)
    """Share of windows with a synthetic leg motion."""
    recombined: float = Field(default=0.2, ge=0, le=1)
    """Share of windows with the upper body of another window."""
    perturbed: float = Field(default=0.6, ge=0, le=1)
    """Share of windows in which all joints are rotated slightly and smoothly and the whole body leans."""
    backs: float = Field(default=0.4, ge=0, le=1)
    """Share of windows with the back more bent or straighter throughout."""
    shape_spread: float = Field(default=1.0, ge=0)
    """Standard deviation of the betas."""
    moving_cameras: float = Field(default=0.3, ge=0, le=1)
    """Share of windows whose camera pans, shakes or is carried along."""
    focal_guessed: float = Field(default=0.35, ge=0, le=1)
    """Share of windows whose focal length is unknown: the image's diagonal is assumed."""
    focal_error: float = Field(default=0.25, ge=0)
    """Largest standard deviation of the log of the focal length assumed in the others; an input of the lifter."""
    noise: float = Field(default=1.0, ge=0)
    """Factor on the keypoint noise model (`stages.training.lifter.noise`); 0: exact keypoints."""
    detector: float = Field(default=0.0, ge=0, le=1)
    """Share of the degraded windows with the learned errors of a detector (`stages.training.lifter.detector_errors`)."""
    landmarks: float = Field(default=0.0, ge=0, le=1)
    """Share of those windows with the errors of the landmark network (`stages.perception.landmarks`), depths included."""

    def shares(self) -> Shares:
        """The shares of `augment`."""
        return Shares(self.gestures, self.kicks, self.recombined, self.perturbed, self.backs)


class LossWeights(Config):
    """Weights of the loss terms (`stages.training.lifter.losses`)."""

    rotation: float = 5.0
    """Local rotations, squared Frobenius distance per joint."""
    root: float = 0.7
    """The same for the pelvis in the camera and in the level world."""
    joints_body: float = 12.0
    """Joints in the pelvis' own axes, metres."""
    joints_camera: float = 8.0
    """Joints relative to the pelvis in camera axes, metres."""
    joints_level: float = 3.0
    """The same in the level world."""
    hands: float = 2.0
    """Factor on elbows, wrists and ankles in the three terms above."""
    tilt: float = 2.0
    """Distance of the vertical in the pelvis' axes."""
    vertical: float = 1.0
    """Distance of the vertical in camera axes."""
    reprojection: float = 1.0
    """Keypoints in the image, half boxes."""
    place: float = 0.4
    """Pelvis in the image (half boxes) and its depth (log)."""
    velocity: float = 0.4
    """Of the pelvis, metres per second."""
    path: float = 0.2
    """Displacement over half a second and a whole second by the velocities, metres."""
    joint_velocity: float = 0.15
    """Of joints in the level world, relative to the pelvis, metres per second."""
    contacts: float = 0.15
    """Cross entropy of the contacts."""
    slide: float = 0.1
    """Speed of points in contact, by pose, orientation and velocity together, metres per second."""
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
    """Folders of motion capture; redistributable only if the weights are to be shipped."""
    held_out: float = Field(default=0.05, ge=0, lt=1)
    """Share of those files kept for validation."""
    start: str = ""
    """Checkpoint (.pt), of which the averaged weights are used, or exported weights (.safetensors) to start from; empty: random
    weights."""
    cache: str = "runs/lifter_bank"
    """Folder where motion capture is cached."""
    studio_share: float = Field(default=0.25, ge=0, le=1)
    """Share of windows from generated studio motions; all of them where `mocap` is empty."""
    studio_seeds: int = Field(default=24, gt=0)
    """How often each studio action is generated."""
    emphasis: dict[str, float] = {}
    """Substring of a motion's name -> factor on how often its frames are drawn."""
    network: NetworkConfig = NetworkConfig()
    """Size of the lifter."""
    augmentation: Augmentation = Augmentation()
    """Variation of motions, bodies, cameras, keypoints."""
    weights: LossWeights = LossWeights()
    """Weights of the loss terms."""
    window: int = Field(default=80, gt=1)
    """Frames of a window, in training and inference."""
    short_window: int = Field(default=32, gt=1)
    """Frames of a window in the first part of the training; a batch then has the same number of frames in more windows."""
    short_share: float = Field(default=0.6, ge=0, le=1)
    """Share of the steps in the first part."""
    batch_size: int = Field(default=16, gt=0)
    """Windows of full length per step."""
    steps: int = Field(default=6000, gt=0)
    """Optimiser steps in all."""
    learning_rate: float = Field(default=1.5e-3, gt=0)
    """Peak; a cosine lowers it to a fiftieth."""
    warmup_steps: int = Field(default=200, ge=0)
    """Steps in which the learning rate rises."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of Muon and AdamW."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    average: float = Field(default=0.998, ge=0, lt=1)
    """Decay of the running average of the weights, which is evaluated and exported."""
    bf16: bool = True
    """Run the network in bfloat16; about five times faster on CPUs that support it."""
    threads: int = Field(default=1, gt=0)
    """CPU threads."""
    device: str = "auto"
    """`auto` takes a GPU where there is one; else `cpu`, `cuda:1`, ..."""
    seed: int = 0
    """Of weights and examples."""
    log_every: int = Field(default=50, gt=0)
    """Steps between lines of metrics."""
    validate_every: int = Field(default=500, gt=0)
    """Steps between validations on the held-out motions."""
    save_every_s: float = Field(default=180.0, gt=0)
    """Seconds between checkpoints; the last step always writes one."""
    resume: bool = True
    """Continue from the checkpoint in `output`, if there is one of the same network."""
