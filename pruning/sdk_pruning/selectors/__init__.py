"""One file a selector: in which order units go. `table` finds them by name."""
