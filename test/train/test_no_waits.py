"""No micro-batch waits for the device: nothing that the host asks for depends on what is queued.

A stand-in for a device counts what would wait. Its tensors say that they lie on ``meta``, which
autograd runs without a device of its own, and hold their numbers on the CPU.
"""

from __future__ import annotations

import contextlib
import functools

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from transformers import Qwen2Config, WhisperConfig, WhisperForConditionalGeneration

from wenet_osum import dist
from wenet_osum.config import OptimConfig, PartConfig, TrainConfig
from wenet_osum.config.tables import LoraConfig
from wenet_osum.dataset import device_features, log_mel
from wenet_osum.dataset.augment import TIME
from wenet_osum.models import sinusoids, trainable
from wenet_osum.models.losses import ctc
from wenet_osum.models.objective import Objective
from wenet_osum.models.osum import OsumConfig, OsumModel
from wenet_osum.models.whisper import WhisperPhase
from wenet_osum.records import Batch
from wenet_osum.text.timing import ANY_TIME
from wenet_osum.train.progress import Meter

DEVICE = torch.device("meta")
VOCABULARY, MELS = 64, 8
aten = torch.ops.aten
# What tells the host a number, or a size that depends on numbers.
WAITING = {
    aten._local_scalar_dense,
    aten.item,
    aten.is_nonzero,
    aten.nonzero,
    aten.nonzero_static,
    aten.masked_select,
    aten.equal,
    aten.bincount,
    aten._unique2,
    aten.unique_consecutive,
}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
# Tensors of the CPU may stand beside those of the device in these.
MIXING = INDEXING | {aten.copy_, aten._to_copy, aten._ctc_loss, aten._ctc_loss_backward}


class OnDevice(Tensor):
    """A tensor of the stand-in; ``inner`` has its numbers."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnDevice:
        return Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return f"OnDevice({self.inner})"

    def tolist(self) -> list:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} outside of the stand-in")


def inner(value):
    return value.inner if isinstance(value, OnDevice) else value


def outer(value):
    return OnDevice(value) if type(value) is Tensor else value


def is_device(value) -> bool:
    return value is not None and torch.device(value).type == DEVICE.type


class StandIn(TorchDispatchMode):
    """A device whose ``waits`` list what the host waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        ours = any(isinstance(leaf, OnDevice) for leaf in leaves)
        goal = kwargs.get("device")
        arrives = is_device(goal)
        if not ours and not arrives:
            return func(*args, **kwargs)
        leaves_device = goal is not None and not arrives
        if self._waits(func.overloadpacket, args, kwargs, leaves, ours, leaves_device):
            self.waits.append(str(func))
        if arrives:
            kwargs["device"] = "cpu"
        result = func(*tree_map(inner, args), **tree_map(inner, kwargs))
        if func._schema.is_mutable:
            return args[0]
        return result if leaves_device else tree_map(outer, result)

    def _waits(self, packet, args, kwargs, leaves, ours, leaves_device) -> bool:
        foreign = [leaf for leaf in leaves if not isinstance(leaf, OnDevice) and leaf.dim()]
        if ours and foreign:
            assert packet in MIXING, f"{packet} of tensors here and there"
        if packet is aten._to_copy:
            crosses = leaves_device or not ours
            return crosses and not (kwargs.get("non_blocking") and not leaves_device)
        if packet is aten.copy_:
            blocking = not (len(args) > 2 and args[2])
            return bool(foreign) and blocking
        if packet is aten.repeat_interleave:
            return kwargs.get("output_size") is None
        if packet in INDEXING:
            indices = [index for index in args[1] if index is not None]
            masks = any(index.dtype in (torch.bool, torch.uint8) for index in indices)
            value_here = len(args) > 2 and not isinstance(args[2], OnDevice)
            return masks or bool(foreign) or value_here
        return packet in WAITING

    @contextlib.contextmanager
    def replacing(self):
        """Active, with the two functions of torch that would not see it."""
        make, autocast = torch.tensor, torch.autocast

        def tensor(data, *, device=None, **kwargs):
            made = make(data, **kwargs)
            return made.to(device) if is_device(device) else made

        @functools.wraps(autocast)
        def cast(kind, *rest, **kwargs):
            return contextlib.nullcontext() if kind == "meta" else autocast(kind, *rest, **kwargs)

        torch.tensor, torch.autocast = tensor, cast
        try:
            with self:
                yield self
        finally:
            torch.tensor, torch.autocast = make, autocast
            # What they have kept lies on the stand-in.
            for function in (sinusoids._table, log_mel.mel_window):
                function.cache_clear()


