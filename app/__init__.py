"""Framegate: streams image datasets from cloud buckets to annotation clients."""
