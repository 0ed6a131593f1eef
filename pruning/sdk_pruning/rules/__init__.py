"""How ties pass through operations, one family of operations a file."""
