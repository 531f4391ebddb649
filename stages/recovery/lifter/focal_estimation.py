"""The focal length where nobody told it: from people who walk towards the camera or away from it.

A focal length that is taken too long by some factor puts everybody farther away by that factor, so that ways along the line
of sight come out too long by it, too, while those across stay as they are. How far a body really goes its steps tell: the
network's velocity is learned from what limbs do. And who walks away from a camera that looks down on him climbs in its picture
by as much as keeps him on level ground. The factor is a posterior mean over a grid: a Gaussian prior of its log, and for each
window the likelihood of the ways that its pelvis goes in a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool1d

from schemas.records import FPS
from stages.recovery.lifter.features import FOCAL_GUESSED

_MOST_WRONG = 0.7
"""Greatest log of a focal length over the one that was guessed: twice or half."""
_GRID = 57
_SPAN = round(FPS)
_LEAST_SPAN = 10
_SPEED_OFF = (0.07, 0.1, 0.25)
"""How far the network's velocity along the line of sight is off on average over a span: metres a second, and, all the way, as a
share of that velocity and as a share of the one across: who moves in a way of his own is taken to go faster or slower than he
does, and headings are some degrees off."""
_CARRIED_OFF = 0.4
"""The same where the camera may be carried, whose own way is in what is seen, metres a second."""
_DEPTH_OFF = 0.008
"""How far the change of depth over a span is off, share of the depth."""
_HEIGHT_OFF = 0.08
"""How far a pelvis rises or sinks over a span, metres."""
_VERTICAL_OFF = 0.05
"""How far what is said to be up is off all the way, radians."""
_FREEDOM = 3.0
"""Of Student's t, by which a way is off: some are off by far."""


@dataclass(frozen=True)
class Way:
    """A body's way over T frames before a camera."""

    depth: Float[Tensor, "T"]
    """Along the line of sight, metres, by the assumed focal length."""
    ahead: Float[Tensor, "T"]
    """Metres a second along the line of sight, by the network's velocity."""
    speed: Float[Tensor, "T"]
    """Metres a second in any direction, likewise."""
    rise: Float[Tensor, "T"]
    """How far up in the world the body's place across the line of sight is, metres; what its depth adds is left out."""
    slope: Float[Tensor, "T"]
    """How far up a metre along the line of sight goes, metres: negative where the camera looks down."""
    carried: bool
    """Whether the camera may have been carried."""


def find_ratio(ways: Sequence[Way], frames: int) -> tuple[float, float]:
    """The focal length over the one that was guessed, and the deviation of its log. Ways that overlap count as many as `frames`
    can hold beside each other."""
    share = min(1.0, frames / max(1, sum(len(way.depth) for way in ways)))
    grid = torch.linspace(-_MOST_WRONG, _MOST_WRONG, _GRID)
    log_chance = -0.5 * (grid / FOCAL_GUESSED) ** 2
    for way in ways:
        log_chance = log_chance + share * _likelihood(way, grid.exp(), frames)
    chance = (log_chance - log_chance.max()).exp()
    chance = chance / chance.sum()
    middle = (chance * grid).sum()
    return float(middle.exp()), float((chance * (grid - middle) ** 2).sum().sqrt())


def _likelihood(way: Way, ratio: Float[Tensor, "G"], all_frames: int) -> Float[Tensor, "G"]:
    """Log of how likely a way is for each ratio. Overlapping spans count as many as fit beside each other; what is off all the way
    is off by no less in the sum of all spans, of which `all_frames` hold so many."""
    frames = len(way.depth)
    span = min(_SPAN, frames // 2)
    if span < _LEAST_SPAN:
        return torch.zeros_like(ratio)
    seconds, spans = span / FPS, max(1.0, all_frames / span)

    def change(value: Float[Tensor, "T"]) -> Float[Tensor, "S 1"]:
        return (value[span:] - value[:-span])[:, None]

    def log_chance(off: Float[Tensor, "S G"], variance: Float[Tensor, "S G"]) -> Float[Tensor, "G"]:
        each = -(_FREEDOM + 1) / 2 * (1 + off**2 / (_FREEDOM * variance)).log() - variance.log() / 2
        return each.mean(0) * (frames - span) / span

    seen = change(way.depth) * ratio
    gone, speed = (
        avg_pool1d(value[None, None, :-1], span, 1)[0, 0][:, None] * seconds for value in (way.ahead, way.speed)
    )
    across = (speed.square() - gone.square()).clamp(min=0).sqrt()
    depth = ((way.depth[span:] + way.depth[:-span]) / 2)[:, None] * ratio
    constant, along, aside = _SPEED_OFF
    lasting = ((along * gone) ** 2 + (aside * across) ** 2) * spans
    variance = lasting + (constant * seconds) ** 2 + (_DEPTH_OFF * depth) ** 2
    if way.carried:
        # Its own height changes, too: that he goes on level ground tells nothing then.
        return log_chance(seen - gone, variance + (_CARRIED_OFF * seconds) ** 2)
    climbed = change(way.rise) + change(way.slope * way.depth) * ratio
    # By the assumed depths: a deviation that shrank with the ratio would speak for small ones.
    level = _HEIGHT_OFF**2 + (_VERTICAL_OFF * change(way.depth)) ** 2 * spans
    return log_chance(seen - gone, variance) + log_chance(climbed, level.expand_as(climbed))
