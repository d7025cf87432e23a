"""What every HTTP server of the control plane is made of: connections, limits, authentication, errors and bodies."""
