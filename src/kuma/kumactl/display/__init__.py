"""Formats answers for people. Pure: time is an argument."""
