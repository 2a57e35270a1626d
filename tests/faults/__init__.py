"""What the service does when a bucket, a client, the database or the process itself fails."""
