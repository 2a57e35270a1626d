"""HTTP only: the native surface under `/v1`, and what every request passes on its way in and out."""
