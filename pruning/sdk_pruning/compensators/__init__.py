"""One file a compensator: how the weights that stay make up for what goes. `table` finds them by name."""
