"""What is safe next, and who is waited for. Pure: time is an argument."""
