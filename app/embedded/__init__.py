"""Real servers that come as packages and run below the data directory: PostgreSQL and an S3 server.

Each belongs to the process that started it, listens on 127.0.0.1 alone, and ends with that process,
however that one ends.
"""

from app.errors import CommandError


class EmbeddedServerError(CommandError):
    """An embedded server could not be started or stopped; its text says why and what to do."""
