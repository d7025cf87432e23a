"""`kumactl`: reaches the control plane over the wire only."""
