"""Foundations of every layer: the clock, the error tree and task life cycles. Knows no resource and no protocol."""
