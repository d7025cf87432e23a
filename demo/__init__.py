"""The walk-through behind `make demo`: real processes, real Envoys, every claim checked."""
