"""The settings: which there are, how they are read, named in the environment, and read again while running."""
