"""What the policy needs from outside, and the drivers that provide it."""
