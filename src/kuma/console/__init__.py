"""The web console: pages for people, which read and write through the same functions as the REST API."""
