"""Networks of the seed systems. Empty until the first of them (VAR, LiT) lands."""
