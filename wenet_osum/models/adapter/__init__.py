"""Adapters from encoder states to LLM embeddings, a file each.

`Adapter(input_width, output_width, **conf)(states, lengths) -> (embeddings, lengths)`. A static
method `complete_conf(input_width, conf)`, if there is one, chooses for a new model what its
``adapter_conf`` leaves open; the choice is saved.
"""
