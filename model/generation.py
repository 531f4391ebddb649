"""Motion from text: at once or step by step, and on disk in the layout of a sample.

A step (four frames at the default downsampling) is decoded as soon as its codes exist; decoding is causal, so nothing
is revised later. The first frames are therefore there after the prompt and one step: latency is one step's computation.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from model import features
from model.data import motion_features
from model.examples import Example, prompt_pieces
from model.language_model import Cache, Picker
from model.tokenizer import DecoderMemory
from model.train_llm import LoadedModel, load_llm
from model.training import load_body
from schemas.body_model import BodyModel
from schemas.errors import HumoError, UsageError
from schemas.kinematics import forward_kinematics
from schemas.records import FPS
from schemas.rotations import axis_angle_to_matrix, heading_rad, matrix_to_axis_angle
from schemas.sample import MOTION_ARRAYS, MotionArrays, decode_motion, encode_npz

MAX_SECONDS = 10.0
"""Where a motion ends that does not end by itself."""
MIN_SECONDS = 1.0
"""Before which none ends by itself."""
GUIDANCE = 2.0
"""How much the text counts for, 1 being what training found."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneratedMotion:
    """A motion and the body that it is for."""

    motion: MotionArrays
    body_model: str
    text: str

    @property
    def seconds(self) -> float:
        return len(self.motion.poses) / FPS


@dataclass(frozen=True, eq=False)
class _Reading:
    """A prompt that has been read."""

    cache: Cache
    gist: Float[Tensor, "1 1 D"]
    """Of the words; every step of motion gets it."""
    answer_gist: Float[Tensor, "1 1 D"]
    """Of the given motion; every word of an answer gets it."""
    state: Float[Tensor, "1 D"]


