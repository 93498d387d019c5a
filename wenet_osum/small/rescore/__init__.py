"""Rescorers of small models, plug-ins of decode/rescore."""
