"""The operations of the Model Intermediate Language (MIL), one family a file."""