class Generator:
    """A loaded language model that makes motions; build it once, use it often."""

    def __init__(self, checkpoint: str | Path | LoadedModel, *, body_model: str = "", device: str = "cpu") -> None:
        """`body_model` is the path of the body's file, empty for the shipped one.

        Raises HumoError for a checkpoint that is missing or made for another body.
        """
        loaded = checkpoint if isinstance(checkpoint, LoadedModel) else load_llm(checkpoint)
        self.body = load_body(body_model)
        if loaded.body_model != self.body.id:
            raise HumoError(
                f"the checkpoint makes motions for the body {loaded.body_model}, given is {self.body.id}; "
                "give that body's file as body_model"
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
        """Codes step by step; `initial` is what came before, and is not repeated. Guidance above 1 weighs the text
        more than training did, at the price of a second pass; 1 leaves it.

        Without `seconds` the model ends the motion itself, between `MIN_SECONDS` and `MAX_SECONDS`.
        """
        if not text.strip():
            raise UsageError("the text is empty; say what the person shall do")
        if seconds is not None and not seconds > 0:
            raise UsageError(f"seconds is {seconds}; give a length above 0")
        if temperature < 0:
            raise UsageError(f"temperature is {temperature}; give 0 (the likeliest) or more")
        given = self._given(initial) if initial is not None else None
        example = Example(prompt=self.vocabulary.encode(text), given=given, answer=[], made=None)
        prompt = sum(map(len, prompt_pieces(example, self.vocabulary))) + 1
        step_s = self.tokenizer.config.downsample / FPS
        wanted = round((seconds or MAX_SECONDS) / step_s) or 1
        least = round(MIN_SECONDS / step_s)
        room = self.model.config.context - prompt
        if room < (wanted if seconds is not None else 1):
            raise UsageError(
                f"{prompt} positions of prompt and {wanted} steps exceed the context of "
                f"{self.model.config.context}; ask for fewer seconds, a shorter text or a shorter initial motion"
            )
        draw = torch.Generator(self.device).manual_seed(seed)
        pick = Picker(temperature, top_k, guidance, draw)
        readings = [self._read(example, [self.vocabulary.motion])]
        if guidance != 1:
            readings.append(self._read(replace(example, prompt=[]), [self.vocabulary.motion]))
        states = [reading.state for reading in readings]
        for step in range(min(wanted, room)):
            codes = self.model.step_decoder.sample(torch.cat(states), pick)
            yield codes[0]
            states = [self._step(reading, codes[:1, None]) for reading in readings]
            ends = torch.sigmoid(self.model.stop(states[0])).item()
            if (
                seconds is None
                and step + 1 >= least
                and torch.rand((), generator=draw, device=self.device).item() < ends
            ):
                return

    def frames(self, text: str, **options: object) -> Iterator[tuple[Float[Tensor, "n 24 3 3"], Float[Tensor, "n 3"]]]:
        """Rotations and translations, a step's frames at a time, as soon as they are known; options as `codes`."""
        memory: DecoderMemory = {}
        yaw, x, z = 0.0, 0.0, 0.0
        initial = options.get("initial")
        if isinstance(initial, MotionArrays):
            memory, yaw, x, z = self._after(initial)
        for codes in self.codes(text, **options):  # type: ignore[arg-type]
            with torch.inference_mode():
                rows = self.tokenizer.decode(codes[None, None], memory)[0].cpu()
                rotations, trans = features.decode(rows, self.rest_joints, yaw, (x, z))
                # One row more than there are frames says where the next step begins.
                ahead = torch.cat([rows, rows[-1:]])
                yaws, pelvis = features.root_path(ahead, yaw, (x, z))
                yaw, x, z = yaws[-1].item(), pelvis[-1, 0].item(), pelvis[-1, 2].item()
            yield rotations, trans

    def generate(self, text: str, **options: object) -> GeneratedMotion:
        """A whole motion, its lowest foot on the ground; options as `codes`. The same seed gives the same motion."""
        pieces = list(self.frames(text, **options))
        rotations, trans = (torch.cat(column) for column in zip(*pieces, strict=True))
        trans, contacts = ground(rotations, trans, self.body)
        motion = MotionArrays(
            poses=matrix_to_axis_angle(rotations).numpy(),
            trans=trans.numpy(),
            betas=np.zeros(10, np.float32),
            contacts=contacts.numpy().astype(np.uint8),
            joint_confidence=np.ones((len(trans), 24), np.float32),
        )
        return GeneratedMotion(motion=motion, body_model=self.body.id, text=text)

    def describe(self, motion: MotionArrays, instruction: str = "describe the motion", *, max_tokens: int = 64) -> str:
        """Text for a motion, the likeliest token each time."""
        example = Example(prompt=self.vocabulary.encode(instruction), given=self._given(motion), answer=[], made=None)
        with torch.inference_mode():
            reading = self._read(example, [])
            state, cache = reading.state, reading.cache
            tokens: list[int] = []
            while len(tokens) < max_tokens and cache.length < self.model.config.context:
                token = int(self.model.text_logits(state).argmax())
                if token == self.vocabulary.end:
                    break
                tokens.append(token)
                word = self.model.embed_text(torch.tensor([[token]], device=self.device))
                state = self.model.backbone(word + reading.answer_gist, cache)[:, -1]
        return self.vocabulary.decode(tokens)

    def _read(self, example: Example, more: list[int]) -> _Reading:
        """`more` follows the prompt: the motion token, or nothing where text shall answer."""
        words = torch.tensor([example.prompt], dtype=torch.long, device=self.device)
        gist = self.model.word_gist(words, torch.ones_like(words, dtype=torch.bool))
        answer_gist = torch.zeros_like(gist)
        if example.given is not None:
            steps = example.given[None].to(self.device)
            answer_gist = self.model.motion_gist(steps, torch.ones_like(steps[..., 0, 0], dtype=torch.bool))
        inputs = []
        for piece in [*prompt_pieces(example, self.vocabulary), more]:
            if isinstance(piece, Tensor):
                inputs.append(self.model.embed_motion(piece[None].to(self.device), gist))
            elif piece:
                inputs.append(self.model.embed_text(torch.tensor([piece], device=self.device)))
        if not more:
            inputs[-1] = inputs[-1] + answer_gist
        cache = self.model.new_cache(1)
        return _Reading(cache, gist, answer_gist, self.model.backbone(torch.cat(inputs, dim=1), cache)[:, -1])

    def _step(self, reading: _Reading, codes: Int[Tensor, "1 1 P K"]) -> Float[Tensor, "1 D"]:
        return self.model.backbone(self.model.embed_motion(codes, reading.gist), reading.cache)[:, -1]

    def _rows(self, motion: MotionArrays) -> Float[Tensor, "1 N 263"]:
        step = self.tokenizer.config.downsample
        if len(motion.poses) <= step:
            raise UsageError(f"the initial motion has {len(motion.poses)} frames; give at least {step + 1}")
        rows = motion_features([motion], self.body).to(self.device)
        # Whole steps at the end: what was last seen matters most.
        return rows[:, rows.shape[1] % step :]

    @torch.inference_mode()
    def _given(self, motion: MotionArrays) -> Int[Tensor, "S P K"]:
        return self.tokenizer.encode(self._rows(motion))[0]

    @torch.inference_mode()
    def _after(self, motion: MotionArrays) -> tuple[DecoderMemory, float, float, float]:
        """Where the frames that follow a motion begin: the decoder's memory of it, yaw, x and z of its last frame."""
        memory: DecoderMemory = {}
        self.tokenizer.decode(self._given(motion)[None], memory)
        pelvis = torch.from_numpy(motion.trans[-1]) + self.rest_joints[0]
        root = axis_angle_to_matrix(torch.from_numpy(motion.poses[-1, 0]))
        return memory, heading_rad(root).item(), pelvis[0].item(), pelvis[2].item()


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
    maker = Generator(checkpoint, body_model=body_model)
    return maker.generate(
        text,
        seconds=seconds,
        initial=initial,
        seed=seed,
        temperature=temperature,
        top_k=top_k,
        guidance=guidance,
    )


def ground(
    rotations: Float[Tensor, "T 24 3 3"], trans: Float[Tensor, "T 3"], body: BodyModel
) -> tuple[Float[Tensor, "T 3"], Tensor]:
    """The motion lifted or lowered as a whole until its soles are on the ground, and which soles stand on it.

    Each frame has its lowest sole; the lower quarter of those is the ground, so that neither a jump nor a few frames that
    sink in decide for all. A sole stands within 3 cm of the ground and below 0.3 m/s.
    """
    betas = torch.zeros(10)
    joints, turns = forward_kinematics(rotations, body.rest_joints(betas), trans)
    soles = body.contact_rig().points(turns, joints, betas)
    drop = soles[..., 1].min(-1).values.quantile(0.25)
    speed = torch.zeros_like(soles[..., 0])
    if len(soles) > 1:
        speed[1:] = (soles[1:] - soles[:-1]).norm(dim=-1) * FPS
    standing = (soles[..., 1] - drop < 0.03) & (speed < 0.3)
    return trans - torch.tensor([0.0, 1.0, 0.0]) * drop, standing


def save_motion(path: str | Path, made: GeneratedMotion) -> None:
    """An .npz with the arrays of motion.npz and `fps`, `body_model` and `text` beside them."""
    path = Path(path)
    if path.suffix != ".npz":
        raise UsageError(f"{path}: a motion is saved as .npz; give a name that ends so")
    arrays = {name: getattr(made.motion, name).astype(kind) for name, (kind, _) in MOTION_ARRAYS.items()}
    about = {"fps": np.array(FPS), "body_model": np.array(made.body_model), "text": np.array(made.text)}
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    aside.write_bytes(encode_npz({**arrays, **about}))
    aside.replace(path)


def load_motion(path: str | Path) -> MotionArrays:
    """A motion.npz or what `save_motion` wrote. Raises HumoError for anything else."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise HumoError(f"{path}: cannot be read ({error.strerror}); give an .npz that humo wrote") from None
    try:
        return decode_motion(content, str(path))
    except ValueError as error:
        raise HumoError(f"{path}: not an .npz ({error}); give one that humo wrote") from None
