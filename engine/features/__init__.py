"""Features of a packet, from state kept per stream."""
