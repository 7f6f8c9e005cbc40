"""Code generation: kernel IR, its text and verifier, and the back ends."""
