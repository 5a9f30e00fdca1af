"""Property tests draw few examples, or as many as GST_EXAMPLES says."""

import os

from hypothesis import settings

settings.register_profile("few", max_examples=int(os.environ.get("GST_EXAMPLES", "25")), deadline=None)
settings.load_profile("few")
