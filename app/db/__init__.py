"""PostgreSQL: tables, sessions, and one file of queries for each noun; no row leaves this package."""
