"""What every layer may use: the clock, the error tree and task life cycles. Knows no resource and no protocol."""
