"""The page of ``cmlp play``: a network that is drawn while it learns, on the real engine."""
