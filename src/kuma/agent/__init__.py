"""kuma-dp: fetches an Envoy's bootstrap, runs the Envoy beside a workload, and ends with it."""
