"""A limit of how long an Envoy serves without the control plane that holds also while kuma-dp alone is stopped."""
