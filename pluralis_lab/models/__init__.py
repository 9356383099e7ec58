"""Models as lists of blocks, cut into stages; each stage is built from the seed alone, without the others."""
