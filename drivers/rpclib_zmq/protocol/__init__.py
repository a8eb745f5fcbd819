"""What travels: headers, records, ZMTP, and a connection that speaks it."""
