"""Request and response bodies of the native surface; strict, and closed to unknown fields."""
