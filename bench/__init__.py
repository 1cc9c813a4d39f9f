"""Programs that measure, each with a table at its end: real processes, a real PostgreSQL, one command."""
