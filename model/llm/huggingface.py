"""Causal language models of Hugging Face's transformers as backbones, with their own text tokens.

Design choices:
- The pretrained weights stay what they are (`lora`, `frozen`) or are trained with everything else (`full`). A checkpoint holds
  what was trained, and names the rest by a hash.
- Adapters work from the first position on that is not text. A sequence of text alone, without a marker, passes through the
  unchanged model, whatever was trained.
- The protocol's embeddings have the standard deviation of our own backbone's. Those of the pretrained model are brought there
  and back by a power of two, which loses nothing.

Shape letters: B sequences, L positions, D width.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer
from torch import Tensor, nn

from model.llm.backbones import EMBEDDING_STD
from model.llm.smollm import SMOLLM, smollm_folder
from model.llm.transformer import fast_attention
from model.llm.vocabulary import TextVocabulary
from schemas.errors import HumoError
from schemas.offline import enforce_offline
from schemas.torchvision_ops import ensure_operators


class HuggingFaceBackbone(nn.Module):
    """A pretrained causal language model behind the protocol `Backbone`."""

    def __init__(
        self, name: str, *, adaptation: str = "lora", rank: int = 16, alpha: int = 32, checkpointing: bool = False
    ) -> None:
        """The settings are those of `LanguageModelConfig`. Raises HumoError if the model or a package is missing."""
        super().__init__()
        model = _load(name)
        self.name, self.hash = name, weights_hash(model)
        self.width: int = model.get_input_embeddings().weight.shape[1]
        self.context: int = model.config.max_position_embeddings
        std = model.get_input_embeddings().weight.detach().std().item()
        self._scale = 2.0 ** round(math.log2(std / EMBEDDING_STD))
        if adaptation != "full":
            model.requires_grad_(False)
        self._adapted: Tensor | None = None
        if adaptation == "lora":
            _add_adapters(model, rank, alpha)
            for path, layer in model.named_modules():
                if ".lora_B." in path:
                    layer.register_forward_hook(self._switch)
        if checkpointing:
            # What is computed again must be computed by the same kernels.
            contexts = {"context_fn": lambda: (nullcontext(), fast_attention(model.device))}
            model.activation_checkpointing_enable({"use_reentrant": False, **contexts})
        self.model = model
        self.register_load_state_dict_post_hook(_forget_frozen)

    def forward(
        self, x: Float[Tensor, "B L D"], cache: Any = None, adapted: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B L D"]:
        self._adapted = adapted
        out = self.model.base_model(inputs_embeds=x * self._scale, cache=cache, use_cache=cache is not None)
        return out.last_hidden_state

    def new_cache(self, batch: int) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config)

    def embed_text(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        return self.model.get_input_embeddings()(tokens) / self._scale

    def text_logits(self, states: Float[Tensor, "*B D"]) -> Float[Tensor, "*B tokens"]:
        return self.model.get_output_embeddings()(states)

    def trained(self) -> set[str]:
        """Names of the weights that a checkpoint holds."""
        return {name for name, value in self.named_parameters() if value.requires_grad}

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Trained weights only; one name for weights that are tied."""
        state = super().state_dict(*args, **kwargs)
        prefix, kept = kwargs.get("prefix", ""), self.trained()
        for name in [name for name in state if name.startswith(prefix)]:
            if name.removeprefix(prefix) not in kept:
                del state[name]
        return state

    def _switch(self, layer: nn.Module, inputs: Any, output: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        return output if self._adapted is None else output * self._adapted[..., None]


class PretrainedVocabulary(TextVocabulary):
    """The text tokens of a pretrained model. Case counts, as it did when the model was trained."""

    @classmethod
    def of(cls, model: str) -> "PretrainedVocabulary":
        """That of a folder or hub name. Raises HumoError if there is none."""
        source, library = _source(model), _transformers()
        try:
            found = library.AutoTokenizer.from_pretrained(source)
        except (OSError, ValueError) as error:
            raise HumoError(f"{model}: its tokenizer cannot be read ({_first_line(error)})") from None
        if not found.is_fast or found.eos_token is None:
            raise HumoError(f"{model}: its tokenizer has no tokenizer.json or no end token; name a model that has both")
        backend = Tokenizer.from_str(found.backend_tokenizer.to_str())
        return cls(backend, found.pad_token or found.eos_token, found.eos_token)

    @classmethod
    def from_json(cls, text: str) -> "PretrainedVocabulary":
        content = json.loads(text)
        return cls(Tokenizer.from_str(json.dumps(content["tokenizer"])), content["pad"], content["end"])

    def to_json(self) -> str:
        pad, end = (self._tokenizer.id_to_token(token) for token in (self.pad, self.end))
        return json.dumps({"tokenizer": json.loads(self._tokenizer.to_str()), "pad": pad, "end": end})

    def encode(self, text: str) -> list[int]:
        """Token ids; surrounding whitespace is ignored."""
        return self._tokenizer.encode(" " + " ".join(text.split()), add_special_tokens=False).ids


def read_vocabulary(text: str) -> TextVocabulary:
    """The vocabulary of a checkpoint's JSON, learned or pretrained."""
    return (PretrainedVocabulary if "tokenizer" in json.loads(text) else TextVocabulary).from_json(text)


def weights_hash(model: nn.Module) -> str:
    """Twelve hex digits of a model's weights."""
    found = hashlib.sha256()
    for name, value in sorted(model.named_parameters()):
        found.update(f"{name} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()[:12]


def _forget_frozen(module: nn.Module, incompatible: Any) -> None:
    """What a checkpoint leaves out is not missing."""
    assert isinstance(module, HuggingFaceBackbone)
    frozen = tuple({*_all_names(module)} - module.trained())
    incompatible.missing_keys[:] = [name for name in incompatible.missing_keys if not name.endswith(frozen)]


def _all_names(module: nn.Module) -> Iterator[str]:
    yield from (name for name, _ in module.named_parameters(remove_duplicate=False))
    yield from (name for name, _ in module.named_buffers())


def _add_adapters(model: Any, rank: int, alpha: int) -> None:
    try:
        import peft
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    settings = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    peft.inject_adapter_in_model(settings, model)


def _load(name: str) -> Any:
    source = _source(name)
    try:
        model = _transformers().AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise HumoError(
            f"architecture.backbone {name}: no causal language model ({_first_line(error)}); name a folder with config.json, "
            f"tokenizer.json and model.safetensors, a name that the hub's cache holds, or {SMOLLM}"
        ) from None
    return model


def _source(name: str) -> str:
    if name != SMOLLM:
        return name
    _transformers()
    return str(smollm_folder())


def _transformers() -> Any:
    enforce_offline(allow_hub=True)
    ensure_operators()
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    transformers.logging.disable_progress_bar()
    return transformers


def _missing(error: ModuleNotFoundError) -> HumoError:
    return HumoError(f"architecture.backbone needs {error.name}, which is not installed; pip install -e '.[backbones]'")


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
