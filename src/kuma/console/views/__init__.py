"""Makes what pages show from what is known. Pure: no I/O, and no time of its own."""
