"""Building blocks of the HTTP servers: connections, limits, authentication, errors and bodies."""
