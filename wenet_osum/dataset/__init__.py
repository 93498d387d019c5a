"""From lists and shards of recordings to batches."""
