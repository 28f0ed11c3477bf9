"""Text towers: captions to vectors, through open_clip or Hugging Face; tokens made once, frozen towers run once.

open_clip and transformers take seconds to import, so they are imported where a tower is made.
"""

import functools
import gzip
import logging
import pickle
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from motret.config.training import TextConfig
from motret.errors import ConfigError, WeightsError
from motret.models import clip_weights
from motret.utils import network

LOCAL_PREFIX = "give a local file or folder, or --text_weights none to train from scratch"


class ClipTower(nn.Module):
    """The text half of an open_clip model: token ids (C, L) -> (C, dim), L up to the context length.

    Causal towers that read their output at the end token give the same for ids cut after it, so padding is cut off.
    mean: read the mean of all tokens instead, which a tower from scratch learns from fewer captions; note: what a user should know
    of how it was loaded.
    """

    def __init__(self, text: nn.Module, tokenizer: Any, mean: bool = False, note: str = ""):
        super().__init__()
        self.note = note
        self.text = text
        self.tokenizer = tokenizer
        self.mean = mean
        self.dim = int(text.output_dim)
        self.cuts = getattr(text, "attn_mask", None) is not None and getattr(text, "cls_emb", None) is None and text.pool_type == "argmax"

    def tokenize(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids (C, L) and the number of tokens of each (C,)."""
        ids = self.tokenizer(list(captions))
        return ids, (ids.argmax(dim=1) + 1 if self.cuts else torch.full((len(ids),), ids.shape[1]))

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        if not self.cuts:
            return self.text(ids)
        tower, length = self.text, ids.shape[1]
        hidden = tower.token_embedding(ids) + tower.positional_embedding[:length]
        hidden = tower.transformer(hidden, attn_mask=tower.attn_mask[:length, :length])
        if self.mean:
            return masked_mean(tower.ln_final(hidden), lengths)
        last = (lengths - 1)[:, None, None].expand(-1, 1, hidden.shape[-1])
        ends = tower.ln_final(hidden.gather(1, last)[:, 0])
        projection = tower.text_projection
        if projection is None:
            return ends
        return projection(ends) if isinstance(projection, nn.Module) else ends @ projection


class HfTower(nn.Module):
    """A Hugging Face encoder: token ids (C, L) -> mean of its last hidden states over the real tokens (C, dim).

    note: what a user should know of how it was loaded.
    """

    def __init__(self, encoder: nn.Module, tokenizer: Any, note: str = ""):
        super().__init__()
        self.note = note
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.dim = int(encoder.config.hidden_size)

    def tokenize(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids (C, L), padded on the right, and the number of tokens of each (C,)."""
        limit = min(self.tokenizer.model_max_length, getattr(self.encoder.config, "max_position_embeddings", 512), 512)
        made = self.tokenizer(list(captions), padding=True, padding_side="right", truncation=True, max_length=limit, return_tensors="pt")
        return made["input_ids"], made["attention_mask"].sum(dim=1)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        hidden = self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return masked_mean(hidden, lengths)


def masked_mean(hidden: Tensor, lengths: Tensor) -> Tensor:
    """(C, dim) mean of (C, L, dim) over the first `lengths` (C,) tokens."""
    real = (torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None])[..., None]
    return (hidden * real).sum(dim=1) / lengths[:, None]


