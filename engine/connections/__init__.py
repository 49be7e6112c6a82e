"""State per connection: table, TCP sequence analysis, records."""
