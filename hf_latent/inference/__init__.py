"""What serves the algorithms of all structures, and knows none of them."""
