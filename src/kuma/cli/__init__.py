"""The three commands: arguments and printing only."""
