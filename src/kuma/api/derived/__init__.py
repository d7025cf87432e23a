"""What follows from stored resources, for answers of the API. Pure: no store, no time of its own."""
