"""Smaller pictures: the only place that decodes pixels, in processes of its own."""
