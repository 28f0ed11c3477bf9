"""Time and memory that training takes, forecast from the settings and the size of the data.

Memory is the sum of four parts: the weights with all that the optimizer keeps of them, the data
that stay on the device, what a batch takes in training or validation, and the libraries. The
constants of `LAYERS` count the tensors that autograd saves; they were read off the layers with
`torch.autograd.graph.saved_tensors_hooks`, and a test measures them again. All else is rough.
"""

from dataclasses import dataclass, replace

from motret.config.training import MotionConfig, TextConfig, TrainConfig
from motret.utils import files
from motret.utils.machine import Machine

ASSUMED_EFFICIENCY = 0.15
"""Rough fraction of the machine's matrix-product rate that training reaches."""
SECONDS_PER_EPOCH = 0.5
"""Rough time of an epoch besides its matrix products."""
SINGLE, HALF = 4, 2
"""Bytes of a number in float32, and in half precision, which packed features have."""
OPTIMIZER_COPIES = 4
"""Weights, gradients and AdamW's two moments; the average of --ema is one more."""
MAX_TOKENS = 512
"""Positions of a motion tower."""
CLIP_WIDTH, CLIP_LAYERS, CLIP_VOCABULARY, CONTEXT = 512, 12, 49_408, 77
"""CLIP's ViT-B/32 text tower. Other pretrained towers are counted as if they were this one."""
TOKENS_PER_WORD, END_TOKENS = 1.3, 2
"""Rough tokens of a caption."""
N_PARTS, ADAPTER_DIM = 5, 128
"""Of the part tower."""
PADDING = 1.1
"""Rough number of padded tokens per real one, in a bucket of motions of similar length."""
FRAME_COPIES = 3
"""Copies of the frames of a batch: as gathered, standardised, and cut into patches."""
EVAL_BATCH_SIZE = 128
"""Motions that are embedded at a time in validation: at worst the longest ones."""
SIMILARITY_COPIES, CAPTION_PAIR_BYTES = 4, 8
"""Matrices of captions x motions in the loss; bytes of a pair of captions (false negatives)."""
CPU_OVERHEAD, GPU_OVERHEAD = 0.7e9, 0.6e9
"""Rough memory of the process with its libraries, or of CUDA and its libraries on the card."""


@dataclass(frozen=True)
class DataSize:
    """Size of the training data.

    frames: mean number per motion; columns: of the features of a person; captions, words: per
    motion, and per caption.
    """

    motions: int
    frames: float
    persons: int
    columns: int
    captions: float
    words: float


@dataclass(frozen=True)
class MemoryForecast:
    """Bytes on the device that computes. batch: of a training step, validation: of embedding."""

    weights: float
    data: float
    batch: float
    validation: float
    libraries: float

    @property
    def total(self) -> float:
        """Peak of the training of one model."""
        return self.weights + self.data + max(self.batch, self.validation) + self.libraries


@dataclass(frozen=True)
class LayerKind:
    """What a kind of layer saves for its backward pass, for each token.

    norms: numbers in float32, a multiple of the width. In the precision of matrix products:
    products, a multiple of the width; hidden, of the feed-forward's hidden width; scores, of heads
    x tokens that are attended to. weights: a multiple of the width squared, all but the
    feed-forward's.
    """

    norms: int
    products: int
    hidden: int
    scores: int
    weights: int


LAYERS = {
    "transformer": LayerKind(norms=2, products=9, hidden=2, scores=1, weights=4),
    "motiondiffuse": LayerKind(norms=2, products=17, hidden=2, scores=0, weights=21),
    "frame": LayerKind(norms=2, products=10, hidden=3, scores=3, weights=4),
    "text": LayerKind(norms=2, products=6, hidden=2, scores=0, weights=4),
}
"""By backbone, of the frame tower, and of a text tower. norms: the inputs of two norms. products of
`text`: the norms' outputs, query, key, value and what is attended; packed layers hold the three
twice, packed and padded. hidden: before and after the activation, and with dropout what it leaves.
scores: on a CPU; a GPU's fused attention does not keep them."""
POOLING = 4
"""Numbers in float32 per token and channel after the last layer: its norm, mean and maximum."""


