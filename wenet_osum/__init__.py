"""wenet_osum: training, decoding and scoring of speech understanding language models of the OSUM kind."""

__version__ = "0.1.0"
