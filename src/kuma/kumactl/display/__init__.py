"""How answers look to people. Pure: time is an argument."""