def training_seconds(config: TrainConfig, size: DataSize, n_models: int, rate: float) -> float:
    """Rough time of training so many models, by 6 operations per weight and token.

    rate: operations per second of matrix products.
    """
    motion, fit = config.motion, config.fit
    frames = size.motions * size.frames * size.persons
    tokens = frames / motion.patch * (1 - motion.token_drop) * (1 - 1 / config.folds)
    operations = 6 * layer_weights(motion) * tokens
    per_epoch = operations / (ASSUMED_EFFICIENCY * rate) + SECONDS_PER_EPOCH
    limit = fit.max_minutes * 60 if fit.max_minutes else float("inf")
    return n_models * min(limit, fit.epochs * per_epoch)


def layer_weights(motion: MotionConfig) -> int:
    """Rough number of weights in the layers of a motion tower: 12 width^2 per layer."""
    return 12 * motion.width**2 * motion.layers


# ---- memory


def training_memory(config: TrainConfig, size: DataSize, machine: Machine) -> MemoryForecast:
    """The memory of training one model on this machine."""
    named = {"off": SINGLE, "bf16": HALF, "fp16": HALF}
    product_bytes = named.get(config.fit.amp, machine.product_bytes)
    copies = OPTIMIZER_COPIES + (config.optim.ema > 0)
    return MemoryForecast(
        weights=SINGLE * copies * n_weights(config, size),
        data=data_bytes(config, size, machine.is_gpu),
        batch=batch_bytes(config, size, machine.is_gpu, product_bytes),
        validation=validation_bytes(config, size),
        libraries=GPU_OVERHEAD if machine.is_gpu else CPU_OVERHEAD,
    )


