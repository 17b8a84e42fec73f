"""Where layers of rules and derived configs are kept: the content-addressed store, whoever may then serve them."""

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
