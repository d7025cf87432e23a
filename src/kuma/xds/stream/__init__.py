"""Discovery streams: who may open one, how much it may use, what is written to it, and when it ends."""
