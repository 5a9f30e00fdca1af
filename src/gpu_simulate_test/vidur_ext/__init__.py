"""Everything that touches Vidur: registrations, the profile, the predictor, the simulation."""
