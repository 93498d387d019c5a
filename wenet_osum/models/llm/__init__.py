"""Language models: any causal LM of transformers, run on packed sequences."""