def drop_words(ids: Tensor, lengths: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Token ids (C, L) and lengths (C,) with a share of the tokens left out, at random; what follows moves up, shape stays.

    The first and the last token, which mark the caption's ends, stay, and so does everything where nothing else would be left. A
    frequent word is one token, a rare one several.
    """
    places = torch.arange(ids.shape[1], device=ids.device)
    inner = (places > 0) & (places < lengths[:, None] - 1)
    dropped = (torch.rand(ids.shape, generator=generator, device=ids.device) < share) & inner
    dropped &= (inner & ~dropped).any(dim=1, keepdim=True)
    order = dropped.to(torch.uint8).argsort(dim=1, stable=True)
    return ids.gather(1, order), lengths - dropped.sum(dim=1)


def trains_from_scratch(config: TextConfig) -> bool:
    """Whether the tower starts from random weights (and so must be trained)."""
    return config.text_weights == "none" and not config.text_tower.startswith("hf:")


def is_trained(config: TextConfig) -> bool:
    """Whether the tower is trained with the motion tower, rather than asked once for each caption."""
    return config.unfreeze_text or trains_from_scratch(config)


def is_fine_tuned(config: TextConfig) -> bool:
    """Whether a pretrained tower is trained."""
    return config.unfreeze_text and not trains_from_scratch(config)


def make_text_tower(config: TextConfig) -> ClipTower | HfTower:
    """The text tower these settings name, with its weights in float32. WeightsError where they cannot be had."""
    if config.text_activation not in ("auto", "model") and config.text_tower.startswith("hf:"):
        problem = f"is {config.text_activation}, which is for open_clip models alone"
        raise ConfigError("--text_activation", problem, "leave it out")
    return _hf_tower(config.text_tower.removeprefix("hf:")) if config.text_tower.startswith("hf:") else _clip_tower(config)


def _hf_tower(name: str) -> HfTower:
    if not Path(name).is_dir():
        network.hub_reachable()
    import transformers
    from safetensors import SafetensorError

    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        # Attention is torch's own where the encoder has it; float32, since half-precision weights cannot take small steps.
        encoder, told = transformers.AutoModel.from_pretrained(name, use_safetensors=True, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        fix = "check the name; without network give a local folder, --text_tower hf:FOLDER, or train from scratch, --text_weights none"
        raise WeightsError(f"hf:{name}", f"no such encoder can be loaded: {_first_line(error)}", fix) from error
    if missing := sorted(key for key in told["missing_keys"] if "pooler" not in key):  # transformers would start them at random
        raise WeightsError(f"hf:{name}", f"its weights lack {missing[0]} and {len(missing) - 1} more", "give the folder of a whole encoder")
    attention = encoder.config._attn_implementation
    note = "" if attention == "sdpa" else f"{attention} attention, slower than torch's own, which transformers lacks for this encoder"
    return HfTower(encoder, tokenizer, note and f"text tower hf:{name}: {note}")


def _clip_tower(config: TextConfig) -> ClipTower:
    name, weights = config.text_tower, config.text_weights
    if weights != "none" and not Path(weights).is_file():
        network.hub_reachable()
    import open_clip

    if name not in open_clip.list_models():
        known = ", ".join(m for m in open_clip.list_models() if m.startswith("ViT-B"))
        raise WeightsError(
            "--text_tower", f"open_clip has no model {name!r}", f"take one of its names ({known}, ...) or hf:<name or folder>"
        )
    if weights == "none":
        return _scratch_tower(config)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not Path(weights).is_file() and weights not in tags:
        raise WeightsError(
            "--text_weights", f"{weights!r} is neither a file nor a tag of {name}", f"its tags: {', '.join(tags)}; or {LOCAL_PREFIX}"
        )
    activation = clip_weights.choose_activation(config)
    archive = Path(weights).is_file() and clip_weights.is_archive(Path(weights))
    quick = {"force_quick_gelu": activation.quick, "quick_gelu": activation.quick}  # the first tells open_clip's check, the second is it
    logging.disable(logging.ERROR)  # what open_clip logs of a failure, the fault below says
    try:
        # the visual half is let go at once
        whole = open_clip.create_model(name, pretrained=None if archive else weights, force_custom_text=True, **quick)
        if archive:
            _load_text_weights(whole.text, clip_weights.read_archive(Path(weights)))
    except (RuntimeError, OSError, ValueError, EOFError, LookupError, pickle.UnpicklingError) as error:
        raise WeightsError(
            f"{name} {weights}", f"the weights cannot be loaded: {_first_line(error)}", f"without network {LOCAL_PREFIX}"
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    return ClipTower(whole.text, open_clip.get_tokenizer(name), note=f"text tower {name} {weights}: {activation}")


def _load_text_weights(text: nn.Module, weights: dict[str, Tensor]) -> None:
    """Puts the text weights of a whole CLIP under OpenAI's names into a text tower. RuntimeError where they do not fit."""
    wanted = text.state_dict()
    text.load_state_dict({name: value.to(wanted[name]) for name, value in weights.items() if name in wanted})


def _scratch_tower(config: TextConfig) -> ClipTower:
    """A small tower of CLIP's architecture, with random weights."""
    import open_clip

    tokenizer = _tokenizer(config.text_vocabulary)
    quick = config.text_activation == "quick_gelu"
    tower = open_clip.transformer.TextTransformer(
        vocab_size=tokenizer.vocab_size,
        width=config.text_width,
        heads=max(1, config.text_width // 64),
        layers=config.text_layers,
        output_dim=config.text_width,
        act_layer=open_clip.transformer.QuickGELU if quick else nn.GELU,
    )
    return ClipTower(tower, tokenizer, mean=config.text_pool == "mean")


@functools.cache  # each model from scratch asks for it, and it takes a third of a second
def _tokenizer(vocabulary: int) -> Any:
    """CLIP's tokenizer with the first, most frequent, entries of its vocabulary."""
    from open_clip import tokenizer

    with gzip.open(tokenizer.default_bpe(), "rt", encoding="utf-8") as packed:
        merges = packed.read().split("\n")
    others = 2 * 256 + 2  # each byte, also as the end of a word; the two ends of a caption
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "merges.gz"
        with gzip.open(file, "wt", encoding="utf-8") as cut:
            cut.write("\n".join(merges[: 1 + vocabulary - others]))  # the first line is a comment
        return tokenizer.SimpleTokenizer(bpe_path=str(file))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
