"""What is measured of a policy, of a discriminator, of text and of tunes; `metrics` has the name of every figure."""
