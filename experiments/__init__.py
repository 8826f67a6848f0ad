"""Tables of experiments, and code that belongs to one of them."""
