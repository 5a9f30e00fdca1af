"""Many runs of stages: the jobs of a sweep, and what is made of them."""
