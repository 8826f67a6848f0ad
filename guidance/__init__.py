"""Guidance: additive discriminators, the policy that they guide, learning from it, choosing one of n samples."""
