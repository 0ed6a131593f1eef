"""One file a backend; each holds a class that implements `sdk_runtimes.session.RawSession`."""
