"""The command `edge-sdk`: one file a command."""
