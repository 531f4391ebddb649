"""The motion tokenizer: causality, streaming, parts, vocabulary."""

import pytest
import torch

from model.features.humo263 import ROOT, part_columns
from model.llm.vocabulary import SPECIAL, MotionVocabulary, TextVocabulary
from model.tokenizer.config import PRESETS, TokenizerConfig
from model.tokenizer.convolutions import Memory
from model.tokenizer.initial import start_from
from model.tokenizer.losses import LossWeights, joint_losses
from model.tokenizer.motion_tokenizer import Batch, MotionTokenizer
from model.tokenizer.quantizers import ResidualCodebooks, nearest_codes
from schemas.body_model import BodyModel
from schemas.errors import HumoError
from schemas.kinematics import forward_kinematics
from schemas.skeleton import PARTS, SMPL_JOINTS
from stages.synthesis.motions import generate as synthetic_motion

TINY = TokenizerConfig(codebook_size=16, code_width=8, width=16, dilations=(1, 3))


def _trained(config: TokenizerConfig, steps: int = 3) -> MotionTokenizer:
    torch.manual_seed(0)
    tokenizer = MotionTokenizer(config).train()
    for _ in range(steps):
        tokenizer(Batch(features=torch.randn(4, 32, len(tokenizer.mean))), LossWeights())
    return tokenizer.eval()


@pytest.mark.parametrize(
    ("changes", "streams"),
    [({}, 5), ({"parts": "whole", "levels": 1}, 1), ({"parts": "whole", "levels": 6}, 1), ({"share_levels": True}, 5)],
)
def test_shapes(changes: dict[str, object], streams: int) -> None:
    config = TokenizerConfig(**{**TINY.model_dump(), **changes})
    tokenizer = _trained(config)
    codes = tokenizer.encode(torch.randn(2, 30, 263))
    assert codes.shape == (2, 7, streams, config.levels)
    assert codes.min() >= 0
    assert codes.max() < 16
    assert tokenizer.decode(codes).shape == (2, 28, 263)


def test_prefix_has_the_same_codes() -> None:
    tokenizer = _trained(TINY)
    rows = torch.randn(1, 64, 263)
    assert torch.equal(tokenizer.encode(rows)[:, :5], tokenizer.encode(rows[:, :20]))


def test_streaming_equals_decoding_at_once() -> None:
    tokenizer = _trained(TINY)
    codes = tokenizer.encode(torch.randn(2, 64, 263))
    memory: dict[torch.nn.Module, torch.Tensor] = {}
    chunks = [tokenizer.decode(codes[:, i : i + 1], memory) for i in range(16)]
    assert torch.allclose(torch.cat(chunks, 1), tokenizer.decode(codes), atol=1e-5)


def test_part_changes_its_own_columns_only() -> None:
    tokenizer = _trained(TINY)
    codes = tokenizer.encode(torch.randn(1, 32, 263))
    other = codes.clone()
    arm = TINY.streams.index("left_arm")
    other[:, :, arm] = (other[:, :, arm] + 1) % 16
    changed = (tokenizer.decode(codes) - tokenizer.decode(other)).abs().amax((0, 1)) > 1e-6
    own = torch.zeros(263, dtype=torch.bool)
    own[tokenizer.written_1] = True
    assert changed.any()
    assert not (changed & ~own).any()


def test_training_reduces_the_loss() -> None:
    torch.manual_seed(0)
    tokenizer = MotionTokenizer(TINY)
    optimiser = torch.optim.AdamW(tokenizer.parameters(), lr=3e-3)
    rows = torch.cumsum(torch.randn(8, 32, 263) * 0.2, 1)
    losses = []
    for _ in range(40):
        parts = tokenizer(Batch(features=rows), LossWeights())
        optimiser.zero_grad()
        parts["loss"].backward()
        optimiser.step()
        losses.append(parts["whole"].item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None for p in tokenizer.parameters())


def test_decoding_inverts_normalisation() -> None:
    tokenizer = _trained(TINY)
    codes = tokenizer.encode(torch.randn(1, 32, 263))
    before = tokenizer.decode(codes)
    tokenizer.mean += 5
    assert torch.allclose(tokenizer.decode(codes), before + 5, atol=1e-5)


def test_presets_are_built() -> None:
    for config in PRESETS.values():
        assert config.downsample == 4
        assert config.streams[0] == "torso"


