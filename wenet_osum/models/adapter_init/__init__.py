"""Initial weights of adapters; a file here is a name for ``model.adapter_init``. Without a name the
adapter's own are used.

A file holds ``initialize(adapter, std)``, which sets the weights of a new adapter in place. ``std``
is the standard deviation that its output is to begin with, that of the LLM's token embeddings.
"""
