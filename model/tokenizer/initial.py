"""Where a tokenizer starts: linear maps, predictions and codebooks that follow from the data, before any gradient.

Principal components of the parts' patches (weighted by how far a column moves the joints), least squares for the prediction,
k-means for the codebooks. Training then refines what they leave.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from model.features.layouts import Layout
from model.tokenizer.losses import joints_in_world
from model.tokenizer.motion_tokenizer import MotionTokenizer
from model.tokenizer.quantizers import ResidualCodebooks, nearest_codes

_WINDOW_STEPS = 30
"""Longest stretch of a motion on which predictions and codebooks are fitted."""
_MAX_VECTORS = 30_000
"""Differences from which the codebooks of a set are computed."""
_ROUNDS = 3
"""Fits of the codebooks, each on the differences that the codebooks before it leave."""
_LEVERAGE_FRAMES = 16
"""Frames over which an error of a column acts; only those of the root last."""
_MIN_LEVERAGE_M = 0.02
"""Least weight of a deviation, metres, so that columns that move no joint are reconstructed too."""


@torch.no_grad()
def start_from(
    tokenizer: MotionTokenizer,
    motions: Sequence[Float[Tensor, "_ F"]],
    rest_joints: Float[Tensor, "24 3"],
    seed: int = 0,
) -> None:
    """Fit an untrained tokenizer, whose mean and deviation are set, to feature rows of motions.

    Does nothing for architectures without direct maps: their latents mean nothing before they are trained.
    """
    encoder, decoder, config = tokenizer.encoder, tokenizer.decoder, tokenizer.config
    if encoder.direct is None or decoder.direct is None:
        return
    steps = [tokenizer.normalise(rows[: len(rows) // config.patch * config.patch]) for rows in motions]
    patches = torch.cat(steps).unflatten(0, (-1, config.patch))
    weights = leverage(tokenizer.features, tokenizer.mean, rest_joints) * tokenizer.std
    weights = (weights.square() + _MIN_LEVERAGE_M**2).sqrt()
    weighted = [(patches[..., columns] * weights[columns]).mT.flatten(1) for columns in tokenizer.written]
    variance = sum(float(part.var(0).sum()) for part in weighted)
    scale = (variance / (len(weighted) * config.code_width)) ** 0.5
    for i, (part, read, written) in enumerate(zip(weighted, tokenizer.read, tokenizer.written, strict=True)):
        mean = part.mean(0)
        covariance = (part - mean).T.double() @ (part - mean).double()
        axes = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, : config.code_width].float()
        column_weights = weights[written].repeat_interleave(config.patch)
        encode, decode = cast(nn.Conv1d, encoder.direct[i]), cast(nn.Conv1d, decoder.direct[i])
        place = torch.searchsorted(read, written)[:, None] * config.patch + torch.arange(config.patch)
        count = axes.shape[1]
        encode.weight.zero_()
        encode.weight[:count, place.flatten(), 0] = (axes * column_weights[:, None]).T / scale
        assert encode.bias is not None
        assert decode.bias is not None
        encode.bias.zero_()
        encode.bias[:count] = -(mean @ axes) / scale
        decode.weight.zero_()
        decode.weight[:, :count, 0] = axes / column_weights[:, None] * scale
        decode.bias.copy_(mean / column_weights)
    for silent in (encoder.last, *decoder.last):
        nn.init.zeros_(silent.weight)
        nn.init.zeros_(silent.bias)
    if isinstance(tokenizer.quantizer, ResidualCodebooks):
        _fit_codebooks(tokenizer, steps, seed)


def leverage(features: Layout, mean: Float[Tensor, "F"], rest_joints: Float[Tensor, "24 3"]) -> Float[Tensor, "F"]:
    """How far an error of one unit in each column displaces the joints in the world: root of the sum of squares over joints and
    frames, metres."""
    step = 1e-3
    count = features.NUM_FEATURES
    rows = mean.expand(count, _LEVERAGE_FRAMES, count).clone()
    moved = rows.clone()
    moved[torch.arange(count), 0, torch.arange(count)] += step
    difference = joints_in_world(moved, features, rest_joints) - joints_in_world(rows, features, rest_joints)
    return difference.square().sum((1, 2, 3)).sqrt() / step


def _fit_codebooks(tokenizer: MotionTokenizer, steps: Sequence[Float[Tensor, "_ F"]], seed: int) -> None:
    quantizer = tokenizer.quantizer
    assert isinstance(quantizer, ResidualCodebooks)
    frames = _WINDOW_STEPS * tokenizer.config.downsample
    long_enough = [rows[:frames] for rows in steps if len(rows) >= frames]
    if not long_enough:  # short motions: the first steps of each
        frames = min(map(len, steps)) // tokenizer.config.downsample * tokenizer.config.downsample
        long_enough = [rows[:frames] for rows in steps] if frames else []
    if not long_enough:
        return
    latents = tokenizer.latents(tokenizer.with_preroll(torch.stack(long_enough)))  # B P S C
    order = quantizer.order
    noise = 0.03 * latents.square().mean(
        (0, 2, 3)
    )  # what quantization will add, so that the prediction does not amplify it
    if order and latents.shape[2] > order:
        count = latents.shape[2]
        for part in range(latents.shape[1]):
            past = torch.cat([latents[:, part, order - 1 - k : count - 1 - k] for k in range(order)], -1).flatten(0, 1)
            following = latents[:, part, order:].flatten(0, 1)
            ridge = noise[part] * len(past) * torch.eye(past.shape[1])
            quantizer.prediction[part] = torch.linalg.solve(past.T @ past + ridge, past.T @ following)
    training = quantizer.training
    quantizer.eval()
    generator = torch.Generator().manual_seed(seed)
    differences = latents
    for attempt in range(_ROUNDS if order else 1):
        if order:
            differences = _differences(quantizer, latents, None if attempt else noise / 2, generator)
        for codebooks, group in zip(quantizer.sets, differences.chunk(len(quantizer.sets), dim=1), strict=True):
            vectors = group.flatten(0, 2)
            chosen = torch.randperm(len(vectors), generator=generator)[:_MAX_VECTORS]
            _set_codebooks(codebooks, vectors[chosen])
    quantizer.train(training)


def _differences(
    quantizer: ResidualCodebooks,
    latents: Float[Tensor, "B P S C"],
    noise: Float[Tensor, "P"] | None,
    generator: torch.Generator,
) -> Float[Tensor, "B P S C"]:
    """What predictions from quantized steps miss; with `noise` (a variance per part) in place of the quantization."""
    if noise is None:
        values = quantizer(latents)[0]
    else:
        random = torch.randn(latents.shape, generator=generator)
        values = latents + random * noise.sqrt()[:, None, None]
    history, differences = None, []
    for step in range(latents.shape[2]):
        differences.append(latents[:, :, step] - quantizer.predict(history))
        history = quantizer.append(history, values[:, :, step])
    return torch.stack(differences, 2)


def _set_codebooks(codebooks: Any, vectors: Float[Tensor, "M C"]) -> None:
    """Codebooks of the levels by k-means, one after the other; with one codebook for all levels that of the first."""
    from vector_quantize_pytorch.vector_quantize_pytorch import kmeans

    missing = vectors
    for layer in codebooks.layers:
        book = layer._codebook
        if not bool(book.initted) or book is not codebooks.layers[0]._codebook or missing is vectors:
            size = book.embed.shape[1]
            means, counts = kmeans(missing[None], min(size, len(missing)), num_iters=8)
            if len(means[0]) < size:
                means = means.repeat(1, size // means.shape[1] + 1, 1)[:, :size]
                counts = counts.repeat(1, size // counts.shape[1] + 1)[:, :size]
            share = counts.float() / counts.sum() * 1000
            book.embed.copy_(means)
            book.cluster_size.copy_(share.clamp(min=1))
            book.embed_avg.copy_(means * share.clamp(min=1)[..., None])
            book.initted.fill_(True)
        missing = missing - nearest_codes(missing[None], book.embed[None], 1)[0][0]
