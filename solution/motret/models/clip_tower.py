"""Text towers of CLIP's architecture: pretrained ones of open_clip, and small ones from scratch.

open_clip takes seconds to import, so it is imported where a tower is made.
"""

import functools
import gzip
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from motret.config.training import TextConfig
from motret.errors import WeightsError
from motret.models import clip_weights
from motret.models.text_tower import TextTower, masked_mean, vocabulary_of
from motret.utils import files, network, reading
from motret.utils.tensors import load_tensors

LOCAL_WEIGHTS = "give a local file or folder, or --text_weights none to train from scratch"
FIXED_TOKENS = 2 * 256 + 2
"""Vocabulary entries that are no merges: each byte, also as the end of a word, and the two ends of
a caption."""


class ClipTower(TextTower):
    """The text half of an open_clip model.

    A causal tower that reads its output at the end token gives the same for ids cut after it, so
    padding is cut off. mean: read the mean of all tokens instead, which a tower from scratch learns
    from fewer captions.
    """

    def __init__(self, text: Any, tokenizer: Any, mean: bool = False, note: str = ""):
        super().__init__()
        self.note = note
        self.text = text
        self.tokenizer = tokenizer
        self.mean = mean
        self.dim = int(text.output_dim)
        causal = getattr(text, "attn_mask", None) is not None
        has_cls = getattr(text, "cls_emb", None) is not None
        self.trims_padding = causal and not has_cls and text.pool_type == "argmax"

    def tokenize(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        ids = self.tokenizer(list(captions))
        if not self.trims_padding:
            return ids, torch.full((len(ids),), ids.shape[1])
        return ids, ids.argmax(dim=1) + 1  # the end token has the highest id

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        text: Any = self.text
        if not self.trims_padding:
            output: Tensor = text(ids)
            return output
        hidden = self._hidden(ids)
        if self.mean:
            return masked_mean(text.ln_final(hidden), lengths)
        last = (lengths - 1)[:, None, None].expand(-1, 1, hidden.shape[-1])
        ends: Tensor = text.ln_final(hidden.gather(1, last)[:, 0])
        projection = text.text_projection
        if projection is None:
            return ends
        projected: Tensor
        projected = projection(ends) if isinstance(projection, nn.Module) else ends @ projection
        return projected

    def encode_words(self, ids: Tensor, lengths: Tensor) -> Tensor:
        if not self.trims_padding:
            return super().encode_words(ids, lengths)
        states: Tensor = self.text.ln_final(self._hidden(ids))
        return states

    def _hidden(self, ids: Tensor) -> Tensor:
        """(C, L, width) after all layers."""
        text: Any = self.text
        length = ids.shape[1]
        embedded = text.token_embedding(ids) + text.positional_embedding[:length]
        hidden: Tensor = text.transformer(embedded, attn_mask=text.attn_mask[:length, :length])
        return hidden

    def vocabulary(self) -> Mapping[str, int]:
        return vocabulary_of(self.tokenizer)


def make_clip_tower(config: TextConfig) -> ClipTower:
    """The open_clip tower that --text_tower and --text_weights name, in float32.

    WeightsError where there is no such model or the weights cannot be loaded.
    """
    name, weights = config.text_tower, config.text_weights
    if weights != "none" and not Path(weights).is_file():
        network.hub_reachable()
    import open_clip

    if name not in open_clip.list_models():
        examples = ", ".join(model for model in open_clip.list_models() if model[:5] == "ViT-B")
        fix = f"take one of its names ({examples}, ...), hf:<name or folder> or module:Class"
        raise WeightsError("--text_tower", f"open_clip has no model {name!r}", fix)
    if weights == "none":
        return _scratch_tower(config)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not Path(weights).is_file() and weights not in tags:
        problem = f"{weights!r} is neither a file nor a tag of {name}"
        raise WeightsError(
            "--text_weights", problem, f"its tags: {', '.join(tags)}; or {LOCAL_WEIGHTS}"
        )
    activation = clip_weights.choose_activation(config)
    text = _load_pretrained_text(name, weights, activation.quick)
    note = f"text tower {name} {weights}: {activation}"
    return ClipTower(text, open_clip.get_tokenizer(name), note=note)


def _load_pretrained_text(name: str, weights: str, quick: bool) -> nn.Module:
    """The text half of an open_clip model; its visual half is dropped."""
    import open_clip

    archive = Path(weights).is_file() and clip_weights.is_archive(Path(weights))
    # open_clip's check of the weights reads the first of these, the model the second
    quick_flags = {"force_quick_gelu": quick, "quick_gelu": quick}
    if Path(weights).is_file() and not archive and Path(weights).suffix != ".safetensors":
        # open_clip reads a file that cannot be loaded so once more, and then perhaps unpickles it
        load_tensors(Path(weights), LOCAL_WEIGHTS, problem="the weights cannot be loaded")
    logging.disable(logging.ERROR)  # the error below says what open_clip logs of a failure
    problem, fix = "the weights cannot be loaded", f"without network {LOCAL_WEIGHTS}"
    try:
        with reading.boundary(f"{name} {weights}", problem, fix, WeightsError):
            clip = open_clip.create_model(
                name, pretrained=None if archive else weights, force_custom_text=True, **quick_flags
            )
            if archive:
                _load_text_weights(clip.text, clip_weights.read_archive(Path(weights)))
    finally:
        logging.disable(logging.NOTSET)
    text: nn.Module = clip.text
    return text


def _load_text_weights(text: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Loads the text weights of a CLIP under OpenAI's names. RuntimeError where they do not fit."""
    state = text.state_dict()
    text.load_state_dict(
        {name: value.to(state[name]) for name, value in weights.items() if name in state}
    )


def _scratch_tower(config: TextConfig) -> ClipTower:
    """A small tower of CLIP's architecture, with random weights."""
    import open_clip

    tokenizer = _scratch_tokenizer(config.text_vocabulary)
    quick = config.text_activation == "quick_gelu"
    text = open_clip.transformer.TextTransformer(
        vocab_size=tokenizer.vocab_size,
        width=config.text_width,
        heads=max(1, config.text_width // 64),
        layers=config.text_layers,
        output_dim=config.text_width,
        act_layer=open_clip.transformer.QuickGELU if quick else nn.GELU,
    )
    return ClipTower(text, tokenizer, mean=config.text_pool == "mean")


@functools.cache  # every model from scratch needs it, and it takes a third of a second
def _scratch_tokenizer(vocabulary_size: int) -> Any:
    """CLIP's tokenizer with the first, most frequent, entries of its vocabulary."""
    from open_clip import tokenizer

    with gzip.open(tokenizer.default_bpe(), "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")  # the first line is a comment
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "merges.gz"
        with (
            files.named_write_errors(path),
            gzip.open(path, "wt", encoding="utf-8") as file,
        ):
            file.write("\n".join(lines[: 1 + vocabulary_size - FIXED_TOKENS]))
        return tokenizer.SimpleTokenizer(bpe_path=str(path))
