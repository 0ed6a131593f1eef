"""One file a target: each lowers a captured network and writes its files."""
