"""The dataset manifest's file format: reading it line by line, writing it, and building it of a folder."""