def memory_problem(
    config: TrainConfig, size: DataSize, machine: Machine, n_models: int
) -> str | None:
    """What to do where so many models side by side need more memory than there is; else None.

    Several GPUs share the models.
    """
    n_models = -(-n_models // max(1, machine.n_cards))
    needed = training_memory(config, size, machine).total
    if machine.available is None or n_models * needed <= machine.available:
        return None
    each = f" for {n_models} models side by side" if n_models > 1 else ""
    problem = (
        f"{config.variant} needs about {n_models * needed / 1e9:.1f} GB of memory{each}, "
        f"{machine.available / 1e9:.1f} GB are free"
    )
    fixes = []
    n_batches = _batches_that_fit(config, size, machine, n_models)
    if n_batches:
        batch_size = -(-config.fit.effective_batch_size // n_batches)
        fixes.append(f"--batch_size {batch_size} --grad_accum {n_batches} makes the same steps")
    if n_models > 1:
        fixes.append("fewer --fold_jobs need less")
    return f"{problem} ({'; '.join(fixes) or 'take a smaller model: --width, --layers'})"


def _batches_that_fit(
    config: TrainConfig, size: DataSize, machine: Machine, n_models: int
) -> int | None:
    """The first --grad_accum, of doubled ones, with which the same step fits; None: none does."""
    step, n_batches = config.fit.effective_batch_size, config.fit.grad_accum
    while step // (2 * n_batches) >= 2:
        n_batches *= 2
        fit = replace(config.fit, batch_size=-(-step // n_batches), grad_accum=n_batches)
        needed = training_memory(replace(config, fit=fit), size, machine).total
        if machine.available is not None and n_models * needed <= machine.available:
            return n_batches
    return None


def describe_forecast(config: TrainConfig, size: DataSize, machine: Machine, n_models: int) -> str:
    """A line about training so many models of one run, one after another."""
    duration = files.format_duration(training_seconds(config, size, n_models, machine.rate))
    memory = training_memory(config, size, machine).total
    free = "" if machine.available is None else f" of {machine.available / 1e9:.1f} GB"
    return f"forecast: about {duration}, {memory / 1e9:.1f} GB{free} of memory ({machine.name})"


# ---- weights and data


def n_weights(config: TrainConfig, size: DataSize) -> float:
    """Rough number of weights that are trained."""
    motion, text, width = config.motion, config.text, config.motion.width
    is_frame_tower = motion.motion_tower == "frame"
    inputs = size.columns * (size.persons if is_frame_tower else motion.patch)
    weights = motion.layers * _layer_weights(_motion_layer(motion), width, motion.hidden_dim)
    weights += (inputs + (motion.max_frames if is_frame_tower else MAX_TOKENS)) * width
    if motion.backbone == "motiondiffuse":
        weights += 20 * width**2  # of the time's embedding
    motion_dim = width if motion.pool == "cls" or is_frame_tower else 2 * width
    if motion.projection == "mlp":
        weights += 2 * motion_dim * (motion_dim + motion.proj_dim)
        weights += text.text_hidden * (text_width(text) + motion.proj_dim)
    if config.parts.use_gar:
        weights += 2 * width * (width + motion.proj_dim)
    if config.parts.use_gar and motion.part_encoders:
        weights += (N_PARTS + 1) * ADAPTER_DIM * size.columns
    if text.is_trained:
        per_layer = _layer_weights(LAYERS["text"], text_width(text), 4 * text_width(text))
        weights += per_layer * text_layers(text)
        vocabulary = text.text_vocabulary if text.is_from_scratch else CLIP_VOCABULARY
        embeddings = vocabulary + CONTEXT + text_width(text)  # and the projection
        if text.is_from_scratch or text.unfrozen == "all":
            weights += embeddings * text_width(text)
    return weights


def _layer_weights(kind: LayerKind, width: int, hidden: int) -> int:
    return kind.weights * width**2 + 2 * width * hidden


def data_bytes(config: TrainConfig, size: DataSize, on_gpu: bool) -> float:
    """What stays on the device.

    On a GPU the packed features; on a CPU they are mapped from their file. Of a pretrained text
    tower the vectors of the captions, as they are and centred.
    """
    frames = size.motions * size.frames * size.persons * size.columns * HALF if on_gpu else 0.0
    if config.text.is_from_scratch:
        return frames
    captions = size.motions * size.captions * (2 if config.augment.mirror else 1)
    return frames + 2 * captions * text_width(config.text) * SINGLE


# ---- a batch


def batch_bytes(config: TrainConfig, size: DataSize, on_gpu: bool, product_bytes: int) -> float:
    """What a batch has in memory when its backward pass begins, and a layer's gradients."""
    fit, motion = config.fit, config.motion
    n_captions = fit.effective_batch_size * _captions_per_motion(config, size)
    similarity = SIMILARITY_COPIES * SINGLE * n_captions * fit.effective_batch_size
    if config.loss.negative_threshold:
        similarity += CAPTION_PAIR_BYTES * n_captions**2
    frames = PADDING * min(size.frames, motion.max_frames) * size.persons * size.columns
    inputs = FRAME_COPIES * SINGLE * fit.effective_batch_size * frames
    saved = saved_bytes(config, size, on_gpu, product_bytes)
    return inputs + saved * (1 + 1 / motion.layers) + similarity


def validation_bytes(config: TrainConfig, size: DataSize) -> float:
    """What embedding the longest held-out motions takes."""
    frames = config.motion.max_frames * size.persons * size.columns
    return FRAME_COPIES * SINGLE * min(EVAL_BATCH_SIZE, size.motions) * frames


def saved_bytes(config: TrainConfig, size: DataSize, on_gpu: bool, product_bytes: int) -> float:
    """What the towers save for the backward pass of one of --grad_accum batches."""
    saved = _motion_bytes(config, size, on_gpu, product_bytes)
    if config.text.is_trained:
        saved += _text_bytes(config, size, product_bytes)
    if product_bytes < SINGLE:
        saved += product_bytes * n_weights(config, size)  # autocast keeps the weights it has cast
    return saved


def _motion_bytes(config: TrainConfig, size: DataSize, on_gpu: bool, product_bytes: int) -> float:
    """What the motion tower saves."""
    motion, gar = config.motion, config.parts.use_gar
    is_frame_tower = motion.motion_tower == "frame"
    persons = 1 if is_frame_tower else size.persons
    frames = min(size.frames, motion.max_frames)
    tokens = frames / motion.patch * (1 - motion.token_drop)
    if is_frame_tower:
        tokens = frames if motion.mask else motion.max_frames
    inputs = size.persons * size.columns if is_frame_tower else motion.patch * size.columns
    joint = motion.cross_person_layers / motion.layers

    def sequence_bytes(tokens: float, special: int) -> float:
        """Of one person's tokens."""
        attended = (tokens + special) * (1 + joint * (persons - 1))
        layers = _layers_bytes(
            _motion_layer(motion), motion, config.fit.grad_checkpoint, product_bytes
        )
        scores = 0.0 if on_gpu else _score_bytes(motion, attended, product_bytes)
        pooled = POOLING * SINGLE * motion.width
        return (tokens + special) * (layers + scores + pooled) + tokens * inputs * product_bytes

    per_person = sequence_bytes(tokens, 1 + N_PARTS * gar)
    if motion.part_encoders and gar:
        fewer = tokens * (1 - motion.part_token_drop)
        adapters = fewer * motion.patch * 2 * ADAPTER_DIM * product_bytes
        per_person += N_PARTS * (sequence_bytes(fewer, 1) + adapters)
    passes = 2 if gar and config.parts.lambda_mix else 1
    return config.fit.batch_size * passes * persons * per_person


def _text_bytes(config: TrainConfig, size: DataSize, product_bytes: int) -> float:
    """What a text tower that trains saves."""
    width, kind = text_width(config.text), LAYERS["text"]
    n_texts = _captions_per_motion(config, size) + N_PARTS * config.parts.use_gar
    tokens = n_texts * (TOKENS_PER_WORD * size.words + END_TOKENS)
    per_layer = SINGLE * kind.norms * width + product_bytes * width * (
        kind.products + 4 * kind.hidden
    )
    if config.fit.grad_checkpoint:
        per_layer = SINGLE * width
    return config.fit.batch_size * tokens * text_layers(config.text) * per_layer


def _layers_bytes(
    kind: LayerKind, motion: MotionConfig, checkpoints: bool, product_bytes: int
) -> float:
    """What all layers of the motion tower save of a token, besides attention scores."""
    if checkpoints:
        return motion.layers * SINGLE * motion.width
    products = kind.products * motion.width + kind.hidden * motion.hidden_dim
    return motion.layers * (SINGLE * kind.norms * motion.width + product_bytes * products)


def _score_bytes(motion: MotionConfig, attended: float, product_bytes: int) -> float:
    """What all layers save of the scores of a token that attends to so many, on average."""
    kind = _motion_layer(motion)
    return motion.layers * kind.scores * motion.heads * PADDING * attended * product_bytes


# ---- sizes of the towers


def _motion_layer(motion: MotionConfig) -> LayerKind:
    return LAYERS["frame" if motion.motion_tower == "frame" else motion.backbone]


def _captions_per_motion(config: TrainConfig, size: DataSize) -> float:
    """Captions of a motion in a batch."""
    return 1.0 if config.loss.captions == "random" else size.captions


def text_width(text: TextConfig) -> int:
    """Channels of the text tower."""
    return text.text_width if text.is_from_scratch else CLIP_WIDTH


def text_layers(text: TextConfig) -> int:
    """Layers of the text tower."""
    return text.text_layers if text.is_from_scratch else CLIP_LAYERS
