"""What the system around a process offers: names, users, sockets, signals, and its service manager."""