@pytest.fixture
def device():
    with StandIn().replacing() as stand_in:
        yield stand_in


HELD = torch.arange(6.0)
ASKING = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x[0]),
    "bool": lambda x: bool((x > 3).any()),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 3],
    "mask_put": lambda x: x.clone().index_put_((x > 3,), x[0]),
    "number_put": lambda x: x.clone().index_put_((x.long() - 1,), torch.tensor(1.0)),
    "index_here": lambda x: x[torch.tensor([1, 2])],
    "repeat": lambda x: x.repeat_interleave(x.long()),
    "made_there": lambda x: torch.tensor([1.0], device=DEVICE),
    "blocking": lambda x: torch.arange(3).to(DEVICE),
    "equal": lambda x: torch.equal(x, x),
}


@pytest.mark.parametrize("asking", [*ASKING])
def test_the_stand_in_counts_what_waits(device, asking):
    held = HELD.to(DEVICE, non_blocking=True)
    held = held + held[torch.arange(2, device=DEVICE)].sum()
    assert device.waits == []
    ASKING[asking](held)
    assert len(device.waits) >= 1


def move(model: nn.Module) -> nn.Module:
    """Put the parameters and buffers of a model on the stand-in."""
    moved = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in moved:
                there = parameter.detach().to(DEVICE, non_blocking=True)
                moved[id(parameter)] = nn.Parameter(there, parameter.requires_grad)
            if parameter is not None:
                module._parameters[name] = moved[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(DEVICE, non_blocking=True)
    return model


def whisper_config() -> WhisperConfig:
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_mel_bins": MELS}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ffn = {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 2}
    return WhisperConfig(vocab_size=VOCABULARY, **sizes, **heads, **ffn, **ids)


def osum(lora: bool, adapter: str = "conv_transformer") -> OsumModel:
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 1}
    llm = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, eos_token_id=1, **heads
    )
    conf = {"layers": 1, "heads": 2, "ffn": 32}
    if adapter == "concat_mlp":
        conf = {"factor": 4}
    config = OsumConfig(
        encoder=whisper_config().to_dict(), llm=llm.to_dict(), adapter=adapter, adapter_conf=conf
    )
    model = OsumModel(config)
    if lora:
        model.add_lora(LoraConfig(r=2, dropout=0.1))
    return model


def phase_one() -> WhisperPhase:
    return WhisperPhase(WhisperForConditionalGeneration(whisper_config()))


def loss(**keys) -> ctc.Loss:
    """CTC without a template: targets are made by hand here."""
    return ctc.Loss(None, **keys)


# Model, what trains, further losses.
KINDS = {
    "whisper": (phase_one, ["*"], []),
    "whisper ctc": (phase_one, ["*"], [{}]),
    "frozen": (functools.partial(osum, False), ["adapter.*", "encoder.*"], []),
    "frozen concat_mlp": (functools.partial(osum, False, "concat_mlp"), ["adapter.*"], []),
    "lora": (functools.partial(osum, True), ["adapter.*", "*lora*"], []),
    "full": (functools.partial(osum, False), ["*"], []),
    "ctc": (functools.partial(osum, False), ["adapter.*"], [{"commitment": 0.1}]),
    "ctc distance": (
        functools.partial(osum, False),
        ["adapter.*"],
        [{"scores": "distance", "word_times": True, "blanks_in_words": False}],
    ),
}


