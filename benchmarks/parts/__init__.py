"""What benchmarks are made of: processes of control planes and of simulated proxies, bare servers, and figures."""
