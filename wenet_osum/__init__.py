"""wenet_osum: training, decoding and scoring of speech understanding language models of the OSUM kind.

    import wenet_osum
    m = wenet_osum.load("exp/x/final")
    answer = m("a.wav", task="<TRANSCRIBE><EMOTION>")
    answer.transcript, answer.labels, answer.probs
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    from wenet_osum.decode.speech import Transcriber

__version__ = "0.1.0"


def load(model: str | os.PathLike, task: str = "asr", device: str | None = None, **settings: Any) -> Transcriber:
    """Load a model folder or hub name for answering; wenet_osum/decode/speech.py says what it takes and gives.

    torch is imported here, not with the package. Raises ValueError for bad settings and folders without a fitting model.
    """
    from wenet_osum.decode import speech

    return speech.load(model, task, device, **settings)
