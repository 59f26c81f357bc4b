"""What a call to mlld says and what it answers: parameters, results, streams of events, types."""
