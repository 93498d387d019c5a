"""Losses of small models, plug-ins of models/losses."""