def test_motion_tokens_are_named_by_part() -> None:
    vocabulary = MotionVocabulary(TINY.streams, 4, 16)
    codes = torch.randint(16, (3, 5, 4))
    text = vocabulary.write(codes)
    assert text.startswith(f"<torso_{codes[0, 0, 0]}><torso_{codes[0, 0, 1]}>")
    assert text.count("<") == 3 * vocabulary.tokens_per_step == 60
    assert torch.equal(vocabulary.read(text), codes)
    assert torch.equal(vocabulary.unflatten(vocabulary.flatten(codes)), codes)
    assert vocabulary.names()[vocabulary.flatten(codes)[4]] == f"<left_arm_{codes[0, 1, 0]}>"
    for bad in ("<torso_1>", "<tail_1>" * 20, "<torso_99>" * 20, "<torso_1>" * 20):
        with pytest.raises(HumoError):
            vocabulary.read(bad)


def test_text_tokens() -> None:
    vocabulary = TextVocabulary.learn(["a person waves with the left hand"] * 4, 400)
    for text in ("a person waves", "Überall 日本", "a <end> b"):
        tokens = vocabulary.encode(text)
        assert vocabulary.decode(tokens) == text.lower()
        assert all(token >= len(SPECIAL) for token in tokens)
    assert vocabulary.encode("A person waves.") == vocabulary.encode("a  person waves")
    assert len(vocabulary.encode("left hand")) == 2
    loaded = TextVocabulary.from_json(vocabulary.to_json())
    assert loaded.encode("a person waves") == vocabulary.encode("a person waves")


RIVALS = {
    "VQ": {"parts": "whole", "levels": 1},
    "RQ": {"parts": "whole", "levels": 6},
    "PRQ": {},
    "PRQ without shared joints": {"share_joints": False},
    "PRQ, codebooks per part": {"share_parts": False},
    "PRQ, one codebook": {"share_levels": True},
    "2D-PRQ": {"mix_parts": True},
    "FSQ": {"quantizer": "fsq", "codebook_size": 64, "fsq_grid": (4, 4, 4)},
    "PRQ, predictive": {"predict": 2, "beam": 3},
    "PRQ in patches": {"patch": 4, "strides": (1,), "predict": 3},
}