def micro_batch(audio: bool = False) -> Batch:
    """Three utterances with transcripts, of which one is not known and one too long."""
    draw = torch.Generator().manual_seed(2)
    frames, prompts, answers = (torch.tensor(x) for x in ([90, 50, 33], [3, 2, 4], [5, 3, 4]))
    known = torch.tensor([[0.1, 0.3], [0.3, 0.6], ANY_TIME, *[[0.0, 0.1]] * 40])
    texts = torch.cat([torch.tensor([5, 5, ctc.MISSING]), torch.full((40,), 7)])
    lengths = torch.tensor([2, 1, 40])
    targets = {"transcript_ids": texts, "transcript_ids_lengths": lengths}
    targets |= {"transcript_times": known, "transcript_times_lengths": lengths}
    batch = Batch(
        keys=["a", "b", "c"],
        tasks=["asr", "asr", "ser"],
        features=torch.randn(3, 90, MELS, generator=draw),
        feature_lengths=frames,
        prompt_ids=torch.randint(3, VOCABULARY, (9,), generator=draw),
        prompt_lengths=prompts,
        answer_ids=torch.randint(3, VOCABULARY, (12,), generator=draw),
        answer_lengths=answers,
        answer_weights=torch.ones(12),
        answer_labels=torch.zeros(12, dtype=torch.bool),
        targets=targets,
        audio_s=[0.9, 0.5, 0.33],
    )
    if audio:
        waves = torch.randn(3, 90 * 160, generator=draw).numpy()
        batch.audio = torch.stack([device_features.for_device(wave)[0] for wave in waves])
        batch.features = torch.zeros(3, 90, 0)
        batch.masks = [[(TIME, 3, 9, 0)], [], []]
    return batch


def engine_of(kind: str, device: torch.device) -> dist.Engine:
    """The kind's model in training mode, on a device."""
    make, patterns, keys = KINDS[kind]
    torch.manual_seed(0)
    model = make()
    losses = [(0.3, loss(**entry)) for entry in keys]
    model.set_objective(Objective(1.0, losses, [{"name": "ctc", "weight": 0.3}] * len(keys)))
    trainable.apply_train_parts(model, {p: PartConfig() for p in patterns}, OptimConfig())
    if device.type == "meta":
        model = move(model)
    return dist.Engine(model.train(), TrainConfig(), dist.World(0, 1, device))


def pass_of(engine: dist.Engine, meter: Meter, batch: Batch) -> None:
    """What a micro-batch is in take_step of the loop."""
    with engine.accumulating(last=True):
        output = engine.loss(batch)
        (output.loss * 0.5).backward()
    meter.add_output(batch, output)


EVERY = [(kind, False) for kind in KINDS]


# Features are made on the device before the model, whatever it is.
@pytest.mark.parametrize(("kind", "audio"), [*EVERY, ("lora", True)])
def test_no_micro_batch_waits_for_the_device(device, kind, audio, monkeypatch):
    # librosa, which makes the filters, takes seconds to import.
    filters = torch.rand(402, MELS).to(DEVICE, non_blocking=True)
    monkeypatch.setattr(device_features, "doubled_filters", lambda mels, device: filters)
    engine = engine_of(kind, DEVICE)
    meter = Meter()
    # Tables that are made once may wait once.
    pass_of(engine, meter, micro_batch(audio))
    engine.module.zero_grad()
    device.waits.clear()
    pass_of(engine, meter, micro_batch(audio))
    assert device.waits == []
    trained = [p for p in engine.module.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)

    # The log is what waits.
    stats = meter.stats()
    assert device.waits
    assert stats["tasks"]["asr"][0] > 0
    if "ctc" in kind:
        counted = stats["dropped"]
        assert counted[ctc.NO_TRANSCRIPT] == 2 and counted[ctc.IMPOSSIBLE] == 2


def sum_of_scores(logs: Tensor, *rest, **keys) -> Tensor:
    """In the place of torch's CTC, which copies lengths to a GPU by three copies that wait."""
    return -logs.amax(-1).sum(0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: CUDA says what waits")
@pytest.mark.parametrize("kind", [*KINDS])
def test_cuda_sees_no_wait_in_a_micro_batch(kind, monkeypatch):
    monkeypatch.setattr(ctc.functional, "ctc_loss", sum_of_scores)
    engine = engine_of(kind, torch.device("cuda", 0))
    meter = Meter()
    pass_of(engine, meter, micro_batch())
    engine.module.zero_grad()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        pass_of(engine, meter, micro_batch())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert meter.stats()["tasks"]["asr"][0] > 0
