"""What an iteration costs: iterations, operators and kernels as they were measured, noise, machine speed."""
