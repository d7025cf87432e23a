"""Hours of changes on live traffic: `make soak`."""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
"""Its handlers crash a program that is being started, now and then, while other threads use gRPC."""
