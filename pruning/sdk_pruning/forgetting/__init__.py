"""Class suppression without gradients, ModHiFi-U and a ridge form, with a report of what is left."""
