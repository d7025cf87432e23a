"""Working implementations with knobs, for tests. None of them asserts anything."""
