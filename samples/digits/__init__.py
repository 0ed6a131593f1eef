"""Small networks that learn handwritten digits in seconds: what compression is tried on."""
