"""The embedded store: SQLite, its files, and its backups."""
