"""Text-to-motion retrieval: features of two-person motions, dual encoders, and the scores that choose between them."""
