"""A campaign: runs on fleets of real processes, each disturbed at random, and what came of them."""
