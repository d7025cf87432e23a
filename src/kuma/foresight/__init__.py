"""Answers what is, and what would be, from a mesh view and recorded traffic. Pure: no store, no time of its own."""
