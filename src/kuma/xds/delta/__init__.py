"""The delta discovery protocol of one proxy, without any I/O."""
