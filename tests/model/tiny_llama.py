"""A tiny Llama with random weights and its own tokenizer, as a folder in Hugging Face's layout."""

import importlib.util
from pathlib import Path

import pytest


def write_llama(folder: Path, seed: int = 0) -> str:
    """Width 32, two layers, 300 tokens, 512 positions. Skips the test where transformers is not installed."""
    missing = [name for name in ("transformers", "peft") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed; pip install -e '.[backbones]'")
    import torch

    from schemas.torchvision_ops import ensure_operators

    ensure_operators()
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from model.llm.vocabulary import END, PAD, TextVocabulary

    learned = TextVocabulary.learn(["go on", "what is this", "A person waves with the left hand"], 300)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=learned._tokenizer, pad_token=PAD, eos_token=END)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)
