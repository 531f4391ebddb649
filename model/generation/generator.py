"""Motion from text, at once or streaming: from nothing, from a pose, after a motion, or for some of its parts.

A step (four frames at the default downsampling) is decoded as soon as its codes are sampled; decoding is causal, so frames
are final. The first frames come after the prompt, the tokenizer's preroll and one step, with a `lookahead` one more.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from model import checkpoints
from model.features.layouts import Start
from model.generation.ground import align_to_ground
from model.generation.motion_files import GeneratedMotion
from model.generation.motion_steps import EncodedPrompt, Given, steps_after
from model.llm.encoding import MotionEncoder
from model.llm.loading import LoadedModel, load_llm
from model.llm.sampling import CodeSampler
from model.llm.segments import Example, Motion, MotionAnswer, Picture, Pose, Segment, TextAnswer, Words
from model.tokenizer.convolutions import Memory
from model.vision.frame_tokens import FrameTokens
from schemas.body_model import BodyModel
from schemas.errors import HumoError, UsageError
from schemas.kinematics import forward_kinematics
from schemas.records import FPS
from schemas.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from schemas.sample import MotionArrays

MAX_SECONDS = 10.0
"""Maximum length of a motion if the model does not end it."""
MIN_SECONDS = 1.0
"""Minimum length before the model may end a motion."""
GUIDANCE = 2.0
"""Classifier-free guidance scale; 1 is no guidance."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How codes are drawn."""

    seed: int = 0
    temperature: float = 1.0
    """0 takes the most likely code."""
    top_k: int = 0
    """Codes among which one is drawn, the most likely ones; 0: all of them."""
    guidance: float = GUIDANCE
    """Above 1 the text has more influence, at the cost of a second pass of the model; 1: no guidance."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise UsageError(f"temperature is {self.temperature}; set 0 (most likely code) or more")
        if self.top_k < 0:
            raise UsageError(f"top_k is {self.top_k}; set 0 (all codes) or more")


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """What a motion is asked to be. A field that is left out asks nothing."""

    text: str
    seconds: float | None = None
    """Length; None: the model ends the motion, between `MIN_SECONDS` and `MAX_SECONDS`."""
    initial: MotionArrays | None = None
    """A motion to continue, which is not repeated; of a single frame: the pose to start from."""
    keep: MotionArrays | None = None
    """A motion of which all parts but `parts` are kept."""
    parts: tuple[str, ...] = ()
    """Parts to make anew, with `keep`."""
    picture: str = ""
    """Path of an image of the person at the beginning, or of a video."""


class Generator:
    """A loaded language model that generates motions; reusable across prompts."""

    def __init__(
        self,
        checkpoint: str | Path | LoadedModel = "",
        *,
        body_model: str = "",
        device: str = "cpu",
        sentence_encoder: str = "",
    ) -> None:
        """`checkpoint` empty is the shipped model. `body_model` is the path of the body model file, empty for the shipped one;
        `sentence_encoder` a folder, empty for the installed package.

        Raises HumoError for a checkpoint that is missing or trained for another body.
        """
        loaded = (
            checkpoint
            if isinstance(checkpoint, LoadedModel)
            else load_llm(checkpoint or checkpoints.shipped(), sentence_encoder=sentence_encoder)
        )
        self.body = BodyModel.load(body_model or None)
        if loaded.body_model != self.body.id:
            raise HumoError(
                f"the checkpoint was trained for the body {loaded.body_model}, body_model is {self.body.id}; "
                "set body_model to that body's file"
            )
        self.device = torch.device(device)
        self.model, self.tokenizer = loaded.model.to(self.device).eval(), loaded.tokenizer.to(self.device).eval()
        self.packer, self._vision = loaded.packer, loaded.vision
        self._eyes: FrameTokens | None = None
        self.encoder = MotionEncoder(self.tokenizer, self.body)
        self.rest_joints = self.body.rest_joints(torch.zeros(10))

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts that can be made or kept; one for a tokenizer of the whole body."""
        return self.tokenizer.config.streams

    def steps(self, request: Request, options: Sampling) -> "RequestedSteps":
        """The steps of a request, drawn one by one. Raises UsageError for a request that the model cannot meet."""
        return RequestedSteps(self, request, options)

    def frames(
        self, text: str, *, seconds: float | None = None, initial: MotionArrays | None = None,
        keep: MotionArrays | None = None, parts: Sequence[str] = (), picture: str = "", seed: int = 0,
        temperature: float = 1.0, top_k: int = 0, guidance: float = GUIDANCE,
    ) -> Iterator[tuple[Float[Tensor, "n 24 3 3"], Float[Tensor, "n 3"]]]:  # fmt: skip
        """Rotations and translations, streamed step by step; see `Request` and `Sampling`."""
        request = Request(text=text, seconds=seconds, initial=initial, keep=keep, parts=tuple(parts), picture=picture)
        options = Sampling(seed=seed, temperature=temperature, top_k=top_k, guidance=guidance)
        return self.steps(request, options).frames()

    def generate(self, text: str, **options: Any) -> GeneratedMotion:
        """A whole motion, aligned to the ground; options as for `frames`. The same seed gives the same motion."""
        chunks = list(self.frames(text, **options))
        rotations, trans = (torch.cat(column) for column in zip(*chunks, strict=True))
        trans, contacts = align_to_ground(rotations, trans, self.body)
        motion = MotionArrays(
            poses=matrix_to_axis_angle(rotations).numpy(),
            trans=trans.numpy(),
            betas=np.zeros(10, np.float32),
            contacts=contacts.numpy().astype(np.uint8),
            joint_confidence=np.ones((len(trans), 24), np.float32),
        )
        return GeneratedMotion(motion=motion, body_model=self.body.id, text=text)

    def local_joints(self, motion: MotionArrays) -> Float[Tensor, "n 24 3"]:
        """Joints of the mean body relative to its pelvis, in the world's orientation, metres."""
        rotations = axis_angle_to_matrix(torch.from_numpy(motion.poses).float())
        joints = forward_kinematics(rotations, self.rest_joints, torch.zeros(len(rotations), 3))[0]
        return joints - joints[:, :1]

    @torch.inference_mode()
    def describe(
        self,
        motion: MotionArrays,
        instruction: str = "Describe this motion.",
        *,
        parts: Sequence[str] = (),
        max_tokens: int = 64,
    ) -> str:
        """Text for a motion, or for some of its parts, by greedy decoding."""
        codes, latents = self.encode_motion(motion)[:2]
        shown = self.part_mask(parts) if parts else None
        example = Example(
            task="m2t",
            prompt=(Words(text=instruction), Motion(codes=codes, latents=latents, shown=shown)),
            answer=TextAnswer(text=""),
        )
        prompt = self.encode_prompt(example)
        state, cache = prompt.state, prompt.cache
        length = self.packer.length(example)
        tokens: list[int] = []
        while len(tokens) < max_tokens and length + len(tokens) < self.model.context:
            token = int(self.model.text_model.text_logits(state).argmax())
            if token == self.packer.vocabulary.end:
                break
            tokens.append(token)
            embedding = self.model.text_model.embed_text(torch.tensor([[token]], device=self.device))
            state = self.model.text_model(embedding + prompt.motion_vector, cache)[:, -1]
        return self.packer.vocabulary.decode(tokens)

    def see(self, path: str) -> Picture:
        """A picture or the frames of a video. Raises UsageError for a model that takes none, HumoError for a file that is none."""
        if self._vision is None:
            raise UsageError("this model takes no pictures: it was trained without vision; leave the picture out")
        if self._eyes is None:
            self._eyes = self._vision.open(self.device)
        tokens = self._eyes.of_file(path)
        moving = len(tokens.features[:, -1].unique()) > 1
        return Picture(features=tokens.features.cpu(), moving=moving)

    def encode_prompt(self, example: Example) -> EncodedPrompt:
        """Run the backbone over an example up to where its answer begins."""
        batch = self.packer.collate([self.packer.sequence(example, answered=False)]).to(self.device)
        cache = self.model.text_model.new_cache(1)
        state = self.model.text_model(self.model.embed(batch), cache)[:, -1]
        return EncodedPrompt(cache, self.model.prompt_vector(batch), self.model.motion_vector(batch), state)

    @torch.inference_mode()
    def encode_motion(self, motion: MotionArrays) -> tuple[Int[Tensor, "S P K"], Float[Tensor, "S P C"], Memory]:
        """Codes and latents of a motion, and what the quantizer remembers of them. Raises UsageError for one that is too short."""
        config = self.tokenizer.config
        if len(motion.poses) <= config.downsample:
            raise UsageError(f"the motion has {len(motion.poses)} frames; at least {config.downsample + 1} are needed")
        rows = self.encoder.rows(motion)
        # Trimmed to whole steps at the start: the last frames matter most.
        memory: Memory = {}
        codes, latents = self.tokenizer.quantize(rows[None, len(rows) % config.downsample :].to(self.device), memory)
        return codes[0].cpu(), latents[0].cpu(), memory

    def part_mask(self, parts: Sequence[str]) -> Bool[Tensor, "P"]:
        """Parts by name. Raises UsageError for one that the tokenizer does not know."""
        for part in parts:
            if part not in self.parts:
                raise UsageError(f"part {part!r} is unknown; use one of: {', '.join(self.parts)}")
        return torch.tensor([part in parts for part in self.parts])


