"""A plug-in of vLLM: `vllm serve DIR` answers with a model folder of wenet_osum.

vLLM finds ``register`` by itself where wenet_osum is installed (entry point
``vllm.general_plugins``). requirements/vllm.txt names the version; it has a torch of its own, so it
lives in an environment of its own.
"""

from __future__ import annotations

# The class that config.json names.
ARCHITECTURE = "OsumModel"


def register() -> None:
    """Tell transformers and vLLM about the model."""
    from vllm import ModelRegistry

    # Its configuration and processor become known to the Auto classes.
    import wenet_osum.models.osum  # noqa: F401

    ModelRegistry.register_model(ARCHITECTURE, "wenet_osum.hub.vllm.model:OsumForVllm")
