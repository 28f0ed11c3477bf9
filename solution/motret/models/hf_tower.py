"""Text towers of Hugging Face: any encoder, by name or folder.

transformers takes seconds to import, so it is imported where a tower is made.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motret.errors import WeightsError
from motret.models.text_tower import TextTower, masked_mean, vocabulary_of
from motret.utils import network, reading

MAX_LENGTH = 512
"""Tokens of a caption at most; many tokenizers name no limit."""


class HfTower(TextTower):
    """A Hugging Face encoder: the mean of its last hidden states over the real tokens (C, dim)."""

    def __init__(self, encoder: Any, tokenizer: Any, note: str = ""):
        super().__init__()
        self.note = note
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.dim = int(encoder.config.hidden_size)

    def tokenize(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        positions = getattr(self.encoder.config, "max_position_embeddings", MAX_LENGTH)
        encoded = self.tokenizer(
            list(captions),
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=min(self.tokenizer.model_max_length, positions, MAX_LENGTH),
            return_tensors="pt",
        )
        return encoded["input_ids"], encoded["attention_mask"].sum(dim=1)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        return masked_mean(self.encode_words(ids, lengths), lengths)

    def encode_words(self, ids: Tensor, lengths: Tensor) -> Tensor:
        mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        hidden: Tensor = self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return hidden

    def vocabulary(self) -> Mapping[str, int]:
        return vocabulary_of(self.tokenizer)


def make_hf_tower(name: str) -> HfTower:
    """The encoder of this name or folder, in float32. WeightsError where it cannot be loaded."""
    if not Path(name).is_dir():
        network.hub_reachable()
    import transformers

    transformers.utils.logging.disable_progress_bar()
    fix = (
        "check the name; without network give a local folder, --text_tower hf:FOLDER, "
        "or train from scratch, --text_weights none"
    )
    with reading.boundary(f"hf:{name}", "no such encoder can be loaded", fix, WeightsError):
        # code in the folder or repository is never run
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        # Attention is torch's own where the encoder has it; float32, since half-precision weights
        # cannot take small steps.
        encoder, loading_info = transformers.AutoModel.from_pretrained(
            name,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **_dtype(torch.float32),
        )
    # transformers would start missing weights at random; nobody reads the pooler
    if missing := sorted(key for key in loading_info["missing_keys"] if "pooler" not in key):
        problem = f"its weights lack {missing[0]} and {len(missing) - 1} more"
        raise WeightsError(f"hf:{name}", problem, "give the folder of a whole encoder")
    return HfTower(encoder, tokenizer, _attention_note(name, encoder))


def _dtype(dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The argument that loads weights in this type; it got another name in transformers 4.56."""
    import transformers

    has_new_name = hasattr(transformers.PretrainedConfig(), "dtype")
    return {"dtype" if has_new_name else "torch_dtype": dtype}


def _attention_note(name: str, encoder: Any) -> str:
    attention = encoder.config._attn_implementation
    if attention == "sdpa":
        return ""
    return (
        f"text tower hf:{name}: {attention} attention, slower than torch's own, "
        "which transformers lacks for this encoder"
    )
