"""What control planes have stored of their proxies: how this one knows of those that are connected to others."""