@pytest.mark.parametrize("features", ["humo263", "smpl135"])
@pytest.mark.parametrize("rival", RIVALS)
def test_every_rival_trains_streams_and_decodes(rival: str, features: str) -> None:
    """In steps as at once, whatever quantizes; a step depends on nothing that follows."""
    tokenizer = _trained(_config(rival, features))
    rows = torch.randn(2, 34, tokenizer.features.NUM_FEATURES)
    with torch.inference_mode():
        codes = tokenizer.encode(rows)
        assert codes.shape == (2, 8, len(tokenizer.config.streams), tokenizer.config.levels)
        assert codes.max() < tokenizer.config.codebook_size
        encoding: Memory = {}
        streamed = torch.cat([tokenizer.encode(rows[:, t : t + 4], encoding) for t in range(0, 32, 4)], 1)
        assert torch.equal(streamed, codes)
        decoding: Memory = {}
        chunks = [tokenizer.decode(codes[:, t : t + 2], decoding) for t in range(0, 8, 2)]
        assert torch.allclose(torch.cat(chunks, 1), tokenizer.decode(codes), atol=1e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_a_step_depends_on_as_many_frames_as_the_config_says(name: str) -> None:
    config = TokenizerConfig(**{**PRESETS[name].model_dump(), "width": 8, "code_width": 8, "predict": 0})
    tokenizer = MotionTokenizer(config).eval()
    frames = config.encoder_frames // 4 * 4 + 8
    rows = torch.randn(1, frames, len(tokenizer.mean), requires_grad=True)
    tokenizer.latents(rows)[:, :, -1].sum().backward()
    touched = rows.grad.abs().sum((0, 2)).nonzero().min().item()
    assert frames - touched == config.encoder_frames


def _config(rival: str, features: str) -> TokenizerConfig:
    return TokenizerConfig(**{**TINY.model_dump(), "features": features, **RIVALS[rival]})


def test_losses_of_joints_can_be_switched(body: BodyModel) -> None:
    rest = body.rest_joints(torch.zeros(10))
    motions = [synthetic_motion("walk", 2.0, seed, body=body) for seed in range(3)]
    columns = [
        torch.stack([getattr(motion, name) for motion in motions]) for name in ("rotations", "trans", "contacts")
    ]
    for features in ("humo263", "smpl135"):
        tokenizer = _trained(_config("PRQ", features)).train()
        rows = tokenizer.features.encode(columns[0], columns[1], rest, columns[2].float())
        batch = Batch(features=rows, rest_joints=rest)
        names = ("joints", "velocities", "path", "contacts")
        assert not set(names) & set(tokenizer(batch, LossWeights()))
        for name in names:
            terms = tokenizer(batch, LossWeights(parts=0, whole=0, positions=0, commitment=0, **{name: 1.0}))
            assert terms["loss"] == terms[name] > 0
            terms["loss"].backward()
        perfect = joint_losses(rows, rows, LossWeights(joints=1, path=1, contacts=1), tokenizer.features, rest)
        assert max(perfect.values()) < 1e-5


def test_a_predictive_quantizer_follows_what_it_has_decoded() -> None:
    """The error of a step does not add to that of the next one, as it would if differences of the latents were coded."""
    torch.manual_seed(0)
    config = TokenizerConfig(**{**TINY.model_dump(), "predict": 1, "codebook_size": 16})
    quantizer = ResidualCodebooks(config).eval()
    quantizer.prediction.data.copy_(torch.eye(8))
    for book in quantizer.sets[0].layers:
        book._codebook.embed.normal_(0, 0.3)
        book._codebook.initted.fill_(True)
    latents = torch.cumsum(torch.randn(1, 5, 60, 8) * 0.1, 2)
    values, codes, _ = quantizer(latents)
    assert torch.allclose(quantizer.decode(codes), values, atol=1e-5)
    errors = (values - latents).norm(dim=-1).mean((0, 1))
    assert errors[40:].mean() < 1.3 * errors[5:20].mean()


def test_a_wider_beam_finds_nearer_codes() -> None:
    torch.manual_seed(0)
    wanted, books = torch.randn(200, 8), torch.randn(4, 16, 8) * torch.tensor([1.0, 0.7, 0.5, 0.3])[:, None, None]
    distances = []
    for beam in (1, 4, 16):
        (sums,), (codes,) = nearest_codes(wanted[None], books[None], beam)
        assert torch.allclose(sums, sum(book[codes[:, level]] for level, book in enumerate(books)), atol=1e-5)
        distances.append((sums - wanted).norm(dim=-1).mean().item())
    assert distances[2] < distances[1] < distances[0]


def test_sets_of_books_serve_their_groups() -> None:
    """Several groups at once, each with its own books, as one after another."""
    torch.manual_seed(0)
    wanted, books = torch.randn(3, 40, 8), torch.randn(3, 4, 16, 8)
    sums, codes = nearest_codes(wanted, books, 4)
    for group in range(3):
        (alone,), (own,) = nearest_codes(wanted[group : group + 1], books[group : group + 1], 4)
        assert torch.equal(codes[group], own)
        assert torch.allclose(sums[group], alone, atol=1e-5)


@pytest.mark.parametrize("lookahead", [0, 1, 2])
@pytest.mark.parametrize("preroll", [0, 2])
@pytest.mark.parametrize("patch", [1, 4])
def test_steps_one_by_one_equal_all_at_once(lookahead: int, preroll: int, patch: int) -> None:
    """Codes and frames, for decoders that wait for later steps and motions with a preroll."""
    changes = {"lookahead": lookahead, "preroll": preroll, "patch": patch, "strides": (1,) if patch == 4 else (2, 2),
               "width": 16, "codebook_size": 16, "code_width": 8}  # fmt: skip
    tokenizer = _trained(TokenizerConfig(**{**PRESETS["fast"].model_dump(), **changes}))
    rows = torch.randn(2, 40, tokenizer.features.NUM_FEATURES)
    with torch.inference_mode():
        codes = tokenizer.encode(rows)
        assert codes.shape[1] == 10 + preroll
        memory: Memory = {}
        assert torch.equal(torch.cat([tokenizer.encode(part, memory) for part in rows.split(8, dim=1)], dim=1), codes)
        whole = tokenizer.decode(codes)
        assert whole.shape[1] == 40
        memory = {}
        chunks = [tokenizer.decode(one, memory) for one in codes.split(1, dim=1)]
        chunks.append(tokenizer.finish(memory))
    waited = preroll + lookahead
    assert [chunk.shape[1] for chunk in chunks[:-1]] == [0] * waited + [4] * (10 + preroll - waited)
    assert chunks[-1].shape[1] == 4 * lookahead
    assert torch.allclose(torch.cat([chunk.expand(2, -1, -1) for chunk in chunks], dim=1), whole, atol=1e-5)


@pytest.fixture(scope="module")
def started(body: BodyModel) -> tuple[MotionTokenizer, list[torch.Tensor], torch.Tensor]:
    """A tokenizer fitted to synthetic motions without any gradient, their rows, the body's joints."""
    rest = body.rest_joints(torch.zeros(10))
    actions = ("walk", "walk_wave_left", "squat", "turn_left")
    motions = [synthetic_motion(actions[seed % 4], 5.0, seed, body=body) for seed in range(16)]
    tokenizer = MotionTokenizer(TokenizerConfig(**{**PRESETS["fast"].model_dump(), "width": 16, "codebook_size": 64}))
    rows = [tokenizer.features.encode(m.rotations, m.trans, rest, m.contacts.float()) for m in motions]
    tokenizer.mean.copy_(torch.cat(rows).mean(0))
    for name, columns in tokenizer.features.SLICES.items():
        tokenizer.std[columns] = torch.cat(rows)[:, columns].std().clamp(min=tokenizer.features.MIN_STD[name])
    start_from(tokenizer, rows, rest)
    return tokenizer.eval(), rows, rest


def test_a_tokenizer_starts_from_the_data(started: tuple[MotionTokenizer, list[torch.Tensor], torch.Tensor]) -> None:
    """Before any gradient latents hold the motion, and codes most of it."""
    tokenizer, rows, rest = started
    with torch.inference_mode():
        target = tokenizer.features.local_joints(rows[0][:148], rest)
        whole = tokenizer.reconstruct(tokenizer.latents(tokenizer.normalise(rows[0][None])))[0]
        coded = tokenizer.decode(tokenizer.encode(rows[0][None]))[0]
    errors = [
        (tokenizer.features.local_joints(one, rest) - target).norm(dim=-1).mean().item() for one in (whole, coded)
    ]
    assert errors[0] < 0.005
    assert errors[1] < 0.03


def _posed(tokenizer: MotionTokenizer, codes: torch.Tensor, rest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Joints in the world and global rotations of codes."""
    rotations, trans = tokenizer.features.decode(tokenizer.decode(codes)[0], rest)
    return forward_kinematics(rotations, rest, trans)


@pytest.mark.parametrize("part", PARTS)
def test_the_codes_of_a_part_move_that_part_only(
    started: tuple[MotionTokenizer, list[torch.Tensor], torch.Tensor], part: str
) -> None:
    """Limbs move nothing outside themselves; the torso carries the others, which keep their pose in its frame."""
    tokenizer, rows, rest = started
    with torch.inference_mode():
        codes = tokenizer.encode(rows[1][None])
        other = codes.clone()
        stream = tokenizer.config.streams.index(part)
        other[:, :, stream] = other[:, :, stream].flip(1)
        joints, changed = (_posed(tokenizer, one, rest) for one in (codes, other))
    own = [SMPL_JOINTS.index(name) for name in PARTS[part]]
    moved = (joints[0] - changed[0]).norm(dim=-1).amax(0)[:22]
    assert moved[own].max() > 0.01
    if part == "torso":
        for limb in set(PARTS) - {"torso"}:
            first, *below = [SMPL_JOINTS.index(name) for name in PARTS[limb]]
            inside = [
                ((positions[:, below] - positions[:, first : first + 1])[..., None, :] @ turns[:, first, None])[
                    ..., 0, :
                ]
                for positions, turns in (joints, changed)
            ]
            assert (inside[0] - inside[1]).norm(dim=-1).max() < 1e-3
    else:
        outside = [j for j in range(22) if j not in own or SMPL_JOINTS[j] in PARTS["torso"]]
        assert moved[outside].max() < 1e-3


@pytest.mark.parametrize("part", [0, 1, 4])
def test_made_up_parts_are_not_learned(part: int) -> None:
    tokenizer = _trained(TINY).train()
    rows, seen = torch.randn(2, 32, 263), torch.ones(2, 32, 5)
    masked, whole = (tokenizer(Batch(features=rows, seen=mask), LossWeights())["loss"] for mask in (seen, None))
    assert torch.allclose(masked, whole)
    seen[..., part] = 0
    tokenizer.zero_grad()
    tokenizer(Batch(features=rows, seen=seen), LossWeights())["whole"].backward()
    columns = [set(part_columns(name).tolist()) for name in PARTS]
    learned = set.union(*(columns[other] for other in range(5) if other != part), set(range(263)[ROOT]))
    gradient = tokenizer.decoder.last[part].weight.grad.abs().sum((1, 2))
    for column, value in zip(sorted(columns[part]), gradient.tolist(), strict=True):
        assert (value > 0) == (column in learned)
