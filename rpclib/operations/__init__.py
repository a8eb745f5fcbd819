"""What operators' tools need."""
