"""Background work: a queue of rows in PostgreSQL, and what is done with them."""
