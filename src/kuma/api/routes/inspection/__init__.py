"""Routes that tell how a mesh is: its proxies, who calls whom, why, and what a change would do."""
