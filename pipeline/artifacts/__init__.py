"""The files that the stages hand each other, and the types that describe them."""
