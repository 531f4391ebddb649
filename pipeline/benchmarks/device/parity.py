"""The same numbers on the CPU and on the device: outputs of the networks, in single precision."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.benchmarks.device.measure import Measurement, Setting
from pipeline.benchmarks.device.report import Figure

TOLERANCE = 1e-3
"""Largest difference of an output, relative to the standard deviation of the outputs."""

Run = Callable[[torch.device], Tensor]
"""A network's output for inputs that are the same on each device, which the network was moved to."""


def measurements(setting: Setting) -> list[Measurement]:
    """A figure for each network."""
    return [Measurement(name, partial(_figure, name, setting.device)) for name in NETWORKS]


def _figure(name: str, device: str, seconds: float) -> Figure:
    difference = parity_difference(name, device)
    return {"difference": difference, "within_tolerance": difference <= TOLERANCE}


@torch.inference_mode()
def parity_difference(name: str, device: str) -> float:
    """Largest difference between a network's outputs on the CPU and on the device, over their standard deviation.

    Raises ModuleNotFoundError where one of its packages is missing.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    network, run = NETWORKS[name]()
    network.eval()
    expected = run(torch.device("cpu")).float()
    network.to(device)
    return relative_difference(run(torch.device(device)).float().cpu(), expected)


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the standard deviation of what is expected; infinite where a number is not finite."""
    if not bool(found.isfinite().all()):
        return float("inf")
    return float((found - expected).abs().max() / expected.std().clamp(min=1e-12))


def _lifter() -> tuple[nn.Module, Run]:
    from stages.recovery.lifter.features import NUM_FEATURES
    from stages.recovery.lifter.network import Lifter, NetworkConfig

    network = Lifter(NetworkConfig())
    for parameter in network.parameters():  # as large as after training, so that all of the network counts
        parameter.data += 0.02 * torch.randn_like(parameter)
    features, valid = torch.randn(3, 64, NUM_FEATURES), torch.ones(3, 64, dtype=torch.bool)
    valid[2, 40:] = False
    return network, lambda device: network(features.to(device), valid.to(device)).pose


def _refinement() -> tuple[nn.Module, Run]:
    from schemas.body_model import BodyModel
    from stages.recovery.lifter.refine import NUM_ROTATION_PARAMETERS, Pose, RefineSettings, refine
    from stages.recovery.lifter.rigs import Rigs

    body = BodyModel.load()
    frames, count = 40, NUM_ROTATION_PARAMETERS
    rotations = torch.eye(3).repeat(frames, 24, 1, 1)
    rotations[:, 0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # upright in camera axes
    pelvis, index = torch.tensor([0.0, 0.0, 4.0]).repeat(frames, 1), torch.arange(frames) // (frames // 2)
    rays, size = 0.05 * torch.randn(frames, 17, 2), torch.full((frames,), 0.4)
    rays[..., 1] += torch.linspace(-0.2, 0.2, 17)

    def run(device: torch.device) -> Tensor:
        pose = Pose(*(value.to(device) for value in (rotations, pelvis, torch.zeros(2, 10), index)))
        ones = torch.ones(frames, 17, device=device)
        refined = refine(
            pose, rays.to(device), ones, size.to(device), 0.01 * ones, 20 * torch.eye(count, device=device),
            Rigs.of(body, device), RefineSettings(),
        )  # fmt: skip
        return torch.cat([refined.rotations.flatten(), refined.pelvis.flatten(), refined.betas.flatten()])

    return nn.Identity(), run


def _detector() -> tuple[nn.Module, Run]:
    from schemas.offline import enforce_offline
    from schemas.pose_weights import default_weights, load_pose_network
    from schemas.torchvision_ops import ensure_operators

    enforce_offline()
    ensure_operators()
    network: nn.Module = load_pose_network(default_weights("track_people.weights"), "cpu").float()
    pixels = torch.rand(2, 3, 384, 640)

    def run(device: torch.device) -> Tensor:
        output = network(pixels.to(device))
        return output[0] if isinstance(output, (tuple, list)) else output

    return network, run


def _landmarks() -> tuple[nn.Module, Run]:
    from stages.perception.landmarks.crops import CROP_PX
    from stages.perception.landmarks.network import load_torch_landmarks

    network = load_torch_landmarks()
    pixels = torch.rand(3, CROP_PX, CROP_PX, 3)
    return network, lambda device: torch.cat(network(pixels.to(device)), 1)


def _tokenizer_networks() -> tuple[nn.Module, nn.Module, list[int]]:
    from model.tokenizer.config import PRESETS
    from model.tokenizer.convolutions import Decoder, Encoder

    channels = [60, 60, 60, 60, 60]
    return Encoder(PRESETS["base"], channels), Decoder(PRESETS["base"], channels), channels


def _tokenizer_encoder() -> tuple[nn.Module, Run]:
    encoder, _, channels = _tokenizer_networks()
    parts = [torch.randn(2, count, 64) for count in channels]
    return encoder, lambda device: encoder([part.to(device) for part in parts])


def _tokenizer_decoder() -> tuple[nn.Module, Run]:
    from model.tokenizer.config import PRESETS

    _, decoder, channels = _tokenizer_networks()
    latents = torch.randn(2, len(channels), 16, PRESETS["base"].code_width)
    return decoder, lambda device: torch.cat(decoder(latents.to(device)), 1)


def _codes() -> tuple[nn.Module, Run]:
    from model.tokenizer.config import PRESETS
    from model.tokenizer.motion_tokenizer import MotionTokenizer

    tokenizer = MotionTokenizer(PRESETS["tiny"])
    rows = torch.randn(4, 64, 263)
    tokenizer.train()
    tokenizer.quantizer(tokenizer.latents(rows))  # the first batch becomes the codebooks
    codes = tokenizer.eval().encode(rows)
    return tokenizer, lambda device: tokenizer.decode(codes.to(device))


def _language_model() -> tuple[nn.Module, Run]:
    from pipeline.benchmarks.device.training import example_batch, language_model

    network, batch = language_model("tiny"), example_batch(3, 48)

    def run(device: torch.device) -> Tensor:
        examples = batch.to(device)
        states = network.text_model(network.embed(examples))
        return network.step_decoder(states[:, -1], examples.codes[:, -1])

    return network, run


def _steps() -> tuple[nn.Module, Run]:
    """Stop logits of twelve steps: on CUDA by captured graphs, on the CPU one operation after the other."""
    from model.generation.motion_steps import steps_after
    from pipeline.benchmarks.device.decoding import codebooks_of, encode_prompt, greedy
    from pipeline.benchmarks.device.training import language_model

    network = language_model("tiny")

    def run(device: torch.device) -> Tensor:
        steps = steps_after([encode_prompt(network, 7)], network, greedy(device), codebooks_of(network))
        logits = []
        for _ in range(12):
            steps.draw()
            logits.append(steps.read().clone())
        return torch.stack(logits)

    return network, run


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Run]]] = {
    "lifter": _lifter, "refinement": _refinement, "detector": _detector, "landmarks": _landmarks,
    "tokenizer encoder": _tokenizer_encoder, "tokenizer decoder": _tokenizer_decoder, "tokenizer from codes": _codes,
    "language model": _language_model, "language model step by step": _steps,
}  # fmt: skip
