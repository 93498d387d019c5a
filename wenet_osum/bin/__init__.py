"""The commands: argparse and one call each."""
