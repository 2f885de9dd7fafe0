"""What the proofs of the broker are made with: real workers, a server that can be killed, and a log of what ran."""
