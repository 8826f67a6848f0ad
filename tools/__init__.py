"""Programs that a person runs on what runs leave."""
