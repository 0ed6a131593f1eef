"""Other people's tools, as the benchmarks measure them beside ours, and the measures both sides share."""
