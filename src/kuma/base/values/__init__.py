"""Values that people and clients write as text: parses and prints them. Pure, without I/O."""
