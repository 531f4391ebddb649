"""Text-to-motion generation, at once or streaming, and storage in the layout of a sample.

A step (four frames at the default downsampling) is decoded as soon as its codes are sampled; decoding is causal, so frames
are final. The first frames are available after the prompt and one step: latency is the computation of one step.
"""

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from model.features.layouts import Start
from model.features.motions import motion_features
from model.generation.motion_steps import EncodedPrompt, steps_after
from model.llm.examples import Example, prompt_segments
from model.llm.language_model import CodeSampler
from model.llm.loading import LoadedModel, load_llm
from model.tokenizer.convolutions import Memory
from schemas.body_model import BodyModel
from schemas.errors import HumoError, UsageError
from schemas.kinematics import forward_kinematics
from schemas.records import FPS
from schemas.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from schemas.sample import MOTION_ARRAYS, MotionArrays, decode_motion, encode_npz
from schemas.skeleton import joint

MAX_SECONDS = 10.0
"""Maximum length of a motion if the model does not end it."""
MIN_SECONDS = 1.0
"""Minimum length before the model may end a motion."""
_FLESH_M = {
    joint(name): radius
    for names, radius in (
        (("pelvis", "spine1", "spine2", "spine3"), 0.1),
        (("left_shoulder", "right_shoulder", "head"), 0.07),
        (("left_knee", "right_knee"), 0.05),
        (("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand"), 0.03),
    )
    for name in names
}
"""Joint -> distance of the skin from it, metres, roughly."""
GUIDANCE = 2.0
"""Classifier-free guidance scale; 1 is no guidance."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneratedMotion:
    """A generated motion, the id of its body model and the prompt."""

    motion: MotionArrays
    body_model: str
    text: str

    @property
    def seconds(self) -> float:
        return len(self.motion.poses) / FPS


class Generator:
    """A loaded language model that generates motions; reusable across prompts."""

    def __init__(self, checkpoint: str | Path | LoadedModel, *, body_model: str = "", device: str = "cpu") -> None:
        """`body_model` is the path of the body model file, empty for the shipped one.

        Raises HumoError for a checkpoint that is missing or trained for another body.
        """
        loaded = checkpoint if isinstance(checkpoint, LoadedModel) else load_llm(checkpoint)
        self.body = BodyModel.load(body_model or None)
        if loaded.body_model != self.body.id:
            raise HumoError(
                f"the checkpoint was trained for the body {loaded.body_model}, body_model is {self.body.id}; "
                "set body_model to that body's file"
            )
        self.device = torch.device(device)
        self.model, self.tokenizer = loaded.model.to(self.device).eval(), loaded.tokenizer.to(self.device).eval()
        self.vocabulary = loaded.vocabulary
        self.rest_joints = self.body.rest_joints(torch.zeros(10))

    @torch.inference_mode()
    def codes(
        self,
        text: str,
        *,
        seconds: float | None = None,
        initial: MotionArrays | None = None,
        seed: int = 0,
        temperature: float = 1.0,
        top_k: int = 0,
        guidance: float = GUIDANCE,
    ) -> Iterator[Int[Tensor, "P K"]]:
        """Codes step by step; `initial` is a motion to continue and is not repeated. Guidance above 1 strengthens the
        influence of the text at the cost of a second pass; 1 disables it.

        Without `seconds` the model ends the motion itself, between `MIN_SECONDS` and `MAX_SECONDS`.
        """
        if not text.strip():
            raise UsageError("the text is empty; describe what the person should do")
        if seconds is not None and not seconds > 0:
            raise UsageError(f"seconds is {seconds}; set a length above 0")
        if temperature < 0:
            raise UsageError(f"temperature is {temperature}; set 0 (most likely code) or more")
        input_motion = self._encode_motion(initial) if initial is not None else None
        example = Example(prompt=self.vocabulary.encode(text), input_motion=input_motion, answer=[], target_motion=None)
        prompt_length = sum(map(len, prompt_segments(example, self.vocabulary))) + 1
        step_s = self.tokenizer.config.downsample / FPS
        max_steps = round((seconds or MAX_SECONDS) / step_s) or 1
        min_steps = round(MIN_SECONDS / step_s)
        available = self.model.config.context - prompt_length
        if available < (max_steps if seconds is not None else 1):
            raise UsageError(
                f"{prompt_length} positions of prompt and {max_steps} steps exceed the context of "
                f"{self.model.config.context}; use fewer seconds, a shorter text or a shorter initial motion"
            )
        rng = torch.Generator(self.device).manual_seed(seed)
        sampler = CodeSampler(temperature, top_k, guidance, rng)
        prompts = [self._encode_prompt(example, [self.vocabulary.motion])]
        if guidance != 1:
            prompts.append(self._encode_prompt(replace(example, prompt=[]), [self.vocabulary.motion]))
        steps = steps_after(prompts, self.model, sampler)
        for step in range(min(max_steps, available)):
            yield steps.draw()
            stop_probability = torch.sigmoid(steps.read()).item()
            if (
                seconds is None
                and step + 1 >= min_steps
                and torch.rand((), generator=rng, device=self.device).item() < stop_probability
            ):
                return

    def frames(self, text: str, **options: object) -> Iterator[tuple[Float[Tensor, "n 24 3 3"], Float[Tensor, "n 3"]]]:
        """Rotations and translations, streamed step by step; options as for `codes`."""
        memory: Memory = {}
        start: Start = (0.0, (0.0, 0.0))
        features = self.tokenizer.features
        initial = options.get("initial")
        if isinstance(initial, MotionArrays):
            memory, start = self._decoder_state_after(initial)
        for codes in self.codes(text, **options):  # type: ignore[arg-type]
            with torch.inference_mode():
                rows = self.tokenizer.decode(codes[None, None], memory)[0].cpu()
                rotations, trans = features.decode(rows, self.rest_joints, *start)
                start = features.next_start(rows, *start)
            yield rotations, trans

    def generate(self, text: str, **options: object) -> GeneratedMotion:
        """A whole motion, aligned to the ground; options as for `codes`. The same seed gives the same motion."""
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

    def describe(self, motion: MotionArrays, instruction: str = "describe the motion", *, max_tokens: int = 64) -> str:
        """Text for a motion, by greedy decoding."""
        input_motion = self._encode_motion(motion)
        example = Example(
            prompt=self.vocabulary.encode(instruction), input_motion=input_motion, answer=[], target_motion=None
        )
        with torch.inference_mode():
            prompt = self._encode_prompt(example, [])
            state, cache = prompt.state, prompt.cache
            tokens: list[int] = []
            while len(tokens) < max_tokens and cache.length < self.model.config.context:
                token = int(self.model.text_logits(state).argmax())
                if token == self.vocabulary.end:
                    break
                tokens.append(token)
                embedding = self.model.embed_text(torch.tensor([[token]], device=self.device))
                state = self.model.backbone(embedding + prompt.pooled_motion, cache)[:, -1]
        return self.vocabulary.decode(tokens)

    def _encode_prompt(self, example: Example, suffix: list[int]) -> EncodedPrompt:
        """Run the backbone over the prompt and `suffix`: the motion token, or nothing for a text answer."""
        tokens = torch.tensor([example.prompt], dtype=torch.long, device=self.device)
        pooled_text = self.model.pool_text(tokens, torch.ones_like(tokens, dtype=torch.bool))
        pooled_motion = torch.zeros_like(pooled_text)
        if example.input_motion is not None:
            steps = example.input_motion[None].to(self.device)
            pooled_motion = self.model.pool_motion(steps, torch.ones_like(steps[..., 0, 0], dtype=torch.bool))
        inputs = []
        for segment in [*prompt_segments(example, self.vocabulary), suffix]:
            if isinstance(segment, Tensor):
                inputs.append(self.model.embed_motion(segment[None].to(self.device), pooled_text))
            elif segment:
                inputs.append(self.model.embed_text(torch.tensor([segment], device=self.device)))
        if not suffix:
            inputs[-1] = inputs[-1] + pooled_motion
        cache = self.model.new_cache(1)
        state = self.model.backbone(torch.cat(inputs, dim=1), cache)[:, -1]
        return EncodedPrompt(cache, pooled_text, pooled_motion, state)

    def _rows(self, motion: MotionArrays) -> Float[Tensor, "1 N F"]:
        step = self.tokenizer.config.downsample
        if len(motion.poses) <= step:
            raise UsageError(f"the initial motion has {len(motion.poses)} frames; at least {step + 1} are needed")
        rows = motion_features([motion], self.body, self.tokenizer.config.features).to(self.device)
        # Trimmed to whole steps at the start: the last frames matter most.
        return rows[:, rows.shape[1] % step :]

    @torch.inference_mode()
    def _encode_motion(self, motion: MotionArrays) -> Int[Tensor, "S P K"]:
        return self.tokenizer.encode(self._rows(motion))[0]

    @torch.inference_mode()
    def _decoder_state_after(self, motion: MotionArrays) -> tuple[Memory, Start]:
        """State to continue a motion: the decoder memory, heading and ground position."""
        memory: Memory = {}
        self.tokenizer.decode(self._encode_motion(motion)[None], memory)
        rotations = axis_angle_to_matrix(torch.from_numpy(motion.poses))
        return memory, self.tokenizer.features.start_after(rotations, torch.from_numpy(motion.trans), self.rest_joints)


def generate(
    checkpoint: str | Path,
    text: str,
    *,
    seconds: float | None = None,
    initial: MotionArrays | None = None,
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
        seed=seed,
        temperature=temperature,
        top_k=top_k,
        guidance=guidance,
    )


def align_to_ground(
    rotations: Float[Tensor, "T 24 3 3"], trans: Float[Tensor, "T 3"], body: BodyModel
) -> tuple[Float[Tensor, "T 3"], Tensor]:
    """Translations shifted vertically so that the body is on the ground, and the ground contacts of the soles.

    The ground is the lower quartile of each frame's lowest point, so that neither a jump nor a few frames below the ground
    determine it. The lowest point is a sole or, for a body on its hands, knees, back or side, another joint with the flesh around
    it. A sole is in contact within 3 cm of the ground and below 0.3 m/s.
    """
    betas = torch.zeros(10)
    joints, global_rotations = forward_kinematics(rotations, body.rest_joints(betas), trans)
    soles = body.contact_rig().points(global_rotations, joints, betas)
    around = joints[..., list(_FLESH_M), 1] - joints.new_tensor(list(_FLESH_M.values()))
    ground_y = torch.cat([soles[..., 1], around], dim=-1).min(-1).values.quantile(0.25)
    speed = torch.zeros_like(soles[..., 0])
    if len(soles) > 1:
        speed[1:] = (soles[1:] - soles[:-1]).norm(dim=-1) * FPS
    contacts = (soles[..., 1] - ground_y < 0.03) & (speed < 0.3)
    return trans - torch.tensor([0.0, 1.0, 0.0]) * ground_y, contacts


def save_motion(path: str | Path, generated: GeneratedMotion) -> None:
    """Write an .npz with the arrays of motion.npz and additionally `fps`, `body_model` and `text`."""
    path = Path(path)
    if path.suffix != ".npz":
        raise UsageError(f"{path}: a motion is saved as .npz; use a name that ends in .npz")
    arrays = {name: getattr(generated.motion, name).astype(dtype) for name, (dtype, _) in MOTION_ARRAYS.items()}
    metadata = {"fps": np.array(FPS), "body_model": np.array(generated.body_model), "text": np.array(generated.text)}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(encode_npz({**arrays, **metadata}))
    partial.replace(path)


def load_motion(path: str | Path) -> MotionArrays:
    """Load a motion.npz or a file written by `save_motion`. Raises HumoError for any other file."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise HumoError(f"{path}: cannot be read ({error.strerror}); use an .npz written by humo") from None
    try:
        return decode_motion(content, str(path))
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise HumoError(f"{path}: not a motion .npz ({error}); use one written by humo") from None
