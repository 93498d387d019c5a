"""Adapters from encoder states to LLM embeddings, a file each.

`Adapter(input_width, output_width, **conf)(states, lengths) -> (embeddings, lengths)`.
"""
