"""Bytes in buckets: one guarded way out, one Bucket over small providers."""
