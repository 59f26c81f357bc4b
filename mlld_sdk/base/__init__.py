"""What every other room stands on: environment, errors, events, spans, futures and options. Knows none of them."""