class RequestedSteps:
    """The steps of a request: codes, and frames as soon as they are final."""

    def __init__(self, generator: Generator, request: Request, options: Sampling) -> None:
        if not request.text.strip():
            raise UsageError("the text is empty; describe what the person should do")
        if request.seconds is not None and not request.seconds > 0:
            raise UsageError(f"seconds is {request.seconds}; set a length above 0")
        if bool(request.parts) != (request.keep is not None):
            raise UsageError("parts and keep belong together: a motion, and the parts of it that are made anew")
        self.generator, self.request, self.options = generator, request, options
        config = generator.tokenizer.config
        self._given: list[Given] = []
        self._memory: Memory = {}
        self._start: Start = (0.0, (0.0, 0.0))
        self._skipped = 0
        """Rows that the decoder still owes to the motion that is continued."""
        inputs, history, preroll = self._inputs()
        answer = MotionAnswer.unknown(len(config.streams), config.levels, config.code_width)
        example = Example(task="t2m", prompt=(Words(text=request.text), *inputs), answer=answer)
        step_s = config.downsample / FPS
        seconds = request.seconds if request.keep is None else len(request.keep.poses) / FPS
        self.max_steps = (round((seconds or MAX_SECONDS) / step_s) or 1) + preroll
        self.min_steps = round(MIN_SECONDS / step_s) + preroll
        if self._given and request.keep is not None:
            self.max_steps = len(self._given)
        self.ends_itself = seconds is None
        length = generator.packer.length(example)
        available = (generator.model.context - length) // generator.model.positions_per_step
        if available < (1 + preroll if self.ends_itself else self.max_steps):
            raise UsageError(
                f"{length} positions of prompt and {self.max_steps} steps exceed the context of {generator.model.context}; "
                "use fewer seconds, a shorter text or a shorter initial motion"
            )
        self.max_steps = min(self.max_steps, available)
        with torch.inference_mode():
            self._rng = torch.Generator(generator.device).manual_seed(options.seed)
            sampler = CodeSampler(options.temperature, options.top_k, options.guidance, self._rng)
            prompts = [generator.encode_prompt(example)]
            if options.guidance != 1:
                prompts.append(generator.encode_prompt(example.without_words()))
            self._steps = steps_after(prompts, generator.model, sampler, generator.tokenizer.quantizer, history)

    def _inputs(self) -> tuple[list[Segment], Tensor | None, int]:
        """Segments beside the text, the quantizer's history, and the steps of the preroll."""
        generator, request = self.generator, self.request
        config, tokenizer = generator.tokenizer.config, generator.tokenizer
        inputs: list[Segment] = []
        history, preroll = None, config.preroll
        if request.initial is not None and len(request.initial.poses) == 1:
            inputs.append(Pose(latents=generator.encoder.pose(request.initial, 0)))
            still = generator.encoder.still(request.initial, 0, config.preroll + 1)
            codes = generator.encoder.encode(still)[0][: config.preroll]
            everything = torch.ones(codes.shape[1], dtype=torch.bool)
            self._given = [Given(one.to(generator.device), everything.to(generator.device)) for one in codes]
        elif request.initial is not None:
            codes, latents, memory = generator.encode_motion(request.initial)
            inputs.append(Motion(codes=codes, latents=latents))
            history, preroll = memory.get(tokenizer.quantizer), 0
            with torch.inference_mode():
                tokenizer.decode(codes[None].to(generator.device), self._memory)
            rotations = axis_angle_to_matrix(torch.from_numpy(request.initial.poses))
            trans = torch.from_numpy(request.initial.trans)
            self._start = tokenizer.features.start_after(rotations, trans, generator.rest_joints)
            self._skipped = config.lookahead * config.downsample
        if request.picture:
            inputs.append(generator.see(request.picture))
        if request.keep is not None:
            if request.initial is not None:
                raise UsageError(
                    "keep and initial cannot go together: the kept parts are those of one motion from its start"
                )
            codes, latents, _ = generator.encode_motion(request.keep)
            kept = ~generator.part_mask(request.parts)
            inputs.append(Motion(codes=codes, latents=latents, shown=kept))
            self._given = [Given(one.to(generator.device), kept.to(generator.device)) for one in codes]
        return inputs, history, preroll

    def __iter__(self) -> Iterator[Int[Tensor, "P K"]]:
        """Codes step by step, the preroll included."""
        for step in range(self.max_steps):
            with torch.inference_mode():
                codes = self._steps.draw(self._given[step] if step < len(self._given) else None)
                stop_probability = torch.sigmoid(self._steps.read()).item()
            yield codes
            if not self.ends_itself or step + 1 < self.min_steps:
                continue
            if torch.rand((), generator=self._rng, device=self.generator.device).item() < stop_probability:
                return

    def frames(self) -> Iterator[tuple[Float[Tensor, "n 24 3 3"], Float[Tensor, "n 3"]]]:
        """Rotations and translations of the frames that are final."""
        tokenizer = self.generator.tokenizer
        for _ in self:
            with torch.inference_mode():
                rows = tokenizer.reconstruct_motion(self._steps.latents.transpose(1, 2), self._memory)[0].cpu()
            yield from self._placed(rows)
        with torch.inference_mode():
            rows = tokenizer.finish(self._memory)[0].cpu()
        yield from self._placed(rows)

    def _placed(self, rows: Float[Tensor, "n F"]) -> Iterator[tuple[Float[Tensor, "n 24 3 3"], Float[Tensor, "n 3"]]]:
        skipped = min(self._skipped, len(rows))
        self._skipped -= skipped
        rows = rows[skipped:]
        if not len(rows):
            return
        features = self.generator.tokenizer.features
        frames = features.decode(rows, self.generator.rest_joints, *self._start)
        self._start = features.next_start(rows, *self._start)
        yield frames


def generate(
    checkpoint: str | Path,
    text: str,
    *,
    seconds: float | None = None,
    initial: MotionArrays | None = None,
    keep: MotionArrays | None = None,
    parts: Sequence[str] = (),
    seed: int = 0,
    temperature: float = 1.0,
    top_k: int = 0,
    guidance: float = GUIDANCE,
    body_model: str = "",
) -> GeneratedMotion:
    """One motion from a checkpoint; see `Generator`."""
    generator = Generator(checkpoint, body_model=body_model)
    return generator.generate(
        text,
        seconds=seconds,
        initial=initial,
        keep=keep,
        parts=parts,
        seed=seed,
        temperature=temperature,
        top_k=top_k,
        guidance=guidance,
    )
