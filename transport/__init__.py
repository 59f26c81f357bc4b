"""Engine processes under control: pipes, NDJSON, request ids, deadlines, death; and the embedded engine."""
