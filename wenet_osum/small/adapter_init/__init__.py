"""Initial weights of adapters of small models, plug-ins of models/adapter_init."""
