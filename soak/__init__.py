"""Hours of changes on live traffic: `make soak`."""
