"""What every program needs and the paper does not mention: flags, seeds, metrics, the device."""
