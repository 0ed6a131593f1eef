"""Ground floor: bundle format, specs, errors, sessions. Needs no torch."""
