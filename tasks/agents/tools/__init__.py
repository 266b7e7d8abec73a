"""What agents can do: a port, SQL that only reads, calls of allowed HTTP APIs."""
