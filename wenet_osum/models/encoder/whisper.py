"""The Whisper encoder on the frames there are.

Letters: B utterances, T frames (10 ms) of the longest, M mel bins, N = ceil(T / 2) states (20 ms),
D width.

The modules and their names are those of transformers' WhisperEncoder, so every Whisper checkpoint
fits. Its own forward insists on 30 s and ignores its mask; this one runs on any length. A padded
utterance gives the numbers it gives alone: padded frames are zero before each convolution (as its
own zero padding would be), and padded states are no keys in attention.

Published Whisper was trained on 30 s always, speech and then silence. With ``pad_s`` in its config,
utterances that are shorter are made so long with silence first, and the states of that silence are
cut off again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, WhisperConfig, WhisperModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder, sinusoids

from wenet_osum.devices import to_device
from wenet_osum.models import unread
from wenet_osum.models.lengths import key_mask, valid_mask
from wenet_osum.models.unread import Places
from wenet_osum.records import FRAME_S, FRAMES_PER_S

# Frames per state.
SUBSAMPLING = 2

# What Whisper's extractor makes of silence: (log10(energy) + 4) / 4 of an energy of 1e-10, but
# never more than 8 below the utterance's peak in log10, which is 2 after the division.
SILENCE, RANGE = -1.5, 2.0


def set_conf(config: WhisperConfig, pad_s: float | None = None) -> None:
    """Put ``encoder_conf`` into the encoder's config.

    ``pad_s``: seconds up to which utterances are padded with silence; None: unchanged. Raises
    ValueError when the encoder's positions do not reach so far.
    """
    if pad_s is None:
        return
    longest = config.max_source_positions * SUBSAMPLING / FRAMES_PER_S
    if not 0 <= pad_s <= longest:
        raise ValueError(
            f"encoder_conf: pad_s {pad_s} must lie between 0 and {longest:g} s, "
            "as far as the encoder's positions reach"
        )
    config.pad_s = float(pad_s)


class Encoder(WhisperEncoder):
    """Whisper encoder with lengths.

    ``encoder_layerdrop`` is not applied: a skipped layer is an unused parameter to DDP.
    """

    # Sinusoids: never trained, whatever pattern names them.
    fixed_parameters = ("embed_positions.weight",)
    state_s = SUBSAMPLING * FRAME_S
    # What layers see is filled up to a multiple of so many states (models/compiled.py).
    multiple = 1

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__(config)
        # transformers sets the sinusoids of its own class only, not of one that is derived from it.
        table = self.embed_positions.weight
        with torch.no_grad():
            table.copy_(sinusoids(*table.shape))

    @property
    def width(self) -> int:
        """Channels of a state."""
        return self.config.d_model

    @property
    def mels(self) -> int:
        """Mel bins of the features it takes."""
        return self.config.num_mel_bins

    @property
    def min_frames(self) -> int:
        """Frames the encoder computes of an utterance at least."""
        pad_s = getattr(self.config, "pad_s", 0.0)
        return round(pad_s * FRAMES_PER_S)

    def output_lengths(self, lengths: Any) -> Any:
        """Return the states of utterances of ``lengths`` frames, a tensor or a number: the half,
        rounded up."""
        return (lengths + 1) // SUBSAMPLING

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode log-mel features (B, T, M) of ``lengths`` (B,) frames into states (B, N, D) and
        their lengths (B,), on the CPU.

        Raises ValueError for utterances without frames or longer than the positions reach (3000
        frames, 30 s), or other mel bins.
        """
        states, lengths = self.lower(features, lengths, after=0)
        return self.upper(states, lengths, after=0)

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layers)

    def lower_modules(self, after: int) -> dict[str, nn.Module]:
        """Return what ``lower`` runs, by name: all of the encoder when ``after`` is its last
        layer."""
        names = ["conv1", "conv2", "embed_positions"]
        for number in range(after):
            names.append(f"layers.{number}")
        if after == self.depth:
            names.append("layer_norm")
        return {name: self.get_submodule(name) for name in names}

    def lower_settings(self, after: int) -> dict[str, Any]:
        """Return what else the states of ``lower`` depend on, beside its weights."""
        config = self.config
        return {
            "pad_s": float(getattr(config, "pad_s", 0.0)),
            "heads": config.encoder_attention_heads,
            "activation": config.activation_function,
        }

    def kept_lengths(self, lengths: Tensor, after: int) -> Tensor:
        """Return the states that ``lower`` makes of utterances of ``lengths`` states.

        Those of the silence behind them count as long as there are layers above, which attend to
        them.
        """
        if after == self.depth:
            return lengths
        shortest = self.output_lengths(self.min_frames)
        return lengths.clamp(min=shortest)

    def lower(self, features: Tensor, lengths: Tensor, after: int) -> tuple[Tensor, Tensor]:
        """Compute convolutions, positions and the first ``after`` layers: states (B, N, D) and
        their lengths (B,), on the CPU. After the last layer the final norm is in the states.

        Before the last layer N counts the silence of ``pad_s``, too; lengths never do. Raises what
        ``forward`` raises.
        """
        lengths = lengths.cpu()
        self._check(features, lengths)
        longest = int(lengths.max())
        features, heard = self._with_silence(features[:, :longest], lengths)
        features = features.to(self.conv1.weight.dtype)
        hidden = self._convolve(features.transpose(1, 2), heard)  # (B, N, D)

        # The embedding is called, so that a device_map can bring its weight.
        places = torch.arange(hidden.shape[1], device=hidden.device)
        positions = self.embed_positions(places)
        hidden = hidden + positions.to(hidden.dtype)
        hidden = functional.dropout(hidden, p=self.dropout, training=self.training)

        # The layers hear the silence, which is cut off behind the last.
        hidden = self._run_layers(hidden, self.output_lengths(heard), 0, after)
        lengths = self.output_lengths(lengths)
        if after == self.depth:
            hidden = self._end(hidden, lengths)
        return hidden, lengths

    def upper(self, states: Tensor, lengths: Tensor, after: int) -> tuple[Tensor, Tensor]:
        """Compute the layers from ``after`` on and the final norm, on what ``lower`` gave: states
        (B, N, D), of which ``lengths`` (B,) are speech.
        """
        lengths = lengths.cpu()
        states = states.to(self.layer_norm.weight.dtype)
        if after == self.depth:
            return _cut(states, lengths), lengths
        heard = self.kept_lengths(lengths, after)
        states = _cut(states, heard)
        hidden = self._run_layers(states, heard, after, self.depth)
        return self._end(hidden, lengths), lengths

    def _run_layers(self, hidden: Tensor, lengths: Tensor, first: int, end: int) -> Tensor:
        """Run layers ``first`` to ``end`` on (B, N, D); ``lengths`` count states that are heard."""
        longest = hidden.shape[1]
        if self.multiple > 1:
            hidden = functional.pad(hidden, (0, 0, 0, -longest % self.multiple))
        mask = key_mask(lengths, hidden.shape[1], hidden.device)
        for layer in self.layers[first:end]:
            hidden = layer(hidden, mask)
        return hidden[:, :longest]

    def _end(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Cut off what was heard behind the speech, and apply the final norm."""
        return self.layer_norm(_cut(hidden, lengths))

    def _with_silence(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, T, M) with silence up to ``pad_s`` behind each utterance, and the
        lengths (B,) with it.

        The values are those of zeros behind the samples: silence, or where the speech is so loud
        that Whisper's extractor lifts it, the utterance's peak less its range. Only the two frames
        at the border, whose windows hold samples of both, differ.
        """
        heard = lengths.clamp(min=self.min_frames)
        if torch.equal(heard, lengths):
            return features, lengths
        longest = int(heard.max())
        lacking = longest - features.shape[1]
        features = functional.pad(features, (0, 0, 0, lacking))
        places = torch.arange(longest)
        beyond = places >= lengths[:, None]
        beyond = to_device(beyond, features.device)
        beyond = beyond[..., None]  # (B, T, 1)

        # The peak is that of the speech alone.
        speech = features.masked_fill(beyond, -torch.inf)
        peak = speech.amax((1, 2), keepdim=True)
        floor = (peak - RANGE).clamp(min=SILENCE)
        return torch.where(beyond, floor, features), heard

    def _convolve(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Run the convolutions: (B, M, T) to (B, N, D).

        What lies after an utterance's end is zeroed before each.
        """
        mask = valid_mask(lengths, hidden.shape[2], hidden.device)
        padding = None
        if mask is not None:
            padding = ~mask[:, None, :]
        for convolution in (self.conv1, self.conv2):
            if padding is not None:
                hidden = hidden.masked_fill(padding, 0.0)
            hidden = convolution(hidden)
            hidden = functional.gelu(hidden)

        # The residual stream of all layers keeps this layout.
        hidden = hidden.transpose(1, 2)
        return hidden.contiguous()

    def _check(self, features: Tensor, lengths: Tensor) -> None:
        _, _, mels = features.shape
        if mels != self.mels:
            raise ValueError(
                f"features have {mels} mel bins, this encoder takes {self.mels}; "
                "compute features with that number"
            )
        limit = self.config.max_source_positions * SUBSAMPLING
        longest = int(lengths.max())
        if longest > limit:
            raise ValueError(
                f"an utterance has {longest} frames, the encoder's positions reach {limit} "
                f"({limit / FRAMES_PER_S:g} s); split it first"
            )
        if int(lengths.min()) < 1:
            raise ValueError("an utterance has no frames; leave it out of the batch")


def _cut(states: Tensor, lengths: Tensor) -> Tensor:
    """Cut off what is behind the longest of ``lengths`` (B,) states (B, N, D)."""
    longest = int(lengths.max())
    return states[:, :longest]


def without_weights(source: str) -> tuple[Encoder, Places] | None:
    """Build the encoder of a Whisper folder or hub name on the meta device, and say where its
    weights lie (models/unread.py).

    None where transformers has to read them, or there is no Whisper: ``read`` then says so.
    """
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError):
        return None
    if not isinstance(config, WhisperConfig):
        return None
    config.dtype = torch.float32
    encoder = _empty(config)
    found = unread.find(source)
    for prefix in ("model.encoder.", "encoder."):
        where = unread.places(encoder, found, prefix)
        if where is not None:
            unread.fill_buffers(encoder, where)
            return encoder.eval(), where
    return None


def _empty(config: WhisperConfig) -> Encoder:
    """Make an encoder on the meta device."""
    # Without the place on this machine it came from.
    table = config.to_dict() | {"_name_or_path": ""}
    with torch.device("meta"):
        encoder = Encoder(WhisperConfig.from_dict(table))
    encoder.embed_positions.requires_grad_(False)
    return encoder


def read(source: str, dtype: torch.dtype = torch.float32) -> Encoder:
    """Read the encoder of a Whisper folder or hub name.

    Raises ValueError when it holds no Whisper model.
    """
    try:
        whisper = WhisperModel.from_pretrained(source, dtype=dtype)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no Whisper model in {source!r}: {error}; "
            "give a folder of transformers' Whisper, or a hub name"
        ) from None
    encoder = _empty(whisper.config)
    encoder.load_state_dict(whisper.encoder.state_dict(), assign=True)
    encoder.embed_positions.requires_grad_(False)
    return encoder.eval()
