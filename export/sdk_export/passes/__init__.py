"""Small named rewrites, one a file, each with the bug or the limit that it is there for."""
