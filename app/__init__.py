"""Framegate: streams image datasets from cloud buckets to annotation clients."""

__version__ = "0.1.0"
