"""The pages that people read, and their code, as tests see them."""
