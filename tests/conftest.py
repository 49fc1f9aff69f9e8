"""Fixtures every test may use; those of one kind live in the conftest of their folder."""

import os
import tempfile
from pathlib import Path

# Settings read the data directory when they are imported, so it is set before anything of Django is: each test
# process has one of its own, and nobody's real one is touched.
os.environ["TUNNELWEB_DATA"] = tempfile.mkdtemp(prefix="tunnelweb-test-")

REPOSITORY = Path(__file__).parent.parent
