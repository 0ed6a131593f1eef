"""Stand-ins for libraries that need hardware. They compute for real and refuse what the real ones refuse."""
