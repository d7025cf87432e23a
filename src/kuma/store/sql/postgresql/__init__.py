"""The store over PostgreSQL: what several control planes share, how they follow each other, and its backups."""
