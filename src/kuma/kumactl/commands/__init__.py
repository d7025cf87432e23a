"""The commands of kumactl: arguments, one call or a few, and printing."""
