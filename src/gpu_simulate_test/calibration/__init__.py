"""What kernels cannot know, learned from real runs: constants, how sure they are, and what they are worth elsewhere."""
